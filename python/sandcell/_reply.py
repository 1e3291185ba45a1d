"""What a worker answers, read as what it is: bytes that anything may have been done to."""

from __future__ import annotations

import hmac
import mmap
import os
import pickle
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ._decode import NAME, Decoder, DecoderError, Malformed, TooLarge, readable
from ._decode_types import TAGS
from ._errors import TaskError

#: Bytes of the number that says which request is answered, and of each length.
TOKEN = 16
NUMBER = 8
#: Buffers beside a message, at most, and what each costs besides its bytes.
_BUFFERS = 1 << 14
_BUFFER_COST = 4096
#: From here on memory comes from the kernel, which gives none before something is written there.
_MAPPED = 1 << 20
#: What is read at once.
_SMALL = 1 << 15


@dataclass
class Rules:
    """How replies are read."""

    result_limit: int
    decoders: Mapping[str, Callable[[Any], Any]]
    unsafe_pickle: bool


@dataclass
class Answer:
    """A value, or the exception to raise, and where it was raised."""

    value: Any = None
    error: Exception | None = None
    trace: str = ""

    def get(self) -> Any:
        if self.error is None:
            return self.value
        if self.trace:
            # As in concurrent.futures: where it was raised is told as its cause.
            raise self.error from TaskError("\n" + self.trace)
        raise self.error


def answer(reply: socket.socket, token: bytes, rules: Rules, until: float | None) -> Answer:
    """The answer to the request with this token. Raises Malformed, TimeoutError, EOFError or OSError."""
    message, buffers = _receive(reply, token, rules.result_limit, until)
    try:
        return _read(message, buffers, rules, until)
    except (Malformed, TimeoutError):
        raise
    except DecoderError as failed:
        return Answer(error=_caused(f"the decoder of {readable(str(failed), NAME)} failed", failed.__cause__))
    except Exception as error:  # whatever a hostile message makes Python raise
        raise Malformed(f"{type(error).__name__}: {readable(str(error), NAME)}") from None


def _caused(message: str, cause: BaseException | None) -> TaskError:
    error = TaskError(f"{message}: {cause!r}")
    error.__cause__ = cause
    return error


def _receive(reply: socket.socket, token: bytes, most: int, until: float | None) -> tuple[memoryview, list[memoryview]]:
    source = _Source(reply, until)
    head = source.exactly(TOKEN + 2 * NUMBER)
    if not hmac.compare_digest(head[:TOKEN], token):
        raise Malformed("it answers another request")
    length, count = (int.from_bytes(head[at : at + NUMBER], "big") for at in (TOKEN, TOKEN + NUMBER))
    if not length or count > _BUFFERS:
        raise Malformed("its parts make no sense")
    numbers = source.exactly(count * NUMBER)
    sizes = [int.from_bytes(numbers[at : at + NUMBER], "big") for at in range(0, len(numbers), NUMBER)]
    if length > most or sum(sizes) + count * _BUFFER_COST > most + _BUFFER_COST:
        raise TooLarge("it is larger than `result_limit`")
    message, buffers = source.exactly(length), [source.exactly(size) for size in sizes]
    if source.left:
        raise Malformed("there is more than one answer")
    return message, buffers


class _Source:
    """Bytes from a socket. All of them have one deadline, however small the pieces in which they come."""

    def __init__(self, reply: socket.socket, until: float | None) -> None:
        self._reply = reply
        self._until = until
        #: What has been read and not been asked for.
        self.left = memoryview(b"")

    def exactly(self, length: int) -> memoryview:
        if not self.left and length < _SMALL:
            self.left = memoryview(self._wait().recv(_SMALL)) if length else self.left
            if length and not self.left:
                raise EOFError
        if length <= len(self.left):
            piece, self.left = self.left[:length], self.left[length:]
            return piece
        data: Any
        if length < _MAPPED:
            data = bytearray(length)
        else:
            data = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        whole = rest = memoryview(data)
        rest[: len(self.left)] = self.left
        rest, self.left = rest[len(self.left) :], self.left[:0]
        while rest:
            got = self._wait().recv_into(rest)
            if not got:
                raise EOFError
            rest = rest[got:]
        return whole

    def _wait(self) -> socket.socket:
        rest = None if self._until is None else self._until - time.monotonic()
        if rest is not None and rest <= 0:
            raise TimeoutError
        self._reply.settimeout(rest)
        return self._reply


def _read(message: memoryview, buffers: list[memoryview], rules: Rules, until: float | None) -> Answer:
    code, budget = bytes(message[:1]), rules.result_limit - sum(map(len, buffers))
    if code == b"P" and rules.unsafe_pickle:
        value, error, trace = pickle.loads(message[1:], buffers=buffers)
        return Answer(value, error, readable(str(trace)))
    decoder = Decoder(message[1:], buffers, budget=budget, until=until, decoders=rules.decoders, tags=TAGS)
    value = decoder.value()
    if code == b"D":
        decoder.end()
        return Answer(value)
    if code == b"U":
        decoder.end()
        return Answer(error=_refused(*_texts(value, 2)))
    if code not in (b"R", b"L"):
        raise Malformed("it is neither a result nor an exception")
    error = decoder.value()
    decoder.end()
    name, text, trace = _texts(value, 3)
    if code == b"L":
        return Answer(error=_unloadable(name, text), trace=trace)
    if error is not None and not isinstance(error, Exception):
        raise Malformed("it raises what is no exception")
    return Answer(error=error or _raised(name, text, trace), trace=trace)


def _texts(value: object, count: int) -> list[str]:
    if not isinstance(value, tuple) or len(value) != count:
        raise Malformed("it lacks a part")
    if not all(isinstance(part, str) or part is None for part in value):
        raise Malformed("it has a part that is no text")
    return [readable(part or "") for part in value]


def _raised(name: str, text: str, trace: str) -> TaskError:
    error = TaskError(f"the task raised {name}: {text}" if text else f"the task raised {name}")
    error.type_name, error.traceback = name, trace
    return error


def _refused(name: str, why: str) -> TaskError:
    if not name:
        return TaskError(f"the result cannot be sent: {why}")
    hint = "return plain data, or an array"
    if not name.startswith("builtins."):
        hint += f"; or register a function that makes it from its fields: decoders={{{name!r}: ...}}"
    return TaskError(f"the result has a {name} in it: {why}. Hint: {hint}.")


def _unloadable(name: str, text: str) -> TaskError:
    """With what helps: a directory to show, or cloudpickle."""
    hint = ""
    missing = re.match(r"No module named '(\w+)", text)
    if missing and missing[1] == "__main__" or "__main__" in text:
        hint = ". Hint: install cloudpickle, or define the function in a module that can be imported inside."
    elif missing:
        place = _place(missing[1])
        named = f"path=[{place!r}]" if place else "path=[...]"
        hint = f". Hint: show the directory that it is imported from: {named}."
    return TaskError(f"the task cannot be loaded inside: {name}: {text}{hint}")


def _place(name: str) -> str | None:
    """Where the caller has imported this module from."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    found: list[str] = list(getattr(spec, "submodule_search_locations", None) or ())
    if found:
        return os.path.dirname(os.path.abspath(found[0]))
    origin = getattr(spec, "origin", None)
    return os.path.dirname(os.path.abspath(origin)) if isinstance(origin, str) and os.path.exists(origin) else None
