"""What goes from a test's process to pytest's: frames of plain JSON, each with the number of the test that was asked for.

Whoever reads takes them for hostile: the length, depth, count and size of numbers are bounded before anything is parsed."""

from __future__ import annotations

import json
import re
from typing import Any

#: Of one frame, and of all that belong to one test, in bytes.
FRAME = 4 << 20
TOTAL = 8 << 20
#: Warnings, reports of subtests and pieces of coverage data of one test.
FRAMES = 20_000
#: Values in one frame, levels of them, digits of a number.
VALUES = 200_000
DEPTH = 32
DIGITS = 300

_LENGTH = 8
_HEADER = re.compile(rb"[0-9a-f]{8}\Z")
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (DIGITS + 1))
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]|\x1b(?!\\[[0-9;]{0,32}m)")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Refused(ValueError):
    """What a test's process has sent is not what such a process sends."""


def encode(number: str, kind: str, value: Any) -> bytes:
    """A frame. Raises `Refused` where `Frames` would."""
    # A surrogate is no UTF-8; its escape is good JSON.
    text = json.dumps([number, kind, value], default=str, ensure_ascii=False).encode("utf-8", "backslashreplace")
    check(text)
    return b"%08x" % len(text) + text


def check(text: bytes) -> None:
    """Bounds what parsing `text` can cost. Linear, and with little memory of its own."""
    if len(text) > FRAME:
        raise Refused(f"more than {FRAME} bytes at once")
    outside = text.replace(rb"\\", b"").replace(rb"\"", b"")
    if outside.count(b'"') > 2 * VALUES:
        raise Refused(f"more than {VALUES} values at once")
    outside = b"".join(outside.split(b'"')[::2])
    brackets = outside.translate(None, _NOT_BRACKETS)
    if outside.count(b",") + len(brackets) > VALUES:
        raise Refused(f"more than {VALUES} values at once")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > DEPTH:
            raise Refused(f"more than {DEPTH} levels")
    if _LONG_NUMBER.search(outside):
        raise Refused(f"a number of more than {DIGITS} digits")


def decode(text: bytes) -> Any:
    check(text)
    try:
        return json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise Refused(f"no JSON: {error}") from None


class Frames:
    """Taken in from one process. What does not have the number of the test that was asked for last is dropped."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.begin("")

    def begin(self, number: str) -> None:
        self._number = number
        self._bytes = len(self._buffer)
        self._count = 0

    def take_in(self, piece: bytes) -> list[tuple[str, Any]]:
        """Kind and value of each frame that is complete."""
        self._bytes += len(piece)
        if self._bytes > TOTAL + _LENGTH * FRAMES:
            raise Refused(f"more than {TOTAL} bytes of one test")
        self._buffer += piece
        taken = []
        while (length := self._length()) is not None:
            frame = decode(bytes(self._buffer[_LENGTH:length]))
            del self._buffer[:length]
            if not (isinstance(frame, list) and len(frame) == 3 and isinstance(frame[1], str)):
                raise Refused("a frame without number, kind and value")
            self._count += 1
            if self._count > FRAMES:
                raise Refused(f"more than {FRAMES} reports, warnings and pieces of coverage data of one test")
            if frame[0] == self._number:
                taken.append((frame[1], frame[2]))
        return taken

    def _length(self) -> int | None:
        """Of the first frame, with its header; nothing while it is not complete."""
        if len(self._buffer) < _LENGTH:
            return None
        header = bytes(self._buffer[:_LENGTH])
        if not _HEADER.match(header):
            raise Refused(f"the length {header!r}")
        length = int(header, 16)
        if length > FRAME:
            raise Refused(f"a length of {length} bytes")
        return _LENGTH + length if len(self._buffer) >= _LENGTH + length else None

    def is_empty(self) -> bool:
        return not self._buffer


def shown(text: str) -> str:
    """As pytest's junit file has it: control characters as `#x1B`; colours stay."""
    return _CONTROL.sub(lambda found: "#x%02X" % ord(found[0]) if ord(found[0]) < 256 else "#x%04X" % ord(found[0]), text)


def writable(value: Any) -> Any:
    """Plain data without surrogates, which no file and no terminal takes."""
    if isinstance(value, str):
        return _SURROGATE.sub(lambda found: "#x%04X" % ord(found[0]), value)
    if isinstance(value, list):
        return [writable(each) for each in value]
    if isinstance(value, dict):
        return {writable(key): writable(each) for key, each in value.items()}
    return value


def one_line(text: str) -> str:
    """For names and command lines: whatever could move the cursor or turn the text around is escaped."""
    return "".join(c if c.isprintable() else "\\x%02x" % ord(c) if ord(c) < 256 else "\\u%04x" % ord(c) for c in text)


# Checks of single values.


def text(value: Any, most: int = 1 << 20) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise Refused(f"no text of at most {most} characters")
    return shown(value)


def optional_text(value: Any, most: int = 1 << 20) -> str | None:
    return None if value is None else text(value, most)


def whole(value: Any, least: int = 0, most: int = 1 << 31) -> int:
    if type(value) is not int or not least <= value <= most:
        raise Refused(f"no whole number from {least} to {most}")
    return value


def items(value: Any, most: int = VALUES) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise Refused(f"no list of at most {most}")
    return value


def fields(value: Any, *names: str) -> list[Any]:
    """The values of an object that has these names, in this order."""
    if not isinstance(value, dict) or not set(names) <= value.keys():
        raise Refused(f"no object with {', '.join(names)}")
    return [value[name] for name in names]
