"""Plain data from bytes that may be hostile: the Executor's half of the codec of `_encode`.

Nothing is executed but the decoders that the caller registered. Each value is paid for from a budget before it is made;
depth, digits and counts are bounded, and a deadline is looked at along the way. What is wrong is a Malformed.
"""

from __future__ import annotations

import builtins
import struct
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ._encode import DEPTH

T = TypeVar("T")

#: Bits of an integer, and of each half of a fraction, whose making takes more than linear time.
INT_BITS = 1 << 20
FRACTION_BITS = 1 << 14
#: Digits of a decimal number, and its exponent.
DIGITS = 10_000
#: Keys with one hash in a container: for types whose hashes can be chosen, looking them up would take quadratic time.
SAME_HASH = 16
#: Characters of a name, and of a readable text.
NAME = 1 << 10
TEXT = 1 << 17
#: Bytes that are looked at at once.
_PIECE = 1 << 16
#: Values between two looks at the clock.
_LOOK = 128

_UNSIGNED = struct.Struct(">Q")
_SIGNED = struct.Struct(">q")
_FLOAT = struct.Struct(">d")
_COMPLEX = struct.Struct(">dd")

_ERRORS = {
    name: value
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, Exception) and "Group" not in name
}


class Malformed(Exception):
    """The bytes are no plain data."""


class TooLarge(Malformed):
    """The result would take more memory than it may."""


class DecoderError(Exception):
    """A decoder of the caller's raised; that is the cause."""


