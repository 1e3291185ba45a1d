"""In the process of one test, or of the tests of a file or worker: what it does there, and how it tells of it."""

from __future__ import annotations

import gc
import importlib
import json
import linecache
import os
import stat
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import pytest
from _pytest.outcomes import Exit
from _pytest.runner import call_and_report, show_test_item

from . import _native
from ._pytest_coverage import MOST, Recorder
from ._pytest_frames import TOTAL, Refused, encode
from ._pytest_reports import EXPLANATION, cut, reduced, size

#: What reports may have of all that is sent of a test, beside warnings and coverage.
_REPORTS = TOTAL // 2
_WARNINGS = 5_000


def template(plugin: Any, session: Any, kept: list[int], running: Any) -> Any:
    """Forks the template. `kept`: the descriptors that tests have besides their pipes; `running`: the coverage that is
    measured."""
    sys.stdout.flush()
    sys.stderr.flush()
    plugin.watchdog.pause()
    made = _native.fork_template()
    if isinstance(made, _native.Template):
        plugin.watchdog.resume()
        return made
    try:
        _free_modules()
        _serve(made, plugin, session, kept, running)
    finally:
        os._exit(125)


def _free_modules() -> None:
    """A module that another thread was importing is locked and half made in the copy, where that thread is not: whoever
    imports it would wait for ever. It is imported anew."""
    machinery: Any = importlib.import_module("_frozen_importlib")
    for name in ("_module_locks", "_blocking_on"):
        getattr(machinery, name, {}).clear()
    for name, module in list(sys.modules.items()):
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            sys.modules.pop(name, None)


def _serve(server: Any, plugin: Any, session: Any, kept: list[int], running: Any) -> None:
    """In the template: what all tests have in common, and then a test. Never returns."""
    plugin.inside = inside = Inside(session, Noters(session.config, kept) if plugin.stateful else None)
    # What is logged here, by subtests, and warned of is for the first process to tell.
    for logged in (session.config.hook.pytest_runtest_logreport, session.config.hook.pytest_warning_recorded):
        for other in [found.plugin for found in logged.get_hookimpls() if found.plugin is not plugin]:
            logged._remove_plugin(other)
    if "TMPDIR" in os.environ:
        os.environ["TMPDIR"] = "/tmp"
        tempfile.tempdir = None
    # Into the oldest generation: what the copies never change is not looked at, each page of it would have to be copied. But
    # where a test collects all, what it has dropped is found, however old it is.
    gc.freeze()
    gc.unfreeze()
    _inside(server.serve(kept), inside, session, running)


def _inside(entered: Any, inside: Inside, session: Any, running: Any) -> None:
    """In the cell: runs tests. Never returns."""
    inside.answer, question_fd = entered.descriptors
    inside.pid = os.getpid()
    try:
        refused = None
        try:
            entered.confine()
        except Exception as error:
            # Told to whoever asks.
            refused = error
        with open(question_fd, "rb", buffering=0) as questions:
            question = inside.begin(questions.readline())
            if refused:
                raise refused
            os.environ["HOME"] = os.fspath(entered.home)
            recorder = Recorder(running) if running else None
            while question and not inside.run_asked(session, question, recorder):
                question = inside.begin(questions.readline())
        os._exit(0)
    except BaseException as error:
        if getattr(error, "args", None) and len(error.args) == 6:
            inside.say("failed", f"the sandbox could not be entered: {_words(error)}")
        else:
            inside.say("failed", "".join(traceback.format_exception(error))[-100_000:])
        os._exit(125)


def _words(error: BaseException) -> str:
    # NativeError: kind, stage, errno, subject, message, hint.
    _, stage, number, subject, message, hint = error.args
    return f"{subject}: {message}: {os.strerror(number) if number else ''} [{stage}] {hint}"


def _is_alone() -> bool:
    """Whether there is no other process in the cell than its init. If not, who watches waits for them for a moment."""
    try:
        return {name for name in os.listdir("/proc") if name.isdigit()} == {"1", str(os.getpid())}
    except OSError:
        return False


