"""The process of one test, or of the tests of a file or worker, in a cell.

pytest forks; the copy joins the cell and forks again: the second copy is inside and runs tests, the first waits
outside of it, tells how the second ended and what it left. Copies end with _exit: nothing of pytest's own runs
twice."""

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

from . import _pytest_coverage as coverage
from ._sandbox import Cell

_LENGTH = 8


@dataclass
class Heard:
    """What came of one test."""

    reports: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[tuple[str, str, str, int]] = field(default_factory=list)
    left: list[tuple[int, str]] = field(default_factory=list)
    coverage: bytes = b""
    crash: str = ""


class Child:
    """Seen from pytest's process."""

    def __init__(self, cell: Cell, group: str, kept: list[int], running: Any) -> None:
        self.cell = cell
        self.group = group
        self.kept = kept
        self.running = running
        self.pid = 0
        self.ended = False
        self.buffer = bytearray()

    def start(self, plugin: Any, item: pytest.Item) -> None:
        self.answers, answer = os.pipe()
        self.last_words, last_word = os.pipe()
        question, self.questions = os.pipe()
        kept = [*self.kept, answer, question]
        home = os.fspath(self.cell._native.home())
        umask = os.umask(0)
        os.umask(umask)
        entry = self.cell._native.entry(os.getcwd(), umask, kept)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = _fork()
        if pid == 0:
            try:
                os.close(self.answers)
                os.close(self.questions)
                os.close(self.last_words)
                _outside(entry, answer, question, last_word, home, plugin, item.session, self.running)
            finally:
                os._exit(125)
        self.pid = pid
        for fd in (answer, last_word, question):
            os.close(fd)

    def ask(self, place: int, next_place: int | None) -> None:
        """Has the test at this place of the session run; nothing as the next place: it is the last in this process."""
        try:
            os.write(self.questions, json.dumps([place, next_place]).encode() + b"\n")
        except BrokenPipeError:
            # It has ended: what it says last tells why.
            pass

    def hear(self, limit: float | None, last: bool) -> Heard:
        """Until the test is over; `last`: and its process, too. What the test has left alive may hold our pipe, so
        its end tells nothing: who watches the process says when it has ended."""
        heard = Heard()
        until = None if limit is None else time.monotonic() + limit
        done = ended = False
        while not ended and (last or not done):
            if done:
                # All is said: the process has nothing to do but end.
                until = time.monotonic() + 10.0
            wait = None if until is None else max(0.0, until - time.monotonic())
            ready = select.select([self.answers, self.last_words], [], [], wait)[0]
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
        while select.select([self.answers], [], [], 0)[0]:
            piece = os.read(self.answers, 1 << 16)
            self.buffer += piece
            done = self._take_in(heard) or done
            if not piece or not all_of_it:
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
                done = True
        return done

    def _end(self, heard: Heard, done: bool) -> None:
        text = b""
        while piece := os.read(self.last_words, 1 << 16):
            text += piece
        words = json.loads(text) if text else {}
        self.ended = True
        heard.left = [tuple(process) for process in words.get("left", [])]
        if heard.crash or (done and words.get("status") == 0):
            return
        heard.crash = words.get("failed") or self._how_it_ended(words.get("status"))

    def _how_it_ended(self, status: int | None) -> str:
        if getattr(self.cell.usage(), "oom_kills", None):
            return "out of memory: the test's process was killed at the memory limit of its sandbox"
        if status is None:
            return "the test's process was killed, and who watched it, too"
        if status < 0:
            return f"the test's process was ended by signal {-status} ({signal.Signals(-status).name})"
        return f"the test's process ended itself with status {status}"

    def end(self) -> None:
        for fd in (self.answers, self.questions, self.last_words):
            os.close(fd)
        if self.pid:
            if not self.ended:
                # Whoever still runs in there would keep the watcher waiting.
                self.cell.close()
            os.waitpid(self.pid, 0)
            self.pid = 0


def _fork() -> int:
    with warnings.catch_warnings():
        # Workers of xdist have threads; none of them holds a lock that a test needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _restored(data: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples."""
    for key in ("sections", "user_properties"):
        data[key] = [tuple(pair) for pair in data.get(key) or ()]
    if data.get("location"):
        data["location"] = tuple(data["location"])
    if isinstance(data.get("longrepr"), list):
        data["longrepr"] = tuple(data["longrepr"])
    return data


