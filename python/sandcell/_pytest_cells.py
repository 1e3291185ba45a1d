"""Tests in cells: which test runs in which process, what is done for it before, and what is reported of it after.

A test's process is a copy of pytest's own. What wider fixtures have set up (_pytest_wider) is in the copy; what the
test does to it is gone with it. The process itself is in _pytest_child, the policy of its cell in _pytest_policy."""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import pytest
from _pytest.reports import TestReport

from . import _pytest_coverage as coverage
from ._errors import PolicyError, SandboxError
from ._options import seconds
from ._pytest_child import Child, Heard, Inside, template
from ._pytest_policy import Descriptors, Policies, weaknesses
from ._pytest_wider import Wider, captured
from ._sandbox import Cell, Sandbox

_LEFT = "left alive in the sandbox"


class Cells:
    def __init__(self, config: pytest.Config, mode: str, require: bool) -> None:
        self.config = config
        self.mode = mode
        self.require = require
        self.policies = Policies(config)
        self.wider = Wider(config, mode)
        self.descriptors = Descriptors(config)
        #: In the process of a test: what it reports with.
        self.inside: Inside | None = None
        #: Of the test that runs, of the one after it, a cell for the one after that, and those of the tests before.
        self.child: Child | None = None
        self.ahead: Child | None = None
        self.spare: Child | None = None
        self.behind: list[Child] = []
        #: What their processes are forked by, and the test up to which nothing has been set up or torn down since.
        self.template: Any = None
        self.template_serves: pytest.Item | None = None
        self.sandboxes: dict[str, Sandbox] = {}
        self.places: dict[pytest.Item, int] = {}
        self.left: list[str] = []
        self.said = ""
        self.coverage: list[bytes] = []

    # What is said at the beginning and the end.

    def pytest_report_header(self) -> str:
        return f"sandbox: a cell for each {self.mode}; {self._enforced()}"

    def _enforced(self) -> str:
        if not self.said:
            cell = self._start(self.policies.over_settings({}))
            lines = cell.enforced
            cell.close()
            weak = weaknesses(lines)
            items = {name.partition(" ")[0] for name in weak}
            weak += ["network=host"] if any(line.requested == "host" for line in lines if line.item == "network") else []
            words = [f"{line.item}={line.requested} by {line.by}" for line in lines if line.item not in items]
            words = [word for word in words if not word.endswith(" by nothing")]
            self.said = ", ".join(words) + (f"; NOT enforced: {', '.join(weak)}" if weak else "")
        return self.said

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        # Here, and not where it is printed: with -q, and in a worker, nothing is.
        try:
            self._enforced()
        except (SandboxError, PolicyError) as error:
            raise pytest.UsageError(f"--sandbox: {_with_hint(error)}") from None

    def pytest_runtest_logreport(self, report: TestReport) -> None:
        if self.inside:
            self.inside.report(self.config, report)
            return
        for name, content in report.sections:
            if name == _LEFT:
                self.left.append(f"{report.nodeid}: {content}")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.left:
            terminalreporter.section("still alive when the test ended, and killed")
            for line in self.left:
                terminalreporter.line(line)

    # What modules open is kept for the tests.

    def pytest_collection(self) -> None:
        self.descriptors.begin()

    def pytest_collection_finish(self) -> None:
        self.descriptors.end()

    # One test.

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        if self.inside:
            self.inside.run(item)
            return True
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports(item, nextitem):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _reports(self, item: pytest.Item, nextitem: pytest.Item | None) -> list[TestReport]:
        began = time.perf_counter()
        start = time.time()
        in_process = self.child is not None and self.mode != "test"
        if not in_process and not (self.ahead and self.ahead.group == item.nodeid):
            self.descriptors.begin()
            self.wider.set_up(item)
            self.descriptors.end()
        spent = time.perf_counter() - began
        try:
            reports = self._run(item, nextitem)
        except (OSError, PolicyError, TypeError) as error:
            self._end_child()
            text = f"the sandbox of this test cannot be made: {_with_hint(error)}"
            reports = [_report(item, "setup", "failed", text, start), _report(item, "teardown", "passed")]
        if spent > 0.001 and reports[0].when == "setup":
            reports[0].duration += spent
        broken = self.wider.tear_down(item, nextitem)
        if broken:
            reports = [old for old in reports if old.when != "teardown" or old.failed] + [broken]
        if hasattr(item, "_request"):
            item._request = False
            item.funcargs = None
        return reports

    def _run(self, item: pytest.Item, nextitem: pytest.Item | None) -> list[TestReport]:
        options = self.policies.of(item)
        limit = options.get("timeout")
        limit = seconds("timeout", limit) if limit is not None else None
        following = self.policies.of_next(item, nextitem, options) if nextitem else None
        group = self._group(item, options)
        if self.child is None or self.child.group != group:
            self._end_child()
            self.child = self._take_ahead(item, group, options)
        child = self.child
        last = nextitem is None or following is None or self._group(nextitem, following) != group
        child.ask(self._place(item), None if last else self._place(nextitem), item.session.testsfailed)
        # While the test runs: the beginning of the next, the end of the one before, and a cell for the one after the next.
        ahead = following if self.mode == "test" else None
        if nextitem is not None:
            self.template_serves = nextitem if self.wider.stays(item, nextitem) else None
            if ahead is not None:
                self._begin_ahead(nextitem, ahead)
        self._close_behind()
        if ahead is not None and nextitem is not item.session.items[-1]:
            self._prepare_spare(ahead)
        try:
            heard = child.hear(limit, last)
        except BaseException:
            self._end_child()
            raise
        reports = self._told(item, heard)
        if last or heard.crash:
            self._end_child()
        return reports

    def _told(self, item: pytest.Item, heard: Heard) -> list[TestReport]:
        """What is to be reported of what was heard of a test."""
        if heard.coverage:
            self.coverage.append(heard.coverage)
        for text, category, file, line in heard.warnings:
            # As pytest's own recording does it: what is filtered out has been filtered there.
            warned = _warning(category, text)
            message = warnings.WarningMessage(warned, type(warned), file, line)
            item.ihook.pytest_warning_recorded.call_historic(
                kwargs={"warning_message": message, "nodeid": item.nodeid, "when": "runtest", "location": None}
            )
        hook = self.config.hook
        reports = [hook.pytest_report_from_serializable(config=self.config, data=data) for data in heard.reports]
        # Of a test that came to its end the reports have it.
        written = captured(self.config) if heard.crash or heard.left else []
        if heard.crash:
            reports = _crashed(item, reports, heard.crash, written)
        if heard.left and reports:
            reports[-1].sections.append((_LEFT, ", ".join(f"pid {process}" for process in heard.left)))
        return reports

    # pytest-timeout: its timer belongs into the process of the test.

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_timeout_set_timer(self) -> bool | None:
        return None if self.inside else True

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_timeout_cancel_timer(self) -> bool | None:
        return None if self.inside else True

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        if self.inside:
            self.inside.warned(warning_message)

    # Cells and processes.

    def _place(self, item: pytest.Item) -> int:
        """Which test of the session it is; the copies count in the same way."""
        if item not in self.places:
            self.places = {other: place for place, other in enumerate(item.session.items)}
        return self.places[item]

    def _group(self, item: pytest.Item, options: dict[str, Any]) -> str:
        """Which tests share a process."""
        if self.mode == "test":
            return item.nodeid
        return f"{item.nodeid.split('::')[0] if self.mode == 'file' else ''}\0{_key(options)}"

    def _start(self, options: dict[str, Any]) -> Cell:
        key = _key(options)
        if key not in self.sandboxes:
            self.sandboxes[key] = Sandbox(**{name: value for name, value in options.items() if name != "timeout"})
        cell = self.sandboxes[key].start()
        weak = weaknesses(cell.enforced) if self.require else []
        if weak:
            cell.close()
            raise PolicyError("--sandbox-require", f"not enforced here: {', '.join(weak)}", "")
        return cell

    def _take_ahead(self, item: pytest.Item, group: str, options: dict[str, Any]) -> Child:
        child, self.ahead = self.ahead, None
        if child and child.group and not child.is_forked():
            self._end_template()
        if child and (child.key != _key(options) or child.group not in ("", group)):
            self.behind.append(child)
            child = None
        child = child or self._cell(options)
        if child.group:
            return child
        self._fork(child, item, group)
        if not child.is_forked():
            self._end_template()
            raise OSError("the process that the processes of tests are forked by was killed")
        return child

    def _begin_ahead(self, nextitem: pytest.Item, options: dict[str, Any]) -> None:
        """The next test's cell, and its process where that has nothing to wait for."""
        try:
            self.ahead = self.ahead or self._cell(options)
            if self.template_serves is nextitem and not self.ahead.group:
                self._fork(self.ahead, nextitem, self._group(nextitem, options))
        except (OSError, PolicyError, TypeError):
            # It is tried once more, and told, where that test runs.
            pass

    def _prepare_spare(self, options: dict[str, Any]) -> None:
        try:
            self.spare = self.spare or Child(self._start(options), _key(options))
        except (OSError, PolicyError, TypeError):
            # As above.
            pass

    def _cell(self, options: dict[str, Any]) -> Child:
        spare, self.spare = self.spare, None
        if spare and spare.key == _key(options):
            return spare
        if spare:
            self.behind.append(spare)
        return Child(self._start(options), _key(options))

    def _fork(self, child: Child, item: pytest.Item, group: str) -> None:
        if self.template_serves is not item:
            self._end_template()
        if self.template is None:
            self.template = template(self, item.session, self.descriptors.kept(), coverage.current())
            self.template_serves = item
        try:
            child.start(self.template, group)
        except OSError:
            # Should it be gone: the next test gets another.
            self._end_template()
            raise

    def _end_template(self) -> None:
        if self.template:
            self.template.close()
            self.template = None

    def _end_child(self) -> None:
        if self.child:
            self.behind.append(self.child)
            self.child = None

    def _close_behind(self) -> None:
        while self.behind:
            self.behind.pop().end()

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self) -> Any:
        try:
            return (yield)
        finally:
            self._end_child()
            self.behind += [child for child in (self.ahead, self.spare) if child]
            self._close_behind()
            self._end_template()
            coverage.add(self.coverage)


