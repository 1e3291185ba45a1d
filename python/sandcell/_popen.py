"""Popen: subprocess.Popen whose program runs in a sandbox.

The streams, their text layers, communicate and the context manager are subprocess's own. What is replaced is what
touches the process: how it is started, waited for and signalled.
"""

from __future__ import annotations

import subprocess
import time
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, AnyStr, TypedDict

from . import _native
from ._errors import PolicyError, TimeoutExpired, translating
from ._options import Duration, Policy, seconds
from ._program import DEVNULL, Args, Stream, audit, prepared, refuse_leftovers
from ._terminal import Terminal, size_of
from ._types import CompletedProcess, Enforced, Identity, Outcome, Path, Published, Usage, completed, standing

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._run import Runner

#: Popen.pid of a program that had ended before its number could be read: no process ever has it.
_NO_PID = (1 << 31) - 1

#: How often communicate looks, in seconds, whether a program in a cell has ended while others hold its pipes.
_SLICE = 0.2


class Keywords(TypedDict, total=False):
    """The keywords of Popen that are not options of the sandbox."""

    bufsize: int
    executable: Path | None
    stdin: Stream
    stdout: Stream
    stderr: Stream
    shell: bool
    cwd: Path | None
    env: Mapping[Any, Any] | None
    pass_fds: Iterable[int]
    text: bool | None
    universal_newlines: bool | None
    encoding: str | None
    errors: str | None
    pipesize: int
    timeout: Duration | None
    track_changes: bool
    learn: bool
    terminal: tuple[int, int] | bool | None


