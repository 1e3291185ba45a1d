"""What a hostile test sends by the pipe of its reports: copied into the projects of test_plugin_hostile, where it runs in a
cell. A name, what is written, and what becomes of that test: `failure`, or `passed` where nothing has come of it."""

import json
import os
import time

import pytest

TRACEBACK = {"reprentries": [], "extraline": None, "style": "long"}
EXCEPTION = {"reprcrash": None, "reprtraceback": TRACEBACK, "sections": [], "chain": None}
ENTRY = {"lines": ["x"], "reprfuncargs": None, "reprlocals": None, "reprfileloc": None, "style": "long"}


class Hostile:
    def __init__(self, config):
        inside = config.pluginmanager.getplugin("sandcell-cells").inside
        # Of an older sandcell replies have no number.
        self.fd, self.number = inside.answer, getattr(inside, "number", None)

    def write(self, *pieces):
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self.fd, rest) :]

    def text(self, text):
        return b"%08x" % len(text) + text

    def head(self):
        return b"[" if self.number is None else b'["%s",' % self.number.encode()

    def raw(self, kind, value):
        """A frame whose value is text, be it JSON or not."""
        return self.text(self.head() + b'"%s",' % kind + value + b"]")

    def frame(self, kind, value):
        return self.raw(kind.encode(), json.dumps(value).encode())

    def report(self, **fields):
        data = {"nodeid": "test_replies.py::test_victim", "location": ["test_replies.py", 0, "x"], "keywords": {}}
        data |= {"outcome": "failed", "longrepr": "x", "when": "call", "sections": [], "duration": 0, "start": 0, "stop": 0}
        data |= {"user_properties": [], "$report_type": "TestReport"}
        data |= fields
        return self.frame("report", data)


def explained(**fields):
    return lambda h: h.write(h.report(longrepr={**EXCEPTION, **fields}))


def entry(kind="ReprEntry", **fields):
    return explained(reprtraceback={**TRACEBACK, "reprentries": [{"type": kind, "data": {**ENTRY, **fields}}]})


def reported(**fields):
    return lambda h: h.write(h.report(**fields))


def valued(kind, value):
    return lambda h: h.write(h.raw(kind, value))


def bytes_of(*pieces):
    return lambda h: h.write(*pieces)


def flood(h):
    while True:
        h.write(h.text(b'["0","report",{}]') * 1000)


def trickle(h):
    h.write(b"00100000")
    while True:
        h.write(b"[")
        time.sleep(0.01)


def half_and_sleep(h):
    h.write(b"00001000[")
    time.sleep(1000)


def half_and_end(h):
    h.write(b"00001000[")
    os._exit(0)


def attributes_of_others(h):
    strange = {"node": 1, "toterminal": 2, "worker_id": 3, "item_index": 4, "_id": 5, "passed": False, "extra": "x"}
    h.write(h.report(outcome="passed", longrepr=None, **strange))
    h.write(h.report(when="teardown", outcome="passed", longrepr=None), h.frame("done", False))
    os._exit(0)


def child_that_floods(h):
    if os.fork() == 0:
        os.setsid()
        flood(h)


