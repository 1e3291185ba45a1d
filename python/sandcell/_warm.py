"""A Python that stands ready and does nothing but fork, each time into a cell of its own: what Template and Executor have in
common. See _template_inside for what it runs, and src/template.rs for the way of a fork into a cell.

Nothing of a request is ever run in it, and it knows nothing of the caller's: it is a program that was started, with an
environment of its own. Its forks are taken for hostile."""

from __future__ import annotations

import fcntl
import os
import pickle
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from . import _native
from ._boot import BOOT, Gone, code, send
from ._decode import NAME, Malformed, readable
from ._errors import TaskError, translating
from ._reply import NUMBER, TOKEN, Rules, answer
from ._types import CompletedProcess, Outcome, Usage

if TYPE_CHECKING:
    from ._sandbox import Cell, Sandbox

#: Options that init carries out for the programs that it starts.
ONLY_FOR_PROGRAMS = ("output_limit", "cpu_time", "leftovers", "reclaim")
#: How long its code may take to be read, and it to end when nobody needs it, in seconds.
_START, _END = 60.0, 10.0
#: So many sandboxes may still be ending.
_BEHIND = 16
#: What one who watches says at most: a line for each process.
_LAST_WORDS = 1 << 16
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "MPLBACKEND": "Agg",
}
#: Of memfd_create(2) and fcntl(2); not all are named by every Python.
_MFD_EXEC = 0x10
_ADD_SEALS, _ALL_SEALS = 1033, 0xF


class Warm:
    """One such process. `names`: the modules of its code; `state`: see _template_inside."""

    def __init__(self, *names: str, source: str, state: Any, path: list[str], patience: float) -> None:
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._behind: list[Copy] = []
        self._native: _native.Template | None = None
        self._process: subprocess.Popen[bytes] | None = None
        control, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = _started(theirs, path)
            _prepare(control, code(*names, "_template_inside"), (source, state, patience), time.monotonic() + patience)
            self._native = _native.Template(control.detach())
        except BaseException:
            control.close()
            self._end(0)
            raise

    def fork(self, sandbox: Sandbox, streams: tuple[int, int], more: list[int]) -> Copy:
        """Has it fork into a new sandbox. `streams`: standard output and error of the fork; `more`: what else it is given.
        Raises what starting a sandbox raises, and Gone where there is no such process any more."""
        if self._owner != os.getpid():
            raise ValueError("it belongs to the process that made it, of which this one is a fork")
        self._look_behind(_BEHIND)
        cell = sandbox.start()
        last_words, last_word = os.pipe()
        copy = Copy(cell, last_words)
        forked = False
        try:
            with self._lock:
                if self._native is None:
                    raise ValueError("it is closed")
                with translating():
                    self._native.fork(cell._native, None, None, [last_word, *streams, *more])
                forked = self._native.forked()
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            os.close(last_word)
            if not forked:
                copy.kill()
        if not forked:
            raise Gone
        return copy

    def leave(self, copy: Copy) -> None:
        """Ends a copy and everything in its cell, and does not wait until the kernel has done it."""
        copy.begin_end()
        with self._lock:
            self._behind.append(copy)

    def _look_behind(self, most: int) -> None:
        """Lets go of those that have ended. Waits for some where these are more than `most`."""
        with self._lock:
            over = self._behind[: max(len(self._behind) - most, 0)]
            over += [copy for copy in self._behind[len(over) :] if copy.has_ended()]
            self._behind = [copy for copy in self._behind if copy not in over]
        for copy in over:
            copy.kill()

    def close(self) -> None:
        """Ends it. Its forks go on. A second time does nothing."""
        if self._owner != os.getpid():
            return
        self._look_behind(0)
        with self._lock:
            if self._native is not None:
                self._native.close()
                self._native = None
        self._end(_END)

    def _end(self, patience: float) -> None:
        if self._process is not None:
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __del__(self) -> None:
        if hasattr(self, "_owner"):
            self.close()


def _started(theirs: socket.socket, path: list[str]) -> subprocess.Popen[bytes]:
    us = os.pidfd_open(os.getpid())
    program = _sealed_program()
    numbers = [theirs.fileno(), us]
    words = [os.path.abspath(sys.executable), "-I", "-u", "-c", BOOT, *map(str, numbers), _native.__file__ or "", *path]
    environment = dict(_ENVIRONMENT)
    if program is not None:
        import sysconfig

        # The loader would look for it beside the program's file.
        environment["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR") or ""
        numbers.append(program)
    try:
        return subprocess.Popen(
            words,
            executable=None if program is None else f"/proc/self/fd/{program}",
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            pass_fds=numbers,
            start_new_session=True,
        )
    finally:
        os.close(us)
        if program is not None:
            os.close(program)