def _outside(
    entry: Any, answer: int, question: int, last_word: int, home: str, plugin: Any, session: Any, running: Any
) -> None:
    """The first copy: in the cell's namespaces, but for that of processes. Never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What the copies never change is not looked at either: each page looked at would have to be copied.
    gc.freeze()
    try:
        entry.join()
        pid = _fork()
    except BaseException as error:
        os.write(last_word, json.dumps({"failed": f"the sandbox could not be entered: {_words(error)}"}).encode())
        os._exit(125)
    if pid == 0:
        os.close(last_word)
        try:
            _inside(entry, answer, question, home, plugin, session, running)
        finally:
            os._exit(125)
    os.close(answer)
    os.close(question)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(last_word, json.dumps({"status": status, "left": _left()}).encode())
    os._exit(0)


def _words(error: BaseException) -> str:
    # NativeError: kind, stage, errno, subject, message, hint.
    if len(error.args) == 6:
        _, stage, number, subject, message, hint = error.args
        return f"{subject}: {message}: {os.strerror(number) if number else ''} [{stage}] {hint}"
    return repr(error)


def _left() -> list[tuple[int, str]]:
    """The processes of the cell that are alive, after a moment for those that are on their way out."""
    left: list[tuple[int, str]] = []
    for wait in (0.0, 0.002, 0.01, 0.03, 0.05):
        time.sleep(wait) if wait else None
        left = [found for name in os.listdir("/proc") if name.isdigit() and name != "1" and (found := _process(name))]
        if not left:
            break
    return left


def _process(name: str) -> tuple[int, str] | None:
    try:
        with open(f"/proc/{name}/stat", "rb") as file:
            before, _, after = file.read().rpartition(b")")
        if after.split()[0] in (b"Z", b"X"):
            return None
        with open(f"/proc/{name}/cmdline", "rb") as file:
            line = file.read(300).rstrip(b"\0").replace(b"\0", b" ") or b"[" + before.partition(b"(")[2] + b"]"
    except OSError:
        return None
    return int(name), line.decode(errors="replace")


def _inside(entry: Any, answer: int, question: int, home: str, plugin: Any, session: Any, running: Any) -> None:
    """The second copy: runs tests. Never returns."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    inside = Inside(answer, session)
    try:
        entry.confine()
        os.environ["HOME"] = home
        if "TMPDIR" in os.environ:
            os.environ["TMPDIR"] = "/tmp"
            tempfile.tempdir = None
        plugin.inside = inside
        # What is logged here, by subtests, and warned of is for the first process to tell.
        for logged in (session.config.hook.pytest_runtest_logreport, session.config.hook.pytest_warning_recorded):
            for other in [found.plugin for found in logged.get_hookimpls() if found.plugin is not plugin]:
                logged._remove_plugin(other)
        coverage.begin(running)
        with open(question, "rb", buffering=0) as questions:
            for line in iter(questions.readline, b""):
                place, next_place = json.loads(line)
                inside.nextitem = _End(inside.base) if next_place is None else session.items[next_place]
                session.config.hook.pytest_runtest_protocol(item=session.items[place], nextitem=inside.nextitem)
                last = next_place is None
                if last:
                    measured = coverage.finish(running)
                    if measured:
                        inside.say("coverage", base64.b64encode(measured).decode())
                inside.say("done", None)
                if last:
                    break
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    except BaseException as error:
        if getattr(error, "args", None) and len(error.args) == 6:
            inside.say("failed", f"the sandbox could not be entered: {_words(error)}")
        else:
            inside.say("failed", "".join(traceback.format_exception(error)))
        os._exit(125)


class _End:
    """Stands for a next test that needs what the copy began with: so that the rest is torn down."""

    def __init__(self, base: list[Any]) -> None:
        self.base = base

    def listchain(self) -> list[Any]:
        return self.base


class Inside:
    """In the process of the tests."""

    def __init__(self, answer: int, session: Any) -> None:
        self.answer = answer
        self.pid = os.getpid()
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