class Popen(subprocess.Popen[AnyStr]):
    """A program that runs in a sandbox; subprocess.Popen in everything that is not said here.

    `sandbox` is the Sandbox or Cell to run it in; without it the keywords of Sandbox are taken. `env` is the whole
    environment, without it that of the policy (a clean one). `kill` ends the program and all that it had started;
    so does the end of this object. `timeout`, seconds or "500ms", ends the program as that of a policy does: then
    `outcome.kind` is ``timed_out``. `track_changes` and `learn` are as in `run`.

    `terminal`, ``(rows, columns)`` or True, gives the program a terminal of the sandbox's own, its controlling one: the streams
    for which nothing is said are it, and its other end is the attribute `terminal`. The end of a ``with`` block closes it.

    `preexec_fn` and `close_fds=False` are refused: no Python runs inside, and no descriptor but those of `pass_fds`
    gets in. Every program has a session and a process group of its own: `process_group` may be 0.
    """

    #: The other end of the program's terminal, where one was asked for.
    terminal: Terminal | None
    #: The process as the caller sees it. It may be gone: use `send_signal`, `kill` or the pidfd of `fileno`.
    pid: int

    def __init__(
        self,
        args: Args,
        bufsize: int = -1,
        executable: Path | None = None,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        preexec_fn: None = None,
        close_fds: bool = True,
        shell: bool = False,
        cwd: Path | None = None,
        env: Mapping[Any, Any] | None = None,
        universal_newlines: bool | None = None,
        startupinfo: None = None,
        creationflags: int = 0,
        *,
        restore_signals: bool = True,
        start_new_session: bool = True,
        pass_fds: Iterable[int] = (),
        encoding: str | None = None,
        errors: str | None = None,
        text: bool | None = None,
        pipesize: int = -1,
        process_group: int | None = None,
        timeout: Duration | None = None,
        track_changes: bool = False,
        learn: bool = False,
        terminal: tuple[int, int] | bool | None = None,
        sandbox: Runner[Any] | None = None,
        **options: Unpack[Policy],
    ) -> None:
        self._child_created = False
        if preexec_fn is not None:
            raise PolicyError("preexec_fn", "no Python code can run inside", "run a program that does it")
        if not close_fds:
            raise PolicyError("close_fds", "descriptors are never inherited", "name those wanted in pass_fds")
        if not restore_signals:
            raise PolicyError("restore_signals", "signals are always reset inside")
        if process_group:
            raise PolicyError("process_group", "every program has a session and a process group of its own", "0 is that")
        if sandbox is None:
            from ._sandbox import shared

            sandbox = shared(options)
        elif options:
            raise TypeError(f"{next(iter(options))!r} belongs to the policy: give it to the Sandbox")
        self._sandbox = sandbox
        self._limit = None if timeout is None else seconds("timeout", timeout)
        self._watched = track_changes, learn
        self._terminal_size = size_of(terminal)
        self.terminal = None
        self._result: CompletedProcess[Any] | None = None
        super().__init__(
            args,
            bufsize,
            executable,
            stdin,
            stdout,
            stderr,
            shell=shell,
            cwd=cwd,
            env=env,
            universal_newlines=universal_newlines,
            startupinfo=startupinfo,
            creationflags=creationflags,
            pass_fds=tuple(pass_fds),
            encoding=encoding,
            errors=errors,
            text=text,
            pipesize=pipesize,
        )
        # Ctrl-C does not reach the program, which has a session of its own: nothing to wait for.
        self._sigint_wait_secs = 0

    def fileno(self) -> int:
        """A pidfd: readable when the program has ended. It lives as long as this object, whose it is."""
        return self._child.fileno()

    @property
    def outcome(self) -> Outcome | None:
        """How the program ended; None while it runs, or while nobody has asked with `poll` or `wait`."""
        return None if self._result is None else self._result.outcome

    @property
    def usage(self) -> Usage | None:
        """What it used; None while it runs."""
        return None if self._result is None else self._result.usage

    @property
    def result(self) -> CompletedProcess[Any] | None:
        """All that is known of the run, without its output; None while it runs."""
        return self._result

    @property
    def identity(self) -> Identity:
        """Who it is."""
        return standing(self._child.standing())[0]

    @property
    def enforced(self) -> list[Enforced]:
        """What is enforced, and by what."""
        return self._result.enforced if self._result else standing(self._child.standing())[1]

    @property
    def published(self) -> list[Published]:
        """The ports that are published on the host, with those that were chosen for 0."""
        return standing(self._child.standing())[2]

    def send_signal(self, sig: int) -> None:
        """Sends a signal to the program; does nothing if it has ended. It returns when the sandbox's first process has been
        told, a moment before the program has the signal; signals arrive in the order in which they were sent."""
        if self.poll() is None:
            with translating():
                self._child.send_signal(sig)

    def send_signal_group(self, sig: int) -> None:
        """Sends a signal to the program and to what it started in its process group, as a terminal does for Ctrl-C; does
        nothing if it has ended."""
        if self.poll() is None:
            with translating():
                self._child.send_signal_group(sig)

    def kill(self) -> None:
        """Ends the program and all that it had started."""
        if self.poll() is None:
            with translating():
                self._child.kill()

    def __exit__(self, *exception: Any) -> None:
        # A program that has closed its streams is about to end by itself.
        if self.terminal is not None and not self.terminal._ended:
            self.terminal.close()
        super().__exit__(*exception)
        if self.terminal is not None:
            self.terminal.close()

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """As in subprocess; but when the program has ended, pipes that others in its cell still hold are not waited
        for. What had been written by then is returned."""
        if not isinstance(self._sandbox._native, _native.Cell):
            try:
                return super().communicate(input, timeout)
            except subprocess.TimeoutExpired as expired:
                raise _ours(expired, timeout) from None
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _SLICE if until is None else max(min(_SLICE, until - time.monotonic()), 0)
            ended = self.poll() is not None
            try:
                return super().communicate(input, left)
            except subprocess.TimeoutExpired as expired:
                input = None
                if ended:
                    return self._cut_off(self.stdout, expired.output), self._cut_off(self.stderr, expired.stderr)
                if until is not None and time.monotonic() >= until:
                    raise _ours(expired, timeout) from None

    def _cut_off(self, stream: Any, data: bytes | None) -> Any:
        """What a stream came to that has not ended."""
        if stream is None:
            return None
        stream.close()
        if not self.text_mode:  # type: ignore[attr-defined]
            return data or b""
        return (data or b"").decode(stream.encoding, stream.errors).replace("\r\n", "\n").replace("\r", "\n")

    # What follows replaces the private methods in which subprocess touches the process.

    def _execute_child(
        self,
        args: Args,
        executable: Path | None,
        preexec_fn: object,
        close_fds: object,
        pass_fds: Iterable[int],
        cwd: Path | None,
        env: Mapping[Any, Any] | None,
        startupinfo: object,
        creationflags: object,
        shell: bool,
        *rest: int,
    ) -> None:
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = rest[:6]
        null = getattr(self, "_devnull", None)

        def stream(fd: int) -> int | None:
            # The sandbox has a /dev/null of its own.
            return None if fd == -1 else DEVNULL if fd == null else fd

        program = prepared(args, executable, cwd, env, pass_fds, shell, self._limit, *self._watched)
        program["streams"] = [stream(fd) for fd in (p2cread, c2pwrite, errwrite)]
        program["terminal"] = self._terminal_size
        audit(program)
        with translating(program["cwd"]):
            self._child: _native.Child = self._sandbox._native.spawn(program)
        self._child_created = True
        fd = self._child.take_terminal()
        self.terminal = None if fd is None else Terminal(fd)
        self.pid = self._child.host_pid() or _NO_PID
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        return self._look(0)

    def _wait(self, timeout: float | None) -> int:
        if self._look(timeout) is None:
            raise TimeoutExpired(self.args, timeout)  # type: ignore[arg-type]
        assert self.returncode is not None
        return self.returncode

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            with translating():
                told = self._child.wait(timeout if timeout is None else max(timeout, 0))
            if told is not None:
                self._result = completed(self.args, None, None, told)
                self.returncode = self._result.returncode
                if self._sandbox._leftovers_fail:
                    refuse_leftovers(self._result)
        return self.returncode

    def __del__(self, _warn: Any = warnings.warn) -> None:
        # Not subprocess's: it would keep the object, and with it the sandbox, until the program ends by itself.
        if self._child_created and self.returncode is None and self._internal_poll() is None:
            _warn(f"subprocess {self.pid} is still running", ResourceWarning, source=self)


def _ours(expired: subprocess.TimeoutExpired, timeout: float | None) -> TimeoutExpired:
    return TimeoutExpired(expired.cmd, timeout, expired.output, expired.stderr)  # type: ignore[arg-type]
