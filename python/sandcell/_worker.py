"""What a worker of sandcell.Executor runs; handed to its Python as code, behind that of `_encode`.

Requests come on the one socket of the worker, each with a socket of its own for the answer: whoever answers late or twice
answers nobody. The first request tells how to answer; the others are tasks.
"""

import os
import pickle
import socket
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._encode import Encoder, Unsupported, error_args, is_builtin_error, type_name

#: Of the token and the number of parts, then of each part.
TOKEN = 16
NUMBER = 8

Answer = tuple["bytes | bytearray", "list[Any]"]


def receive(control: socket.socket) -> "tuple[bytes, socket.socket, list[Any]] | None":
    """The token, the socket to answer on, and the parts. None where the caller has gone."""
    data, passed, _, _ = control.recvmsg(1 << 16, socket.CMSG_SPACE(4))
    if not data:
        return None
    reply = socket.socket(fileno=int.from_bytes(passed[0][2][:4], sys.byteorder))
    left = memoryview(data)

    def read(length: int) -> "memoryview | bytearray":
        nonlocal left
        if length <= len(left):
            piece, left = left[:length], left[length:]
            return piece
        whole = bytearray(length)
        whole[: len(left)] = left
        rest, left = memoryview(whole)[len(left) :], left[:0]
        while rest:
            got = control.recv_into(rest)
            if not got:
                raise EOFError
            rest = rest[got:]
        return whole

    token = bytes(read(TOKEN))
    count = int.from_bytes(read(NUMBER), "big")
    lengths = [int.from_bytes(read(NUMBER), "big") for _ in range(count)]
    return token, reply, [read(length) for length in lengths]


def send(reply: socket.socket, token: bytes, message: "bytes | bytearray", buffers: "list[Any]") -> None:
    numbers = [len(message), len(buffers), *map(len, buffers)]
    head = token + b"".join(number.to_bytes(NUMBER, "big") for number in numbers)
    if len(message) < 1 << 16:
        reply.sendall(head + message)
    else:
        reply.sendall(head)
        reply.sendall(message)
    for buffer in buffers:
        reply.sendall(buffer)


def plain(value: Any, known: "frozenset[str]") -> Answer:
    """The result as plain data, or the name of what is not."""
    encoder = Encoder(known)
    encoder.out += b"D"
    try:
        encoder.put(value)
    except Unsupported as refused:
        encoder = Encoder()
        encoder.out += b"U"
        encoder.put(refused.args)
    return encoder.out, encoder.buffers


def raised(code: bytes, error: BaseException, known: "frozenset[str]") -> Answer:
    """The exception as data: its type's name, its text and its traceback; itself where it is one that can be sent."""
    try:
        text = str(error)
    except Exception as other:
        text = f"<no text: {other!r}>"
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    encoder = Encoder(known)
    encoder.out += code
    encoder.put((type_name(type(error)), cut(text, 1 << 14), cut(trace, 1 << 16)))
    whole, sent = len(encoder.out), is_builtin_error(error) or type_name(type(error)) in known
    try:
        encoder.put(error if sent else None)
    except Exception:
        del encoder.out[whole:], encoder.buffers[:]
        encoder.put(None)
    return encoder.out, encoder.buffers


def cut(text: str, most: int) -> str:
    """Its beginning and its end."""
    return text if len(text) <= most else f"{text[: most // 2]}\n[...]\n{text[-most // 2 :]}"


def pickled(value: Any, error: "BaseException | None") -> Answer:
    """For a caller that unpickles whatever comes."""
    dumps: Callable[..., bytes] = pickle.dumps
    if find_spec("cloudpickle"):
        dumps = import_module("cloudpickle").dumps
    trace = "" if error is None else "".join(traceback.format_exception(type(error), error, error.__traceback__))
    beside: list[Any] = []
    message = dumps((value, error, trace), protocol=5, buffer_callback=beside.append)
    return b"P" + message, [part.raw() for part in beside]


def work(parts: "list[Any]", known: "frozenset[str]", unsafe: bool) -> Answer:
    try:
        kind, function, args, kwargs = pickle.loads(parts[0], buffers=parts[1:])
    except Exception as error:
        return raised(b"L", error, known)
    try:
        if kind == "each":
            value: Any = [function(*one) for one in args]
        else:
            value = function(*args, **kwargs)
        if kind == "initializer":
            value = None
        return pickled(value, None) if unsafe else plain(value, known)
    except Exception as error:
        if unsafe:
            try:
                return pickled(None, error)
            except Exception:
                pass  # as data then
        return raised(b"R", error, known)


def main(control: socket.socket, paths: "list[str]", settings: "tuple[frozenset[str], bool] | None" = None) -> None:
    # First, as the caller has them: the interpreter's own packages may be others.
    sys.path[:0] = paths
    process = os.getpid()
    known, unsafe = settings or (frozenset(), False)
    while request := receive(control):
        token, reply, parts = request
        if settings is None:
            known, unsafe = settings = pickle.loads(parts[0])
            message, buffers = plain(None, known)
        else:
            message, buffers = work(parts, known, unsafe)
        if os.getpid() != process:
            os._exit(0)  # a child that the task forked: the answer is its parent's
        with reply:
            try:
                send(reply, token, message, buffers)
                reply.shutdown(socket.SHUT_WR)  # the end, whoever else has this socket
            except OSError:
                pass  # the caller does not want it
        # Not held while the next task is waited for.
        del request, reply, parts, message, buffers
