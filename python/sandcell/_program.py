"""A program as run and Popen are told of it, and how it is started."""

from __future__ import annotations

import locale
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any, Union

from ._errors import PolicyError, SandboxError
from ._options import environment, path
from ._types import CompletedProcess, Path

PIPE = subprocess.PIPE
STDOUT = subprocess.STDOUT
DEVNULL = subprocess.DEVNULL

Stream = Union[int, "IO[Any]", None]
Args = Union[Path, "Sequence[Path]"]
#: Encoding and what to do with errors; None for bytes.
Codec = Union["tuple[str, str]", None]


def prepared(
    args: Args,
    executable: Path | None,
    cwd: Path | None,
    env: Mapping[Any, Any] | None,
    pass_fds: Iterable[int],
    shell: bool,
    timeout: float | None,
    track_changes: bool,
    learn: bool,
) -> dict[str, Any]:
    """As the native half wants it, without the streams."""
    words = [args] if isinstance(args, (str, bytes, os.PathLike)) else list(args)
    if shell:
        if isinstance(args, os.PathLike):
            raise TypeError("path-like args is not allowed when shell is true")
        # As subprocess: what follows the first word are the shell's own parameters, and `executable` is the shell.
        words = [executable or "/bin/sh", "-c", *words]
    argv = [path("args", word) for word in words]
    if any("\0" in word for word in argv):
        raise ValueError("embedded null byte")
    return {
        "argv": argv,
        "executable": None if executable is None else path("executable", executable),
        "cwd": None if cwd is None else path("cwd", cwd),
        "env": None if env is None else environment("env", env),
        "pass_fds": _numbers(pass_fds),
        "timeout": timeout,
        "track_changes": track_changes,
        "learn": learn,
        "terminal": None,
    }


def _numbers(pass_fds: Iterable[int]) -> list[int]:
    numbers = list(pass_fds)
    for fd in numbers:
        if isinstance(fd, bool) or not isinstance(fd, int) or fd < 0:
            raise PolicyError("pass_fds", f"{fd!r} is no descriptor")
    return numbers


def audit(program: dict[str, Any]) -> None:
    """Tells sys.addaudithook of it, as subprocess does."""
    argv = program["argv"]
    sys.audit("subprocess.Popen", program["executable"] or argv[:1], argv, program["cwd"], program["env"])


def refuse_leftovers(result: CompletedProcess[Any]) -> None:
    """For a policy that says so: processes that outlived the program are an error."""
    if result.leftovers:
        raise SandboxError(f"still alive when the program ended: {', '.join(p.command for p in result.leftovers)}")


def streams(
    stdin: Stream, input: object, stdout: Stream, stderr: Stream, capture_output: bool
) -> tuple[Stream, Stream, Stream]:
    """What run's keywords come to."""
    if input is not None:
        if stdin is not None:
            raise ValueError("stdin and input arguments may not both be used.")
        stdin = PIPE
    if capture_output:
        if stdout is not None or stderr is not None:
            raise ValueError("stdout and stderr arguments may not be used with capture_output.")
        stdout = stderr = PIPE
    return stdin, stdout, stderr


def codec_of(text: bool | None, universal_newlines: bool | None, encoding: str | None, errors: str | None) -> Codec:
    if text is not None and universal_newlines is not None and bool(text) != bool(universal_newlines):
        raise subprocess.SubprocessError("Cannot disambiguate when both text and universal_newlines are supplied")
    if text or universal_newlines or encoding or errors:
        return encoding or locale.getpreferredencoding(False), errors or "strict"
    return None


def encoded(data: str | bytes | None, codec: Codec) -> bytes:
    if isinstance(data, str):
        if codec is None:
            raise TypeError("input is a str: say text=True or encoding=…, or pass bytes")
        return data.encode(*codec)
    if data is not None and codec is not None:
        raise TypeError("input is bytes, but text was asked for: pass a str")
    return bytes(data or b"")


def decoded(data: bytes | None, codec: Codec) -> Any:
    if data is None or codec is None:
        return data
    return data.decode(*codec).replace("\r\n", "\n").replace("\r", "\n")
