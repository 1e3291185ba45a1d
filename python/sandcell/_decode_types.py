"""Values that are made of another plain value: each maker checks what it is given, which may be hostile."""

from __future__ import annotations

import datetime
import re
from array import array
from collections import Counter, deque
from collections.abc import Callable
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

from ._decode import DIGITS, FRACTION_BITS, TEXT, Decoder, Malformed, error
from ._encode import CLASSES

#: Types of arrays of numpy: numbers, text and bytes of fixed length, times. Never objects.
_DTYPE = re.compile(r"[<>|=](b1|[iu][1248]|f[248]|c8|c16|[SU][1-9][0-9]{0,8}|[mM]8(\[[0-9]{0,6}[A-Za-z]{1,2}\])?)")
#: How long an axis of an empty array may be.
_EMPTY_AXIS = 1 << 20

#: Types of Arrow by their names, with the bits of a value; those of text and bytes with the bits of an offset.
_FIXED = {"bool": 1, "halffloat": 16, "float": 32, "double": 64, "date32[day]": 32, "date64[ms]": 64}
_FIXED |= {f"{sign}int{bits}": bits for sign in ("", "u") for bits in (8, 16, 32, 64)}
_FIXED |= {f"{kind}[{unit}]": 64 for kind in ("timestamp", "duration") for unit in ("s", "ms", "us", "ns")}
_FIXED |= {"time32[s]": 32, "time32[ms]": 32, "time64[us]": 64, "time64[ns]": 64}
_VARYING = {"string": 32, "binary": 32, "large_string": 64, "large_binary": 64}


