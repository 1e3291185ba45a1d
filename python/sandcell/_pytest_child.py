"""The process of one test, or of the tests of a file or worker, in a cell.

A copy of pytest, the template, does nothing but fork. Its forks fork once more: the second is inside the cell and runs
the tests that it is asked for; the first stays outside, tells how the second ended and what it left. Only the second
runs Python. Copies end with _exit: nothing of pytest's own runs twice. When pytest is gone, so is the only end of the
cell's control socket, and everything in the cell."""

from __future__ import annotations

import base64
import gc
import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from typing import Any

import pytest
from _pytest.runner import call_and_report, show_test_item

from . import _native
from . import _pytest_coverage as coverage
from ._sandbox import Cell

_LENGTH = 8


@dataclass
class Heard:
    """What came of one test."""

    reports: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[tuple[str, str, str, int]] = field(default_factory=list)
    #: Pid and command of each process that was alive when that of the test had ended.
    left: list[str] = field(default_factory=list)
    coverage: bytes = b""
    crash: str = ""


class Child:
    """Seen from pytest's process."""

    def __init__(self, cell: Cell, key: str) -> None:
        self.cell = cell
        self.key = key
        #: Which tests it runs; empty before it is started.
        self.group = ""
        self.template: Any = None
        self.buffer = bytearray()
        #: Whether it had come to its end and was the only process in the cell: nothing remains to be learnt.
        self.alone = False
        #: Whether nothing more can come by `answers`: always ready, it would keep the loop spinning.
        self.silent = False

    def start(self, template: Any, group: str) -> None:
        """Has the template fork."""
        self.answers, answer = os.pipe()
        self.last_words, last_word = os.pipe()
        question, self.questions = os.pipe()
        umask = os.umask(0)
        os.umask(umask)
        try:
            template.fork(self.cell._native, os.getcwd(), umask, [last_word, answer, question])
            self.group, self.template = group, template
        finally:
            for fd in (answer, last_word, question):
                os.close(fd)
            if not self.group:
                self._close()

    def is_forked(self) -> bool:
        """Whether there is such a process; the template may have been killed before it came to that."""
        if not self.template.forked():
            self._close()
            self.group = ""
        return bool(self.group)

    def _close(self) -> None:
        for fd in (self.answers, self.questions, self.last_words):
            os.close(fd)

    def ask(self, place: int, next_place: int | None, failed: int) -> None:
        """Has the test at this place of the session run; nothing as the next place: it is the last in this process.
        `failed`: how many tests have."""
        try:
            os.write(self.questions, json.dumps([place, next_place, failed]).encode() + b"\n")
        except BrokenPipeError:
            # It has ended: what it says last tells why.
            pass

    def hear(self, limit: float | None, last: bool) -> Heard:
        """Until the test is over; `last`: and its process, too. What the test has left alive may hold our pipe, so
        its end tells nothing: who watches the process says when it has ended."""
        heard = Heard()
        until = None if limit is None else time.monotonic() + limit
        done = ended = False
        while not ended and not (done and (self.alone or not last)):
            if done:
                # All is said: the process has nothing to do but end.
                until = time.monotonic() + 10.0
            wait = None if until is None else max(0.0, until - time.monotonic())
            ready = _ready([self.last_words] if self.silent else [self.answers, self.last_words], wait)
            ended = self.last_words in ready
            if not ready:
                self.cell.close()
                heard.crash = f"timed out after {limit or 10:g} s: everything in the sandbox was killed"
                ended = True
            try:
                done = self._read(heard, ended) or done
            except (ValueError, KeyError, TypeError):
                self.cell.close()
                heard.crash = "what the test's process reported cannot be read: it was killed"
                ended = True
        if ended:
            self._end(heard, done)
        return heard

    def _read(self, heard: Heard, all_of_it: bool) -> bool:
        """Whether the test is over."""
        done = False
        while _ready([self.answers], 0):
            piece = os.read(self.answers, 1 << 16)
            self.buffer += piece
            done = self._take_in(heard) or done
            self.silent = not piece
            if self.silent or not all_of_it:
                break
        return done

    def _take_in(self, heard: Heard) -> bool:
        done = False
        while len(self.buffer) >= _LENGTH:
            length = int(self.buffer[:_LENGTH], 16)
            if len(self.buffer) < _LENGTH + length:
                break
            kind, value = json.loads(self.buffer[_LENGTH : _LENGTH + length])
            del self.buffer[: _LENGTH + length]
            if kind == "report":
                heard.reports.append(_restored(value))
            elif kind == "warning":
                heard.warnings.append(tuple(value))
            elif kind == "coverage":
                heard.coverage = base64.b64decode(value)
            elif kind == "failed":
                heard.crash = value
            elif kind == "done":
                done, self.alone = True, value
        return done

    def _end(self, heard: Heard, done: bool) -> None:
        text = b""
        while piece := os.read(self.last_words, 1 << 16):
            text += piece
        first, *left = text.decode(errors="replace").splitlines() or [""]
        word, _, rest = first.partition(" ")
        heard.left = left
        if heard.crash or (done and first == "ended 0"):
            return
        heard.crash = rest if word == "failed" else self._how_it_ended(int(rest) if word == "ended" else None)

    def _how_it_ended(self, status: int | None) -> str:
        if getattr(self.cell.usage(), "oom_kills", None):
            return "out of memory: the test's process was killed at the memory limit of its sandbox"
        if status is None:
            return "the test's process was killed, and who watched it, too"
        if status < 0:
            return f"the test's process was ended by signal {-status} ({signal.Signals(-status).name})"
        return f"the test's process ended itself with status {status}"

    def end(self) -> None:
        # First: whoever still runs in there would keep the first copy waiting.
        self.cell.close()
        if self.group:
            # Whoever watched is gone when nobody can write to this any more.
            while _ready([self.last_words], None) and os.read(self.last_words, 1 << 16):
                pass
            self._close()


