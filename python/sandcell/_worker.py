"""What a worker of sandcell.Executor runs; handed to its Python as text: the package need not be visible inside."""

import pickle
import socket
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def main(number: int, paths: "list[str]") -> None:
    # First, as the caller has them: the interpreter's own packages may be others.
    sys.path[:0] = paths
    dumps: Callable[[Any], bytes] = pickle.dumps
    if find_spec("cloudpickle"):
        dumps = import_module("cloudpickle").dumps
    stream = socket.socket(fileno=number).makefile("rwb")

    def send(data: bytes) -> None:
        stream.write(len(data).to_bytes(8, "big") + data)
        stream.flush()

    send(b"ready")
    while True:
        length = stream.read(8)
        if not length:
            return
        task = stream.read(int.from_bytes(length, "big"))
        try:
            function, args, kwargs = pickle.loads(task)
            reply: Any = ("done", function(*args, **kwargs))
        except Exception as error:
            reply = ("raised", error, traceback.format_exc())
        try:
            data = dumps(reply)
        except Exception:
            data = pickle.dumps(("raised", TypeError("the result cannot be pickled"), traceback.format_exc()))
        send(data)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