class Decoder:
    """Of one message and the buffers beside it.

    `budget` is how many bytes the result may take in memory, `until` the deadline by the monotonic clock, `decoders` the
    caller's functions by name of type, `tags` the makers of values that are made of others.
    """

    def __init__(
        self,
        message: memoryview,
        buffers: Sequence[memoryview] = (),
        *,
        budget: int,
        until: float | None = None,
        decoders: Mapping[str, Callable[[Any], Any]] | None = None,
        tags: Mapping[str, Callable[[Decoder, Any], Any]] | None = None,
    ) -> None:
        self._data = message
        self._at = 0
        self._buffers = iter(buffers)
        self._budget = budget
        self._until = until
        self._work = 0
        self._decoders = decoders or {}
        self._tags = tags or {}

    def value(self, depth: int = 0) -> Any:
        """The next value."""
        code = self._take(1)[0]
        if depth > DEPTH + 2:
            raise Malformed("it is nested too deeply")
        make = _MAKE.get(code)
        if make is None:
            raise Malformed(f"it has an unknown code, {code}")
        self.spend(40)
        return make(self, depth)

    def end(self) -> None:
        """Nothing may be left over."""
        if self._at != len(self._data) or next(self._buffers, None) is not None:
            raise Malformed("there is more than one value")

    def spend(self, size: int, work: int = 1) -> None:
        """Before memory is taken, and before work is done."""
        self._budget -= size
        if self._budget < 0:
            raise TooLarge("it takes more memory than `result_limit` allows")
        self._work += work
        if self._work >= _LOOK:
            self._work = 0
            if self._until is not None and time.monotonic() > self._until:
                raise TimeoutError

    def _take(self, length: int) -> memoryview:
        end = self._at + length
        if end > len(self._data):
            raise Malformed("it is cut off")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def count(self, least: int = 1) -> int:
        """How many things follow, of at least so many bytes each."""
        number: int = _UNSIGNED.unpack(self._take(8))[0]
        if number * least > len(self._data) - self._at:
            raise Malformed("it is cut off")
        return number

    def bytes(self) -> memoryview:
        return self._take(self.count())

    def text(self) -> str:
        data = self.bytes()
        self.spend(24 + len(data), 1 + len(data) // 4096)
        if all(data[at : at + _PIECE].tobytes().isascii() for at in range(0, len(data), _PIECE)):
            return str(data, "ascii")
        self.spend(4 * len(data))  # as much as a character may take
        try:
            return str(data, "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise Malformed("it has text that is not UTF-8") from None

    def buffer(self) -> memoryview:
        found = next(self._buffers, None)
        if found is None:
            raise Malformed("it lacks a buffer")
        return found  # paid for before it was received

    def items(self, depth: int) -> list[Any]:
        self.spend(32)
        return [self.value(depth + 1) for _ in range(self.count())]

    def key(self, depth: int, hashes: dict[int, int]) -> Any:
        """A member of a set or a key; no more than a few of one hash."""
        key = self.value(depth + 1)
        self.spend(100)
        if not isinstance(key, (str, bytes, bool, float)) and not (type(key) is int and -(1 << 60) < key < 1 << 60):
            self.spend(100)
            found = hashes[hash(key)] = hashes.get(hash(key), 0) + 1
            if found > SAME_HASH:
                raise Malformed("it has too many keys of one hash")
        return key

    def pairs(self, depth: int, into: dict[Any, Any]) -> dict[Any, Any]:
        self.spend(200)
        hashes: dict[int, int] = {}
        for _ in range(self.count(2)):
            key = self.key(depth, hashes)
            into[key] = self.value(depth + 1)
        return into

    def members(self, depth: int) -> set[Any]:
        self.spend(200)
        hashes: dict[int, int] = {}
        return {self.key(depth, hashes) for _ in range(self.count())}

    def packed(self, _: int) -> list[Any]:
        code = chr(self._take(1)[0])
        if code not in "dq":
            raise Malformed("it has a packed list of something else")
        count = self.count(8)
        self.spend(count * 48, 1 + count // 64)
        made = array(code)
        made.frombytes(self._take(count * 8))
        return made.tolist()

    def integer(self, _: int) -> int:
        data = self.bytes()
        if len(data) > INT_BITS // 8 + 1:
            raise Malformed(f"it has an integer of more than {INT_BITS} bits: send it as bytes")
        self.spend(len(data))
        return int.from_bytes(data, "big", signed=True)

    def copied(self, make: Callable[[memoryview], T]) -> T:
        data = self.bytes()
        self.spend(len(data), 1 + len(data) // 4096)
        return make(data)

    def tagged(self, depth: int) -> Any:
        tag = str(self._take(self._take(1)[0]), "ascii", "replace")
        make = self._tags.get(tag)
        if make is None:
            raise Malformed("it has a type that is not known")
        inner = self.value(depth + 1)
        self.spend(100)
        try:
            return make(self, inner)
        except (Malformed, TimeoutError):
            raise
        except ImportError as error:
            raise Malformed(f"the caller has no {error.name}") from None
        except Exception as error:
            raise Malformed(f"it has a {tag} that makes no sense ({type(error).__name__})") from None

    def custom(self, depth: int) -> Any:
        name = self.text()
        state = self.value(depth + 1)
        decoder = self._decoders.get(name)
        if decoder is None:
            raise Malformed(f"it has a {readable(name, NAME)}, for which there is no decoder")
        try:
            return decoder(state)
        except Exception as error:
            raise DecoderError(name) from error


_MAKE: dict[int, Callable[[Decoder, int], Any]] = {
    ord("N"): lambda d, _: None,
    ord("T"): lambda d, _: True,
    ord("F"): lambda d, _: False,
    ord("i"): lambda d, _: _SIGNED.unpack(d._take(8))[0],
    ord("I"): Decoder.integer,
    ord("f"): lambda d, _: _FLOAT.unpack(d._take(8))[0],
    ord("c"): lambda d, _: complex(*_COMPLEX.unpack(d._take(16))),
    ord("s"): lambda d, _: d.text(),
    ord("b"): lambda d, _: d.copied(bytes),
    ord("B"): lambda d, _: d.copied(bytearray),
    ord("m"): lambda d, _: d.buffer(),
    ord("l"): Decoder.items,
    ord("t"): lambda d, depth: tuple(d.items(depth)),
    ord("e"): Decoder.members,
    ord("z"): lambda d, depth: frozenset(d.members(depth)),
    ord("d"): lambda d, depth: d.pairs(depth, {}),
    ord("O"): lambda d, depth: d.pairs(depth, OrderedDict()),
    ord("P"): Decoder.packed,
    ord("x"): Decoder.tagged,
    ord("X"): Decoder.custom,
}


def error(name: object, args: object) -> Exception:
    """A built-in exception; its texts made readable, since they end up on terminals."""
    made = _ERRORS.get(name) if isinstance(name, str) else None
    if made is None or not isinstance(args, tuple) or len(args) > 16:
        raise Malformed("it has an exception that is not built in")
    shown = [readable(argument, TEXT) if isinstance(argument, str) else argument for argument in args]
    value = made(*shown)
    assert isinstance(value, Exception)
    return value


def readable(text: str, most: int = TEXT) -> str:
    """Not longer than that, and with nothing in it that a terminal acts on."""
    if len(text) > most:
        text = text[: most - 3] + "..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
