"""Executor: a concurrent.futures.Executor whose workers are Python processes, each in a sandbox of its own."""

from __future__ import annotations

import builtins
import concurrent.futures
import io
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ._errors import TaskError
from ._options import Duration, Size, seconds, size
from ._popen import Popen
from ._program import DEVNULL
from ._sandbox import Sandbox
from ._types import CompletedProcess, Outcome, Path

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._options import Policy

P = ParamSpec("P")
T = TypeVar("T")

#: How long a worker that has closed its connection may take to end, in seconds.
_PATIENCE = 1.0


class Executor(concurrent.futures.Executor):
    """Runs functions in Python processes, each in a sandbox of its own with the limits that are named here.

    A task that crashes its worker, loops beyond `timeout`, eats too much memory or exits fails its own future with
    TaskError, whose `outcome` says how, and no other; the next task gets a new worker. Functions, arguments and
    results travel by cloudpickle where it is installed (needed for functions of ``__main__``), otherwise by pickle.

    A result comes from where anything may have been done to it: only plain values are accepted (numbers, strings,
    bytes, the built-in containers, built-in exceptions, dates), and what `trust` names beyond: modules
    ("numpy", "mypackage.shapes"), classes ("mypackage.Point"), or "all", which lets a task run code in the caller.

    max_workers: processes at most; by default one for each CPU.
    timeout: seconds or "500ms" for each task, its worker's start not included; none by default.
    max_tasks_per_child: tasks of a worker before it is replaced; 1: no task sees another's traces. No end by default.
    path: directories to import from, shown read-only inside, besides the interpreter's own.
    result_limit: size of a result at most, as pickled.
    The other keywords are those of Sandbox. As every such executor it has a thread for each worker.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        timeout: Duration | None = None,
        max_tasks_per_child: int | None = None,
        path: Iterable[Path] = (),
        trust: str | Iterable[str] = (),
        result_limit: Size = "256M",
        **options: Unpack[Policy],
    ) -> None:
        workers = max_workers if max_workers is not None else os.cpu_count() or 1
        self._trust = frozenset([trust] if isinstance(trust, str) else trust)
        self._timeout = None if timeout is None else seconds("timeout", timeout)
        self._most = max_tasks_per_child
        self._result_limit = size("result_limit", result_limit)
        self._path = [os.path.abspath(os.fsdecode(entry)) for entry in path]
        shown = [(entry, entry) for entry in _outermost([*interpreter_paths(), *self._path])]
        options["ro"] = [*shown, *options.get("ro", ())]
        self._sandbox = Sandbox(**options)
        self._pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="sandcell")
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._alive: set[_Worker] = set()
        self._closed = self._killed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As concurrent.futures.Executor.submit. Raises PicklingError, or what pickling raises, at once."""
        return self._pool.submit(self._run, _dumps((fn, args, kwargs)))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As concurrent.futures.Executor.shutdown; workers end with their last task."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            self._end(worker)
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def kill_workers(self) -> None:
        """Ends all workers now: tasks that run fail, those that wait get new workers unless they are cancelled."""
        with self._lock:
            alive = list(self._alive)
        for worker in alive:
            worker.popen.kill()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # an interrupt above all: what still runs would be waited for without end
            self._pool.shutdown(False, cancel_futures=True)
            self._killed = True
            self.kill_workers()
        self.shutdown()

    def _run(self, task: bytes) -> Any:
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is None:
            worker = _Worker(self._sandbox, self._path)
            with self._lock:
                self._alive.add(worker)
            if self._killed:  # while it was made
                worker.popen.kill()
        keep = False
        try:
            reply = worker.do(task, self._timeout, self._result_limit)
            keep = self._most is None or worker.tasks < self._most
        finally:
            with self._lock:
                keep = keep and not self._closed
                if keep:
                    self._idle.append(worker)
            if not keep:
                self._end(worker)
        return _result(reply, self._trust)

    def _end(self, worker: _Worker) -> None:
        worker.end()
        with self._lock:
            self._alive.discard(worker)


class _TooLong(Exception):
    pass


