"""Executor: a concurrent.futures.Executor whose workers are Python processes, each in a sandbox of its own."""

from __future__ import annotations

import concurrent.futures
import functools
import os
import pickle
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from importlib import import_module
from importlib.util import find_spec
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ._boot import BOOT, Gone, code, send
from ._decode import Malformed, TooLarge
from ._encode import BESIDE, type_name
from ._errors import PolicyError, TaskError
from ._options import Duration, Size, seconds, size
from ._popen import Popen
from ._program import DEVNULL
from ._reply import NUMBER, TOKEN, Answer, Rules, answer
from ._sandbox import Sandbox
from ._types import CompletedProcess, Outcome, Path
from ._warm import ONLY_FOR_PROGRAMS, Copy, Warm

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._options import Policy

P = ParamSpec("P")
T = TypeVar("T")
#: A pickle, and the buffers beside it.
_Parts = list[Any]

#: How long a worker may take to start, and one that has closed its connection or was killed to end, in seconds.
_START = 60.0
_PATIENCE = 1.0
_KILLED = 10.0


class Executor(concurrent.futures.Executor):
    """Runs functions in Python processes, each in a sandbox of its own with the limits that are named here.

    A task that crashes its worker, loops beyond `timeout`, eats too much memory or exits fails its own future with
    TaskError, whose `outcome` says how, and no other; the next task gets a new worker. Functions and arguments travel by
    cloudpickle where it is installed (needed for functions of ``__main__``), otherwise by pickle.

    A result comes from where anything may have been done to it, so it comes as plain data and nothing of it is executed:
    numbers, text, bytes, the built-in containers, dates, decimals, fractions, paths, UUIDs, and arrays of numpy and
    Arrow, which are not copied. An exception is raised as the built-in class that it is, any other as TaskError with
    its `type_name`, text and `traceback`.

    max_workers: processes at most; by default one for each CPU.
    timeout: seconds or "500ms" for each task, its worker's start not included; none by default.
    max_tasks_per_child: tasks of a worker before it is replaced; 1: no task sees another's traces. No end by default.
    initializer, initargs: called in each worker before its first task, with `timeout` too.
    path: directories to import from, shown read-only inside, besides the interpreter's own.
    decoders: functions that make a value from plain data, by the class or its name ("mypackage.Point"): from a dictionary
        of the fields of a dataclass, a named tuple or another object, from the value of an enum or a subclass of a plain
        type. They get what hostile code may have made.
    result_limit: the memory that a result may take; while it is read, up to twice as much is needed.
    unsafe_pickle: take results as pickles, of any type. **A task can then run code in the caller.**
    The other keywords are those of Sandbox. As every such executor it has a thread for each worker.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        timeout: Duration | None = None,
        max_tasks_per_child: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        path: Iterable[Path] = (),
        decoders: Mapping[type | str, Callable[[Any], Any]] | None = None,
        result_limit: Size = "256M",
        unsafe_pickle: bool = False,
        **options: Unpack[Policy],
    ) -> None:
        if "trust" in options:
            hint = "return plain data, name `decoders` for your own types, or say unsafe_pickle=True"
            raise PolicyError("trust", f"results are no longer unpickled: {hint}", hint)
        if max_tasks_per_child is not None and max_tasks_per_child < 1:
            raise PolicyError("max_tasks_per_child", "must be at least 1", "leave it out for workers that stay")
        workers = max_workers if max_workers is not None else os.cpu_count() or 1
        named = {key if isinstance(key, str) else type_name(key): made for key, made in (decoders or {}).items()}
        self._rules = Rules(size("result_limit", result_limit), named, unsafe_pickle)
        self._timeout = None if timeout is None else seconds("timeout", timeout)
        self._most = max_tasks_per_child
        self._initializer = None if initializer is None else _packed("initializer", initializer, tuple(initargs), {})
        self._path = [os.path.abspath(os.fsdecode(entry)) for entry in path]
        shown = [(entry, entry) for entry in _outermost([*interpreter_paths(), *self._path])]
        options["ro"] = [*shown, *options.get("ro", ())]
        self._sandbox = Sandbox(**options)
        self._pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="sandcell")
        self._lock = threading.Lock()
        #: What new workers are copies of, where there are many of them.
        self._warm: Warm | None = None
        self._is_warm = max_tasks_per_child is not None and not _needs_a_program(options)
        self._idle: list[_Worker] = []
        self._alive: set[_Worker] = set()
        self._closed = self._killed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As concurrent.futures.Executor.submit. Raises PicklingError, or what pickling raises, at once. Large arrays
        are not copied: they are read when the task starts."""
        if isinstance(fn, _Each):
            return self._pool.submit(self._run, _packed("each", fn.function, _chunk(*args), kwargs))
        return self._pool.submit(self._run, _packed("call", fn, args, kwargs))

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1, **more: Any
    ) -> Iterator[T]:
        """As concurrent.futures.Executor.map. With `chunksize`, so many calls are one task, with one timeout."""
        if chunksize < 1:
            raise ValueError("chunksize must be at least 1")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout, **more)
        chunks = super().map(_Each(fn), _chunks(zip(*iterables), chunksize), timeout=timeout, **more)
        return chain.from_iterable(chunks)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As concurrent.futures.Executor.shutdown; workers end with their last task."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            self._end(worker)
        self._pool.shutdown(wait, cancel_futures=cancel_futures)
        if wait:  # otherwise it ends with this object: tasks may be waiting still
            with self._lock:
                warm, self._warm = self._warm, None
            if warm is not None:
                warm.close()

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

    def _run(self, task: _Parts) -> Any:
        while True:
            worker = self._take() or self._new()
            keep = False
            try:
                found = worker.do(task, self._timeout, self._rules)
                keep = self._most is None or worker.tasks < self._most
                return found.get()
            except Gone:  # before it was given the task: what an earlier one started has ended it
                self._is_warm = self._is_warm and not worker.could_not_enter()
            finally:
                self._back(worker, keep)

    def _take(self) -> _Worker | None:
        """One that waits for a task."""
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None or worker.waits():
                return worker
            self._end(worker)

    def _new(self) -> _Worker:
        worker = self._copy() if self._is_warm else None
        worker = worker or _Worker(self._sandbox, self._path)
        try:
            return self._begun(worker)
        except Gone:
            self._is_warm = False
            return self._begun(_Worker(self._sandbox, self._path))

    def _begun(self, worker: _Worker) -> _Worker:
        with self._lock:
            self._alive.add(worker)
        if self._killed:  # while it was made
            worker.popen.kill()
        ready = False
        try:
            worker.start(self._rules)
            if self._initializer is not None:
                try:
                    worker.ask(self._initializer, self._timeout, self._rules).get()
                except Gone:
                    raise
                except Exception as error:
                    raise _initializer_failed(error) from error
            ready = True
        finally:
            if not ready:
                self._end(worker)
        return worker

    def _copy(self) -> _Worker | None:
        """A copy of a Python that stands ready; nothing where there is none: then the worker is a program that is started."""
        for _ in range(2):
            with self._lock:
                if self._warm is None:
                    settings = _settings(self._rules)
                    self._warm = Warm("_worker", source="", state=settings, path=self._path, patience=_START)
                warm = self._warm
            try:
                return _Worker(self._sandbox, self._path, warm)
            except Gone:
                # It was killed, for want of memory above all.
                with self._lock:
                    if self._warm is warm:
                        self._warm = None
                warm.close()
        return None

    def _back(self, worker: _Worker, keep: bool) -> None:
        with self._lock:
            keep = keep and not self._closed
            if keep:
                self._idle.append(worker)
        if not keep:
            self._end(worker)

    def _end(self, worker: _Worker) -> None:
        worker.end()
        with self._lock:
            self._alive.discard(worker)


