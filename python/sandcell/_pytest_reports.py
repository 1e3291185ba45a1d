"""Reports of a test: cut to a bounded size where they are made, and made anew from checked data in pytest's process.

Which test it is, its keywords, the phase and the order are pytest's own. Of what the test's process says only the outcome,
the explanation, the output and the properties are taken, each rebuilt field by field."""

from __future__ import annotations

import math
import re
import time
from typing import Any

import pytest
from _pytest.junitxml import bin_xml_escape
from _pytest.reports import TestReport

from ._pytest_frames import Refused, fields, items, one_line, optional_text, shown, text, whole, writable

#: What a test writes is cut to this many characters in its reports, and the explanation of a failure.
OUTPUT = 512 << 10
EXPLANATION = 512 << 10
#: As data of carried properties.
CARRIED = "$sandcell"

_SUBTEST = "_subtest.context"
_STYLES = ("long", "short", "line", "no", "native", "value", "auto")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}\Z")
#: Attributes of reports that others than the test set (pytest, xdist), and those that have a check of their own.
_NOT_THE_TESTS = {"node", "worker_id", "item_index", "testrun_uid", "result"}
_CHECKED = {
    *("nodeid", "location", "keywords", "outcome", "longrepr", "when", "sections", "duration", "start", "stop"),
    *("user_properties", "wasxfail"),
}


# In the process of the test.


def cut(data: dict[str, Any]) -> dict[str, Any]:
    """A report as data, with its output cut."""
    left = OUTPUT
    sections = []
    for name, content in data.get("sections") or ():
        if len(content) > left:
            content = f"{content[:left]}\n[{len(content) - left} more characters are left out by --sandbox]\n"
        left = max(0, left - len(content))
        sections.append((name, content))
    return {**data, "sections": sections}


def size(data: Any) -> int:
    """Characters in plain data: to colour an explanation takes time."""
    if isinstance(data, str):
        return len(data)
    inner = data.values() if isinstance(data, dict) else data if isinstance(data, (list, tuple)) else ()
    return sum(map(size, inner))


def reduced(report: Any, full: dict[str, Any]) -> dict[str, Any]:
    """Of a report that is larger than can be sent: what matters."""
    why = str(report.longrepr) if report.longrepr is not None else None
    if why is not None and len(why) > EXPLANATION // 2:
        why = f"{why[: EXPLANATION // 2]}\n[{len(why) - EXPLANATION // 2} more characters are left out by --sandbox]"
    data: dict[str, Any] = {"outcome": report.outcome, "longrepr": report.longrepr if report.skipped else why}
    for name in ("when", "duration", "start", "stop"):
        data[name] = getattr(report, name, 0)
    if hasattr(report, "wasxfail"):
        data["wasxfail"] = report.wasxfail
        data["longrepr"] = why
    data["sections"] = [("sandbox", "this report was larger than --sandbox takes; output and properties are left out")]
    kept = {name: full[name] for name in (CARRIED, "_report_type", _SUBTEST) if name in full}
    return {**data, "$report_type": "TestReport", **kept}


# In pytest's process.


class Expected:
    """The reports of a test that was asked for: which one is the next."""

    def __init__(self, item: pytest.Item) -> None:
        self.item = item
        self.asked = time.time()
        self._next: str | None = "setup"

    def restored(self, data: Any) -> dict[str, Any]:
        """What pytest's own hook makes a report of."""
        when, outcome = fields(data, "when", "outcome")
        subtest = _SUBTEST in data or data.get("_report_type") is not None
        if outcome not in ("passed", "failed", "skipped"):
            raise Refused("a report with an outcome of its own")
        if subtest and (when != "call" or self._next is None):
            raise Refused("a report of a subtest without its test")
        if not subtest:
            self._advance(when, outcome)
        made = self._checked(data, when, outcome)
        if subtest:
            made |= {"_report_type": "SubTestReport", _SUBTEST: _context(data.get(_SUBTEST))}
        else:
            made["$report_type"] = "TestReport"
        return made

    def finish(self) -> None:
        if self._next is not None:
            raise Refused(f"the end of a test without its {self._next}")

    def _advance(self, when: Any, outcome: str) -> None:
        if when != self._next and not (when == "teardown" and self._next == "call"):
            raise Refused("a report that was not the next one")
        following = {"setup": "call" if outcome == "passed" else "teardown", "call": "teardown", "teardown": None}
        self._next = following[when]
        if when == "setup" and self.item.config.getoption("setuponly", False):
            self._next = "teardown"

    def _checked(self, data: dict[str, Any], when: str, outcome: str) -> dict[str, Any]:
        item, now = self.item, time.time()
        made = {name: writable(value) for name, value in data.items() if _is_extra(name)}
        start, stop = (min(max(_number(data.get(name)), self.asked), now) for name in ("start", "stop"))
        made |= {
            "nodeid": item.nodeid,
            "location": item.location,
            "keywords": {str(key): 1 for key in item.keywords},
            "when": when,
            "outcome": outcome,
            "duration": min(max(_number(data.get("duration")), 0.0), now - self.asked),
            "start": start,
            "stop": stop,
            "sections": [(text(name, 1000), text(content)) for name, content in _pairs(data.get("sections"), 1000)],
            "user_properties": [_property(pair) for pair in _pairs(data.get("user_properties"), 10_000)],
        }
        if "wasxfail" in data and outcome != "failed":
            made["wasxfail"] = text(data["wasxfail"])
        made["longrepr"] = _explanation(data.get("longrepr"), outcome, "wasxfail" in made)
        if CARRIED in data:
            made[CARRIED] = _carried(data[CARRIED])
        return made


