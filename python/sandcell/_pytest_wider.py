"""Fixtures that are wider than a cell: set up and torn down in pytest's own process, once, and copied to the tests."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from _pytest.outcomes import Exit
from _pytest.reports import TestReport
from _pytest.skipping import evaluate_skip_marks

from ._pytest_frames import shown
from ._pytest_reports import cut

#: Characters that are read of what was captured at once.
CAPTURED = 8 << 20

_SCOPES = {"test": ("session", "package", "module", "class"), "file": ("session", "package"), "worker": ()}


class Wider:
    def __init__(self, config: pytest.Config, mode: str) -> None:
        self.config = config
        self.mode = mode
        self.scopes = _SCOPES[mode]

    def _node(self, item: pytest.Item) -> Any:
        """The innermost collector that is wider than the test's cell."""
        if self.mode == "test":
            return item.parent
        file = item.getparent(pytest.File) if self.mode == "file" else None
        return file.parent if file else None

    def set_up(self, item: pytest.Item) -> None:
        node = self._node(item)
        if node is None:
            return
        state = item.session._setupstate
        capture = self.config.pluginmanager.getplugin("capturemanager")
        try:
            if evaluate_skip_marks(item):
                return
            # What is written now is read where the test's own setup ends.
            if capture:
                capture.resume_global_capture()
            state.setup(node)
            request = getattr(item, "_request", None)
            with being_set_up(item):
                for name, _ in self._definitions(item) if request else ():
                    request.getfixturevalue(name)
        except (Exit, KeyboardInterrupt):
            raise
        except BaseException:
            # It is remembered, and raised once more where the test sets up: there it is reported.
            pass
        finally:
            if capture:
                capture.suspend_global_capture(in_=False)

    def _definitions(self, item: pytest.Item) -> Iterator[tuple[str, Any]]:
        """The fixtures that `set_up` sets up, in order."""
        info = getattr(item, "_fixtureinfo", None)
        for name in item.fixturenames if info else ():  # type: ignore[attr-defined]
            definitions = info.name2fixturedefs.get(name)
            if definitions and definitions[-1].scope in self.scopes:
                yield name, definitions[-1]

    def stays(self, item: pytest.Item, nextitem: pytest.Item) -> bool:
        """Whether nothing is torn down after this test and set up before the next."""
        stack = set(item.session._setupstate.stack)
        chain = set(nextitem.listchain())
        node = self._node(nextitem)
        if not stack <= chain or node is None or not set(node.listchain()) <= stack:
            return False
        parameters = [getattr(getattr(each, "callspec", None), "params", {}) for each in (item, nextitem)]
        return all(
            definition.cached_result is not None and not any(name in each for each in parameters)
            for name, definition in self._definitions(nextitem)
        )

    def tear_down(self, item: pytest.Item, nextitem: pytest.Item | None) -> TestReport | None:
        """What the next test does not need. A report if there was something."""
        state = item.session._setupstate
        needed = nextitem.listchain() if nextitem else []
        stack = list(state.stack)
        if not stack or stack == needed[: len(stack)]:
            return None
        capture = self.config.pluginmanager.getplugin("capturemanager")
        if capture:
            capture.resume_global_capture()
        try:
            call = pytest.CallInfo.from_call(
                lambda: state.teardown_exact(nextitem), "teardown", (Exit, KeyboardInterrupt)
            )
        finally:
            if capture:
                capture.suspend_global_capture(in_=False)
        written = captured(self.config)
        if call.excinfo is None:
            return None
        for name, text in written:
            item.add_report_section("teardown", name.rpartition(" ")[2], text)
        return item.ihook.pytest_runtest_makereport(item=item, call=call)


@contextmanager
def being_set_up(item: pytest.Item) -> Iterator[None]:
    """Only tests that are being set up, or are, may ask for fixtures."""
    stack = item.session._setupstate.stack
    stack[item] = ([], None)
    try:
        yield
    finally:
        stack.pop(item, None)


def bound_captured(config: pytest.Config) -> None:
    """Tests have the files that pytest captures in, and can make them of any size: this process reads only so much."""
    capture = config.pluginmanager.getplugin("capturemanager")
    streams = getattr(capture, "_global_capturing", None)
    for stream in (getattr(streams, name, None) for name in ("out", "err")):
        file = getattr(stream, "tmpfile", None)
        if isinstance(file, io.TextIOWrapper):
            file.read = functools.partial(type(file).read, file, CAPTURED)  # type: ignore[method-assign]


def captured(config: pytest.Config) -> list[tuple[str, str]]:
    """What a test, or its wider fixtures in this process, have written and no report has taken in."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is None or not capture.is_globally_capturing():
        return []
    out, err = capture.read_global_capture()
    named = (("Captured stdout", out), ("Captured stderr", err))
    return [(name, shown(text)) for name, text in cut({"sections": named})["sections"] if text]