REPORTS = {
    "length of 4 GB": bytes_of(b"ffffffff"),
    "length of 2 GB and much to it": bytes_of(b"7fffffff", bytes(30 << 20)),
    "length just too much": bytes_of(b"00400001"),
    "length that is no number": bytes_of(b"zzzzzzzz"),
    "length below nothing": bytes_of(b"-0000001"),
    "length with a prefix": bytes_of(b"0x000010"),
    "length with an underscore": bytes_of(b"0000_010"),
    "length of nothing": bytes_of(b"00000000"),
    "zeroes": bytes_of(bytes(1000)),
    "a flood of frames of nobody": flood,
    "a byte now and then": trickle,
    "half a frame and silence": half_and_sleep,
    "half a frame and the end": half_and_end,
    "a child that floods": child_that_floods,
    "no JSON": lambda h: h.write(h.text(b"not JSON")),
    "no UTF-8": lambda h: h.write(h.text(b'["\xff\xfe"]')),
    "a million lists in each other": lambda h: h.write(h.text(b"[" * 1_000_000)),
    "a million objects in each other": lambda h: h.write(h.text(b'{"a":' * 700_000)),
    "deep in a report": valued(b"report", b"[" * 100_000 + b"]" * 100_000),
    "deep after a quote": valued(b"report", rb'"\\",' + b"[" * 100_000),
    "a million digits": valued(b"report", b"1" * 1_000_000),
    "a million digits after the point": valued(b"report", b"0." + b"1" * 1_000_000),
    "two million values": valued(b"report", b"[" + b"0," * 1_900_000 + b"0]"),
    "two million objects": valued(b"report", b"[" + b"[]," * 1_300_000 + b"0]"),
    "a million texts": valued(b"report", b'[""' + b',""' * 1_000_000 + b"]"),
    "a frame that is no list": lambda h: h.write(h.text(b'{"kind": "report"}')),
    "a frame that is too short": lambda h: h.write(h.text(h.head() + b'"report"]')),
    "a frame that is too long": lambda h: h.write(h.text(h.head() + b'"report",{},{}]')),
    "a kind that is no text": lambda h: h.write(h.text(h.head() + b"[],{}]")),
    "a kind that is not known": valued(b"eval", b'"1"'),
    "a report that is nothing": valued(b"report", b"null"),
    "a report that is a list": valued(b"report", b"[1,2]"),
    "a report that is empty": valued(b"report", b"{}"),
    "a report with NaN as time": reported(duration=float("nan")),
    "a report with a text as time": reported(duration="long"),
    "a report with endless time": reported(start=float("inf")),
    "an outcome of its own": reported(outcome="error"),
    "an outcome that is a list": reported(outcome=["passed"]),
    "an outcome that is missing": reported(outcome=None),
    "a phase of its own": reported(when="collect"),
    "a phase that is an object": reported(when={}),
    "setup twice": reported(when="setup", outcome="passed", longrepr=None),
    "call twice": lambda h: h.write(h.report(), h.report()),
    "teardown twice": lambda h: h.write(*[h.report(when="teardown")] * 2),
    "the end before the reports": valued(b"done", b"true"),
    "more after the end": lambda h: h.write(h.report() + h.report(when="teardown") + h.frame("done", True) + h.report()),
    "two ends": lambda h: h.write(h.report() + h.report(when="teardown") + h.frame("done", False) * 2),
    "a skip without reason": reported(outcome="skipped", longrepr=None),
    "a skip with a text": reported(outcome="skipped", longrepr="x"),
    "a skip with a number": reported(outcome="skipped", longrepr=["x", "y", 3]),
    "a failure without explanation": reported(longrepr=None),
    "an explanation that is a number": reported(longrepr=7),
    "an explanation that is empty": reported(longrepr={}),
    "an explanation of another shape": explained(reprtraceback=[]),
    "an explanation with a strange entry": entry("os.system"),
    "an entry whose lines are one text": entry(lines="x"),
    "an entry whose lines are numbers": entry(lines=[1, 2]),
    "an entry with a strange style": entry(style="strange"),
    "an entry with strange arguments": entry(reprfuncargs={"args": [1]}),
    "an entry with much to colour": entry(lines=["    x" * 100] * 3000),
    "a place with a long number": explained(reprcrash={"path": "x", "lineno": 10**200, "message": "x"}),
    "a place without message": explained(reprcrash={"path": "x", "lineno": 1}),
    "a section without separator": explained(sections=[["a", "b", ""]]),
    "a section with a long separator": explained(sections=[["a", "b", "-=-"]]),
    "a chain of something else": explained(chain=[[1, 2]]),
    "sections that are no pairs": reported(sections=["a", "b"]),
    "sections of numbers": reported(sections=[[1, 2]]),
    "properties that are no pairs": reported(user_properties=[1]),
    "a wasxfail that is a number": reported(outcome="skipped", wasxfail=7),
    "a subtest without context": reported(_report_type="SubTestReport"),
    "a subtest with strange context": reported(_report_type="SubTestReport", **{"_subtest.context": {"msg": 1, "kwargs": []}}),
    "carried properties of another shape": reported(**{"$sandcell": [[["a"]], 0]}),
    "carried failures without number": reported(**{"$sandcell": [[], 10**30]}),
    "a warning of another shape": valued(b"warning", b'["x"]'),
    "30,000 warnings": lambda h: h.write(h.frame("warning", ["x", "builtins.UserWarning", "x", 1, ""]) * 30_000),
    "an exit with a text": valued(b"exit", b'["x", "y"]'),
    "an exit with a large number": valued(b"exit", b'["x", 4096]'),
    "an exit of another shape": valued(b"exit", b'"x"'),
    "an internal error with control characters": valued(b"failed", rb'"\u001b[2J\u0000\ud800"'),
    "a report with control characters": lambda h: h.write(
        h.report(longrepr="\x1b[2J\x00\ud800", sections=[["\x00", "\x1b]0;x\x07\ud800"]], user_properties=[["\x00", "\ud800\x00"]])
        + h.report(when="teardown", outcome="passed", longrepr=None)
        + h.frame("done", False)
    ),
    "a report of another test": lambda h: h.write(h.report(outcome="failed", longrepr="forged")),
}
#: Of these nothing comes.
HARMLESS = {
    "a frame of another test": lambda h: h.write(h.text(b'["0","report",{"outcome":"failed"}]')),
    "a warning of a strange class": valued(b"warning", b'["x", "os.system", "x", 1, ""]'),
    "a warning about a device": valued(b"warning", b'["x", "builtins.UserWarning", "/dev/zero", 1, ""]'),
    "attributes of others": attributes_of_others,
}

