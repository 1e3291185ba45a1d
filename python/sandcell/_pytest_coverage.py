"""Coverage of tests that run in copies of this process: coverage.py's data files are the first process's alone, so
what a copy has measured travels with its reports, as plain numbers, and is added by coverage.py's interface.

Whoever has coverage.py load what another process wrote runs that process's SQL."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from ._pytest_frames import Refused, fields, items, text, whole

#: Numbers and files in one piece, numbers of one test, and the highest line.
PIECE = 50_000
FILES = 1000
MOST = 400_000
LINE = 10_000_000
_PATH = 4096


def current() -> Any:
    """The running coverage.Coverage, if there is one."""
    module = sys.modules.get("coverage")
    return module.Coverage.current() if module else None


# In the process of the tests.


class Recorder:
    """Takes the place of coverage.py's CoverageData in its collector: no file, no database, no lock."""

    def __init__(self, running: Any) -> None:
        self.running = running
        self.collector = running._collector
        self.collector.covdata = self
        self.set_context(getattr(self.collector, "static_context", None))
        self._measured: dict[str, dict[str, set[Any]]] = {}
        self._tracers: dict[str, str] = {}
        # What the first process has measured is its own to tell. The sets stay: frames that are on the stack add to them.
        for lines in list(self.collector.data.values()):
            lines.clear()

    def set_context(self, context: str | None) -> None:
        self._context = context or ""

    def _add(self, measured: dict[str, Iterable[Any]]) -> None:
        files = self._measured.setdefault(self._context, {})
        for file, lines in measured.items():
            files.setdefault(file, set()).update(lines)

    add_lines = add_arcs = _add

    def add_file_tracers(self, tracers: dict[str, str]) -> None:
        self._tracers.update(tracers)

    def touch_files(self, *_: Any) -> None:
        pass

    touch_file = touch_files

    def take(self, last: bool) -> Iterator[list[list[Any]]]:
        """What has been measured since the last time, in pieces of a few files: context, file, its plugin, numbers.
        `last`: and stops."""
        if last:
            self.running.stop()
        self.collector.flush_data()
        measured, self._measured = self._measured, {}
        piece: list[list[Any]] = []
        size = 0
        for context, files in measured.items():
            for file, lines in files.items():
                numbers = [n for pair in lines for n in pair] if self.collector.branch else list(lines)
                for at in range(0, len(numbers), PIECE):
                    part = numbers[at : at + PIECE]
                    if piece and (size + len(part) > PIECE or len(piece) == FILES):
                        yield piece
                        piece, size = [], 0
                    piece.append([context, file, self._tracers.get(file, ""), part])
                    size += len(part)
        if piece:
            yield piece


# In pytest's process.


class Merger:
    """Lays what the copies have measured beside the data files of this process, to be combined with them as those of
    subprocesses are."""

    def __init__(self) -> None:
        self._data: Any = None
        self._lines: dict[str, int] = {}

    def checked(self, piece: Any, budget: int) -> tuple[list[list[Any]], int]:
        """A piece of a test's data, and how many numbers the test may have after it."""
        running = current()
        made = []
        for entry in items(piece, FILES):
            if len(items(entry, 4)) != 4:
                raise Refused("no file with its lines")
            context, file, plugin, numbers = text(entry[0], 10_000), text(entry[1], _PATH), text(entry[2], 200), entry[3]
            if [context, file] != entry[:2]:
                raise Refused("a name with control characters")
            budget -= len(items(numbers, PIECE))
            if budget < 0:
                raise Refused(f"more than {MOST} numbers of coverage")
            numbers = [whole(n, -LINE, LINE) for n in numbers]
            if running and (count := self._line_count(running, file)):
                made.append([context, file, plugin, _plausible(numbers, count, running._collector.branch)])
        return made, budget

    def _line_count(self, running: Any, file: str) -> int:
        """At least as many as the file has lines; none for files that this process would not measure."""
        if file not in self._lines:
            if len(self._lines) > 100_000:
                raise Refused("too many files")
            self._lines[file] = _size(file) + 1 if _is_measured(running, file) else 0
        return self._lines[file]

    def add(self, pieces: list[list[Any]]) -> None:
        """Of one test, all checked."""
        running = current()
        if running is None or not pieces:
            return
        module = sys.modules["coverage"]
        if self._data is None:
            self._data = module.CoverageData(basename=running.config.data_file, suffix=f"sandcell.{os.getpid()}")
            # It may have measured nothing itself, which is nothing to be warned of then.
            running._warn_no_data = False
        arcs = running._collector.branch
        together: dict[str, dict[str, set[Any]]] = {}
        plugins = {}
        for context, file, plugin, numbers in pieces:
            pairs = zip(numbers[::2], numbers[1::2]) if arcs else numbers
            together.setdefault(context, {}).setdefault(file, set()).update(pairs)
            if plugin in _plugins(running):
                plugins[file] = plugin
        try:
            for context, files in together.items():
                self._data.set_context(context)
                (self._data.add_arcs if arcs else self._data.add_lines)(files)
            self._data.add_file_tracers(plugins)
        except module.CoverageException as error:
            raise Refused(f"coverage: {error}") from None

    def close(self) -> None:
        if self._data is not None:
            self._data.write()
            self._data.close()
            self._data = None


def _plausible(numbers: list[int], count: int, arcs: bool) -> list[int]:
    """Without lines that the file cannot have: what is stored grows with the highest."""
    if not arcs:
        return [n for n in numbers if 0 <= n <= count]
    # Into and out of a piece of code an arc has the negative number of its first line.
    pairs = zip(numbers[::2], numbers[1::2])
    return [n for pair in pairs if -count <= min(pair) and max(pair) <= count for n in pair]


def _size(file: str) -> int:
    """Of a regular file, which a program may have put there: it is not opened."""
    try:
        found = os.lstat(file)
    except (OSError, ValueError):
        return -1
    return min(found.st_size, 10_000_000) if stat.S_ISREG(found.st_mode) else -1


def _plugins(running: Any) -> set[str]:
    return {plugin._coverage_plugin_name for plugin in getattr(running._plugins, "file_tracers", ())}


def _is_measured(running: Any, file: str) -> bool:
    """Whether coverage.py would measure the file in this process, by whichever name it can be imported."""
    if file != os.path.normpath(file) or not os.path.isabs(file):
        return False
    refuses: Callable[[str, Any], str | None] = running._inorout.check_include_omit_etc
    unmatched = running._inorout.source_pkgs_unmatched
    # A package that nobody imports is warned of; to ask must not change that.
    before = list(unmatched)
    try:
        return any(refuses(file, SimpleNamespace(f_globals={"__name__": name})) is None for name in _names(file))
    finally:
        unmatched[:] = before


def _names(file: str) -> Iterator[str]:
    for directory in sys.path:
        beneath = os.path.join(os.path.abspath(directory), "")
        if file.startswith(beneath):
            name = os.path.splitext(file[len(beneath) :])[0].replace(os.sep, ".")
            yield name.removesuffix(".__init__")
    yield os.path.splitext(os.path.basename(file))[0]