def _sealed_program() -> int | None:
    """A copy of the interpreter that nobody can write to, where the user of a sandbox might be allowed to write to its file.
    The view of a sandbox does not show it writable, but ``/proc/self/exe`` of a fork leads past that view (CVE-2019-5736)."""
    with open(sys.executable, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() and not status.st_mode & 0o022:
            return None
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        try:
            program = os.memfd_create("python", flags | _MFD_EXEC)
        except OSError:  # before Linux 6.3
            program = os.memfd_create("python", flags)
        while os.sendfile(program, file.fileno(), None, 1 << 30):
            pass
    fcntl.fcntl(program, _ADD_SEALS, _ALL_SEALS)
    return program


def _prepare(control: socket.socket, codes: bytes, request: Any, until: float) -> None:
    """Gives it its code; returns when it is ready. Raises what the preparation raises."""
    ours, theirs = socket.socketpair()
    with ours:
        try:
            control.settimeout(_START)
            control.sendall(len(codes).to_bytes(NUMBER, "big") + codes)
            with theirs:
                token = secrets.token_bytes(TOKEN)
                send(control, token, [pickle.dumps(request)], theirs, until)
            answer(ours, token, Rules(1 << 24, {}, False), until).get()
        except TimeoutError:
            raise TaskError("the preparation did not end in time") from None
        except Malformed as error:
            raise TaskError(f"the preparation's answer cannot be read: {error}") from None
        except (EOFError, ConnectionError, Gone):
            raise TaskError("the preparation ended its process") from None
    control.settimeout(None)


class Copy:
    """A fork, and its cell: what Popen is for a program, as far as it is asked for."""

    def __init__(self, cell: Cell, last_words: int) -> None:
        self.outcome: Outcome | None = None
        #: Why there never was one, as who was to watch it tells.
        self.failed = ""
        self._cell = cell
        self._last_words = last_words
        self._said = b""
        self._over = self._killed = False
        self._usage = Usage()

    def fileno(self) -> int:
        """Readable when it has ended."""
        return self._last_words

    def poll(self) -> int | None:
        self._hear(0)
        return None if self.outcome is None else self.outcome.returncode

    def wait(self, timeout: float) -> int:
        self._hear(timeout)
        if self.outcome is None:
            raise subprocess.TimeoutExpired("python", timeout)
        return self.outcome.returncode

    def send_signal(self, number: int) -> None:
        """Nothing: an interrupt comes with its number."""

    def kill(self) -> None:
        """Ends it and everything in its cell; returns when nothing of it is left."""
        if not self._killed:
            self._look()
            self._killed = True
            self._cell.close()

    def begin_end(self) -> None:
        if not self._killed:
            # The first process of the sandbox: all others end with it.
            signal.pidfd_send_signal(self._cell.fileno(), signal.SIGKILL)

    def has_ended(self) -> bool:
        return self._killed or _ready(self._cell.fileno(), 0)

    @property
    def result(self) -> CompletedProcess[Any] | None:
        """What is known of it when it has ended."""
        if self.outcome is None:
            return None
        code, cell = self.outcome.returncode, self._cell
        return CompletedProcess(
            sys.executable, code, None, None, self.outcome, self._usage, cell.identity, cell.enforced, [], [], None, False, None,
            None, {},
        )

    def _look(self) -> None:
        try:
            self._usage = self._cell.usage()
        except ValueError:  # it is closed
            pass

    def _hear(self, patience: float) -> None:
        until = time.monotonic() + patience
        while not self._over:
            if not _ready(self._last_words, max(until - time.monotonic(), 0)):
                return
            piece = os.read(self._last_words, 1 << 12)
            self._said += piece
            if not piece or b"\n" in piece or len(self._said) > _LAST_WORDS:
                self._over = True
                self._ended()

    def _ended(self) -> None:
        if not self._killed:
            self._look()
        word, _, rest = self._said.partition(b"\n")[0].decode(errors="replace").partition(" ")
        if word == "failed":
            self.failed = readable(rest, NAME)
        if self._usage.oom_kills:
            self.outcome = Outcome("out_of_memory")
        elif word != "ended" or self._killed:
            self.outcome = Outcome("killed")
        elif (status := int(rest)) == -signal.SIGSYS:
            self.outcome = Outcome("syscall_denied")
        else:
            self.outcome = Outcome("signaled", signal=-status) if status < 0 else Outcome("exited", status)

    def __del__(self) -> None:
        os.close(self._last_words)


def _ready(fd: int, patience: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(patience * 1000))
