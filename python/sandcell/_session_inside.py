"""What the interpreter of a sandcell.Session runs; handed to it as code, behind that of `_encode` and `_worker`.

Nothing in the caller relies on what is done here: the session's code may change any of it.
"""

import ast
import base64
import builtins
import errno
import inspect
import json
import linecache
import os
import pickle
import signal
import socket
import stat
import sys
import traceback
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._encode import Encoder, Unsupported, type_name
    from ._worker import cut, receive, send

#: Of a text, and of the displays of one run.
TEXT = 1 << 16
DISPLAYS = 1000
#: Names of a directory that are listed, and how deep.
FILES, DEEP = 10_000, 32
#: The beginning of an answer: plain data, a tuple of two.
PAIR = b"Dt" + (2).to_bytes(8, "big")

#: Methods of an object, and the type of what they return: the protocol of IPython and Jupyter.
FORMATS = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
    "_repr_pdf_": "application/pdf",
    "_repr_latex_": "text/latex",
    "_repr_javascript_": "application/javascript",
    "_repr_json_": "application/json",
}
#: What tracebacks call this file.
OURS = sys._getframe().f_code.co_filename
BINARY = ("image/png", "image/jpeg", "image/gif", "application/pdf")


class Session:
    """The state of one interpreter."""

    def __init__(self, interrupts: "socket.socket | None") -> None:
        #: Where the caller writes the number of the run that it interrupts, before it sends SIGINT: the signal may come
        #: when the next one has begun.
        self.interrupts = interrupts
        #: The number of what runs now; 0: nothing does.
        self.running = 0
        self.count = 0
        self.module = types.ModuleType("__main__")
        sys.modules["__main__"] = self.module
        self.names: dict[str, Any] = self.module.__dict__
        self.names.update(__builtins__=builtins, display=self.display)
        #: Of asyncio, for `await` outside functions.
        self.loop: Any = None
        self.displays: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.room = 0
        self.cut_off = False

    def on_interrupt(self, *_: object) -> None:
        number = self.running
        if number and self.interrupts is not None:
            try:
                data = self.interrupts.recv(1 << 16)
            except BlockingIOError:
                return
            if number in memoryview(data[: len(data) // 8 * 8]).cast("Q"):
                raise KeyboardInterrupt

    def run(self, number: int, source: str, limit: int) -> "Encoder":
        """Runs it as a notebook's cell; the answer."""
        self.count += 1
        self.displays, self.room, self.cut_off = [], limit // 2, False
        signal.signal(signal.SIGINT, self.on_interrupt)  # the code before may have set another one
        value, shown, error = None, None, None
        try:
            try:
                self.running = number
                self.on_interrupt()
                value = self.execute(source)
                self.figures()
                if value is not None:
                    shown = cut(repr(value), TEXT)
                    data, metadata = formatted(value)
                    if data:
                        self.add({"text/plain": shown, **data}, metadata)
            finally:
                self.running = 0
        except BaseException as raised:
            error = told(raised)
        return self.answer(value, shown, error, limit)

    def execute(self, source: str) -> Any:
        name = f"<run {self.count}>"
        linecache.cache[name] = len(source), None, source.splitlines(True), name
        tree = ast.parse(source, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        codes = [compile(tree, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)]
        if isinstance(last, ast.Expr):
            codes.append(compile(ast.Expression(last.value), name, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
        value = None
        for code in codes:
            value = eval(code, self.names)
            if code.co_flags & inspect.CO_COROUTINE:
                value = self.awaited(value)
        return value

    def awaited(self, coroutine: Any) -> Any:
        """What a piece of code with an `await` outside functions comes to. One loop for all of them, so that what belongs to
        it stays usable: it stands still between two runs."""
        import asyncio

        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        task = self.loop.create_task(coroutine)
        try:
            return self.loop.run_until_complete(task)
        except BaseException:
            # An interrupt ends the loop and not the task, which must not go on in the next run.
            if task.cancel() and not self.loop.is_closed():
                self.loop.run_until_complete(asyncio.wait([task]))
            if task.done() and not task.cancelled():
                task.exception()
            raise

    def answer(self, value: Any, shown: "str | None", error: Any, limit: int) -> "Encoder":
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass  # it is the code's own, or closed
        encoder, refused = Encoder(), None
        encoder.out += PAIR
        try:
            encoder.put(value)
            # A small number takes some times as much memory in the caller as in a message.
            if 8 * len(encoder.out) + sum(map(len, encoder.buffers)) > limit // 4:
                raise Unsupported(None, "it is too large for `result_limit`")
        except BaseException as why:
            reason = f"{why.args[0] or 'the value'}: {why.args[1]}" if isinstance(why, Unsupported) else repr(why)
            encoder = Encoder()
            encoder.out += PAIR + b"N"
            refused = cut(reason, 1 << 10)
        encoder.put((shown, refused, error, self.displays, self.cut_off))
        return encoder

    def display(self, *values: Any, metadata: "dict[str, Any] | None" = None) -> None:
        """Shows values as a notebook does: their HTML, their picture, …, and their text."""
        for value in values:
            data, more = formatted(value)
            self.add({"text/plain": cut(repr(value), TEXT), **data}, {**more, **(metadata or {})})

    def add(self, data: "dict[str, Any]", metadata: "dict[str, Any]") -> None:
        size = sum(len(part) * (1 if isinstance(part, bytes) else 5) + 100 for part in data.values())
        if len(self.displays) >= DISPLAYS or size > self.room:
            self.cut_off = True
            return
        self.room -= size
        try:
            Encoder().put(metadata)
        except Exception:
            metadata = {}
        self.displays.append((data, metadata))

    def figures(self) -> None:
        """Those of matplotlib that are open, shown and closed."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is not None:
            for number in pyplot.get_fignums():
                self.display(pyplot.figure(number))
            pyplot.close("all")


def formatted(value: Any) -> "tuple[dict[str, Any], dict[str, Any]]":
    """By type what the value shows itself as, besides its text, and what it says of that."""
    if isinstance(value, type):
        return {}, {}
    data: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    bundle = getattr(value, "_repr_mimebundle_", None)
    if callable(bundle):
        made: Any = bundle(include=None, exclude=None)
        if isinstance(made, tuple):  # of data and metadata
            made, metadata = made
        data.update(made or {})
    for method, kind in FORMATS.items():
        make = getattr(value, method, None)
        if kind not in data and callable(make):
            part = make()
            if isinstance(part, tuple):  # of data and metadata
                part, metadata[kind] = part
            if part is not None:
                data[kind] = part
    figure = sys.modules.get("matplotlib.figure")
    if figure is not None and isinstance(value, figure.Figure):
        data["image/png"] = png(value)
    return {str(kind): plain_part(kind, part) for kind, part in data.items()}, metadata


def plain_part(kind: str, part: Any) -> "str | bytes":
    """Pictures as bytes, all others as text, JSON too."""
    if kind in BINARY:
        return base64.b64decode(part) if isinstance(part, str) else bytes(part)
    return part if type(part) in (str, bytes) else json.dumps(part)


def png(figure: Any) -> bytes:
    from io import BytesIO

    file = BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight")
    return file.getvalue()


def told(error: BaseException) -> "tuple[str, str, str]":
    """Its name, its message and its traceback, without what is not the code's own."""
    try:
        message = str(error)
    except BaseException as other:
        message = f"<no text: {type(other).__name__}>"
    trace = error.__traceback__
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith("<run "):
        trace = trace.tb_next
    try:
        whole = traceback.TracebackException(type(error), error, trace)
        whole.stack = traceback.StackSummary.from_list([frame for frame in whole.stack if frame.filename != OURS])
        lines = "".join(whole.format())
    except BaseException:
        lines = ""
    kind = type(error)
    name = kind.__name__ if kind.__module__ in ("builtins", "__main__") else type_name(kind)
    return cut(str(name), 1 << 10), cut(message, TEXT), cut(lines, TEXT)


# Files, of a process of its own: so they can be asked for while code runs.


def beneath(base: str, name: str, make: bool) -> "tuple[int, str]":
    """A descriptor of the directory that the last part of the name lies in, and that part. No link is followed."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    if make:
        os.makedirs(base, exist_ok=True)
    at = os.open(base, flags)
    parts = name.split("/")
    for part in parts[:-1]:
        if make:
            try:
                os.mkdir(part, dir_fd=at)
            except FileExistsError:
                pass
        inner = os.open(part, flags, dir_fd=at)
        os.close(at)
        at = inner
    return at, parts[-1]


def put(base: str, name: str, data: "bytes | memoryview") -> None:
    at, last = beneath(base, name, True)
    temporary = f".{last[:200]}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=at)
    try:
        with open(fd, "wb") as file:
            file.write(data)
        os.rename(temporary, last, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        os.unlink(temporary, dir_fd=at)
        raise


def get(base: str, name: str, limit: int) -> bytes:
    at, last = beneath(base, name, False)
    fd = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, "larger than `result_limit`")
    return data


def files(base: str) -> "dict[str, int]":
    """The regular files and their sizes."""
    found: dict[str, int] = {}
    if not os.path.lexists(base):
        return found  # no code has been run
    for place, inner, names, at in os.fwalk(base):
        below = os.path.relpath(place, base)
        if below.count("/") >= DEEP:
            inner.clear()
        for name in names:
            try:
                status = os.stat(name, dir_fd=at, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                found[name if below == "." else f"{below}/{name}"] = status.st_size
                if len(found) >= FILES:
                    return found
    return found


def on_files(call: str, *arguments: Any) -> "Encoder":
    encoder = Encoder()
    encoder.out += b"D"
    try:
        calls: dict[str, Any] = {"put": put, "get": get, "files": files}
        value = calls[call](*arguments)
        encoder.put((None, value))
    except OSError as error:
        encoder.put(((error.errno or 0, str(error.strerror)), None))
    return encoder


def main(control: socket.socket, paths: "list[str]", session: "Session | None" = None) -> None:
    process = os.getpid()
    interrupts = None
    if numbered := int(paths.pop(0)):
        interrupts = socket.socket(fileno=numbered)
        interrupts.setblocking(False)
    sys.path[:0] = paths
    session = session or Session(None)
    session.interrupts = interrupts
    signal.signal(signal.SIGINT, session.on_interrupt)
    while request := receive(control):
        token, reply, parts = request
        kind, *arguments = pickle.loads(parts[0])
        if kind == "start":
            encoder = start(session, *arguments)
        elif kind == "run":
            encoder = session.run(*arguments)
        else:
            encoder = on_files(kind, *arguments, *parts[1:])
        if os.getpid() != process:
            os._exit(0)  # a child that the code forked: the answer is its parent's
        with reply:
            try:
                send(reply, token, encoder.out, encoder.buffers)
                reply.shutdown(socket.SHUT_WR)  # the end, whoever else has this socket
            except OSError:
                pass  # the caller does not want it
        del request, reply, parts, arguments, encoder


def start(session: Session, directory: str) -> "Encoder":
    os.makedirs(directory, exist_ok=True)
    os.chdir(directory)
    sys.path.insert(0, "")
    os.environ.setdefault("MPLBACKEND", "Agg")
    os.environ.setdefault("MPLCONFIGDIR", "/tmp/.matplotlib")
    encoder = Encoder()
    encoder.out += b"DN"
    return encoder
