"""Session: Python code that is run piece by piece in one interpreter in a sandbox, as the cells of a notebook are."""

from __future__ import annotations

import asyncio
import os
import pickle
import secrets
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ._boot import BOOT, Gone, code, send
from ._decode import NAME, Malformed, TooLarge, readable
from ._errors import PolicyError, TaskError
from ._executor import _outermost, interpreter_paths
from ._options import Duration, Size, seconds, size
from ._popen import Popen
from ._program import DEVNULL, PIPE
from ._reply import NUMBER, TOKEN, Rules, answer
from ._sandbox import Cell, Sandbox
from ._session_results import Display, RunError, RunResult, SessionTimeout, expired, fill
from ._types import Outcome, Path

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._options import Policy

__all__ = ["Display", "RunError", "RunResult", "Session", "SessionTimeout"]

#: The working directory inside.
DIRECTORY = "/tmp/session"
#: How long an interpreter may take to start, code may go on after an interrupt, an interpreter that is broken may take to
#: end by itself, one that was killed to end, and a call for files to take; in seconds.
_START, _GRACE, _PATIENCE, _KILLED, _FILES = 60.0, 2.0, 1.0, 10.0, 60.0
#: What `result_limit` is at least: the texts of an error alone may take this much.
_LEAST = 4 << 20
#: What is read at once.
_PIECE = 1 << 16