def _show(item: pytest.Item, add_space: bool) -> None:
    try:
        show_test_item(item, add_space=add_space)
    except TypeError:  # before pytest 9.2
        show_test_item(item)


class _Base:
    """Stands for a next test that needs what the copy began with: so that the rest is torn down, and no more."""

    def __init__(self, base: list[Any]) -> None:
        self.base = base

    def listchain(self) -> list[Any]:
        return self.base


class Noters:
    """Hooks of conftest files and of plugins that are not known that note what becomes of tests. They run in pytest's own
    process and here, since a test and its teardown may look at what they have noted of it. What they write counts there."""

    def __init__(self, config: pytest.Config, kept: list[int]) -> None:
        self.manager: Any = config.pluginmanager
        self.kept = kept
        self.hooks = {hook.name: (hook, noting(hook)) for hook in noting_hooks(config)}

    def tell(self, item: pytest.Item, name: str, **values: Any) -> None:
        hook, found = self.hooks[name]
        elsewhere = self.manager._conftest_plugins.difference(self.manager._getconftestmodules(item.path))
        found = [each for each in found if each.plugin not in elsewhere]
        if not found:
            return
        try:
            with silenced(self.kept):
                hook._hookexec(hook.name, found, values, False)
        except Exception:
            # It could not write where it may in pytest's process: there it is told.
            pass


def noting_hooks(config: pytest.Config) -> list[Any]:
    return [config.hook.pytest_runtest_logreport, config.hook.pytest_runtest_logstart, config.hook.pytest_runtest_logfinish]


def noting(hook: Any) -> list[Any]:
    """What implements it, but for pytest and the plugins that are known."""
    # xdist's part in a worker comes by execnet, which gives its module a name of its own.
    xdist = ("xdist", "__channelexec__")
    known = ("_pytest", "sandcell", *xdist, "pytest_cov", "pytest_timeout", "pytest_asyncio", "anyio", "_hypothesis_pytestplugin")
    return [each for each in hook.get_hookimpls() if (each.function.__module__ or "").partition(".")[0] not in known]


@contextmanager
def silenced(kept: list[int]) -> Iterator[None]:
    """Nothing is written to what was opened before the fork: files, pipes, sockets."""
    saved: dict[int, int] = {}
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        with open(os.devnull, "w") as out, redirect_stdout(out), redirect_stderr(out):
            for fd in kept:
                try:
                    kind = stat.S_IFMT(os.fstat(fd).st_mode)
                except OSError:
                    continue
                if kind in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR):
                    saved[fd] = os.dup(fd)
                    os.dup2(nowhere, fd, inheritable=os.get_inheritable(fd))
            yield
    finally:
        for fd, old in saved.items():
            os.dup2(old, fd, inheritable=os.get_inheritable(fd))
            os.close(old)
        os.close(nowhere)