class _Each:
    """A function that a task calls with each of several arguments."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, chunk: list[Any]) -> list[Any]:
        return [self.function(*one) for one in chunk]


def _chunk(*args: Any) -> list[Any]:
    return list(args[0])


def _chunks(items: Iterable[Any], length: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while chunk := list(islice(rest, length)):
        yield chunk


def _initializer_failed(error: Exception) -> TaskError:
    result = error.result if isinstance(error, TaskError) else None
    return TaskError(f"the worker's initializer failed: {type(error).__name__}: {error}", result)


class _Worker:
    """A process. It is told what to do by its one socket, and answers each request on one of the request's own."""

    def __init__(self, sandbox: Sandbox, path: list[str], warm: Warm | None = None) -> None:
        self.tasks = 0
        self.socket, theirs = socket.socketpair()
        #: Where the last answer came from.
        self._last: socket.socket | None = None
        self._warm = warm
        self.popen: Popen[bytes] | Copy
        words = [os.path.abspath(sys.executable), "-I", "-c", BOOT, str(theirs.fileno()), *path]
        with theirs:
            try:
                if warm is None:
                    self.popen = sandbox.Popen(words, stdin=DEVNULL, pass_fds=[theirs.fileno()])
                else:
                    self.popen = warm.fork(sandbox, (1, 2), [theirs.fileno()])
            except BaseException:
                self.socket.close()
                raise

    def start(self, rules: Rules) -> None:
        """Gives it its code; returns when it is ready. Raises TaskError."""
        if self._warm is not None:
            return  # it is a copy of what has them
        codes = code("_worker")
        try:
            self.socket.settimeout(_START)
            self.socket.sendall(len(codes).to_bytes(NUMBER, "big") + codes)
        except TimeoutError:
            raise self._ended("timed_out") from None
        except OSError:
            raise self._ended() from None
        self.ask([pickle.dumps(_settings(rules))], _START, rules).get()

    def do(self, task: _Parts, timeout: float | None, rules: Rules) -> Answer:
        self.tasks += 1
        return self.ask(task, timeout, rules)

    def ask(self, parts: _Parts, timeout: float | None, rules: Rules) -> Answer:
        """The worker's answer. Raises TaskError where there is none, or none that can be read; it has ended then. Raises
        Gone where it had ended before."""
        until = None if timeout is None else time.monotonic() + timeout
        token = secrets.token_bytes(TOKEN)
        if self._last is not None:
            self._last.close()
        self._last, theirs = socket.socketpair()
        try:
            with theirs:
                send(self.socket, token, parts, theirs, until)
            return answer(self._last, token, rules, until)
        except Gone:
            if self.tasks > 1:  # one that is new would be followed by another, without end
                raise
            ended = self._ended()
            raise Gone if self.could_not_enter() else ended from None
        except TimeoutError:
            raise self._ended("timed_out") from None
        except TooLarge as error:
            raise self._ended("output_limit", f"{error}. Hint: raise `result_limit`") from None
        except Malformed as error:
            self._killed()
            raise TaskError(f"the result cannot be read: {error}") from None
        except (EOFError, OSError):
            ended = self._ended()
            raise Gone if self.could_not_enter() else ended from None

    def could_not_enter(self) -> bool:
        """Whether something around this process refuses the way of a fork into a sandbox: then workers are to be started."""
        return isinstance(self.popen, Copy) and bool(self.popen.failed)

    def waits(self) -> bool:
        """Whether it has ended its last answer, as it does before it waits for the next task. One that has not, or has
        answered twice, is what a task has made of it."""
        assert self._last is not None
        self._last.settimeout(_PATIENCE)
        try:
            return not self._last.recv(1)
        except OSError:
            return False

    def _ended(self, kind: str | None = None, why: str = "") -> TaskError:
        """Why there is no answer: how the worker ended, or for what it is ended now."""
        if kind is None:
            try:
                self.popen.wait(_PATIENCE)
            except Exception:
                pass
        result = self._killed()
        message = f"the task's worker ended: {result.outcome if kind is None and result else kind or 'unknown'}"
        if result is not None and kind is not None:
            result.outcome = Outcome(kind)
            result.returncode = result.outcome.returncode
            message = f"the task's worker ended: {result.outcome}"
        return TaskError(f"{message}: {why}" if why else message, result)

    def _killed(self) -> CompletedProcess[Any] | None:
        """What is known of it; None where it does not end."""
        try:
            self.popen.kill()
            self.popen.wait(_KILLED)
        except Exception:
            pass
        return self.popen.result

    def end(self) -> None:
        if self._last is not None:
            self._last.close()
        self.socket.close()
        if isinstance(self.popen, Copy) and self._warm is not None and self.popen.poll() is None:
            self._warm.leave(self.popen)
        else:
            self._killed()