def _whole(value: Any, most: int = 1 << 62, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= most:
        raise Malformed("it has a number that makes no sense")
    return value


def _tuple(value: Any, length: int) -> tuple[Any, ...]:
    if not isinstance(value, tuple) or len(value) != length:
        raise Malformed("it has a part that makes no sense")
    return value


def _class(to: Decoder, value: Any) -> type:
    """One of a few, by its name."""
    module, name = (_name(part) for part in _tuple(value, 2))
    if name not in CLASSES.get(module, "").split():
        raise Malformed("it has a class that is not allowed")
    found: type = type(None) if name == "NoneType" else getattr(import_module(module), name)
    return found


def _bytes(value: Any) -> memoryview:
    """What came in the message or beside it."""
    if not isinstance(value, (bytearray, memoryview)):
        raise Malformed("it has an array without bytes")
    return memoryview(value)


def _decimal(to: Decoder, value: Any) -> Decimal:
    if not isinstance(value, str) or len(value) > DIGITS + 20:
        raise Malformed(f"it has a decimal number of more than {DIGITS} digits")
    to.spend(len(value), 1 + len(value) // 64)
    made = Decimal(value, Context(traps=[InvalidOperation]))  # the caller's own context stays as it is
    if made.is_finite() and abs(made.adjusted()) > DIGITS:
        raise Malformed(f"it has a decimal number with an exponent beyond {DIGITS}")
    return made


def _fraction(to: Decoder, value: Any) -> Fraction:
    above, below = _tuple(value, 2)
    for part in (above, below):
        if type(part) is not int or part.bit_length() > FRACTION_BITS:
            raise Malformed(f"it has a fraction of more than {FRACTION_BITS} bits")
    to.spend(200, 16)
    return Fraction(above, below)


def _counter(to: Decoder, value: Any) -> Counter[Any]:
    if not isinstance(value, dict):
        raise Malformed("it has a counter of something else")
    to.spend(300 + 100 * len(value))
    return Counter(value)


def _deque(to: Decoder, value: Any) -> deque[Any]:
    most, items = _tuple(value, 2)
    if not (most is None or type(most) is int) or not isinstance(items, list):
        raise Malformed("it has a deque of something else")
    to.spend(800)
    return deque(items, most)


def _range(to: Decoder, value: Any) -> range:
    return range(*(_whole(part, 1 << 62, -(1 << 62)) for part in _tuple(value, 3)))


def _span(value: Any) -> datetime.timedelta:
    days, seconds, micros = _tuple(value, 3)
    return datetime.timedelta(_whole(days, 10**9, -(10**9)), _whole(seconds, 86400), _whole(micros, 10**6))


def _zone(value: Any) -> datetime.timezone | None:
    if value is None:
        return None
    return datetime.timezone(_span(value)) if _span(value) else datetime.timezone.utc


def _clock(value: tuple[Any, ...]) -> datetime.time:
    hour, minute, second, micros, fold, zone = value
    whole = [_whole(part, 10**6) for part in (hour, minute, second, micros)]
    return datetime.time(whole[0], whole[1], whole[2], whole[3], _zone(zone), fold=_whole(fold, 1))


def _day(value: tuple[Any, ...]) -> datetime.date:
    return datetime.date(*(_whole(part, 10**4) for part in value))


def _moment(to: Decoder, value: Any) -> datetime.datetime:
    parts = _tuple(value, 9)
    return datetime.datetime.combine(_day(parts[:3]), _clock(parts[3:]))


def _uuid(to: Decoder, value: Any) -> UUID:
    if not isinstance(value, bytes) or len(value) != 16:
        raise Malformed("it has a UUID that is none")
    return UUID(bytes=value)


def _name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > TEXT:
        raise Malformed("it has a name that makes no sense")
    return value


def _plain_array(to: Decoder, value: Any) -> array[Any]:
    code, data = _tuple(value, 2)
    if not isinstance(code, str) or len(code) != 1 or code not in "bBhHiIlLqQfd":
        raise Malformed("it has an array of something else than numbers")
    view = _bytes(data)
    made: array[Any] = array(code)
    if len(view) % made.itemsize:
        raise Malformed("it has an array that is cut off")
    to.spend(len(view), 1 + len(view) // 4096)
    made.frombytes(view)
    return made


def _numpy(to: Decoder, value: Any) -> Any:
    kind, shape, order, data = _tuple(value, 4)
    if not isinstance(kind, str) or not _DTYPE.fullmatch(kind) or order not in ("C", "F"):
        raise Malformed("it has an array of a type that is not allowed")
    if not isinstance(shape, tuple) or len(shape) > 32:
        raise Malformed("it has an array whose shape makes no sense")
    import numpy

    dtype, view = numpy.dtype(kind), _bytes(data)
    total = dtype.itemsize
    for axis in shape:
        total *= _whole(axis)
    if total != len(view) or (not total and any(axis > _EMPTY_AXIS for axis in shape)):
        raise Malformed("it has an array whose shape does not go with its bytes")
    to.spend(0, 1 + total // 4096)
    flat = numpy.frombuffer(view, dtype) if total else numpy.empty(0, dtype)
    # What numpy relies on without looking.
    if dtype.kind == "b" and total and flat.view("u1").max() > 1:
        raise Malformed("it has truth values that are neither")
    if dtype.kind == "U" and total and flat.view(f"{kind[0]}u4").max() > 0x10FFFF:
        raise Malformed("it has text that is no Unicode")
    return flat.reshape(shape, order=order)


def _numpy_scalar(to: Decoder, value: Any) -> Any:
    made = _numpy(to, value)
    if made.shape != ():
        raise Malformed("it has a number that is an array")
    return made[()]


def _arrow_type(name: Any) -> Any:
    import pyarrow

    if name == "null" or not isinstance(name, str) or name not in {**_FIXED, **_VARYING}:
        raise Malformed("it has an Arrow type that is not allowed")
    alone = {"halffloat": "float16", "date32[day]": "date32", "date64[ms]": "date64"}
    return pyarrow.type_for_alias(alone.get(name, name))


def _arrow(to: Decoder, value: Any) -> Any:
    import pyarrow

    name, length, offset, buffers = _tuple(value, 4)
    kind, slots = _arrow_type(name), _whole(length, 1 << 40) + _whole(offset, 1 << 40)
    needed = [(slots + 7) // 8, (slots * _FIXED[name] + 7) // 8] if name in _FIXED else [(slots + 7) // 8, 0, 0]
    if name in _VARYING:
        needed[1] = (slots + 1) * _VARYING[name] // 8 if slots else 0
    if not isinstance(buffers, list) or len(buffers) != len(needed):
        raise Malformed("it has an Arrow array with other buffers than its type has")
    views = [None if buffer is None else _bytes(buffer) for buffer in buffers]
    for at, (view, least) in enumerate(zip(views, needed)):
        # Only that of validity may be absent.
        if len(view or b"") < least and not (at == 0 and view is None):
            raise Malformed("it has an Arrow array whose length does not go with its bytes")
    to.spend(1000, 16 + sum(len(view or b"") for view in views) // 4096)
    made = pyarrow.Array.from_buffers(
        kind, length, [None if view is None else pyarrow.py_buffer(view) for view in views], -1, offset
    )
    made.validate(full=True)
    return made


def _arrow_chunked(to: Decoder, value: Any) -> Any:
    import pyarrow

    name, chunks = _tuple(value, 2)
    if not isinstance(chunks, list):
        raise Malformed("it has an Arrow array without chunks")
    return pyarrow.chunked_array([_arrow(to, chunk) for chunk in chunks], type=_arrow_type(name))


def _arrow_table(to: Decoder, value: Any) -> Any:
    import pyarrow

    names, columns = _tuple(value, 2)
    if not isinstance(names, list) or not isinstance(columns, list) or len(names) != len(columns):
        raise Malformed("it has an Arrow table whose columns and names differ")
    made = pyarrow.table([_arrow_chunked(to, column) for column in columns], names=[_name(name) for name in names])
    made.validate(full=True)
    return made


def _arrow_buffer(to: Decoder, value: Any) -> Any:
    import pyarrow

    return pyarrow.py_buffer(_bytes(value))


TAGS: dict[str, Callable[[Decoder, Any], Any]] = {
    "class": _class,
    "range": _range,
    "counter": _counter,
    "deque": _deque,
    "array": _plain_array,
    "decimal": _decimal,
    "fraction": _fraction,
    "uuid": _uuid,
    "date": lambda _, value: _day(_tuple(value, 3)),
    "time": lambda _, value: _clock(_tuple(value, 6)),
    "datetime": _moment,
    "timedelta": lambda _, value: _span(value),
    "timezone": lambda _, value: _zone(_tuple(value, 3)),
    "path": lambda _, value: Path(_name(value)),
    "purepath": lambda _, value: PurePath(_name(value)),
    "error": lambda _, value: error(*_tuple(value, 2)),
    "numpy": _numpy,
    "numpy.scalar": _numpy_scalar,
    "arrow": _arrow,
    "arrow.chunked": _arrow_chunked,
    "arrow.table": _arrow_table,
    "arrow.buffer": _arrow_buffer,
}