SQL = "CREATE TABLE x(y); ATTACH DATABASE 'canary' AS z; CREATE TABLE z.x(y);"
#: In the place of a context, a file, a plugin and lines.
_STRANGE = [None, 7, [], {}, True, "\x00", "\ud800", "x\x1b[2J", "x" * 20_000, [SQL], 1e300]
_PATHS = ["module.py", "../module.py", "/../etc/passwd", "/etc/passwd", "/dev/zero", "/proc/self/mem", "/", "", "HERE/none.py"]
_PATHS += ["HERE/./module.py", "HERE/fifo.py", "HERE/link.py", "HERE/directory.py", "json/__init__.py", SQL, "file:x?mode=rwc"]
_LINES = [None, 7, "1", {}, [None], ["1"], [1.5], [True], [[1, 2]], [10**20], [-(10**20)], [float("nan")], [SQL], [1] * 60_000]
PIECES = {f"context {value!r:.40}": [[value, "HERE/module.py", "", [2, 3]]] for value in _STRANGE}
PIECES |= {f"file {value!r:.40}": [["", value, "", [2, 3]]] for value in _STRANGE}
PIECES |= {f"plugin {value!r:.40}": [["", "HERE/module.py", value, [2, 3]]] for value in _STRANGE[:5] + _STRANGE[8:]}
PIECES |= {f"lines {value!r:.40}": [["", "HERE/module.py", "", value]] for value in _LINES}
PIECES |= {"a file without lines": [["", "HERE/module.py"]], "too much of a file": [["", "HERE/module.py", "", [], []]]}
PIECES |= {"nothing": None, "a text": SQL, "an object": {"a": 1}, "numbers": [1], "20,000 files": [["", "x", "", []]] * 20_000}
#: Of these nothing comes: no such file is measured, no such line is there, no such plugin.
IGNORED = {f"path {value!r:.40}": [["", value, "", [2, 3]]] for value in _PATHS}
IGNORED |= {"lines far behind the end": [["", "HERE/module.py", "", [1_000_000, 1_000_001]]], "a plugin": [["", "HERE/none.py", "os.system", []]]}


def coverage(value):
    def send(h):
        text = json.dumps(value).replace("HERE", os.path.dirname(os.path.abspath(__file__)))
        h.write(h.raw(b"coverage", text.encode()))

    return send


def coverage_flood(h):
    # Each frame is small, and all of them together are not.
    here = os.path.dirname(os.path.abspath(__file__))
    for n in range(100):
        h.write(h.frame("coverage", [["", f"{here}/module.py", "", list(range(n * 30_000, n * 30_000 + 30_000))]]))


def old_coverage(h):
    # As coverage.py's dumps() makes it.
    import base64
    import zlib

    h.write(h.frame("coverage", base64.b64encode(b"z" + zlib.compress(SQL.encode())).decode()))


COVERAGE = {name: coverage(value) for name, value in PIECES.items()} | {"a flood": coverage_flood, "SQL": old_coverage}
COVERAGE_IGNORED = {name: coverage(value) for name, value in IGNORED.items()}


@pytest.fixture
def hostile(request):
    return Hostile(request.config)
