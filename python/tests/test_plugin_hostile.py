"""Tests that lie to pytest: raw bytes by the pipe of their reports, from inside their cells."""

import json
import os
import re
from pathlib import Path

import hostile_reports
import pytest
from plugin_runs import kinds, outcomes, project, run  # noqa: F401 (a fixture)

MEGABYTE = 1 << 20
#: Of the sandboxes here. Nothing waits for it but what would hang.
TIMEOUT = 3

GOOD = "def test_good(): assert module.f(1) == 1\n"

CONFTEST = """
import json, time
from hostile_reports import hostile

def _status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name): return int(line.split()[1]) * 1024

def pytest_runtest_logstart(nodeid):
    open("/proc/self/clear_refs", "w").write("5")
    global before, began
    before, began = _status("VmRSS"), time.monotonic()

def pytest_runtest_logfinish(nodeid):
    with open("costs", "a") as file:
        print(json.dumps([nodeid, _status("VmHWM") - before, time.monotonic() - began]), file=file)
"""

TESTS = """
import hostile_reports as replies
import pytest

def test_victim(): assert 0
@pytest.mark.parametrize("name", [name for each in range(0, len(replies.{names}), 2) for name in list(replies.{names})[each : each + 2] + [f"good {{each}}"]])
def test_reply(name, hostile):
    if not name.startswith("good"): replies.{names}[name](hostile)
@pytest.mark.parametrize("name", list(replies.{harmless}))
def test_harmless(name, hostile): replies.{harmless}[name](hostile)
def test_victim_too(): assert 0
"""


def seen(where):
    """Everything in the project but what pytest, coverage.py and the tests here write."""
    ours = re.compile(r"__pycache__|junit.xml|costs|\.coverage|cov.xml|base|\.pytest_cache")
    return {str(p): p.read_bytes() if p.is_file() else "" for p in where.rglob("*") if not ours.search(str(p.relative_to(where)))}


def checked(where, names, harmless, *arguments, more=""):
    """Runs the replies and holds each to what it may do."""
    (where / "hostile_reports.py").write_text(Path(hostile_reports.__file__).read_text())
    (where / "test_replies.py").write_text(TESTS.format(names=names, harmless=harmless) + more)
    before = seen(where)
    code, found, said = outcomes(where, "--sandbox=test", "-o", f"sandbox_timeout={TIMEOUT}s", *arguments, timeout=900)
    assert code == 1 and "INTERNALERROR" not in said, said[-3000:]
    replies = list(getattr(hostile_reports, names))
    # In the order of the session: what pytest makes of such names as ids is its own.
    wanted = [kind for each in range(0, len(replies), 2) for kind in [*["bad"] * len(replies[each : each + 2]), "passed"]]
    got = kinds(found)
    results = [(name, kind) for name, kind in got.items() if name.startswith("test_reply")]
    assert len(results) == len(wanted)
    wrong = [result for result, kind in zip(results, wanted) if (result[1] == "passed") != (kind == "passed")]
    assert not wrong, (wrong, said[-2000:])
    assert got["test_victim"] == got["test_victim_too"] == "failure"
    assert [each for each in got if each.startswith("test_harmless") and got[each] != "passed"] == [], said[-3000:]
    assert seen(where) == before and not list(where.rglob("*canary*"))
    costs = [json.loads(line) for line in (where / "costs").read_text().splitlines()]
    assert len(costs) == len(found)
    assert max(memory for _, memory, _ in costs) <= 64 * MEGABYTE, sorted(costs, key=lambda cost: -cost[1])[:3]
    # What a busy machine takes to start a cell is no promise broken: what is bounded here is that it ends at all.
    assert max(time for *_, time in costs) <= TIMEOUT + 30, sorted(costs, key=lambda cost: -cost[2])[:3]
    # For whoever measures.
    if name := os.environ.get("SANDCELL_COSTS"):
        with open(name, "a") as file:
            print(max(cost[1] for cost in costs) / MEGABYTE, max(cost[2] for cost in costs), len(costs), file=file)
    return found


def test_hostile_reports_fail_their_test_and_no_other_and_cost_little(project):  # noqa: F811
    assert len(hostile_reports.REPORTS) >= 60
    where = project(conftest=CONFTEST)
    found = checked(where, "REPORTS", "HARMLESS")
    assert "forged" not in found["test_victim"][1] and "forged" not in found["test_victim_too"][1]
    # As pytest's junit file has such characters; a file that is no XML would not have been read.
    assert "#x1B[2J#x00#xD800" in (where / "junit.xml").read_text()


def test_hostile_coverage_data_fails_its_test_or_is_ignored_and_runs_no_sql(project):  # noqa: F811
    pytest.importorskip("pytest_cov")
    assert len(hostile_reports.COVERAGE) + len(hostile_reports.COVERAGE_IGNORED) >= 60
    module = "def f(x):\n    if x:\n        return 1\n    return 2\n"
    where = project(conftest="import module\n", module=module, test_good="import module\n" + GOOD)
    cov = ["--cov=module", "--cov-report=xml:cov.xml"]
    run(where, "-q", *cov, "--sandbox=off", status=0)
    wanted = re.sub(r'timestamp="\d+"', "", (where / "cov.xml").read_text())
    (where / "test_good.py").unlink()
    (where / "conftest.py").write_text(CONFTEST + "import module\n")
    # What a name may lead to.
    (where / "directory.py").mkdir()
    (where / "link.py").symlink_to("/etc/passwd")
    os.mkfifo(where / "fifo.py")
    checked(where, "COVERAGE", "COVERAGE_IGNORED", *cov, more="import module\n" + GOOD)
    assert re.sub(r'timestamp="\d+"', "", (where / "cov.xml").read_text()) == wanted


def test_capture_files_of_any_size_end_no_session(project):  # noqa: F811
    """Tests write to the files that pytest captures in, and can make a terabyte of them that takes no disk."""
    where = project(
        test_sizes="""
import os
def grow():
    for fd in (1, 2):
        os.ftruncate(fd, 1 << 40)
        assert os.fstat(fd).st_size == 1 << 40
def test_grows(): grow()
def test_grows_and_ends():
    grow()
    os._exit(3)
def test_escapes_and_ends():
    os.write(1, b"\\x1b]0;title\\x07")
    os._exit(3)
def test_victim():
    print("of the victim")
    assert 0
def test_good(): pass
"""
    )
    _, found, said = outcomes(where, "--sandbox=test", "-o", "sandbox_memory=256M", "-o", "sandbox_best_effort=memory")
    assert {name: kind for name, (kind, _) in found.items() if name not in ("test_grows",)} == {
        "test_grows_and_ends": "failure",
        "test_escapes_and_ends": "failure",
        "test_victim": "failure",
        "test_good": "passed",
    }, said
    assert "test_grows" in found and "of the victim" in said
    assert "#x1B]0;title#x07" in said and "\x1b]" not in said
