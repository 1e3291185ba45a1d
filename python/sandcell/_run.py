"""Running a program to its end: subprocess.run's keywords, results and errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict, TypeVar, overload

from . import _native
from ._errors import TimeoutExpired, translated
from ._options import Duration, seconds
from ._popen import Keywords, Popen
from ._program import (
    Args,
    Codec,
    Stream,
    audit,
    codec_of,
    decoded,
    encoded,
    prepared,
    refuse_leftovers,
    streams,
)
from ._types import CompletedProcess, Path, completed

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._aio import Process


Native = TypeVar("Native", _native.Sandbox, _native.Cell, _native.Pool)


class Running(TypedDict, total=False):
    """The keywords of `run` that have no say in whether its result is text."""

    stdin: Stream
    stdout: Stream
    stderr: Stream
    capture_output: bool
    executable: Path | None
    shell: bool
    cwd: Path | None
    env: Mapping[Any, Any] | None
    pass_fds: Iterable[int]
    timeout: Duration | None
    check: bool
    track_changes: bool
    learn: bool


class Runner(Generic[Native]):
    """What a Sandbox and a Cell have in common: programs are run in it."""

    _native: Native
    #: Whether processes that outlive the program are an error.
    _leftovers_fail: bool
    #: The policy's own, in seconds.
    _timeout: float | None

    @overload
    def run(
        self, args: Args, *,
        text: Literal[True], input: str | None = None, universal_newlines: bool | None = None,
        encoding: str | None = None, errors: str | None = None,
        **keywords: Unpack[Running],
    ) -> CompletedProcess[str]: ...
    @overload
    def run(
        self, args: Args, *,
        encoding: str, input: str | None = None, text: Literal[True] | None = None,
        universal_newlines: bool | None = None, errors: str | None = None,
        **keywords: Unpack[Running],
    ) -> CompletedProcess[str]: ...
    @overload
    def run(
        self, args: Args, *,
        text: Literal[False] | None = None, input: bytes | None = None,
        universal_newlines: Literal[False] | None = None, encoding: None = None, errors: None = None,
        **keywords: Unpack[Running],
    ) -> CompletedProcess[bytes]: ...
    @overload
    def run(
        self, args: Args, *,
        text: bool | None = None, input: str | bytes | None = None,
        universal_newlines: bool | None = None, encoding: str | None = None, errors: str | None = None,
        **keywords: Unpack[Running],
    ) -> CompletedProcess[Any]: ...
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
        track_changes: bool = False,
        learn: bool = False,
    ) -> CompletedProcess[Any]:
        """As subprocess.run. `cwd` is a directory inside; `env` is the whole environment, without it that of the
        policy; `timeout` is seconds or "500ms", and ends everything that the program had started.

        `track_changes` lists the files that the run changed in its overlay, `learn` notes its system calls (each takes
        some microseconds longer): `changes` and `learned` of the result. A cell has `Cell.changes`, and cannot learn.

        Raises TimeoutExpired, with `check` CalledProcessError, FileNotFoundError or PermissionError where the program
        cannot be executed, SetupError or UnsupportedError where the sandbox cannot be made.
        """
        stdin, stdout, stderr = streams(stdin, input, stdout, stderr, capture_output)
        codec = codec_of(text, universal_newlines, encoding, errors)
        data = encoded(input, codec)
        limit = None if timeout is None else seconds("timeout", timeout)
        program = prepared(args, executable, cwd, env, pass_fds, shell, limit, track_changes, learn)
        program["streams"] = [_number(stdin), _number(stdout), _number(stderr)]
        audit(program)
        try:
            told, out, err = self._native.run(program, data)
        except _native.NativeError as error:
            raise translated(error, program["cwd"]) from None
        return self._finished(completed(args, out, err, told), codec, limit, check)

    def _finished(
        self, result: CompletedProcess[Any], codec: Codec, limit: float | None, check: bool
    ) -> CompletedProcess[Any]:
        """What run returns or raises when the program has ended; the outputs are bytes so far."""
        limit = limit if limit is not None else self._timeout
        # Without a timeout it was the CPU time of the policy that was used up, which subprocess does not know.
        if result.outcome.kind == "timed_out" and limit is not None:
            # Bytes whatever was asked for, as in subprocess: the output may end amid a character.
            raise _expired(result, limit)
        result.stdout, result.stderr = decoded(result.stdout, codec), decoded(result.stderr, codec)
        if self._leftovers_fail:
            refuse_leftovers(result)
        if check:
            result.check_returncode()
        return result

    @overload
    async def run_async(
        self, args: Args, *,
        text: Literal[True], input: str | None = None, universal_newlines: bool | None = None,
        encoding: str | None = None, errors: str | None = None,
        **keywords: Unpack[Running],
    ) -> CompletedProcess[str]: ...
    @overload
    async def run_async(
        self, args: Args, *,
        encoding: str, input: str | None = None, text: Literal[True] | None = None,
        universal_newlines: bool | None = None, errors: str | None = None,
        **keywords: Unpack[Running],
    ) -> CompletedProcess[str]: ...
    @overload
    async def run_async(
        self, args: Args, *,
        text: Literal[False] | None = None, input: bytes | None = None,
        universal_newlines: Literal[False] | None = None, encoding: None = None, errors: None = None,
        **keywords: Unpack[Running],
    ) -> CompletedProcess[bytes]: ...
    @overload
    async def run_async(
        self, args: Args, *,
        text: bool | None = None, input: str | bytes | None = None,
        universal_newlines: bool | None = None, encoding: str | None = None, errors: str | None = None,
        **keywords: Unpack[Running],
    ) -> CompletedProcess[Any]: ...
    async def run_async(
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
        track_changes: bool = False,
        learn: bool = False,
    ) -> CompletedProcess[Any]:
        """As `run`, in the running asyncio loop. Where the task is cancelled, the program has ended with all that it
        had started when the cancellation goes on."""
        from . import _aio

        stdin, stdout, stderr = streams(stdin, input, stdout, stderr, capture_output)
        codec = codec_of(text, universal_newlines, encoding, errors)
        data = encoded(input, codec)
        popen = self.Popen(
            args,
            bufsize=0,
            executable=executable,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            shell=shell,
            cwd=cwd,
            env=env,
            pass_fds=pass_fds,
            timeout=timeout,
            track_changes=track_changes,
            learn=learn,
        )
        result = await _aio.finish(await _aio.start(popen), data)
        return self._finished(result, codec, popen._limit, check)

    async def create_subprocess_exec(
        self, program: Path, *args: Path, limit: int = 1 << 16, **keywords: Unpack[Keywords]
    ) -> Process:
        """As asyncio.create_subprocess_exec: a Process with streams of asyncio. The keywords are those of Popen, but
        for text and buffering; `limit` is in bytes, of a line that a stream reads."""
        from . import _aio

        for name in ("bufsize", "text", "universal_newlines", "encoding", "errors"):
            if keywords.pop(name, None):  # type: ignore[misc]
                raise ValueError(f"{name} cannot be said: the streams are asyncio's, of bytes")
        keywords["bufsize"] = 0
        return await _aio.start(self.Popen([program, *args], **keywords), limit)

    def Popen(self, args: Args, **keywords: Unpack[Keywords]) -> Popen[Any]:  # noqa: N802 (subprocess's name)
        """Starts a program and goes on: see Popen."""
        return Popen(args, sandbox=self, **keywords)


# Made here and not where it is raised: a local name there would keep its own frame, and with it the sandbox, alive.
def _expired(result: CompletedProcess[Any], limit: float) -> TimeoutExpired:
    expired = TimeoutExpired(result.args, limit, output=result.stdout, stderr=result.stderr)
    expired.result = result
    return expired


def _number(stream: Stream) -> int | None:
    return stream if stream is None or isinstance(stream, int) else stream.fileno()
