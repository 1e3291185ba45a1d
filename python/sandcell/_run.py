"""Running a program to its end: subprocess.run's keywords, results and errors."""

from __future__ import annotations

import locale
import subprocess
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from . import _native
from ._errors import TimeoutExpired, translated
from ._options import Duration, seconds
from ._popen import Keywords, Popen
from ._program import PIPE, Args, Stream, audit, prepared, refuse_leftovers
from ._types import CompletedProcess, Path, completed

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Runner:
    """What a Sandbox and a Cell have in common: programs are run in it."""

    _native: _native.Sandbox | _native.Cell
    #: Whether processes that outlive the program are an error.
    _leftovers_fail: bool
    #: The policy's own, in seconds.
    _timeout: float | None

    def run(
        self,
        args: Args,
        *,
        stdin: Stream = None,
        input: str | bytes | None = None,
        stdout: Stream = None,
        stderr: Stream = None,
        capture_output: bool = False,
        executable: Path | None = None,
        shell: bool = False,
        cwd: Path | None = None,
        env: Mapping[Any, Any] | None = None,
        pass_fds: Iterable[int] = (),
        timeout: Duration | None = None,
        check: bool = False,
        text: bool | None = None,
        universal_newlines: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
    ) -> CompletedProcess[Any]:
        """As subprocess.run. `cwd` is a directory inside; `env` is the whole environment, without it that of the
        policy; `timeout` is seconds or "500ms", and ends everything that the program had started.

        Raises TimeoutExpired, with `check` CalledProcessError, FileNotFoundError or PermissionError where the program
        cannot be executed, SetupError or UnsupportedError where the sandbox cannot be made.
        """
        if input is not None:
            if stdin is not None:
                raise ValueError("stdin and input arguments may not both be used.")
            stdin = PIPE
        if capture_output:
            if stdout is not None or stderr is not None:
                raise ValueError("stdout and stderr arguments may not be used with capture_output.")
            stdout = stderr = PIPE
        if text is not None and universal_newlines is not None and bool(text) != bool(universal_newlines):
            raise subprocess.SubprocessError("Cannot disambiguate when both text and universal_newlines are supplied")
        codec = None
        if text or universal_newlines or encoding or errors:
            codec = (encoding or locale.getpreferredencoding(False), errors or "strict")
        data = _encoded(input, codec)
        limit = None if timeout is None else seconds("timeout", timeout)
        program = prepared(args, executable, cwd, env, pass_fds, shell=shell, timeout=limit)
        program["streams"] = [_number(stdin), _number(stdout), _number(stderr)]
        audit(program)
        try:
            report, out, err = self._native.run(program, data)
        except _native.NativeError as error:
            raise translated(error) from None
        result = completed(args, _decoded(out, codec), _decoded(err, codec), report)
        if result.outcome.kind == "timed_out":
            used = limit if limit is not None else self._timeout
            raise _expired(result, used or 0.0, out, err)
        if self._leftovers_fail:
            refuse_leftovers(result)
        if check:
            result.check_returncode()
        return result

    def Popen(self, args: Args, **keywords: Unpack[Keywords]) -> Popen[Any]:  # noqa: N802 (subprocess's name)
        """Starts a program and goes on: see Popen."""
        return Popen(args, sandbox=self, **keywords)


# Made here and not where it is raised: a local name there would keep its own frame, and with it the sandbox, alive.
def _expired(result: CompletedProcess[Any], limit: float, out: bytes | None, err: bytes | None) -> TimeoutExpired:
    # Bytes whatever was asked for, as in subprocess: the output may end amid a character.
    expired = TimeoutExpired(result.args, limit, output=out, stderr=err)
    expired.result = result
    return expired


def _number(stream: Stream) -> int | None:
    return stream if stream is None or isinstance(stream, int) else stream.fileno()


def _encoded(data: str | bytes | None, codec: tuple[str, str] | None) -> bytes:
    if isinstance(data, str):
        if codec is None:
            raise TypeError("input is a str: say text=True or encoding=…, or pass bytes")
        return data.encode(*codec)
    if data is not None and codec is not None:
        raise TypeError("input is bytes, but text was asked for: pass a str")
    return bytes(data or b"")


def _decoded(data: bytes | None, codec: tuple[str, str] | None) -> Any:
    if data is None or codec is None:
        return data
    return data.decode(*codec).replace("\r\n", "\n").replace("\r", "\n")
