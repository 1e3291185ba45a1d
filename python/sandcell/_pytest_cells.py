"""Tests in cells: which test runs in which process, what is done for it before, and what is reported of it after.

A test's process is a copy of pytest's own. What wider fixtures have set up (_pytest_wider) is in the copy; what the
test does to it is gone with it. The process itself is in _pytest_child, the policy of its cell in _pytest_policy."""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import pytest
from _pytest.faulthandler import get_timeout_config_value
from _pytest.reports import TestReport
from _pytest.skipping import evaluate_xfail_marks

from . import _pytest_coverage as coverage
from ._errors import PolicyError, SandboxError
from ._options import seconds
from ._pytest_child import Child, Heard
from ._pytest_frames import Refused
from ._pytest_inside import Inside, noting, noting_hooks, template
from ._pytest_policy import Descriptors, Policies, weaknesses
from ._pytest_watchdog import Watchdog
from ._pytest_wider import Wider, bound_captured, captured
from ._sandbox import Cell, Sandbox
from .pytest_plugin import WATCHDOG

_LEFT = "left alive in the sandbox"


class Cells:
    def __init__(self, config: pytest.Config, mode: str, require: bool, before: set[int]) -> None:
        self.config = config
        self.mode = mode
        self.require = require
        self.policies = Policies(config)
        self.wider = Wider(config, mode)
        self.descriptors = Descriptors(config, before)
        self.watchdog: Watchdog = config.stash.get(WATCHDOG, None) or Watchdog()
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
        #: Whether hooks note what becomes of each test, so that each has a copy of its own of what they know.
        self.stateful = False
        self.merger = coverage.Merger()
        #: That the session is to end, as the test that ran last has asked.
        self.exit: tuple[str, int | None] | None = None

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
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        # What conftest files and hooks have opened is kept for the tests; what the cell opens is not.
        self.descriptors.end()
        # Here, and not where it is printed: with -q, and in a worker, nothing is.
        try:
            self._enforced()
        except (SandboxError, PolicyError) as error:
            raise pytest.UsageError(f"--sandbox: {_with_hint(error)}") from None
        finally:
            self.descriptors.begin()
        # A test may look at it.
        self.stateful = any(noting(hook) for hook in noting_hooks(session.config))
        bound_captured(session.config)

    def pytest_unconfigure(self) -> None:
        self.watchdog.restore()

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
        if self.exit:
            reason, status = self.exit
            pytest.exit(reason, status)
        if self.stateful:
            # What the hooks have noted of this test is for the next one to see.
            self.template_serves = None
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
        if get_timeout_config_value(self.config) > 0:
            # The test's own process has this watchdog, too, and can tell more.
            self.watchdog.cancel_dump_traceback_later()
        try:
            reports = self._run(item, nextitem)
        except (OSError, PolicyError, TypeError) as error:
            self._end_child()
            text = f"the sandbox of this test cannot be made: {_with_hint(error)}"
            reports = [_report(item, "setup", "failed", text, start), _report(item, "teardown", "passed")]
        if spent > 0.001 and reports and reports[0].when == "setup":
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
        next_place = None if nextitem is None else self._place(nextitem)
        child.ask(item, self._place(item), next_place, last, item.session.testsfailed)
        # While the test runs: the beginning of the next, the end of the one before, and a cell for the one after the next.
        ahead = following if self.mode == "test" else None
        if nextitem is not None:
            stays = self.wider.stays(item, nextitem) and not self.stateful
            self.template_serves = nextitem if stays else None
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
        self.exit = heard.exit
        if last or heard.crash or heard.exit:
            self._end_child()
        return reports

    def _told(self, item: pytest.Item, heard: Heard) -> list[TestReport]:
        """What is to be reported of what was heard of a test."""
        for text, category, file, line, source in heard.warnings:
            # As pytest's own recording does it: what is filtered out has been filtered there. With its line of source, even
            # an empty one: nobody looks for that in a file that the test has named.
            message = warnings.WarningMessage(UserWarning(text), _warning_class(category), file, line, line=source)
            item.ihook.pytest_warning_recorded.call_historic(
                kwargs={"warning_message": message, "nodeid": item.nodeid, "when": "runtest", "location": None}
            )
        try:
            # Of a process that has sent something else, too, nothing is believed.
            self.merger.add([] if heard.crash else heard.coverage)
        except Refused as error:
            heard.crash = f"what the test's process measured cannot be believed: {error}"
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
            self.spare = self.spare or Child(self._start(options), _key(options), self.merger)
        except (OSError, PolicyError, TypeError):
            # As above.
            pass

    def _cell(self, options: dict[str, Any]) -> Child:
        spare, self.spare = self.spare, None
        if spare and spare.key == _key(options):
            return spare
        if spare:
            self.behind.append(spare)
        return Child(self._start(options), _key(options), self.merger)

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
            self.merger.close()


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
    expected = _expected_to_fail(item)
    if expected is not None:
        failed.outcome, failed.wasxfail = "skipped", expected
    failed.sections += written
    if when == "teardown":
        return [*(report for report in reports if report.when != "teardown"), failed]
    return [*reports, failed, _report(item, "teardown", "passed")]


def _expected_to_fail(item: pytest.Item) -> str | None:
    """The reason, where a mark xfail has one. Of a process that has ended nobody knows whether it was by that exception."""
    if item.config.option.runxfail:
        return None
    try:
        mark = evaluate_xfail_marks(item)
    except BaseException:
        # A condition that cannot be evaluated is the error that setup reports.
        return None
    return mark.reason if mark and mark.raises is None else None


def _warning_class(name: str) -> type[Warning]:
    """By its name, where this process has it. Nothing of it is run, nor of its module."""
    module, _, name = name.rpartition(".")
    found = vars(sys.modules[module]).get(name) if type(sys.modules.get(module)) is type(sys) else None
    return found if isinstance(found, type) and issubclass(found, Warning) else UserWarning
