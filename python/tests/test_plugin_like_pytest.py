"""What pytest, its hooks and other plugins do with tests is the same when these run in copies of pytest's process."""

import re
import time

import pytest
from plugin_runs import MODES, kinds, outcomes, project, run  # noqa: F401 (a fixture)


@pytest.mark.parametrize("mode", MODES)
def test_hooks_are_told_the_real_next_test(project, mode):  # noqa: F811
    where = project(
        conftest="""
import pytest
def pytest_runtest_teardown(item, nextitem):
    # As SQLAlchemy's plugin does.
    assert nextitem is None or nextitem.getparent(pytest.Module) is not None
    assert (nextitem and nextitem.name) == NEXT[item.name]
NEXT = {"test_one": "test_two", "test_two": "test_three", "test_three": None}
""",
        test_a="class TestA:\n    def test_one(self): pass\n    def test_two(self): pass\n",
        test_b="def test_three(): pass\n",
    )
    for way in ("off", mode):
        _, found, said = outcomes(where, f"--sandbox={way}")
        assert kinds(found) == dict.fromkeys(["test_one", "test_two", "test_three"], "passed"), said


@pytest.mark.parametrize("mode", MODES)
def test_a_crash_or_timeout_of_a_test_that_is_expected_to_fail_is_xfail(project, mode):  # noqa: F811
    where = project(
        test_x="""
import ctypes, os, time
import pytest
@pytest.mark.xfail(reason="known")
def test_crash(): ctypes.string_at(0)
@pytest.mark.xfail(strict=True)
@pytest.mark.sandbox(timeout=1)
def test_slow(): time.sleep(60)
@pytest.mark.xfail(False, reason="not here")
def test_no(): os._exit(3)
@pytest.mark.xfail(raises=ValueError)
def test_other(): os._exit(3)
@pytest.fixture
def ends(): os._exit(3)
@pytest.mark.xfail
def test_setup(ends): pass
def test_after(): pass
"""
    )
    # Another time for one of them is no other cell.
    _, found, said = outcomes(where, f"--sandbox={mode}", "-rx")
    wanted = {"test_crash": "skipped", "test_slow": "skipped", "test_no": "failure", "test_other": "failure"}
    assert kinds(found) == {**wanted, "test_setup": "skipped", "test_after": "passed"}, said
    assert "3 xfailed" in said and re.search(r"XFAIL .*test_crash - known", said), said
    assert kinds(outcomes(where, f"--sandbox={mode}", "--runxfail")[1])["test_crash"] == "failure"


@pytest.mark.parametrize("mode", MODES)
def test_exit_in_a_test_ends_the_session_with_its_status(project, mode):  # noqa: F811
    where = project(
        test_a="import pytest\ndef test_one(): pass\ndef test_exit(): pytest.exit('enough', returncode=77)\ndef test_never(): pass\n"
    )
    seen = []
    for way in ("off", mode):
        status, said = run(where, f"--sandbox={way}")
        seen.append((status, "Exit: enough" in said, re.search(r"=+ (.*) in ", said)[1]))
    assert seen[0] == seen[1] == (77, True, "1 passed"), seen


def test_what_hooks_note_of_a_test_is_known_to_the_next_one(project):  # noqa: F811
    where = project(
        conftest="""
seen, begun = [], []
def pytest_runtest_logreport(report):
    if report.when == "call": seen.append(report.outcome)
def pytest_runtest_logstart(nodeid): begun.append(nodeid)
""",
        test_a="""
import conftest
def test_one(): assert conftest.seen == []
def test_two(): assert conftest.seen == ["passed"]; assert 0
def test_three(): assert conftest.seen == ["passed", "failed"] and len(conftest.begun) == 3
""",
    )
    for way in ("off", "test"):
        _, found, said = outcomes(where, f"--sandbox={way}")
        assert kinds(found) == {"test_one": "passed", "test_two": "failure", "test_three": "passed"}, said


