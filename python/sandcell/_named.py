"""Cells with a name, which outlive whoever started them: docs/cells.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import _native
from ._errors import TimeoutExpired, translated, translating
from ._options import Duration, seconds
from ._program import Args
from ._sandbox import Cell
from ._types import CompletedProcess, completed


@dataclass(frozen=True)
class LogLine:
    """A line of a log, or a part of one."""

    #: Where it begins in the log, and where the next one does: `logs` takes either as ``offset``.
    offset: int
    next: int
    #: When it was written: seconds since 1970, and the same as text (RFC 3339, UTC).
    time: float
    stamp: str
    #: 1 for standard output, 2 for standard error.
    stream: int
    #: Whether the line goes on in the next part of the same stream.
    partial: bool
    #: What the program wrote, without the line's end.
    text: bytes


class Attached:
    """The standard input of a cell's main program. A context manager; leaving it lets go and ends nothing."""

    def __init__(self, native: _native.Attached) -> None:
        self._native = native

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *exception: object) -> None:
        self._native.close(False)

    def write(self, data: bytes) -> int:
        """Writes all of it. Raises ConnectionAbortedError where somebody else has taken over."""
        self._native.write(data)
        return len(data)

    def close(self, *, end: bool = False) -> None:
        """Lets go of it; with ``end`` the program reads the end of its input."""
        with translating():
            self._native.close(end)


class NamedCell:
    """A cell with a name, of the calling user. It ends by `stop` or `kill`, or with its main program, and not with this
    object or this process; its outcome and its log stay until `remove`."""

    def __init__(self, native: _native.NamedCell) -> None:
        self._native = native

    def __repr__(self) -> str:
        return f"NamedCell({self.name!r})"

    @property
    def name(self) -> str:
        """Its name."""
        return self._native.name()

    def cell(self) -> Cell:
        """The live cell, for all that a Cell can do; closing that ends nothing here. Raises SandboxError where it has
        ended."""
        cell = Cell.__new__(Cell)
        with translating():
            cell._begin(self._native.open(), False, None)
        return cell

    def run(self, args: Args, **keywords: Any) -> CompletedProcess[Any]:
        """Runs a program in it, which ends with this process: the keywords are those of Cell.run."""
        result: CompletedProcess[Any] = self.cell().run(args, **keywords)
        return result

    def info(self) -> dict[str, Any]:
        """How it stands and what it uses: the object that ``sandcell inspect`` prints."""
        with translating():
            told: list[dict[str, Any]] = json.loads(self._native.info())
        return told[0]

    def stop(self, grace: Duration | None = None) -> None:
        """SIGTERM for the main program, and the end of everything after ``grace``; waits for that."""
        with translating():
            self._native.stop(None if grace is None else seconds("grace", grace))

    def kill(self) -> None:
        """Ends it now, with everything in it; waits for that."""
        with translating():
            self._native.kill()

    def send_signal(self, signal: int) -> None:
        """A signal for the main program."""
        with translating():
            self._native.send_signal(signal)

    def pause(self) -> None:
        """Stops everything in it until `resume`. Raises UnsupportedError without a cgroup."""
        with translating():
            self._native.pause()

    def resume(self) -> None:
        """Lets everything in it go on."""
        with translating():
            self._native.resume()

    def wait(self, timeout: Duration | None = None) -> CompletedProcess[None]:
        """Waits for its end: what came of the main program, or of a cell without one. Raises TimeoutExpired."""
        with translating():
            limit = None if timeout is None else seconds("timeout", timeout)
            told = self._native.wait(limit)
        if told is None:
            raise TimeoutExpired(self.name, limit or 0)
        result: CompletedProcess[None] = completed(self.info()["program"], None, None, told)
        return result

    def remove(self) -> None:
        """Removes what it has left when it ended. Raises SetupError where it lives."""
        with translating():
            self._native.remove()

    def logs(self, *, follow: bool = False, tail: int | None = None, offset: int | None = None) -> Iterator[LogLine]:
        """The lines of its log: the last ``tail``, or those from ``offset`` on; with ``follow`` as they come, until the
        cell ends."""
        with translating():
            reader = self._native.log()
            if tail is not None:
                reader.tail(tail)
            if offset is not None:
                reader.seek(offset)
            while True:
                while (line := reader.next_line()) is not None:
                    yield LogLine(*line)
                if not follow or not reader.wait():
                    return

    def attach(self, *, takeover: bool = False) -> Attached:
        """The main program's standard input, which `keep_stdin` has kept. Raises SandboxError where somebody else has
        it, unless ``takeover``."""
        with translating():
            return Attached(self._native.attach(takeover))


def started(sandbox: _native.Sandbox, name: str, args: list[str], settings: dict[str, Any]) -> _native.NamedCell:
    try:
        return _native.detach(sandbox, name, args, settings)
    except _native.NativeError as error:
        raise translated(error, settings["cwd"]) from None


def find(name: str) -> NamedCell:
    with translating():
        return NamedCell(_native.find_cell(name))


def cells() -> list[NamedCell]:
    """All named cells of the calling user: those that live, and those that have ended and were not removed."""
    return [NamedCell(native) for native in _native.named_cells()]
