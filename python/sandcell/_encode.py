"""Plain data as bytes: the half of the Executor's codec that runs inside. `_decode` is the other half.

Stands alone: a worker gets it as code, there is no package `sandcell` inside. What is not plain data is refused here with
its name; nothing relies on that, for a task may write what it likes.

A value is a code of one byte and what belongs to it, numbers big-endian. `x` has a tag and a value, for all types that are
made of another value. `m` is the next of the buffers, which travel behind the message without being copied.
"""

import builtins
import struct
import sys
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

#: How deep containers may be nested.
DEPTH = 100
#: A buffer of at least this many bytes travels beside the message.
BESIDE = 1 << 16
#: A list of at least so many numbers of one type is packed.
PACKED = 16

#: Classes that are plain data themselves (Dask sends that of each result), by module.
CLASSES = {
    "builtins": "NoneType bool int float complex str bytes bytearray memoryview range list tuple dict set frozenset",
    "collections": "OrderedDict deque Counter",
    "array": "array",
    "datetime": "date time datetime timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": "UUID",
    "numpy": "ndarray bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64",
}

_SIZE = struct.Struct(">Q").pack
_INT = struct.Struct(">q").pack
_FLOAT = struct.Struct(">d").pack
_COMPLEX = struct.Struct(">dd").pack


class Unsupported(Exception):
    """With the name of the type that is no plain data, or None, and why the value cannot be sent."""


class Raw:
    """Bytes of an array."""

    def __init__(self, data: Any) -> None:
        self.data = memoryview(data)


class Encoder:
    """`out` is the message, `buffers` what travels beside it."""

    def __init__(self, known: "frozenset[str]" = frozenset()) -> None:
        self.out = bytearray()
        self.buffers: list[memoryview] = []
        #: Names of types for which the caller has decoders.
        self.known = known

    def put(self, value: Any, depth: int = 0) -> None:
        if depth > DEPTH:
            raise Unsupported(None, f"it is nested deeper than {DEPTH}, or contains itself")
        kind = type(value)
        plain = _PLAIN.get(kind)
        if plain is not None:
            plain(self, value, depth + 1)
            return
        name = type_name(kind)
        tagged = _TAGGED.get(name)
        if tagged is not None:
            self.tag(*tagged(value), depth)
        elif kind.__module__ == "builtins" and isinstance(value, BaseException):
            self.tag("error", (kind.__name__, error_args(value)), depth)
        elif kind is type and value.__name__ in CLASSES.get(value.__module__, "").split():
            self.tag("class", (value.__module__, value.__name__), depth)
        elif name in self.known:
            self.raw(b"X", name.encode())
            self.put(_state(value), depth + 1)
        else:
            self.tag(*_array(value, name), depth)

    def tag(self, tag: str, value: Any, depth: int) -> None:
        self.out += b"x" + bytes([len(tag)]) + tag.encode()
        self.put(value, depth + 1)

    def raw(self, code: bytes, data: "bytes | bytearray | memoryview") -> None:
        self.out += code + _SIZE(len(data))
        self.out += data

    def items(self, code: bytes, values: Any, depth: int) -> None:
        self.out += code + _SIZE(len(values))
        for value in values:
            self.put(value, depth)

    def pairs(self, code: bytes, values: "dict[Any, Any]", depth: int) -> None:
        self.out += code + _SIZE(len(values))
        for key, value in values.items():
            self.put(key, depth)
            self.put(value, depth)


def type_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def error_args(error: BaseException) -> "tuple[Any, ...]":
    """What the exception was made of; an argument that is no plain data as text."""
    reduced: Any = error.__reduce__()
    made = []
    for argument in reduced[1]:
        try:
            Encoder().put(argument)
        except Exception:
            argument = repr(argument)
        made.append(argument)
    return tuple(made)


def _state(value: Any) -> Any:
    """What a decoder of the caller's gets: a dictionary of fields, or the plain value of an enum or a subclass."""
    enum = sys.modules.get("enum")
    if enum is not None and isinstance(value, enum.Enum):
        return value.value
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, BaseException):
        return {**vars(value), "args": value.args}
    fields: Any = getattr(value, "_fields", None)
    if isinstance(value, tuple) and fields is not None:
        return dict(zip(fields, value))
    base: Any
    for base in (int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset):
        if isinstance(value, base):
            return base(value)
    return vars(value)


def _array(value: Any, name: str) -> "tuple[str, Any]":
    """Arrays of numpy and Arrow, where the task has imported these."""
    numpy, arrow = sys.modules.get("numpy"), sys.modules.get("pyarrow")
    if numpy is not None and type(value) in (numpy.ndarray, numpy.memmap):
        return "numpy", _numpy(numpy, value)
    if numpy is not None and isinstance(value, numpy.generic):
        return "numpy.scalar", _numpy(numpy, numpy.asarray(value))
    if arrow is not None:
        if isinstance(value, arrow.Array):
            return "arrow", _arrow(value)
        if isinstance(value, arrow.ChunkedArray):
            return "arrow.chunked", (str(value.type), [_arrow(chunk) for chunk in value.chunks])
        if isinstance(value, (arrow.Table, arrow.RecordBatch)):
            table = value if isinstance(value, arrow.Table) else arrow.Table.from_batches([value])
            columns = [(str(c.type), [_arrow(chunk) for chunk in c.chunks]) for c in table.columns]
            return "arrow.table", (list(table.column_names), columns)
        if isinstance(value, arrow.Buffer):
            return "arrow.buffer", Raw(value)
    raise Unsupported(name, "it is no plain data")