def _settings(rules: Rules) -> tuple[frozenset[str], bool]:
    """How a worker is to answer."""
    return frozenset(rules.decoders), rules.unsafe_pickle


def _needs_a_program(options: Policy) -> bool:
    """Whether a worker has to be a program that is started: the Python inside may be another one than the caller's, or an
    option holds for programs only, and not for what is forked."""
    named = {"root", "image", "layers", "upper", "init", *ONLY_FOR_PROGRAMS} & options.keys()
    return bool(named) or options.get("isolation", "namespaces") != "namespaces"


def _packed(kind: str, function: Callable[..., Any], args: Iterable[Any], kwargs: Mapping[str, Any]) -> _Parts:
    """A task: a pickle, and large buffers of it, which are not copied."""
    beside: list[pickle.PickleBuffer] = []
    value = kind, function, args, kwargs

    def in_band(buffer: pickle.PickleBuffer) -> bool:
        large = buffer.raw().nbytes >= BESIDE
        if large:
            beside.append(buffer)
        return not large

    cloudpickle = _cloudpickle()
    if cloudpickle is None:
        data = _plainly(value, in_band)
    elif (quick := _quickly(value, in_band, cloudpickle)) is not None:
        data = quick
    else:
        beside.clear()
        data = cloudpickle.dumps(value, protocol=5, buffer_callback=in_band)
    return [data, *(buffer.raw() for buffer in beside)]


@functools.lru_cache
def _cloudpickle() -> Any:
    return import_module("cloudpickle") if find_spec("cloudpickle") else None


def _quickly(
    value: tuple[Any, ...], in_band: Callable[[pickle.PickleBuffer], bool], cloudpickle: Any
) -> bytes | None:
    """Without cloudpickle, which takes ten times as long; None where only it can do it."""
    if getattr(value[1], "__module__", None) == "__main__" or cloudpickle.list_registry_pickle_by_value():
        return None
    try:
        data = pickle.dumps(value, protocol=5, buffer_callback=in_band)
    except Exception:
        return None
    return None if b"__main__" in data else data


def _plainly(value: tuple[Any, ...], in_band: Callable[[pickle.PickleBuffer], bool]) -> bytes:
    """Without cloudpickle, whose lack is told where it would help."""
    hint = "Hint: install cloudpickle, or define it in a module that can be imported inside"
    function = value[1]
    if getattr(function, "__module__", None) == "__main__":
        name = getattr(function, "__qualname__", repr(function))
        raise pickle.PicklingError(f"{name} is defined in __main__, which a worker does not have. {hint}.")
    try:
        return pickle.dumps(value, protocol=5, buffer_callback=in_band)
    except (pickle.PicklingError, AttributeError) as error:
        raise pickle.PicklingError(f"{error}. {hint}.") from error


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
