"""What comes of a Session's runs, from answers that anything may have been done to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ._decode import NAME, TEXT, Malformed, readable
from ._errors import TimeoutExpired
from ._types import Outcome


@dataclass(frozen=True)
class RunError:
    """What the code raised, as text."""

    #: Of the type; with its module where it is not built in.
    name: str
    message: str
    traceback: str


@dataclass(frozen=True)
class Display:
    """What the code showed, in the forms that it has, as Jupyter's display data."""

    #: By MIME type; pictures and PDF as bytes, all others as text.
    data: dict[str, str | bytes]
    metadata: dict[str, Any]


@dataclass
class RunResult:
    """What came of one `Session.run`. All of it may have been made by hostile code: show HTML only where it may run."""

    stdout: str = ""
    stderr: str = ""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    #: Of the last expression, where it is plain data (see Executor); otherwise None, and `value_error` says why.
    value: Any = None
    value_error: str | None = None
    #: ``repr(value)``; None where the value is None.
    repr: str | None = None
    error: RunError | None = None
    displays: list[Display] = field(default_factory=list)
    #: Whether more was shown than is returned.
    displays_truncated: bool = False
    #: How the interpreter ended, if this run ended it; what it knew is lost then.
    outcome: Outcome | None = None
    #: What was wrong with the interpreter's answer, where that is why it was ended.
    reason: str | None = None
    #: Whether this run began with no variables: the first one, after `reset`, or after one that ended the interpreter.
    fresh: bool = False

    @property
    def state_lost(self) -> bool:
        """Whether the variables are gone: the next run begins with none."""
        return self.outcome is not None


class SessionTimeout(TimeoutExpired):
    """The code ran past its timeout. It was interrupted, and the interpreter ended if that did not help."""

    #: What there is of the run; `state_lost` says whether the interpreter was ended.
    run: RunResult

    @property
    def state_lost(self) -> bool:
        """Whether the variables are gone."""
        return self.run.state_lost

    def __str__(self) -> str:
        lost = "the interpreter was ended, its variables are lost" if self.state_lost else "the code was interrupted"
        return f"the code ran past its timeout of {self.timeout} seconds: {lost}"


def fill(result: RunResult, found: Any) -> None:
    """From an answer, whose form is checked."""
    if not isinstance(found, tuple) or len(found) != 2:
        raise Malformed("it is no result")
    value, rest = found
    if not isinstance(rest, tuple) or len(rest) != 5:
        raise Malformed("it lacks a part")
    shown, refused, error, displays, cut_off = rest
    if not isinstance(displays, list) or not isinstance(cut_off, bool):
        raise Malformed("it has displays that are no list")
    made = [_display(display) for display in displays]
    if error is not None:
        if not isinstance(error, tuple) or len(error) != 3:
            raise Malformed("it has an error that lacks a part")
        name, message, trace = error
        result.error = RunError(_text(name, NAME) or "", _text(message) or "", _text(trace) or "")
    result.repr, result.value_error = _text(shown), _text(refused, NAME)
    result.value, result.displays, result.displays_truncated = value, made, cut_off


def _text(value: Any, most: int = TEXT) -> str | None:
    if value is not None and not isinstance(value, str):
        raise Malformed("it has a part that is no text")
    return None if value is None else readable(value, most)


def _display(found: Any) -> Display:
    if not isinstance(found, tuple) or len(found) != 2 or not all(isinstance(part, dict) for part in found):
        raise Malformed("it has a display that is none")
    data, metadata = found
    if not all(isinstance(kind, str) and isinstance(part, (str, bytes)) for kind, part in data.items()):
        raise Malformed("it has a display of what is neither text nor bytes")
    if not all(isinstance(key, str) for key in metadata):
        raise Malformed("it has a display whose metadata has no names")
    return Display({readable(kind, NAME): _part(kind, part) for kind, part in data.items()}, metadata)


def _part(kind: str, part: str | bytes) -> str | bytes:
    """What is text, as text; what is shown on terminals, without what these act on."""
    if kind.startswith("text/") and isinstance(part, bytes):
        part = part.decode("utf-8", "replace")
    return readable(part, TEXT) if kind == "text/plain" and isinstance(part, str) else part


# Made here and not where it is raised: a local name there would keep its own frame alive.
def expired(timeout: float | None, result: RunResult) -> SessionTimeout:
    assert timeout is not None
    error = SessionTimeout("code", timeout, result.stdout.encode(), result.stderr.encode())
    error.run = result
    return error