def _key(options: dict[str, Any]) -> str:
    """What tells cells apart: the time is that of each test."""
    return repr(sorted((name, value) for name, value in options.items() if name != "timeout"))


def _with_hint(error: BaseException) -> str:
    hint = getattr(error, "hint", "")
    return f"{error}" + (f"\nhint: {hint}" if hint else "")


def _report(item: pytest.Item, when: Any, outcome: Any, text: str | None = None, start: float | None = None) -> TestReport:
    now = time.time()
    keywords = {str(key): 1 for key in item.keywords}
    begin = now if start is None else start
    return TestReport(item.nodeid, item.location, keywords, outcome, text, when, (), now - begin, begin, now)


def _crashed(
    item: pytest.Item, reports: list[TestReport], crash: str, written: list[tuple[str, str]]
) -> list[TestReport]:
    """The reports of a test whose process has ended amid it: the first one that is missing says so."""
    seen = {report.when for report in reports}
    when = next((w for w in ("setup", "call") if w not in seen), "teardown")
    failed = _report(item, when, "failed", crash)
    failed.sections += written
    if when == "teardown":
        return [*(report for report in reports if report.when != "teardown"), failed]
    return [*reports, failed, _report(item, "teardown", "passed")]


def _warning(category: str, text: str) -> Warning:
    module, _, name = category.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    try:
        if isinstance(found, type) and issubclass(found, Warning):
            return found(text)
    except Exception:
        pass
    return UserWarning(text)
