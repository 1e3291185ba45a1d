"""Tests in cells: which cell a test gets, what is done for it before, and what is reported of it after.

A test's process is a copy of pytest's own. What wider fixtures have set up is in the copy; what the test does to it
is gone with it. The process itself is in _pytest_child."""

from __future__ import annotations

import os
import site
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from _pytest.outcomes import Exit, Failed
from _pytest.reports import TestReport
from _pytest.skipping import evaluate_skip_marks

from . import _pytest_coverage as coverage
from ._errors import PolicyError, SandboxError
from ._options import seconds
from ._pytest_child import Child, Inside
from ._sandbox import Cell, Sandbox

_WIDER = {"test": ("session", "package", "module", "class"), "file": ("session", "package"), "worker": ()}
_SYSTEM = tuple(Path(p) for p in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt"))
_LEFT = "left alive in the sandbox"


class Cells:
    def __init__(self, config: pytest.Config, mode: str, require: bool) -> None:
        self.config = config
        self.mode = mode
        self.require = require
        #: In the process of a test: what it reports with.
        self.inside: Inside | None = None
        self.child: Child | None = None
        self.sandboxes: dict[str, Sandbox] = {}
        self.ahead: tuple[str, Cell] | None = None
        self.behind: list[Cell] = []
        self.left: list[str] = []
        self.places: dict[pytest.Item, int] = {}
        self.said = ""
        self.sources: list[Path] = []
        self.coverage: list[bytes] = []
        self.known = _open_descriptors()
        self.keep: set[int] = set()

    # What is said at the beginning and the end.

    def pytest_report_header(self) -> str:
        return f"sandbox: a cell for each {self.mode}; {self._enforced()}"

    def _enforced(self) -> str:
        if self.said:
            return self.said
        with Sandbox(**self._options({})).start() as cell:
            lines = cell.enforced
        wanted = [line for line in lines if (line.item, line.requested) != ("network", "host")]
        weak = [f"{line.item} ({line.why})" if line.why else line.item for line in wanted if line.by == "nothing"]
        if weak and self.require:
            raise pytest.UsageError(f"--sandbox-require: not enforced here: {', '.join(weak)}")
        words = [f"{line.item}={line.requested} by {line.by}" for line in lines if line.by != "nothing"]
        open_ = ["network=host"] if len(wanted) < len(lines) else []
        self.said = ", ".join(words) + (f"; NOT enforced: {', '.join(weak + open_)}" if weak + open_ else "")
        return self.said

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        # Here, and not where it is printed: with -q, and in a worker, nothing is.
        try:
            self._enforced()
        except (SandboxError, PolicyError) as error:
            hint = getattr(error, "hint", "")
            raise pytest.UsageError(f"--sandbox: {error}" + (f"\nhint: {hint}" if hint else "")) from None

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

    # Which descriptors tests may have: those that their modules and fixtures have opened.

    def pytest_collection(self) -> None:
        self.known = _open_descriptors()

    def pytest_collection_finish(self) -> None:
        self.keep |= _open_descriptors() - self.known

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
        self._set_up_wider(item)
        spent = time.perf_counter() - began
        try:
            options = self._options(self._asked(item))
            limit = options.get("timeout")
            limit = seconds("timeout", limit) if limit is not None else None
            reports = self._run(item, nextitem, options, limit)
        except (SandboxError, PolicyError, TypeError) as error:
            self._end_child()
            hint = getattr(error, "hint", "")
            text = f"the sandbox of this test cannot be made: {error}" + (f"\nhint: {hint}" if hint else "")
            reports = [self._report(item, "setup", "failed", text, start), self._report(item, "teardown", "passed")]
        if spent > 0.001 and reports[0].when == "setup":
            reports[0].duration += spent
        self._tear_down_wider(item, nextitem, reports)
        if hasattr(item, "_request"):
            item._request = False
            item.funcargs = None
        return reports

    def _run(
        self, item: pytest.Item, nextitem: pytest.Item | None, options: dict[str, Any], limit: float | None
    ) -> list[TestReport]:
        key = repr(sorted(options.items()))
        group = self._group(item, key)
        if self.child is None or self.child.group != group:
            self._end_child()
            self.child = Child(self._cell(key, options), group, self._kept(), coverage.current())
            self.child.start(self, item)
        child = self.child
        last = self.mode == "test" or nextitem is None or self._group(nextitem, self._key(nextitem, key)) != group
        child.ask(self._place(item), None if last or nextitem is None else self._place(nextitem))
        # While the test runs: the last cell's end, and the next one's beginning.
        self._close_behind()
        if self.mode == "test" and nextitem is not None and self.ahead is None:
            if self._same_policy(item, nextitem) and self._key(nextitem, key) == key:
                self.ahead = (key, self.sandboxes[key].start())
        try:
            heard = child.hear(limit, last)
        except Failed as failed:
            # pytest-timeout in this process: the test's own has had its chance.
            heard = child.hear(1.0, last)
            heard.crash = heard.crash or str(failed.msg)
        except BaseException:
            self._end_child()
            raise
        if heard.coverage:
            self.coverage.append(heard.coverage)
        for text, category, file, line in heard.warnings:
            # As pytest's own recording does it: what is filtered out has been filtered there.
            warned = _warning(category, text)
            item.ihook.pytest_warning_recorded.call_historic(
                kwargs={
                    "warning_message": warnings.WarningMessage(warned, type(warned), file, line),
                    "nodeid": item.nodeid,
                    "when": "runtest",
                    "location": None,
                }
            )
        hook = self.config.hook
        reports = [hook.pytest_report_from_serializable(config=self.config, data=data) for data in heard.reports]
        captured = self._captured()
        if heard.crash:
            reports += self._crashed(item, reports, heard.crash, captured)
        if heard.left and reports:
            reports[-1].sections.append((_LEFT, ", ".join(f"pid {pid} {command}" for pid, command in heard.left)))
        if last or heard.crash:
            self._end_child()
        return reports

    def _crashed(
        self, item: pytest.Item, reports: list[TestReport], crash: str, captured: list[tuple[str, str]]
    ) -> list[TestReport]:
        seen = {report.when for report in reports}
        when = next((w for w in ("setup", "call") if w not in seen), "teardown")
        if when == "teardown":
            reports[:] = [report for report in reports if report.when != "teardown"]
        failed = self._report(item, when, "failed", crash)
        failed.sections += captured
        return [failed] if when == "teardown" else [failed, self._report(item, "teardown", "passed")]

    def _report(
        self, item: pytest.Item, when: Any, outcome: Any, text: str | None = None, start: float | None = None
    ) -> TestReport:
        now = time.time()
        keywords = {str(key): 1 for key in item.keywords}
        begin = now if start is None else start
        return TestReport(item.nodeid, item.location, keywords, outcome, text, when, (), now - begin, begin, now)

    def _captured(self) -> list[tuple[str, str]]:
        """What the test, or its wider fixtures in this process, have written and no report has taken in."""
        capture = self.config.pluginmanager.getplugin("capturemanager")
        if capture is None or not capture.is_globally_capturing():
            return []
        out, err = capture.read_global_capture()
        named = (("Captured stdout", out), ("Captured stderr", err))
        return [(name, text) for name, text in named if text]

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

    # What wider fixtures set up is set up here, once, and copied.

    def _set_up_wider(self, item: pytest.Item) -> None:
        wider = _WIDER[self.mode]
        node = item.parent
        if self.mode == "file":
            file = item.getparent(pytest.File)
            node = file.parent if file else None
        if not wider or node is None or (self.child and self.mode != "test"):
            return
        before = _open_descriptors()
        state = item.session._setupstate
        capture = self.config.pluginmanager.getplugin("capturemanager")
        try:
            if evaluate_skip_marks(item):
                return
            # What is written now is read where the test's own setup ends.
            if capture:
                capture.resume_global_capture()
            state.setup(node)  # type: ignore[arg-type]
            info = getattr(item, "_fixtureinfo", None)
            request = getattr(item, "_request", None)
            with _being_set_up(item):
                for name in item.fixturenames if info and request else ():  # type: ignore[attr-defined]
                    definitions = info.name2fixturedefs.get(name)
                    if definitions and definitions[-1].scope in wider:
                        request.getfixturevalue(name)
        except (Exit, KeyboardInterrupt):
            raise
        except BaseException:
            # It is remembered, and raised once more where the test sets up: there it is reported.
            pass
        finally:
            if capture:
                capture.suspend_global_capture(in_=False)
        self.keep |= _open_descriptors() - before

    def _tear_down_wider(self, item: pytest.Item, nextitem: pytest.Item | None, reports: list[TestReport]) -> None:
        state = item.session._setupstate
        needed = nextitem.listchain() if nextitem else []
        stack = list(state.stack)
        if not stack or stack == needed[: len(stack)]:
            return
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
        written = self._captured()
        if call.excinfo is not None:
            for name, text in written:
                item.add_report_section("teardown", name.rpartition(" ")[2], text)
            report = item.ihook.pytest_runtest_makereport(item=item, call=call)
            reports[:] = [old for old in reports if old.when != "teardown" or old.failed] + [report]

    # Policies and cells.

    def _options(self, more: dict[str, Any]) -> dict[str, Any]:
        ini = self.config.getini
        options: dict[str, Any] = {}
        for name in ("memory", "pids", "disk", "network", "timeout"):
            value = ini(f"sandbox_{name}")
            if value:
                options[name] = int(value) if name == "pids" else value
        if self.config.getini("sandbox_best_effort"):
            options["best_effort"] = list(ini("sandbox_best_effort"))
        options.update(more)
        self.sources = self.sources or self._sources()
        ro = [*self.sources, *ini("sandbox_ro"), *more.get("ro", ())]
        rw = [*self._outputs(), *ini("sandbox_rw"), *more.get("rw", ())]
        return {"keep_caller": True, **options, "ro": [str(p) for p in ro], "rw": [str(p) for p in rw]}

    def _asked(self, item: pytest.Item) -> dict[str, Any]:
        asked: dict[str, Any] = {}
        definitions = item.session._fixturemanager.getfixturedefs("sandbox_policy", item)
        request = getattr(item, "_request", None)
        if definitions and len(definitions) > 1 and request:
            state = item.session._setupstate
            if item.session not in state.stack:
                state.setup(item.session)  # type: ignore[arg-type]
            with _being_set_up(item):
                asked.update(request.getfixturevalue("sandbox_policy"))
        for mark in reversed(list(item.iter_markers("sandbox"))):
            if mark.args:
                raise TypeError(f"the mark sandbox takes keywords, not {mark.args!r}")
            asked.update(mark.kwargs)
        return asked

    def _same_policy(self, item: pytest.Item, other: pytest.Item) -> bool:
        """Whether the next test can be known to have the same one without setting up its fixtures."""
        manager = item.session._fixturemanager
        mine, next_ = (manager.getfixturedefs("sandbox_policy", node) or () for node in (item, other))
        return len(mine) == len(next_) == 1

    def _key(self, item: pytest.Item, key: str) -> str:
        if any(True for _ in item.iter_markers("sandbox")):
            try:
                return repr(sorted(self._options(self._asked(item)).items()))
            except Exception:
                return ""
        return key

    def _place(self, item: pytest.Item) -> int:
        """Which test of the session it is; the copies count in the same way."""
        if item not in self.places:
            self.places = {other: place for place, other in enumerate(item.session.items)}
        return self.places[item]

    def _group(self, item: pytest.Item, key: str) -> str:
        if self.mode == "test":
            return item.nodeid
        return f"{item.nodeid.split('::')[0] if self.mode == 'file' else ''}\0{key}"

    def _cell(self, key: str, options: dict[str, Any]) -> Cell:
        ahead, self.ahead = self.ahead, None
        if ahead and ahead[0] == key:
            return ahead[1]
        if ahead:
            self.behind.append(ahead[1])
        if key not in self.sandboxes:
            self.sandboxes[key] = Sandbox(**{k: v for k, v in options.items() if k != "timeout"})
        return self.sandboxes[key].start()

    def _end_child(self) -> None:
        if self.child:
            self.child.end()
            self.behind.append(self.child.cell)
            self.child = None

    def _close_behind(self) -> None:
        while self.behind:
            self.behind.pop().close()

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self) -> Any:
        try:
            return (yield)
        finally:
            self._end_child()
            if self.ahead:
                self.behind.append(self.ahead[1])
            self._close_behind()
            coverage.add(self.coverage)

    def _sources(self) -> list[Path]:
        """What a Python program needs to see, and the tests; each directory once."""
        config = self.config
        home = Path.home()
        tops = [config.rootpath, config.invocation_params.dir, *(Path(arg.split("::")[0]) for arg in config.args)]
        python = [sys.prefix, sys.base_prefix, sys.exec_prefix, *site.getsitepackages(), *sys.path]
        python.append(os.path.dirname(os.path.realpath(sys.executable)))
        wanted = [path.absolute() for path in (*tops, *map(Path, python)) if path.exists()]
        chosen: list[Path] = []
        for path in sorted({Path(os.path.normpath(p)) for p in wanted}, key=lambda p: len(p.parts)):
            if any(path.is_relative_to(other) for other in (*chosen, *_SYSTEM)):
                continue
            if home.is_relative_to(path):
                raise PolicyError("rootdir", f"{path} would show the whole home", "start pytest in the project")
            chosen.append(path)
        return chosen

    def _outputs(self) -> list[Path]:
        factory = getattr(self.config, "_tmp_path_factory", None)
        outputs = [factory.getbasetemp()] if factory else []
        if "hypothesis" in sys.modules:
            from hypothesis.configuration import storage_directory

            examples = Path(os.path.abspath(str(storage_directory())))
            examples.mkdir(parents=True, exist_ok=True)
            outputs.append(examples)
        return outputs

    def _kept(self) -> list[int]:
        """The descriptors of a test's process besides those that it reports with."""
        kept = {0, 1, 2} | self.keep
        capture = self.config.pluginmanager.getplugin("capturemanager")
        streams = getattr(capture, "_global_capturing", None)
        for stream in (getattr(streams, name, None) for name in ("in_", "out", "err")):
            kept.add(getattr(stream, "targetfd_save", -1))
            kept.add(_number(getattr(stream, "tmpfile", None)))
        logging = self.config.pluginmanager.getplugin("logging-plugin")
        kept.add(_number(getattr(getattr(logging, "log_file_handler", None), "stream", None)))
        return sorted(fd for fd in kept if _keepable(fd))


@contextmanager
def _being_set_up(item: pytest.Item) -> Iterator[None]:
    """Only tests that are being set up, or are, may ask for fixtures."""
    stack = item.session._setupstate.stack
    stack[item] = ([], None)
    try:
        yield
    finally:
        stack.pop(item, None)


def _open_descriptors() -> set[int]:
    # But for the one that lists.
    return {fd for fd in map(int, os.listdir("/proc/self/fd")) if _is_open(fd)}


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
        return True
    except OSError:
        return False


def _number(file: Any) -> int:
    try:
        return file.fileno()
    except (AttributeError, OSError, ValueError):
        return -1


def _keepable(fd: int) -> bool:
    """Whether it is open, and no directory: one would lead out."""
    return _is_open(fd) and not os.path.isdir(fd)


def _warning(category: str, text: str) -> Warning:
    module, _, name = category.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    try:
        if isinstance(found, type) and issubclass(found, Warning):
            return found(text)
    except Exception:
        pass
    return UserWarning(text)