@pytest.mark.parametrize("mode", MODES)
def test_what_hooks_note_of_a_test_is_known_to_its_own_teardown(project, mode):  # noqa: F811
    where = project(
        conftest="""
import os, sys
import pytest
seen = []
FILE = open("log", "w")
def pytest_runtest_logreport(report):
    seen.append((report.nodeid.rpartition("::")[2], report.when, report.outcome))
    # Each report is written once, whoever else is told of it.
    print(report.nodeid, report.when, file=FILE, flush=True)
    os.write(2, b"a hook of pytest's\\n"); print("and its print")
    open("log2", "a").write(report.when + "\\n")
def pytest_runtest_logstart(nodeid): seen.append((nodeid.rpartition("::")[2], "start", ""))
def pytest_runtest_logfinish(nodeid): seen.append((nodeid.rpartition("::")[2], "finish", ""))
def pytest_runtest_teardown(item):
    # As SQLAlchemy's plugin does.
    begin = [(item.name, "start", ""), (item.name, "setup", "passed"), (item.name, "call", OUTCOME[item.name])]
    assert seen[-3:] == begin, seen
    assert len(seen) == len(set(seen)), seen
OUTCOME = {"test_one": "passed", "test_two": "failed", "test_three": "passed"}
""",
        test_a="""
import conftest
def test_one(capfd): assert capfd.readouterr() == ("", "")
def test_two(): assert 0
def test_three(): assert ("test_two", "finish", "") in conftest.seen and ("test_one", "teardown", "passed") in conftest.seen
""",
    )
    wanted = {"test_one": "passed", "test_two": "failure", "test_three": "passed"}
    lines = []
    for way in ("off", mode):
        _, found, said = outcomes(where, f"--sandbox={way}")
        assert kinds(found) == wanted, said
        assert "pytest's" not in found["test_two"][1] and "its print" not in found["test_two"][1], found
        lines.append([(where / name).read_text() for name in ("log", "log2")])
        (where / "log2").unlink()
    assert lines[0] == lines[1] and len(lines[0][0].splitlines()) == 9, lines


@pytest.mark.parametrize("mode", MODES)
def test_what_conftest_files_and_configure_have_opened_is_open_in_tests(project, mode):  # noqa: F811
    where = project(
        conftest="""
import asyncio, os, tempfile
LOOP = asyncio.new_event_loop()
FILE = tempfile.TemporaryFile("w+")
def pytest_configure(config): config.opened = open(__file__)
def pytest_sessionstart(session): session.config.started = open(__file__)
""",
        test_a="""
import asyncio, os
import conftest
def test_loop():
    async def answer(): await asyncio.sleep(0.01); return 3
    assert conftest.LOOP.run_until_complete(answer()) == 3
def test_file(): conftest.FILE.write("x"); conftest.FILE.flush()
def test_configure(request): assert "LOOP" in request.config.opened.read()
def test_started(request): assert "LOOP" in request.config.started.read()
def test_no_other():
    # Neither a directory nor what belongs to the sandboxes themselves.
    for fd in os.listdir("/proc/self/fd"):
        try: name = os.readlink("/proc/self/fd/" + fd)
        except FileNotFoundError: continue
        assert not os.path.isdir(name) or name.startswith("/proc/") and "/fd" in name, name
        assert "cgroup" not in name and "subuid" not in name and "lease" not in name, name
""",
    )
    names = ["test_loop", "test_file", "test_configure", "test_started", "test_no_other"]
    _, found, said = outcomes(where, f"--sandbox={mode}")
    assert kinds(found) == dict.fromkeys(names, "passed"), said


@pytest.mark.parametrize("mode", MODES)
def test_what_a_test_drops_is_collected_though_it_is_older_than_its_process(project, mode):  # noqa: F811
    where = project(
        test_a="""
import gc, weakref
class Node: pass
HELD = {"node": Node()}
HELD["node"].itself = HELD["node"]
def test_referrers():
    assert any(each is HELD for each in gc.get_referrers(HELD["node"])) and gc.get_freeze_count() == 0
def test_collected():
    node = weakref.ref(HELD.pop("node"))
    gc.collect()
    assert node() is None
"""
    )
    _, found, said = outcomes(where, f"--sandbox={mode}")
    assert kinds(found) == {"test_referrers": "passed", "test_collected": "passed"}, said


