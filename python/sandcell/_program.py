"""A program as run and Popen are told of it, and how it is started."""

from __future__ import annotations

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


def prepared(
    args: Args,
    executable: Path | None,
    cwd: Path | None,
    env: Mapping[Any, Any] | None,
    pass_fds: Iterable[int],
    *,
    shell: bool = False,
    timeout: float | None = None,
) -> dict[str, Any]:
    """As the native half wants it, without the streams."""
    words = [args] if isinstance(args, (str, bytes, os.PathLike)) else list(args)
    if shell:
        # As subprocess: what follows the first word are the shell's own parameters.
        words = ["/bin/sh", "-c", *words]
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