def _is_extra(name: str) -> bool:
    """Whether it is an attribute that a plugin has given the report. None of pytest's own is replaced."""
    return bool(_NAME.match(name)) and name not in _CHECKED | _NOT_THE_TESTS and not hasattr(TestReport, name)


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value := float(value)):
        raise Refused("no time")
    return value


def _pairs(value: Any, most: int) -> list[Any]:
    pairs = [] if value is None else items(value, most)
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise Refused("no pairs")
    return pairs


def _property(pair: list[Any]) -> tuple[Any, Any]:
    name, value = pair
    return (shown(name) if isinstance(name, str) else str(writable(name)), writable(value))


def _carried(data: Any) -> list[Any]:
    properties, failed = items(data, 2) if len(items(data, 2)) == 2 else ([], 0)
    # As the junit file takes them: it does not look at these once more.
    made = [(bin_xml_escape(text(name, 10_000)), bin_xml_escape(text(value))) for name, value in _pairs(properties, 1000)]
    return [made, whole(failed, 0, 1_000_000)]


def _context(data: Any) -> dict[str, Any]:
    message, keywords = fields(data, "msg", "kwargs")
    if not isinstance(keywords, dict):
        raise Refused("no context of a subtest")
    kwargs = {one_line(name): one_line(value) if isinstance(value, str) else writable(value) for name, value in keywords.items()}
    return {"msg": None if message is None else one_line(text(message)), "kwargs": kwargs}


def _explanation(data: Any, outcome: str, expected: bool) -> Any:
    """Of a failure or skip, in the shape that its outcome has with pytest."""
    if isinstance(data, list):
        if outcome != "skipped" or len(data) != 3:
            raise Refused("the explanation of a skip")
        path, line, reason = data
        return (text(path, 4096), whole(line, -1), text(reason))
    if outcome == "skipped" and not expected:
        raise Refused("a skip without its reason")
    if data is None and outcome == "failed":
        raise Refused("a failure without explanation")
    return _exception(data) if isinstance(data, dict) else optional_text(data)


def _exception(data: dict[str, Any]) -> dict[str, Any]:
    if size(data) > EXPLANATION:
        raise Refused(f"an explanation of more than {EXPLANATION} characters")
    crash, traceback, sections, chain = fields(data, "reprcrash", "reprtraceback", "sections", "chain")
    return {
        "reprcrash": _place(crash),
        "reprtraceback": _traceback(traceback),
        "sections": [_section(section) for section in items(sections, 100)],
        "chain": None if chain is None else [_link(link) for link in items(chain, 1000)],
    }


def _section(data: Any) -> tuple[str, str, str]:
    if len(items(data, 3)) != 3 or len(text(data[2], 1)) != 1:
        raise Refused("a section of an explanation")
    return (text(data[0], 1000), text(data[1]), text(data[2], 1))


def _link(data: Any) -> tuple[Any, ...]:
    if len(items(data, 3)) != 3:
        raise Refused("a chain of exceptions")
    return (_traceback(data[0]), _place(data[1]), optional_text(data[2], 10_000))


def _place(data: Any) -> dict[str, Any] | None:
    if data is None:
        return None
    path, line, message = fields(data, "path", "lineno", "message")
    return {"path": text(path, 4096), "lineno": whole(line, -1), "message": text(message)}


def _traceback(data: Any) -> dict[str, Any]:
    entries, extra, style = fields(data, "reprentries", "extraline", "style")
    return {
        "reprentries": [_entry(entry) for entry in items(entries, 10_000)],
        "extraline": optional_text(extra),
        "style": _one_of(style, _STYLES),
    }


def _one_of(value: Any, known: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in known:
        raise Refused("an unknown kind")
    return value


def _lines(data: Any) -> list[str]:
    return [text(line) for line in items(data)]


def _entry(data: Any) -> dict[str, Any]:
    kind, entry = fields(data, "type", "data")
    if kind == "ReprEntryNative":
        return {"type": kind, "data": {"lines": _lines(*fields(entry, "lines"))}}
    names = ("lines", "reprfuncargs", "reprlocals", "reprfileloc", "style")
    lines, arguments, variables, place, style = fields(entry, *names)
    made: dict[str, Any] = {"lines": _lines(lines), "reprfileloc": _place(place), "style": _one_of(style, _STYLES)}
    made["reprfuncargs"] = made["reprlocals"] = None
    if arguments is not None:
        pairs = _pairs(fields(arguments, "args")[0], 10_000)
        made["reprfuncargs"] = {"args": [(text(name), text(value)) for name, value in pairs]}
    if variables is not None:
        made["reprlocals"] = {"lines": _lines(*fields(variables, "lines"))}
    return {"type": _one_of(kind, ("ReprEntry",)), "data": made}