def _ready(descriptors: list[int], wait: float | None) -> list[int]:
    """Not select(2), which knows no descriptors above 1023."""
    poll = select.poll()
    for fd in descriptors:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(None if wait is None else wait * 1000)]


def _restored(data: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples."""
    for key in ("sections", "user_properties"):
        data[key] = [tuple(pair) for pair in data.get(key) or ()]
    if data.get("location"):
        data["location"] = tuple(data["location"])
    if isinstance(data.get("longrepr"), list):
        data["longrepr"] = tuple(data["longrepr"])
    return data


def _words(error: BaseException) -> str:
    # NativeError: kind, stage, errno, subject, message, hint.
    if len(error.args) == 6:
        _, stage, number, subject, message, hint = error.args
        return f"{subject}: {message}: {os.strerror(number) if number else ''} [{stage}] {hint}"
    return repr(error)


def template(plugin: Any, session: Any, kept: list[int], running: Any) -> Any:
    """Forks the template. `kept`: the descriptors that tests have besides their pipes; `running`: the coverage that is
    measured."""
    sys.stdout.flush()
    sys.stderr.flush()
    made = _native.fork_template()
    if isinstance(made, _native.Template):
        return made
    try:
        _serve(made, plugin, session, kept, running)
    finally:
        os._exit(125)


def _serve(server: Any, plugin: Any, session: Any, kept: list[int], running: Any) -> None:
    """In the template: what all tests have in common, and then a test. Never returns."""
    plugin.inside = inside = Inside(session)
    # What is logged here, by subtests, and warned of is for the first process to tell.
    for logged in (session.config.hook.pytest_runtest_logreport, session.config.hook.pytest_warning_recorded):
        for other in [found.plugin for found in logged.get_hookimpls() if found.plugin is not plugin]:
            logged._remove_plugin(other)
    if "TMPDIR" in os.environ:
        os.environ["TMPDIR"] = "/tmp"
        tempfile.tempdir = None
    # What the copies never change is not looked at either: each page looked at would have to be copied.
    gc.freeze()
    _inside(server.serve(kept), inside, session, running)


def _inside(entered: Any, inside: Inside, session: Any, running: Any) -> None:
    """In the cell: runs tests. Never returns."""
    inside.answer = entered.answer
    inside.pid = os.getpid()
    try:
        entered.confine()
        os.environ["HOME"] = os.fspath(entered.home)
        coverage.begin(running)
        with open(entered.question, "rb", buffering=0) as questions:
            for line in iter(questions.readline, b""):
                place, next_place, session.testsfailed = json.loads(line)
                inside.nextitem = _End(inside.base) if next_place is None else session.items[next_place]
                session.config.hook.pytest_runtest_protocol(item=session.items[place], nextitem=inside.nextitem)
                last = next_place is None
                if last:
                    measured = coverage.finish(running)
                    if measured:
                        inside.say("coverage", base64.b64encode(measured).decode())
                sys.stdout.flush()
                sys.stderr.flush()
                inside.say("done", last and _is_alone())
                if last:
                    break
        os._exit(0)
    except BaseException as error:
        if getattr(error, "args", None) and len(error.args) == 6:
            inside.say("failed", f"the sandbox could not be entered: {_words(error)}")
        else:
            inside.say("failed", "".join(traceback.format_exception(error)))
        os._exit(125)


def _is_alone() -> bool:
    """Whether there is no other process in the cell than its init. If not, who watches waits for them for a moment."""
    try:
        return {name for name in os.listdir("/proc") if name.isdigit()} == {"1", str(os.getpid())}
    except OSError:
        return False


class _End:
    """Stands for a next test that needs what the copy began with: so that the rest is torn down."""

    def __init__(self, base: list[Any]) -> None:
        self.base = base

    def listchain(self) -> list[Any]:
        return self.base


class Inside:
    """In the process of the tests."""

    def __init__(self, session: Any) -> None:
        #: Where it reports to, and who it is: known when it is forked.
        self.answer = self.pid = -1
        self.nextitem: Any = None
        state = session._setupstate
        #: What was set up before the fork is torn down where it was set up: not here.
        self.base = list(state.stack)
        self.finalizers = {node: len(entry[0]) for node, entry in state.stack.items()}
        self.state = state

    def say(self, kind: str, value: Any) -> None:
        text = json.dumps([kind, value], default=str).encode()
        rest = memoryview(b"%08x" % len(text) + text)
        while rest:
            rest = rest[os.write(self.answer, rest) :]

    def run(self, item: pytest.Item) -> None:
        # As runtestprotocol, but that each report goes out at once: of a test that dies it is known how far it came.
        if hasattr(item, "_request") and not item._request:
            item._initrequest()  # type: ignore[attr-defined]
        option = item.config.getoption
        report = call_and_report(item, "setup", log=False)
        self.report(item.config, report)
        if report.passed:
            if option("setupshow", False):
                show_test_item(item)
            if not option("setuponly", False):
                self.report(item.config, call_and_report(item, "call", log=False))
        self.report(item.config, call_and_report(item, "teardown", log=False, nextitem=self.nextitem))
        if hasattr(item, "_request"):
            item._request = False
            item.funcargs = None
        if os.getpid() != self.pid:
            # A test that forked and came back: its copy has nothing to say.
            os._exit(0)
        if isinstance(self.nextitem, _End):
            self._finish_wider()

    def report(self, config: pytest.Config, report: Any) -> None:
        self.say("report", config.hook.pytest_report_to_serializable(config=config, report=report))

    def _finish_wider(self) -> None:
        """Wider fixtures that the test itself has asked for, at run time, end with it."""
        for node, count in self.finalizers.items():
            finalizers = self.state.stack[node][0] if node in self.state.stack else []
            while len(finalizers) > count:
                finalizers.pop()()

    def warned(self, message: warnings.WarningMessage) -> None:
        category = f"{message.category.__module__}.{message.category.__qualname__}"
        self.say("warning", (str(message.message), category, message.filename, message.lineno))