class _Worker:
    def __init__(self, sandbox: Sandbox, path: list[str]) -> None:
        self.tasks = 0
        self.socket, theirs = socket.socketpair()
        words = [os.path.abspath(sys.executable), "-I", "-c", _source(), str(theirs.fileno()), *path]
        with theirs:
            try:
                self.popen: Popen[bytes] = sandbox.Popen(words, stdin=DEVNULL, pass_fds=[theirs.fileno()])
            except BaseException:
                self.socket.close()
                raise

    def do(self, task: bytes, timeout: float | None, most: int) -> bytes:
        """The worker's answer. Raises TaskError where there is none."""
        try:
            if not self.tasks:
                self._receive(None, 16)  # that it is ready
            self.tasks += 1
            until = None if timeout is None else time.monotonic() + timeout
            self.socket.settimeout(timeout)
            self.socket.sendall(len(task).to_bytes(8, "big") + task)
            return self._receive(until, most)
        except TimeoutError:
            raise self._ended("timed_out") from None
        except _TooLong:
            raise self._ended("output_limit") from None
        except (EOFError, OSError):
            raise self._ended() from None

    def _receive(self, until: float | None, most: int) -> bytes:
        length = int.from_bytes(self._read(until, 8), "big")
        if length > most:
            raise _TooLong
        return self._read(until, length)

    def _read(self, until: float | None, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            # The whole message has one deadline, however small the pieces in which it comes.
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            self.socket.settimeout(left)
            piece = self.socket.recv(min(length - len(data), 1 << 20))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def _ended(self, kind: str | None = None) -> TaskError:
        """Why there is no answer: how the worker ended, or for what it is ended now."""
        if kind is None:
            try:
                self.popen.wait(_PATIENCE)
            except Exception:
                self.popen.kill()
        else:
            self.popen.kill()
        self.popen.wait()
        result = self.popen.result
        assert result is not None
        return _task_error(result if kind is None else _with_outcome(result, Outcome(kind)))

    def end(self) -> None:
        self.socket.close()
        self.popen.kill()
        self.popen.wait()


def _with_outcome(result: CompletedProcess[Any], outcome: Outcome) -> CompletedProcess[Any]:
    result.outcome, result.returncode = outcome, outcome.returncode
    return result


def _task_error(result: CompletedProcess[Any]) -> TaskError:
    return TaskError(f"the task's worker ended: {result.outcome}", result)


def _source() -> str:
    from . import _worker

    with open(_worker.__file__, encoding="utf-8") as file:
        return file.read()


def _dumps(value: object) -> bytes:
    if find_spec("cloudpickle"):
        return bytes(import_module("cloudpickle").dumps(value))
    return pickle.dumps(value)


def interpreter_paths() -> list[str]:
    """What this Python consists of and where its packages are installed, beyond /usr: for `ro`, so that it can be run
    inside. The directories of the program itself are not among them."""
    packages = [entry for entry in sys.path if os.path.basename(entry) in ("site-packages", "dist-packages")]
    beside = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *packages]
    beside += [os.path.dirname(os.path.abspath(sys.executable)), os.path.dirname(os.path.realpath(sys.executable))]
    return _outermost(entry for entry in beside if os.path.isdir(entry))


def _outermost(directories: Iterable[str]) -> list[str]:
    """Without those that lie in others, or that the view of the host has anyway."""
    kept: list[str] = ["/usr", "/bin", "/sbin", "/lib", "/lib64"]
    for directory in sorted(set(directories), key=len):
        if not any(directory == outer or directory.startswith(outer + "/") for outer in kept):
            kept.append(directory)
    return kept[5:]


#: Classes whose making can do nothing but make a value.
_PLAIN = {
    "builtins": {"bool", "int", "float", "complex", "str", "list", "tuple", "dict", "set"}
    | {"frozenset", "object"}
    | {name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)},
    "collections": {"OrderedDict", "deque", "Counter"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "uuid": {"UUID"},
}


def _copied(name: str, data: bytes | str = b"", encoding: str = "latin-1") -> object:
    """bytes or bytearray of what has been received; of a number, they would be that long."""
    if isinstance(data, str):
        data = data.encode(encoding)
    return getattr(builtins, name)(memoryview(data))


class _Refused(Exception):
    pass


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, trust: frozenset[str]) -> None:
        super().__init__(io.BytesIO(data))
        self._trust = trust

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in ("builtins.bytes", "builtins.bytearray"):
            return lambda *args: _copied(name, *args)
        plain = name in _PLAIN.get(module, ())
        if plain or "all" in self._trust or any(full == t or full.startswith(t + ".") for t in self._trust):
            return super().find_class(module, name)
        raise _Refused(full)


def _result(reply: bytes, trust: frozenset[str]) -> Any:
    """The value, or the exception raised."""
    try:
        kind, value, *trace = _Unpickler(reply, trust).load()
    except _Refused as refused:
        raise TaskError(f"the result has a {refused} in it: name it in `trust` to accept it") from None
    except Exception as error:
        raise TaskError(f"the result cannot be read: {error!r}") from None
    if kind == "done":
        return value
    if kind != "raised" or not isinstance(value, Exception):
        raise TaskError("the result cannot be read")
    # As in concurrent.futures: where it was raised is told as its cause.
    raise value from TaskError("".join(["\n", *map(str, trace)]))