def test_setups_are_shown(project):  # noqa: F811
    where = project(test_a="import pytest\n@pytest.fixture\ndef made(): pass\ndef test_one(made): pass\n")
    seen = []
    for way in ("off", "test"):
        said = run(where, "-q", "--setup-show", f"--sandbox={way}", status=0)[1]
        # When the point of the test is printed is another matter.
        seen.append([line.rstrip(" .") for line in re.findall(r"SETUP.*|TEARDOWN.*|test_a.py::test_one.*", said)])
    assert seen[0] == seen[1] and len(seen[0]) >= 3, seen


def test_databases_of_coverage_are_not_open_in_tests(project):  # noqa: F811
    pytest.importorskip("pytest_cov")
    where = project(
        conftest="import coverage\n",
        test_a="""
import os
def test_no_database():
    for fd in os.listdir("/proc/self/fd"):
        try: name = os.readlink("/proc/self/fd/" + fd)
        except FileNotFoundError: continue
        assert ".coverage" not in name
""",
    )
    run(where, "--sandbox=test", "--cov=test_a", "-p", "no:randomly", status=0)


def test_hypothesis_works_where_every_warning_is_an_error(project):  # noqa: F811
    pytest.importorskip("hypothesis")
    where = project(
        test_a="""
import pytest
from hypothesis import given, strategies
@given(strategies.integers())
def test_given(n): assert isinstance(n, int)
def test_other(): pass
"""
    )
    (where / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n")
    _, found, said = outcomes(where, "--sandbox=test")
    assert kinds(found) == {"test_given": "passed", "test_other": "passed"}, said


@pytest.mark.parametrize("mode", MODES)
def test_a_forked_child_that_returns_is_not_reported(project, mode):  # noqa: F811
    where = project(
        test_a="""
import os, pytest
@pytest.fixture
def file(tmp_path): yield tmp_path / "file"; assert os.getpid() == PID
PID = None
def test_forks(file):
    global PID
    PID = os.getpid()
    pid = os.fork()
    if pid == 0: return
    assert os.waitpid(pid, 0)[1] == 0
def test_fails_in_the_child():
    pid = os.fork()
    if pid == 0: raise ValueError("in the child")
    os.waitpid(pid, 0)
def test_skips_in_the_child():
    pid = os.fork()
    if pid == 0: pytest.skip("in the child")
    os.waitpid(pid, 0)
def test_after(): pass
"""
    )
    names = ["test_forks", "test_fails_in_the_child", "test_skips_in_the_child", "test_after"]
    _, found, said = outcomes(where, f"--sandbox={mode}")
    assert kinds(found) == dict.fromkeys(names, "passed") and "4 passed" in said and "failed" not in said, said


def test_addresses_are_looked_up_as_on_a_host_with_a_network_and_nothing_is_reachable(project):  # noqa: F811
    where = project(
        test_a="""
import errno, socket
import pytest
@pytest.mark.parametrize("host, family", [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6), ("localhost", socket.AF_UNSPEC)])
def test_looked_up(host, family):
    assert socket.getaddrinfo(host, 80, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
@pytest.mark.parametrize("host", ["192.0.2.1", "10.0.2.2", "10.0.0.1", "fd00::1", "2001:db8::1"])
def test_unreachable(host):
    with pytest.raises(OSError) as raised: socket.create_connection((host, 80), timeout=5)
    assert raised.value.errno == errno.ENETUNREACH
def test_own():
    listener = socket.create_server(("10.0.2.100", 0))
    assert socket.create_connection(listener.getsockname(), timeout=5)
@pytest.mark.sandbox(network="none")
def test_none():
    with pytest.raises(socket.gaierror): socket.getaddrinfo("127.0.0.1", 80, socket.AF_INET, 0, 0, socket.AI_ADDRCONFIG)
"""
    )
    assert "10 passed" in run(where, "--sandbox=test", status=0)[1]


# A fork copies locks without the threads that hold them.


@pytest.mark.parametrize("mode", MODES)
def test_the_watchdog_of_faulthandler_hangs_no_test(project, mode):  # noqa: F811
    where = project(test_a="import time\ndef test_passes(): pass\ndef test_fails(): assert 0\ndef test_slow(): time.sleep(2)\n")
    settings = ["-o", "faulthandler_timeout=1", "-o", "sandbox_timeout=60s"]
    _, found, said = outcomes(where, f"--sandbox={mode}", *settings)
    assert kinds(found) == {"test_passes": "passed", "test_fails": "failure", "test_slow": "passed"}, said
    assert "timed out" not in found["test_fails"][1]
    # It is the test whose stack is shown, once, and not that of pytest, which waits for it.
    assert said.count("Timeout (0:00:01)!") == 1 and re.search(r"test_a.py\", line 4 in test_slow", said), said
    _, found, said = outcomes(where, f"--sandbox={mode}", *settings, "-o", "faulthandler_exit_on_timeout=true")
    assert kinds(found)["test_slow"] == "failure" and kinds(found)["test_passes"] == "passed", said


def test_a_watchdog_of_the_projects_own_watches_on(project):  # noqa: F811
    where = project(
        conftest="""
import faulthandler, os, sys, time
faulthandler.dump_traceback_later(4, file=open("dump", "w"))
first = os.getpid()
def pytest_runtest_logfinish(nodeid):
    if "last" in nodeid and os.getpid() == first:
        until = time.monotonic() + 60
        # Not in the copies: there nobody waits.
        while not open("dump").read() and time.monotonic() < until: time.sleep(0.1)
""",
        test_a="def test_passes(): pass\ndef test_fails(): assert 0\ndef test_last(): pass\n",
    )
    _, found, said = outcomes(where, "--sandbox=test", "-o", "sandbox_timeout=60s")
    assert kinds(found) == {"test_passes": "passed", "test_fails": "failure", "test_last": "passed"}, said
    assert "pytest_runtest_logfinish" in (where / "dump").read_text()


def test_locks_that_threads_of_pytests_process_hold_are_free_in_tests(project):  # noqa: F811
    where = project(
        conftest="""
import logging, os, sys, threading, time
logger = logging.getLogger("busy")
logger.addHandler(logging.StreamHandler(open(os.devnull, "w")))
logger.propagate = False
at_fork = []
os.register_at_fork(before=lambda: at_fork.append("before"), after_in_child=lambda: at_fork.append("child"))
condition = threading.Condition()
def log():
    while True: logger.error("x" * 10_000)
def hold():
    # The lock of a handler, as a library that is just logging has it.
    while True:
        with logger.handlers[0].lock: time.sleep(0.01)
def write():
    while True: print("", end="", file=sys.stderr, flush=True)
def load():
    while True:
        sys.modules.pop("colorsys", None)
        import colorsys
for target in (log, hold, write, load): threading.Thread(target=target, daemon=True).start()
""",
        test_a="""
import logging, random, sys, threading, time, warnings
import conftest, pytest
@pytest.mark.parametrize("n", range(5))
def test_all(n):
    logging.getLogger("busy").error("from the test")
    logging.error("and the root")
    print("out"); print("err", file=sys.stderr, flush=True)
    import colorsys, wave
    warnings.warn("x")
    thread = threading.Thread(target=print); thread.start(); thread.join()
    assert conftest.at_fork[-1] == "child" and conftest.at_fork[-2] == "before"
def test_fails(): assert 0
""",
    )
    _, found, said = outcomes(where, "--sandbox=test", "-o", "sandbox_timeout=60s", "-o", "faulthandler_timeout=50")
    assert kinds(found) == {**{f"test_all[{n}]": "passed" for n in range(5)}, "test_fails": "failure"}, said


def test_xdists_threads_and_coverages_are_no_hindrance(project):  # noqa: F811
    pytest.importorskip("xdist")
    pytest.importorskip("pytest_cov")
    where = project(
        module="def f(): return 1\n",
        test_a="""
import threading, warnings
import module, pytest
@pytest.mark.parametrize("n", range(8))
def test_all(n):
    thread = threading.Thread(target=module.f); thread.start(); thread.join()
    warnings.warn("x"); print("x")
    assert n != 5
""",
    )
    began = time.monotonic()
    settings = ["-n", "2", "--cov=module", "-o", "faulthandler_timeout=100", "-o", "sandbox_timeout=100s"]
    _, found, said = outcomes(where, "--sandbox=test", *settings)
    assert kinds(found) == {f"test_all[{n}]": "failure" if n == 5 else "passed" for n in range(8)}, said
    # Nothing waited until something else gave up.
    assert "timed out" not in said and time.monotonic() - began < 100
