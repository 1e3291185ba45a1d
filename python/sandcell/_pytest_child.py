"""The process of one test, or of the tests of a file or worker, seen from pytest's process.

A copy of pytest, the template, does nothing but fork. Its forks fork once more: the second is inside the cell and runs
the tests that it is asked for (_pytest_inside); the first stays outside, tells how the second ended and what it left. Only
the second runs Python. Copies end with _exit: nothing of pytest's own runs twice. When pytest is gone, so is the only end of
the cell's control socket, and everything in the cell.

Whatever the second one sends is taken for hostile."""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from ._pytest_coverage import MOST, Merger
from ._pytest_frames import Frames, Refused, items, one_line, shown, text, whole
from ._pytest_reports import Expected
from ._sandbox import Cell

#: How long a process may take to end when all is said, and who watches it to tell of that.
_PATIENCE = 10.0
#: What the one who watches says at most: a line for each process.
_LAST_WORDS = 1 << 16


@dataclass
class Heard:
    """What came of one test."""

    reports: list[dict[str, Any]] = field(default_factory=list)
    #: Text, category, file, line and its source.
    warnings: list[list[Any]] = field(default_factory=list)
    #: Pid and command of each process that was alive when that of the test had ended.
    left: list[str] = field(default_factory=list)
    coverage: list[list[Any]] = field(default_factory=list)
    #: How many numbers of coverage may yet come.
    budget: int = MOST
    crash: str = ""
    #: The session is to end: reason and status.
    exit: tuple[str, int | None] | None = None


class Child:
    def __init__(self, cell: Cell, key: str, merger: Merger) -> None:
        self.cell = cell
        self.key = key
        self.merger = merger
        #: Which tests it runs; empty before it is started.
        self.group = ""
        self.template: Any = None
        self.frames = Frames()
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

    def ask(self, item: pytest.Item, place: int, next_place: int | None, last: bool, failed: int) -> None:
        """Has the test at this place of the session run; `last`: in this process. `failed`: how many tests have."""
        # Nobody can answer in the name of a test before that is asked for, or after.
        number = secrets.token_hex(16)
        self.frames.begin(number)
        self.expected = Expected(item)
        try:
            os.write(self.questions, json.dumps([number, place, next_place, last, failed]).encode() + b"\n")
        except BrokenPipeError:
            # It has ended: what it says last tells why.
            pass

    def hear(self, limit: float | None, last: bool) -> Heard:
        """Until the test is over; `last`: and its process, too. What the test has left alive may hold our pipe, so
        its end tells nothing: who watches the process says when it has ended."""
        heard = Heard()
        until = None if limit is None else time.monotonic() + limit
        done = ended = lingers = False
        while not ended and not (heard.crash or done and (self.alone or not last)):
            if done and not lingers:
                # All is said: the process has nothing to do but end.
                lingers = True
                until = time.monotonic() + (_PATIENCE if until is None else min(_PATIENCE, max(0.5, until - time.monotonic())))
            wait = None if until is None else max(0.0, until - time.monotonic())
            ready = _ready([self.last_words] if self.silent else [self.answers, self.last_words], wait)
            # Before it is read: who never stops writing has no more time than who is silent.
            late = until is not None and time.monotonic() >= until
            ended = self.last_words in ready
            try:
                done = self._read(heard, ended) or done
            except Refused as error:
                heard.crash = f"what the test's process reported cannot be believed: {error}: it was killed"
            if late and not (ended or heard.crash or (done and not lingers)):
                spent = "did not end after its test" if lingers else f"timed out after {limit:g} s"
                heard.crash = f"{spent}: everything in the sandbox was killed"
        if heard.crash:
            self.cell.close()
        if ended or heard.crash:
            self._end(heard, done)
        return heard

    def _read(self, heard: Heard, all_of_it: bool) -> bool:
        """Whether the test is over."""
        done = False
        while not self.silent and _ready([self.answers], 0):
            piece = os.read(self.answers, 1 << 16)
            for kind, value in self.frames.take_in(piece):
                if done:
                    raise Refused("more than one end")
                done = self._take_in(heard, kind, value)
            self.silent = not piece
            if not all_of_it:
                break
        if done and not all_of_it and not self.frames.is_empty():
            raise Refused("more after the end")
        return done

    def _take_in(self, heard: Heard, kind: str, value: Any) -> bool:
        if kind == "report":
            heard.reports.append(self.expected.restored(value))
        elif kind == "warning":
            heard.warnings.append(_warning(value))
        elif kind == "coverage":
            pieces, heard.budget = self.merger.checked(value, heard.budget)
            heard.coverage += pieces
        elif kind == "failed":
            heard.crash = text(value)
        elif kind == "exit":
            reason, code = items(value, 2) if len(items(value, 2)) == 2 else (None, None)
            heard.exit = (text(reason), None if code is None else whole(code, -255, 255))
            return True
        elif kind == "done":
            self.expected.finish()
            self.alone = value is True
            return True
        else:
            raise Refused("a frame of an unknown kind")
        return False

    def _end(self, heard: Heard, done: bool) -> None:
        said = b""
        until = time.monotonic() + _PATIENCE
        while len(said) < _LAST_WORDS and _ready([self.last_words], max(0.0, until - time.monotonic())):
            piece = os.read(self.last_words, 1 << 16)
            if not piece:
                break
            said += piece
        first, *left = said.decode(errors="replace").split("\n")
        word, _, rest = first.partition(" ")
        heard.left = [one_line(line) for line in left if line]
        if heard.crash or heard.exit or (done and first == "ended 0"):
            return
        heard.crash = shown(rest) if word == "failed" else self._how_it_ended(int(rest) if word == "ended" else None)

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
            until = time.monotonic() + _PATIENCE
            while _ready([self.last_words], max(0.0, until - time.monotonic())) and os.read(self.last_words, 1 << 16):
                pass
            self._close()


def _ready(descriptors: list[int], wait: float | None) -> list[int]:
    """Not select(2), which knows no descriptors above 1023."""
    poll = select.poll()
    for fd in descriptors:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(None if wait is None else wait * 1000)]


def _warning(value: Any) -> list[Any]:
    if len(items(value, 5)) != 5:
        raise Refused("a warning")
    message, category, file, line, source = value
    return [text(message, 10_000), text(category, 1000), text(file, 4096), whole(line, -1), text(source, 1000)]