def _numpy(numpy: Any, value: Any) -> "tuple[Any, ...]":
    if value.dtype.kind not in "biufcSUMm":
        raise Unsupported(f"numpy.ndarray of {value.dtype}", "it is no plain data")
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    flat = value.reshape(-1, order=order)
    return value.dtype.str, value.shape, order, Raw(numpy.ascontiguousarray(flat).view("u1") if flat.size else b"")


def _arrow(value: Any) -> "tuple[Any, ...]":
    buffers = [None if buffer is None else Raw(buffer) for buffer in value.buffers()]
    return str(value.type), len(value), value.offset, buffers


def _int(to: Encoder, value: int, _: int) -> None:
    if -(1 << 63) <= value < 1 << 63:
        to.out += b"i" + _INT(value)
    else:
        to.raw(b"I", value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _text(to: Encoder, value: str, _: int) -> None:
    to.raw(b"s", value.encode("utf-8", "surrogatepass"))


def _buffer(to: Encoder, value: Raw, _: int) -> None:
    data = value.data.cast("B") if value.data.nbytes else memoryview(b"")
    if len(data) < BESIDE:
        to.raw(b"B", data)
    else:
        to.out += b"m"
        to.buffers.append(data)


def _view(to: Encoder, value: memoryview, depth: int) -> None:
    _buffer(to, Raw(value if value.c_contiguous else value.tobytes()), depth)


def _list(to: Encoder, value: "list[Any]", depth: int) -> None:
    if len(value) >= PACKED:
        kinds = set(map(type, value))
        code = "d" if kinds == {float} else "q" if kinds == {int} else ""
        if code:
            try:
                packed = array(code, value)
            except OverflowError:
                pass
            else:
                to.out += b"P" + code.encode() + _SIZE(len(value))
                to.out += packed.tobytes()
                return
    to.items(b"l", value, depth)


def _deque(to: Encoder, value: "deque[Any]", depth: int) -> None:
    to.tag("deque", (value.maxlen, list(value)), depth)


_PLAIN: "dict[type, Callable[[Encoder, Any, int], None]]" = {
    type(None): lambda to, value, _: to.out.extend(b"N"),
    bool: lambda to, value, _: to.out.extend(b"T" if value else b"F"),
    int: _int,
    float: lambda to, value, _: to.out.extend(b"f" + _FLOAT(value)),
    complex: lambda to, value, _: to.out.extend(b"c" + _COMPLEX(value.real, value.imag)),
    str: _text,
    bytes: lambda to, value, _: to.raw(b"b", value),
    bytearray: lambda to, value, _: to.raw(b"B", value),
    memoryview: _view,
    Raw: _buffer,
    list: _list,
    tuple: lambda to, value, depth: to.items(b"t", value, depth),
    set: lambda to, value, depth: to.items(b"e", value, depth),
    frozenset: lambda to, value, depth: to.items(b"z", value, depth),
    dict: lambda to, value, depth: to.pairs(b"d", value, depth),
    OrderedDict: lambda to, value, depth: to.pairs(b"O", value, depth),
    deque: _deque,
}


def _clock(value: Any) -> "tuple[Any, ...]":
    return value.hour, value.minute, value.second, value.microsecond, value.fold, _zone(value.tzinfo)


def _zone(value: Any) -> Any:
    if value is not None and type_name(type(value)) != "datetime.timezone":
        raise Unsupported(type_name(type(value)), "only UTC and fixed offsets are plain data")
    return None if value is None else _span(value.utcoffset(None))


def _span(value: Any) -> "tuple[int, int, int]":
    return value.days, value.seconds, value.microseconds


def _path(value: Any) -> "tuple[str, Any]":
    return "path", str(value)


#: By name: a task that has no such value need not import them.
_TAGGED: "dict[str, Callable[[Any], tuple[str, Any]]]" = {
    "builtins.range": lambda v: ("range", (v.start, v.stop, v.step)),
    "collections.Counter": lambda v: ("counter", dict(v)),
    "array.array": lambda v: ("array", (v.typecode, Raw(v) if v.typecode not in "uw" else None)),
    "decimal.Decimal": lambda v: ("decimal", str(v)),
    "fractions.Fraction": lambda v: ("fraction", (v.numerator, v.denominator)),
    "uuid.UUID": lambda v: ("uuid", v.bytes),
    "datetime.date": lambda v: ("date", (v.year, v.month, v.day)),
    "datetime.time": lambda v: ("time", _clock(v)),
    "datetime.datetime": lambda v: ("datetime", (v.year, v.month, v.day, *_clock(v))),
    "datetime.timedelta": lambda v: ("timedelta", _span(v)),
    "datetime.timezone": lambda v: ("timezone", _span(v.utcoffset(None))),
    # Two modules by version of Python.
    "pathlib.PosixPath": _path,
    "pathlib._local.PosixPath": _path,
    "pathlib.PurePosixPath": lambda v: ("purepath", str(v)),
    "pathlib._local.PurePosixPath": lambda v: ("purepath", str(v)),
}


def is_builtin_error(error: BaseException) -> bool:
    return getattr(builtins, type(error).__name__, None) is type(error)
