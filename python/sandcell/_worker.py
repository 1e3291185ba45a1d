"""What a worker of sandcell.Executor runs. It is handed to its Python as text: the package need not be visible inside."""

import pickle
import socket
import sys
import traceback


def main(number, paths):
    sys.path += paths
    try:
        from cloudpickle import dumps
    except ImportError:
        dumps = pickle.dumps
    stream = socket.socket(fileno=number).makefile("rwb")

    def send(data):
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
            reply = ("done", function(*args, **kwargs))
        except Exception as error:
            reply = ("raised", error, traceback.format_exc())
        try:
            data = dumps(reply)
        except Exception:
            data = pickle.dumps(("raised", TypeError("the result cannot be pickled"), traceback.format_exc()))
        send(data)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
