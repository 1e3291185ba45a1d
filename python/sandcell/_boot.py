"""How a Python that answers requests is started, and how it is asked: what Executor, Session and Template have in common."""

from __future__ import annotations

import functools
import marshal
import socket
import time
from importlib import import_module
from importlib.machinery import PathFinder
from typing import Any

from ._encode import BESIDE
from ._reply import NUMBER

#: What it is started with: it gets the rest by its socket, compiled.
BOOT = """
import marshal, socket, sys
control = socket.socket(fileno=int(sys.argv[1]))
size = int.from_bytes(control.recv(8, socket.MSG_WAITALL), "big")
names = {"__name__": "sandcell_worker"}
for code in marshal.loads(control.recv(size, socket.MSG_WAITALL)):
    exec(code, names)
names["main"](control, sys.argv[2:])
"""


class Gone(Exception):
    """It had ended before it was asked."""


@functools.lru_cache
def code(*names: str) -> bytes:
    """Of `_encode` and of these modules, for the interpreter that this one is too."""
    codes = []
    where = import_module(str(__package__)).__path__
    for name in ("_encode", *names):
        # Not by the loader that imported it: pytest rewrites the modules of its plugins with one that gives no code.
        spec = PathFinder.find_spec(f"{__package__}.{name}", where)
        loader: Any = spec and spec.loader
        codes.append(loader.get_code(f"{__package__}.{name}"))
    return marshal.dumps(tuple(codes))


def left(until: float | None) -> float | None:
    """Until then."""
    if until is None:
        return None
    rest = until - time.monotonic()
    if rest <= 0:
        raise TimeoutError
    return rest


def send(control: socket.socket, token: bytes, parts: list[Any], reply: socket.socket, until: float | None) -> None:
    """Sends a request with its number, and the socket that it is to be answered on. Raises Gone."""
    numbers = [len(parts), *map(len, parts)]
    head = token + b"".join(number.to_bytes(NUMBER, "big") for number in numbers)
    whole = len(parts) == 1 and len(parts[0]) < BESIDE
    if whole:
        head += parts[0]
    control.settimeout(left(until))
    try:
        sent = socket.send_fds(control, [head], [reply.fileno()])
    except (BrokenPipeError, ConnectionResetError):
        raise Gone from None
    rest = [head[sent:]] if sent < len(head) else []
    for part in rest if whole else [*rest, *parts]:
        control.settimeout(left(until))
        control.sendall(part)
