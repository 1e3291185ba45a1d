"""What can go wrong. A program that ends badly is no error: that is its outcome."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import _native

if TYPE_CHECKING:
    from ._types import CompletedProcess, Outcome


class SandboxError(OSError):
    """The sandbox failed; the program did not run, or is gone. ``str()`` says what, while doing what, and why."""

    #: ``unsupported``, ``setup`` or ``io``.
    kind: str
    #: Stable name of the step that failed, such as ``mount-proc`` or ``uid-map``.
    stage: str
    #: The path, option, program or limit that it is about.
    subject: str
    #: What to do about it; may be empty.
    hint: str


class SetupError(SandboxError):
    """A step of building the sandbox failed. Nothing of it is left."""


class UnsupportedError(SandboxError):
    """This host cannot enforce what was asked for. ``hint`` names the remedy."""


class PolicyError(ValueError):
    """What was asked for makes no sense. Found before anything starts; ``subject`` names the keyword."""

    def __init__(self, subject: str, message: str, hint: str = "") -> None:
        super().__init__(f"{subject}: {message}" if subject else message)
        self.subject = subject
        self.hint = hint


class TimeoutExpired(subprocess.TimeoutExpired):
    """The program ran past its timeout and was ended, with all that it had started."""

    #: What is known of the run; ``output`` and ``stderr`` are what had been written by then. None where only the
    #: waiting was ended (Popen.wait, Popen.communicate) and the program goes on.
    result: CompletedProcess[Any] | None = None


class CalledProcessError(subprocess.CalledProcessError):
    """With ``check``: the program did not end with status 0."""

    #: What is known of the run: its outcome says why.
    result: CompletedProcess[Any]

    def __str__(self) -> str:
        return f"{super().__str__()[:-1]} ({self.result.outcome})."


class TaskError(RuntimeError):
    """A task of an Executor has no result: its worker ended, it raised, or what came from it is not accepted."""

    #: Of what the task raised, where that is no built-in exception: its type's name with the module, and its traceback.
    type_name: str | None = None
    traceback: str | None = None

    def __init__(self, message: str, result: CompletedProcess[Any] | None = None) -> None:
        super().__init__(message)
        #: What is known of the worker that ended: `result.outcome` says how. None where it did not.
        self.result = result

    @property
    def outcome(self) -> Outcome | None:
        """How the worker ended; None where it did not."""
        return None if self.result is None else self.result.outcome


def translated(error: _native.NativeError, cwd: str | None = None) -> Exception:
    """The public exception for what the native half raised; `cwd` is the one that was asked for."""
    kind, stage, errno, subject, message, hint = error.args
    if kind == "config":
        return PolicyError(subject, message, hint)
    if kind == "exec" or stage == "chdir":
        # OSError makes itself a FileNotFoundError or a PermissionError; words and name as in subprocess.
        name = cwd if stage == "chdir" and cwd is not None else subject
        known = errno is not None
        return _noted(OSError(errno, os.strerror(errno), name) if known else OSError(f"{subject}: {message}"), hint)
    classes = {"setup": SetupError, "unsupported": UnsupportedError}
    chosen = classes.get(kind, SandboxError)
    words = f"{message} [{stage}]"
    made = chosen(errno, words, subject) if errno is not None else chosen(f"{subject}: {words}" if subject else words)
    made.kind, made.stage, made.subject, made.hint = kind, stage, subject, hint
    return _noted(made, hint)


def _noted(error: OSError, hint: str) -> OSError:
    """With the hint beneath its traceback, from Python 3.11 on."""
    if hint and sys.version_info >= (3, 11):
        error.add_note(f"hint: {hint}")
    return error


@contextmanager
def translating(cwd: str | None = None) -> Iterator[None]:
    """What the native half raises inside becomes a public exception."""
    try:
        yield
    except _native.NativeError as error:
        raise translated(error, cwd) from None