class Session:
    """Runs Python code piece by piece in one interpreter in a sandbox: variables and files stay from run to run.

    >>> with sandcell.Session(memory="512M", timeout=30, network="none") as s:
    ...     s.run("x = 2")
    ...     s.run("x + 1").value

    The code is a notebook's cell: the value of its last expression is returned, ``display(obj)`` shows HTML, pictures
    and other forms as in Jupyter, figures of matplotlib come as PNG. A crash ends only the interpreter: the result's
    `outcome` says how, and the next run gets a new one.

    timeout: seconds or "500ms" for each run; none by default.
    output_limit: of stdout and of stderr of each run, 1M by default; what comes after it is dropped.
    result_limit: the memory that the other parts of a result, or a file of `get`, may take.
    path: directories to import from, shown read-only inside, besides the interpreter's own.
    The other keywords are those of Sandbox. Usable from any thread; runs wait for each other.
    """

    def __init__(
        self,
        *,
        timeout: Duration | None = None,
        result_limit: Size = "256M",
        path: Iterable[Path] = (),
        **options: Unpack[Policy],
    ) -> None:
        if options.get("isolation") == "landlock":
            raise PolicyError("isolation", "a session needs files of its own, which landlock does not give")
        self._timeout = None if timeout is None else seconds("timeout", timeout)
        self._output_limit = size("output_limit", options.pop("output_limit", "1M"))
        self._rules = Rules(size("result_limit", result_limit), {}, False)
        if self._rules.result_limit < _LEAST:
            raise PolicyError("result_limit", "is too small for a result", "raise it; 4M is enough to start")
        self._path = [os.path.abspath(os.fsdecode(entry)) for entry in path]
        shown = [(entry, entry) for entry in _outermost([*interpreter_paths(), *self._path])]
        options["ro"] = [*shown, *options.get("ro", ())]
        self._cell: Cell = Sandbox(**options).start()
        self._turn = threading.Lock()
        #: Guards what follows, for the short time that it takes to look at it.
        self._lock = threading.Lock()
        self._interpreter: _Interpreter | None = None
        self._running: _Interpreter | None = None
        self._closed = False

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(self, code: str, *, timeout: Duration | None = None, output_limit: Size | None = None) -> RunResult:
        """Runs code; `timeout` and `output_limit` instead of the session's own. What the code raises is the result's
        `error`.

        Raises SessionTimeout, a TimeoutExpired, and what starting an interpreter raises; ValueError once it is closed.
        """
        limit = self._timeout if timeout is None else seconds("timeout", timeout)
        most = self._output_limit if output_limit is None else size("output_limit", output_limit)
        return self._run(_Asked(code, limit, most))

    async def run_async(
        self, code: str, *, timeout: Duration | None = None, output_limit: Size | None = None
    ) -> RunResult:
        """As `run`, in the running asyncio loop. Where the task is cancelled, the code has ended when the cancellation
        goes on: it is interrupted, and the interpreter ended if that does not help."""
        limit = self._timeout if timeout is None else seconds("timeout", timeout)
        asked = _Asked(code, limit, self._output_limit if output_limit is None else size("output_limit", output_limit))
        with_thread = ThreadPoolExecutor(1, thread_name_prefix="sandcell-session")
        running = asyncio.get_running_loop().run_in_executor(with_thread, self._run, asked)
        with_thread.shutdown(False)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self._cancel(asked)
            while not running.done():
                try:
                    await asyncio.wait([running], timeout=_GRACE)
                except asyncio.CancelledError:
                    pass  # again: it is being done
                if not running.done() and asked.interpreter is not None:
                    asked.interpreter.popen.kill()
            running.exception()
            raise

    def interrupt(self) -> bool:
        """Raises KeyboardInterrupt in the code that runs, from another thread. Returns whether any ran."""
        with self._lock:
            if self._running is None:
                return False
            self._running.interrupt()
            return True

    def reset(self) -> None:
        """Ends the interpreter, and the code that runs; the next run gets a new one. The files stay."""
        with self._lock:
            if self._running is not None:
                self._running.popen.kill()
        with self._turn:
            self._drop()

    def close(self) -> None:
        """Ends the session and everything in it. A second time does nothing."""
        with self._lock:
            self._closed = True
            if self._running is not None:
                self._running.popen.kill()
        with self._turn:
            self._drop()
            self._cell.close()

    def put(self, name: str, data: bytes | str) -> None:
        """Writes a file beneath the session's working directory, and the directories on its way."""
        self._on_files(name, "put", DIRECTORY, _beneath(name), data=data.encode() if isinstance(data, str) else data)

    def get(self, name: str) -> bytes:
        """A file beneath the session's working directory; it may have at most `result_limit` bytes.

        Raises FileNotFoundError and the like; no link is followed, on the way or at its end, and only a regular file
        is read.
        """
        data = self._on_files(name, "get", DIRECTORY, _beneath(name), self._rules.result_limit // 2)
        if not isinstance(data, bytes) or len(data) > self._rules.result_limit:
            raise TaskError("the file cannot be read: the answer is no bytes")
        return data

    def files(self) -> dict[str, int]:
        """The regular files beneath the working directory and their sizes; at most 10,000."""
        found = self._on_files("", "files", DIRECTORY)
        if not isinstance(found, dict) or not all(
            isinstance(name, str) and isinstance(length, int) for name, length in found.items()
        ):
            raise TaskError("the files cannot be listed: the answer is no list of files")
        return found

    @property
    def memory(self) -> int | None:
        """What the session uses now, its files included, in bytes; None where nothing counts it: give it a `memory`
        limit, and run something."""
        with self._lock:
            interpreter = self._interpreter
        if interpreter is None or not any(
            line.item == "memory" and line.by.startswith("cgroup") for line in self._cell.enforced
        ):
            return None
        return _memory(interpreter.popen)

    def _run(self, asked: _Asked) -> RunResult:
        with self._turn:
            result = RunResult()
            try:
                timed_out = self._attempt(asked, result)
            except Gone:  # what earlier code started has ended it
                timed_out = self._attempt(asked, result)
            if timed_out:
                raise expired(asked.timeout, result)
            return result

    def _attempt(self, asked: _Asked, result: RunResult) -> bool:
        interpreter, result.fresh = self._ready()
        asked.interpreter = interpreter
        with self._lock:
            if self._closed:
                raise ValueError("the session is closed")
            if asked.cancelled:
                return False
            self._running = interpreter
        try:
            return interpreter.run(asked, result, self._rules, self._done)
        finally:
            self._done()
            if not interpreter.usable:
                self._drop()

    def _done(self) -> None:
        """From here on no interrupt is meant for the code that ran."""
        with self._lock:
            self._running = None

    def _cancel(self, asked: _Asked) -> None:
        with self._lock:
            asked.cancelled = True
            if self._running is not None and self._running is asked.interpreter:
                self._running.interrupt()

    def _ready(self) -> tuple[_Interpreter, bool]:
        """One that waits for code, and whether it is a new one."""
        if self._closed:
            raise ValueError("the session is closed")
        if self._interpreter is not None and self._interpreter.popen.poll() is None:
            fresh, self._interpreter.new = self._interpreter.new, False
            return self._interpreter, fresh
        self._drop()
        made = _Interpreter(self._cell, self._path, self._rules)
        with self._lock:
            self._interpreter = made
        made.new = False
        return made, True

    def _drop(self) -> None:
        with self._lock:
            interpreter, self._interpreter = self._interpreter, None
        if interpreter is not None:
            interpreter.end()

    def _on_files(self, name: str, *request: Any, data: bytes | None = None) -> Any:
        """By a process of its own: it can be done while code runs."""
        if self._closed:
            raise ValueError("the session is closed")
        helper = _Interpreter(self._cell, [], self._rules, bare=True)
        try:
            found = helper.ask(request, self._rules, time.monotonic() + _FILES, [] if data is None else [data])
        finally:
            helper.end()
        if not isinstance(found, tuple) or len(found) != 2:
            raise TaskError("the answer about files cannot be read")
        if found[0] is not None:
            raise _file_error(name, found[0])
        return found[1]


class _Asked:
    """A run that is asked for."""

    def __init__(self, code: str, timeout: float | None, output_limit: int) -> None:
        if not isinstance(code, str):
            raise TypeError("code must be a str")
        self.code, self.timeout, self.output_limit = code, timeout, output_limit
        self.cancelled = False
        self.interpreter: _Interpreter | None = None


class _Output:
    """A pipe of the interpreter's, read as it comes; what is beyond the limit is dropped."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.data = bytearray()
        self.truncated = self.ended = False
        os.set_blocking(pipe.fileno(), False)

    def start(self) -> None:
        self.data, self.truncated = bytearray(), False

    def read(self, most: int, pieces: int = 16) -> None:
        """What is there, but not without end."""
        for _ in range(pieces):
            try:
                piece = os.read(self.pipe.fileno(), _PIECE)
            except BlockingIOError:
                return
            if not piece:
                self.ended = True
                return
            kept = piece[: max(most - len(self.data), 0)]
            self.data += kept
            self.truncated = self.truncated or len(kept) < len(piece)

    def text(self) -> str:
        return self.data.decode("utf-8", "replace")


class _Interpreter:
    """A process, and what is known of it."""

    def __init__(self, cell: Cell, path: list[str], rules: Rules, bare: bool = False) -> None:
        #: Whether no code has been run in it; whether any may.
        self.new = self.usable = True
        #: Of runs.
        self.count = 0
        self.control, theirs = socket.socketpair()
        self._interrupts, numbers = socket.socketpair()
        self._interrupts.setblocking(False)
        options = ["-I", "-S", "-u"] if bare else ["-I", "-u"]
        words = [os.path.abspath(sys.executable), *options, "-c", BOOT, str(theirs.fileno())]
        words += [str(numbers.fileno()), *path]
        output, fds = DEVNULL if bare else PIPE, [theirs.fileno(), numbers.fileno()]
        with theirs, numbers:
            try:
                self.popen: Popen[bytes] = cell.Popen(
                    words, bufsize=0, stdin=DEVNULL, stdout=output, stderr=output, pass_fds=fds, cwd="/"
                )
            except BaseException:
                self.control.close()
                self._interrupts.close()
                raise
        self.outputs = [] if bare else [_Output(self.popen.stdout), _Output(self.popen.stderr)]
        try:
            self._load()
            if not bare:
                self.ask(("start", DIRECTORY), rules, time.monotonic() + _START)
        except BaseException as error:
            for pipe in self.outputs:
                pipe.read(_PIECE)
            self.end()
            if isinstance(error, OSError):
                raise TaskError(f"the interpreter did not start: {self._told()}", self.popen.result) from error
            raise

    def _load(self) -> None:
        codes = code("_worker", "_session_inside")
        self.control.settimeout(_START)
        self.control.sendall(len(codes).to_bytes(NUMBER, "big") + codes)

    def _told(self) -> str:
        outcome = str(self.popen.outcome or "unknown")
        words = self.outputs[1].text().strip() if self.outputs else ""
        return f"{outcome}: {readable(words, NAME)}" if words else outcome

    def send(self, request: Any, theirs: socket.socket, until: float | None, more: Iterable[bytes] = ()) -> bytes:
        """The request's token."""
        token = secrets.token_bytes(TOKEN)
        try:
            send(self.control, token, [pickle.dumps(request), *more], theirs, until)
        except Gone:
            self.usable = False
            raise
        return token

    def ask(self, request: Any, rules: Rules, until: float, more: Iterable[bytes] = ()) -> Any:
        """The answer to what is no code. Raises TaskError."""
        ours, theirs = socket.socketpair()
        with ours:
            try:
                with theirs:
                    token = self.send(request, theirs, until, more)
                return answer(ours, token, rules, until).get()
            except Malformed as error:
                raise TaskError(f"the answer cannot be read: {error}") from None
            except (EOFError, OSError, Gone) as error:
                self.popen.kill()
                self.end()
                why = "timed out" if isinstance(error, TimeoutError) else self._told()
                raise TaskError(f"the interpreter does not answer: {why}", self.popen.result) from None

    def run(self, asked: _Asked, result: RunResult, rules: Rules, done: Callable[[], None]) -> bool:
        """Fills in the result; whether the time was up."""
        until = None if asked.timeout is None else time.monotonic() + asked.timeout
        for output in self.outputs:
            output.start()
        timed_out = False
        ours, theirs = socket.socketpair()
        with ours:
            try:
                with theirs:
                    self.count += 1
                    token = self.send(("run", self.count, asked.code, rules.result_limit), theirs, until)
                timed_out = self._wait(ours, asked, until)
                last = until if until is None or not timed_out else max(until, time.monotonic()) + _GRACE
                fill(result, answer(ours, token, rules, last).get())
                done()
                self.usable = self._over(ours)
            except TimeoutError:
                timed_out = True
                self._end_with(result, "timed_out")
            except TooLarge as error:
                self._end_with(result, "output_limit", str(error))
            except Malformed as error:
                self._end_with(result, "killed", f"the answer cannot be read: {error}")
            except (EOFError, OSError, TaskError):
                self._end_with(result, None)
        self._gather(asked, result)
        return timed_out

    def interrupt(self) -> None:
        """Raises KeyboardInterrupt in what runs now. Its number goes ahead: the signal may come when the next runs."""
        try:
            self._interrupts.send(self.count.to_bytes(8, sys.byteorder))
        except OSError:
            pass  # many are there already, or the code has closed it
        self.popen.send_signal(signal.SIGINT)

    def _wait(self, ours: socket.socket, asked: _Asked, until: float | None) -> bool:
        """Until there is an answer, or none is to come (EOFError). Interrupts when the time is up, and says so. Raises
        TimeoutError where that does not help."""
        poll = select.poll()
        poll.register(ours, select.POLLIN)
        poll.register(self.popen.fileno(), select.POLLIN)
        by_number: dict[int, _Output] = {one.pipe.fileno(): one for one in self.outputs if not one.ended}
        for number in by_number:
            poll.register(number, select.POLLIN)
        timed_out = False
        while True:
            left = None if until is None else max(until - time.monotonic(), 0) * 1000
            ready = dict(poll.poll(left))
            for number in by_number.keys() & ready.keys():
                by_number[number].read(asked.output_limit)
                if by_number[number].ended:
                    poll.unregister(number)
            if ours.fileno() in ready:
                return timed_out
            if self.popen.fileno() in ready:
                raise EOFError
            if until is not None and time.monotonic() >= until:
                if timed_out:
                    raise TimeoutError
                timed_out = True
                self.interrupt()
                until = time.monotonic() + _GRACE

    def _over(self, ours: socket.socket) -> bool:
        """Whether the answer has ended, as it does before the next request is waited for."""
        ours.settimeout(_PATIENCE)
        try:
            return not ours.recv(1)
        except OSError:
            return False

    def _gather(self, asked: _Asked, result: RunResult) -> None:
        out, err = self.outputs
        for output in self.outputs:
            if not output.ended:
                output.read(asked.output_limit)
        result.stdout, result.stdout_truncated = out.text(), out.truncated
        result.stderr, result.stderr_truncated = err.text(), err.truncated

    def _end_with(self, result: RunResult, kind: str | None, reason: str | None = None) -> None:
        """Ends it, for this reason; without one, as it ended by itself."""
        self.usable = False
        if kind is None:
            try:
                self.popen.wait(_PATIENCE)
            except Exception:
                pass
        self._kill()
        result.outcome = Outcome(kind) if kind else self.popen.outcome or Outcome("killed")
        result.reason = reason

    def _kill(self) -> None:
        try:
            self.popen.kill()
            self.popen.wait(_KILLED)
        except Exception:
            pass

    def end(self) -> None:
        self._kill()
        self._close()

    def _close(self) -> None:
        self.control.close()
        self._interrupts.close()
        for output in self.outputs:
            output.pipe.close()


def _beneath(name: str) -> str:
    """A relative path of which every part is a name."""
    parts = name.split("/")
    if "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{name!r} is no path beneath the session's directory: leave out '..', '.' and a first '/'")
    return name


def _file_error(name: str, told: Any) -> OSError:
    if not isinstance(told, tuple) or len(told) != 2 or not isinstance(told[0], int) or not isinstance(told[1], str):
        return OSError("the answer about files cannot be read")
    number = told[0] if 0 < told[0] < 4096 else 0
    return OSError(number, readable(told[1], NAME), name)


def _memory(popen: Popen[bytes]) -> int | None:
    """What the cgroup of a process holds now."""
    try:
        with open(f"/proc/{popen.pid}/cgroup") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
        if popen.poll() is not None:  # its number may be another's by now
            return None
        for _, controllers, group in lines:
            if "memory" in controllers.split(","):
                with open(f"/sys/fs/cgroup/memory{group}/memory.usage_in_bytes") as file:
                    return int(file.read())
        for number, controllers, group in lines:
            if number == "0" and not controllers:
                with open(f"/sys/fs/cgroup{group}/memory.current") as file:
                    return int(file.read())
    except (OSError, ValueError):
        pass
    return None