class Inside:
    def __init__(self, session: Any, noters: Noters | None) -> None:
        self.noters = noters
        #: Whether it was forked for the test that is asked for: what is noted of its beginning is noted.
        self.first = True
        #: Where it reports to, and who it is: known when it is forked.
        self.answer = self.pid = -1
        self.number = ""
        self.sent = self.warned_of = 0
        self.last = False
        self.nextitem: Any = None
        state = session._setupstate
        #: What was set up before the fork is torn down where it was set up: not here.
        self.base = list(state.stack)
        self.finalizers = {node: len(entry[0]) for node, entry in state.stack.items()}
        self.state = state
        self.teardown_exact = state.teardown_exact
        # Only this asks for another next test: hooks are told which one it really is.
        state.teardown_exact = self._tear_down

    def _tear_down(self, nextitem: Any) -> None:
        self.teardown_exact(_Base(self.base) if self.last else nextitem)

    # What it is asked and tells.

    def begin(self, line: bytes) -> Any:
        """What is asked; nothing where nobody asks any more."""
        if not line:
            return None
        question = json.loads(line)
        self.number, self.last = question[0], question[3]
        self.sent = self.warned_of = 0
        return question

    def say(self, kind: str, value: Any) -> None:
        self._send(encode(self.number, kind, value))

    def _send(self, frame: bytes) -> None:
        if os.getpid() != self.pid:
            # A test that forked and came back: its copy has nothing to say.
            os._exit(0)
        self.sent += len(frame)
        rest = memoryview(frame)
        while rest:
            rest = rest[os.write(self.answer, rest) :]

    def report(self, config: pytest.Config, report: Any) -> None:
        data = cut(config.hook.pytest_report_to_serializable(config=config, report=report))
        try:
            if size(data.get("longrepr")) > EXPLANATION:
                raise Refused("")
            frame = encode(self.number, "report", data)
            if self.sent + len(frame) > _REPORTS:
                raise Refused("")
        except (Refused, RecursionError, ValueError):
            frame = encode(self.number, "report", reduced(report, data))
        self._send(frame)

    def warned(self, message: warnings.WarningMessage) -> None:
        self.warned_of += 1
        if self.warned_of > _WARNINGS or self.sent > _REPORTS:
            return
        category = f"{message.category.__module__}.{message.category.__qualname__}"
        # The line is read here: to read what a test names is nothing for pytest's own process.
        line = (message.line if message.line is not None else linecache.getline(message.filename, message.lineno)).strip()
        self.say("warning", [str(message.message)[:10_000], category, message.filename, message.lineno, line[:1000]])

    def _tell_coverage(self, recorder: Recorder) -> None:
        left = MOST
        for piece in recorder.take(self.last):
            left -= sum(len(numbers) for *_, numbers in piece)
            if left < 0:
                self.say("warning", [f"coverage of this test has more than {MOST} lines: the rest is left out", "builtins.UserWarning", "", 0, ""])
                return
            self.say("coverage", piece)

    # Tests.

    def run_asked(self, session: Any, question: Any, recorder: Recorder | None) -> bool:
        """Runs the test that is asked for. Whether it was the last one."""
        _, place, next_place, last, session.testsfailed = question
        self.nextitem = None if next_place is None else session.items[next_place]
        try:
            session.config.hook.pytest_runtest_protocol(item=session.items[place], nextitem=self.nextitem)
        except Exit as left:
            self.say("exit", [str(left.msg)[:10_000], left.returncode])
            os._exit(0)
        if recorder:
            self._tell_coverage(recorder)
        sys.stdout.flush()
        sys.stderr.flush()
        self.say("done", last and _is_alone())
        return bool(last)

    def run(self, item: pytest.Item) -> None:
        # As runtestprotocol, but that each report goes out at once: of a test that dies it is known how far it came.
        if hasattr(item, "_request") and not item._request:
            item._initrequest()  # type: ignore[attr-defined]
        option = item.config.getoption
        if not self.first:
            self._note(item, "pytest_runtest_logstart", nodeid=item.nodeid, location=item.location)
        self.first = False
        report = call_and_report(item, "setup", log=False)
        self._report_and_note(item, report)
        if report.passed:
            if option("setupshow", False):
                _show(item, not option("setuponly", False))
            if not option("setuponly", False):
                self._report_and_note(item, call_and_report(item, "call", log=False))
        self._report_and_note(item, call_and_report(item, "teardown", log=False, nextitem=self.nextitem))
        self._note(item, "pytest_runtest_logfinish", nodeid=item.nodeid, location=item.location)
        if hasattr(item, "_request"):
            item._request = False
            item.funcargs = None
        if self.last:
            self._finish_wider()

    def _report_and_note(self, item: pytest.Item, report: Any) -> None:
        self.report(item.config, report)
        self._note(item, "pytest_runtest_logreport", report=report)

    def _note(self, item: pytest.Item, name: str, **values: Any) -> None:
        if self.noters:
            self.noters.tell(item, name, **values)

    def _finish_wider(self) -> None:
        """Wider fixtures that the test itself has asked for, at run time, end with it."""
        for node, count in self.finalizers.items():
            finalizers = self.state.stack[node][0] if node in self.state.stack else []
            while len(finalizers) > count:
                finalizers.pop()()
