"""The pytest plugin, met as its users meet it: pytest in a process of its own, on projects made here."""

import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import pytest

MODES = ["test", "file", "worker"]


@pytest.fixture
def project(tmp_path):
    # The outer directory is what rootdir would otherwise be looked for in.
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")

    def make(**files):
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        return tmp_path

    return make


def run(directory, *arguments, status=None):
    """Exit status and output of pytest with the plugin."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    if "sandcell" not in _entry_points():
        command[3:3] = ["-p", "sandcell.pytest_plugin"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    text = done.stdout + done.stderr
    if status is not None:
        assert done.returncode == status, text
    return done.returncode, text


def _entry_points():
    from importlib.metadata import entry_points

    return {point.name for point in entry_points(group="pytest11")}


def outcomes(directory, *arguments):
    """What became of each test, from the junit file: how, and with which words."""
    file = directory / "junit.xml"
    code, text = run(directory, f"--junitxml={file}", "-q", *arguments)
    assert file.exists(), text
    found = {}
    for case in ElementTree.parse(file).iter("testcase"):
        kinds = [(child.tag, (child.get("message") or "") + (child.text or "")) for child in case if child.tag != "properties"]
        kinds = [kind for kind in kinds if not kind[0].startswith("system")]
        found[case.get("name")] = kinds[0] if kinds else ("passed", "")
    return code, found, text


MISBEHAVING = '''
import ctypes, os, signal, socket, subprocess, sys, threading, time
import pytest

SOURCE = os.path.dirname(os.path.abspath(__file__))

def test_writes_to_the_source_tree(): open(os.path.join(SOURCE, "made"), "w")
def test_removes_its_own_file(): os.remove(__file__)
def test_overwrites_the_interpreter(): open(os.path.realpath(sys.executable), "ab")
def test_writes_to_usr(): open("/usr/made", "w")
def test_writes_to_etc(): open("/etc/passwd", "a")
def test_reads_shadow(): open("/etc/shadow").read()
def test_segfaults(): ctypes.string_at(0)
def test_aborts(): os.abort()
def test_exits(): os._exit(7)
def test_exits_as_if_all_were_well(): os._exit(0)
def test_kills_itself(): os.kill(os.getpid(), signal.SIGKILL)
def test_stops_itself(): os.kill(os.getpid(), signal.SIGSTOP)
def test_sleeps_forever(): time.sleep(10_000)
def test_spins_forever():
    while True: pass
def test_ignores_the_end_and_sleeps():
    signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(10_000)
def test_hangs_in_a_child(): subprocess.run(["sleep", "10000"])
def test_connects_to_the_world():
    socket.create_connection(("192.0.2.1", 80), timeout=3)
def test_asks_a_name_server(): socket.getaddrinfo("example.org", 80)
def test_looks_for_processes_of_others():
    assert [n for n in os.listdir("/proc") if n.isdigit() and n not in ("1", str(os.getpid()))]
def test_kills_its_parent():
    os.kill(1, signal.SIGKILL); os.kill(PYTEST, signal.SIGKILL)
def test_mounts():
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0
def test_makes_a_namespace():
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(0x10000000) == 0
def test_becomes_root(): os.setuid(0)
def test_changes_the_root(): os.chroot("/tmp")
def test_opens_a_raw_socket(): socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
def test_traces_the_first_process():
    assert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0
def test_fills_the_disk():
    with open("/tmp/filler", "wb") as file:
        while True: file.write(bytes(1 << 20))
def test_fills_shared_memory():
    with open("/dev/shm/filler", "wb") as file:
        while True: file.write(bytes(1 << 20))
def test_eats_memory(): bytearray(1 << 40)
def test_opens_files_without_end(): files = [open("/dev/null") for _ in range(10_000_000)]
def test_closes_every_descriptor(): os.closerange(0, 65536)
def test_leaves_a_thread_that_never_ends():
    threading.Thread(target=time.sleep, args=(10_000,)).start(); raise SystemExit(3)
PYTEST = os.getpid()
'''


def test_every_misbehaving_test_is_contained_and_named_and_the_next_one_passes(project):
    names = re.findall(r"^def (test_\w+)", MISBEHAVING, re.M)
    assert len(names) >= 30
    text = MISBEHAVING
    for name in names:
        # After each a test that needs what the one before may have taken.
        text += f"""
def {name.replace("test_", "test_after_")}(tmp_path):
    listener = socket.socket(); listener.bind(("127.0.0.1", 8080)); listener.listen()
    assert not os.path.exists("/tmp/filler") and not os.path.exists("/dev/shm/filler")
    (tmp_path / "file").write_text("x"); print("fine")
"""
    # In turns.
    parts = re.split(r"(?m)^(?=def test_)", text)
    head, tests = parts[0], {re.match(r"def (\w+)", part)[1]: part for part in parts[1:]}
    # What follows the last of the first kind belongs to the module.
    body = "".join(tests[n] + tests[n.replace("test_", "test_after_")] for n in names)
    where = project(test_misbehaving=head + "PYTEST = os.getpid()\n" + body.replace("\nPYTEST = os.getpid()\n", "\n"))
    (where / "pytest.ini").write_text("[pytest]\nsandbox_timeout = 1s\nsandbox_disk = 16M\n")
    before = (where / "test_misbehaving.py").read_text()
    code, found, said = outcomes(where, "--sandbox=test")
    assert code == 1, said
    bad = {name: found[name][0] for name in names}
    assert set(bad.values()) == {"failure"}, {name: kind for name, kind in bad.items() if kind != "failure"}
    good = {name: found[name] for name in found if name.startswith("test_after_")}
    assert len(good) == len(names) and set(good.values()) == {("passed", "")}, good
    assert "SIGSEGV" in found["test_segfaults"][1] and "status 7" in found["test_exits"][1]
    assert "timed out after 1 s" in found["test_sleeps_forever"][1]
    assert "No space left" in found["test_fills_the_disk"][1]
    assert (where / "test_misbehaving.py").read_text() == before and not (where / "made").exists()


WELL_BEHAVED = '''
import logging, os, sys, unittest, warnings
import pytest

made = []

@pytest.fixture(scope="session")
def session_wide():
    made.append("session"); print("session up"); yield made; print("session down")

@pytest.fixture(scope="module", params=["a", "b"])
def module_wide(request, tmp_path_factory):
    made.append(request.param)
    path = tmp_path_factory.mktemp("module") / "file"; path.write_text(request.param); return path

@pytest.fixture(scope="class")
def class_wide(): yield 1

@pytest.fixture
def narrow(tmp_path): yield tmp_path

@pytest.fixture(autouse=True)
def always(): os.environ["ALWAYS"] = "1"; yield

def test_passes(session_wide): print("out"); print("err", file=sys.stderr); logging.warning("logged"); assert made[0] == "session"
def test_module_wide(module_wide): assert module_wide.read_text() in "ab"
def test_module_wide_too(module_wide, narrow): assert narrow.exists()
class TestClass:
    def test_one(self, class_wide): assert class_wide == 1
    def test_two(self, class_wide, session_wide): assert session_wide is made
@pytest.mark.parametrize("left, right", [(1, 1), (2, 3), ("x", "x")])
def test_parametrized(left, right): assert left == right, "they differ"
@pytest.mark.skip(reason="not now")
def test_skipped(session_wide): pass
def test_skips_itself(): pytest.skip("at run time")
@pytest.mark.xfail(reason="known")
def test_xfails(): assert 0
@pytest.mark.xfail(strict=True)
def test_passes_strictly(): pass
def test_fails_with_an_explanation(): assert [1, 2, 3] == [1, 2, 4]
def test_warns(): warnings.warn("be warned", DeprecationWarning)
def test_properties(record_property): record_property("key", "value")
def test_properties_of_all(record_testsuite_property): record_testsuite_property("key", "of all")
def test_captures(capsys, caplog): print("x"); assert capsys.readouterr().out == "x\\n"; logging.error("e"); assert "e" in caplog.text
def test_captures_fd(capfd): os.system("echo y"); assert capfd.readouterr().out == "y\\n"
@pytest.fixture
def broken(): raise RuntimeError("cannot set up")
def test_broken_setup(broken): pass
@pytest.fixture
def breaks_later(): yield; raise RuntimeError("cannot tear down")
def test_broken_teardown(breaks_later): pass
@pytest.fixture(scope="module")
def broken_wide(): raise RuntimeError("wide")
def test_broken_wide(broken_wide): pass
def test_broken_wide_too(broken_wide): pass
def test_dynamic(request): assert request.getfixturevalue("session_wide") is made
class Old(unittest.TestCase):
    @classmethod
    def setUpClass(cls): cls.shared = 1
    def setUp(self): self.own = 2
    def test_old(self): self.assertEqual((self.shared, self.own), (1, 2))
    @unittest.expectedFailure
    def test_expected(self): self.fail()
    def test_subtests(self):
        for n in range(3):
            with self.subTest(n=n): self.assertLess(n, 5)
    def test_failing_subtests(self):
        for n in range(3):
            with self.subTest(n=n): self.assertLess(n, 2)
# A fixture of pytest 9, and an error before.
def test_subtests_of_pytest(subtests):
    for n in range(3):
        with subtests.test(n=n): assert n < 1
'''


def comparable(file):
    """A junit file without times and without who wrote it when."""
    text = file.read_text()
    text = re.sub(r'(?:time|timestamp|hostname)="[^"]*"', "", text)
    return re.sub(r"0x[0-9a-f]+|pytest-\d+/", "", text)


@pytest.mark.parametrize("mode", MODES)
def test_results_junit_and_status_are_those_without_sandboxes(project, mode, tmp_path_factory):
    where = project(test_well=WELL_BEHAVED, test_other="def test_other(): pass\n")
    files = [tmp_path_factory.mktemp("junit") / name for name in ("free.xml", "boxed.xml")]
    free = run(where, f"--junitxml={files[0]}", "-q", "-W", "default", "--sandbox=off")
    boxed = run(where, f"--junitxml={files[1]}", "-q", "-W", "default", f"--sandbox={mode}")
    assert boxed[0] == free[0] == 1
    assert comparable(files[1]) == comparable(files[0])
    summary = re.compile(r"\d+ failed.*(?= in )")
    assert summary.search(boxed[1])[0] == summary.search(free[1])[0]


@pytest.mark.parametrize("mode", MODES)
def test_xdist_gives_the_same_results(project, mode):
    pytest.importorskip("xdist")
    where = project(test_well=WELL_BEHAVED, test_other="def test_other(): pass\n")
    _, free, _ = outcomes(where, "--sandbox=off")
    _, boxed, _ = outcomes(where, f"--sandbox={mode}", "-n", "2")
    assert {name: kind for name, (kind, _) in boxed.items()} == {name: kind for name, (kind, _) in free.items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("more", [(), ("--cov-branch", "--cov-context=test"), ("-n", "2")], ids=["plain", "branch", "xdist"])
def test_coverage_is_that_without_sandboxes(project, mode, more):
    pytest.importorskip("pytest_cov")
    if "-n" in more:
        pytest.importorskip("xdist")
    module = "def f(x):\n    if x:\n        return 1\n    return 2\n\n\ndef g():\n    return 3\n"
    tests = "import module\n\ndef test_true(): assert module.f(1) == 1\ndef test_false(): assert module.f(0) == 2\n"
    where = project(module=module, test_module=tests, conftest="import module\n")
    found = []
    for way in ("off", mode):
        _, said = run(where, "-q", "--cov=module", "--cov-report=xml:cov.xml", *more, f"--sandbox={way}", status=0)
        found.append(re.sub(r'timestamp="\d+"', "", (where / "cov.xml").read_text()))
        # Of two workers each has one of the tests.
        assert "No data was collected" not in said
    assert found[0] == found[1]
    assert 'line-rate="1"' not in found[1] and "line-rate" in found[1]


def test_last_failed_first_failure_and_durations_work(project):
    where = project(test_a="import time\ndef test_one(): time.sleep(0.1)\ndef test_two(): assert 0\ndef test_three(): assert 0\n")
    cache = ["-p", "cacheprovider", "-o", "cache_dir=cache"]
    command = [sys.executable, "-m", "pytest", "-q", "--sandbox=test", *cache]
    if "sandcell" not in _entry_points():
        command[3:3] = ["-p", "sandcell.pytest_plugin"]

    def again(*arguments):
        return subprocess.run([*command, *arguments], cwd=where, capture_output=True, text=True, timeout=60).stdout

    said = again("-x", "--durations=3", "--durations-min=0.05")
    assert "1 failed, 1 passed" in said and re.search(r"0\.1\ds call\s+test_a.py::test_one", said), said
    said = again("--lf")
    assert "1 failed, 2 deselected" in said or "1 failed" in said and "passed" not in said, said


def test_asyncio_hypothesis_and_timeout_work(project):
    for name in ("pytest_asyncio", "hypothesis", "pytest_timeout"):
        pytest.importorskip(name)
    where = project(
        test_plugins="""
import asyncio, time
import pytest, pytest_asyncio
from hypothesis import given, strategies

@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def wide(): await asyncio.sleep(0); yield 1

@pytest.mark.asyncio
async def test_async(): await asyncio.sleep(0.01)

@pytest.mark.asyncio(loop_scope="module")
async def test_async_wide(wide): await asyncio.sleep(0.01); assert wide == 1

@given(strategies.integers())
def test_given(n): assert n == n

@given(strategies.integers())
def test_falsified(n): assert n < 100

@pytest.mark.timeout(1)
def test_timeout(): time.sleep(60)

@pytest.mark.timeout(1, method="thread")
def test_timeout_by_thread(): time.sleep(60)

def test_after(): pass
"""
    )
    code, found, said = outcomes(where, "--sandbox=test")
    kinds = {name: kind for name, (kind, _) in found.items()}
    wanted = dict.fromkeys(["test_async", "test_async_wide", "test_given", "test_after"], "passed")
    wanted |= dict.fromkeys(["test_falsified", "test_timeout", "test_timeout_by_thread"], "failure")
    assert kinds == wanted, said
    # Examples are kept where hypothesis keeps them, and nothing is made of how its versions name that place.
    assert (where / ".hypothesis").is_dir() and not list(where.glob("*<*"))
    assert "n=100" in found["test_falsified"][1].replace("\n", "") and "Timeout" in found["test_timeout"][1], found


def test_bombs_fail_their_tests_and_nothing_of_them_is_left(project):
    marker = f"7{os.getpid()}55"
    where = project(
        test_bombs=f"""
import os, subprocess, time
def test_memory(): held = [bytearray(b"x" * (1 << 20)) for _ in range(1000)]
def test_after_memory(): assert len(bytearray(1 << 20)) == 1 << 20
def test_processes():
    while True:
        if os.fork() == 0: time.sleep(1000)
def test_after_processes(): subprocess.run(["true"], check=True)
def test_fork_bomb():
    subprocess.run(["bash", "-c", "bomb() {{ bomb | bomb & }}; bomb; sleep 0.2", "{marker}"], stderr=subprocess.DEVNULL)
    raise RuntimeError("over")
def test_after_bomb(): subprocess.run(["true"], check=True)
"""
    )
    settings = ["-o", "sandbox_memory=128M", "-o", "sandbox_pids=64", "-o", "sandbox_timeout=30s"]
    # For callers who may make no groups resource limits do.
    _, found, said = outcomes(where, "--sandbox=test", *settings, "-o", "sandbox_best_effort=memory pids")
    kinds = {name: kind for name, (kind, _) in found.items()}
    assert kinds == {name: "passed" if "after" in name else "failure" for name in found} and len(found) == 6, said
    assert "out of memory" in found["test_memory"][1] or "MemoryError" in found["test_memory"][1]
    assert "BlockingIOError" in found["test_processes"][1] and re.search(r"test_processes: pid \d+ .*pytest", said)
    assert not _alive(marker)
    # Unless they say so, a limit that cannot be had is an error, before any test.
    code, said = run(where, "--sandbox=test", *settings, "-k", "after")
    assert code == 0 or (code == 4 and "memory: no cgroup can hold this limit" in said), said


def test_a_daemon_is_named_with_pid_and_command_and_gone(project):
    marker = f"9{os.getpid()}77"
    where = project(
        test_daemon=f"""
import subprocess
def test_daemon():
    subprocess.Popen(["sleep", "{marker}"], start_new_session=True)
    subprocess.Popen(["true"]).wait()
"""
    )
    _, said = run(where, "--sandbox=test", status=0)
    assert re.search(rf"test_daemon.py::test_daemon: pid \d+ sleep {marker}", said), said
    assert not _alive(marker)


def test_when_the_template_of_the_tests_is_killed_the_next_one_is_forked_by_another(project):
    where = project(
        conftest="""
import os, signal
def pytest_runtest_logfinish(nodeid):
    # Of the children of pytest's own process only the template has its command line.
    own = open("/proc/self/cmdline").read()
    for child in open(f"/proc/self/task/{os.getpid()}/children").read().split():
        if nodeid.endswith("[2]") and open(f"/proc/{child}/cmdline").read() == own:
            os.kill(int(child), signal.SIGKILL)
            open("killed", "a").write(child + "\\n")
""",
        test_many="""
import pytest
@pytest.mark.parametrize("n", range(6))
def test_one(n): assert n != 4
""",
    )
    _, found, said = outcomes(where, "--sandbox=test")
    assert len((where / "killed").read_text().split()) == 1
    assert {name: kind for name, (kind, _) in found.items()} == {
        f"test_one[{n}]": "failure" if n == 4 else "passed" for n in range(6)
    }, said


def test_wider_fixtures_that_come_and_go_are_in_the_copies(project):
    where = project(
        test_scopes="""
import pytest
state = []
@pytest.fixture(scope="module")
def late(): state.append("late"); yield "late"; state.remove("late")
@pytest.fixture(scope="class")
def each(): state.append("class"); yield; state.remove("class")
def test_before(): assert state == []
def test_late(late): assert state == ["late"]; state.append("lost")
def test_stays(): assert state == ["late"]
class TestA:
    def test_one(self, each): assert state == ["late", "class"]
    def test_two(self, each): assert state == ["late", "class"]
class TestB:
    def test_none(self): assert state == ["late"]
    def test_again(self, each): assert state == ["late", "class"]
def test_last(): assert state == ["late"]
"""
    )
    assert "8 passed" in run(where, "--sandbox=test", status=0)[1]


def test_marks_and_the_policy_fixture_reach_the_cell(project):
    where = project(
        conftest="""
import pytest
@pytest.fixture(scope="session")
def sandbox_policy(): return {"rlimit": {"nofile": 77}}
""",
        test_policy="""
import errno, resource, socket, time
import pytest
def test_fixture(sandbox_policy):
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 77 and sandbox_policy["rlimit"]
@pytest.mark.sandbox(network="none")
def test_none():
    with pytest.raises(OSError) as raised: socket.create_connection(("127.0.0.1", 1), timeout=1)
    assert raised.value.errno in (errno.ENETUNREACH, errno.EACCES)
def test_loopback():
    with pytest.raises(ConnectionRefusedError): socket.create_connection(("127.0.0.1", 1), timeout=1)
@pytest.mark.sandbox(timeout=0.5)
def test_short(): time.sleep(60)
@pytest.mark.sandbox(no_such_thing=1)
def test_wrong(): pass
@pytest.mark.sandbox(memory="x")
def test_wrong_value(): pass
""",
    )
    _, found, said = outcomes(where, "--sandbox=test")
    kinds = {name: kind for name, (kind, _) in found.items()}
    assert kinds == {
        "test_fixture": "passed", "test_none": "passed", "test_loopback": "passed", "test_short": "failure", "test_wrong": "error",
        "test_wrong_value": "error",
    }, said
    assert "no_such_thing" in found["test_wrong"][1] and "'x' is not a size" in found["test_wrong_value"][1]


def test_the_header_says_what_is_enforced_and_pdb_turns_it_off(project):
    where = project(test_a="def test_a(): pass\n")
    _, said = run(where, "--sandbox", status=0)
    assert "sandbox: a cell for each test; identity=" in said and "network=loopback by namespace" in said
    assert "off under --pdb" in run(where, "--sandbox", "--pdb", status=0)[1]
    assert "no sandboxes under --pdb" in run(where, "--sandbox", "--pdb", "--sandbox-require", status=4)[1]
    assert "sandbox" not in run(where, status=0)[1].split("plugins")[0]
    _, said = run(where, "--sandbox", "--sandbox-require", "-o", "sandbox_memory=1P", "-o", "sandbox_best_effort=memory")
    assert "not enforced here: memory" in said or "is not a size" in said, said


def test_a_cell_that_cannot_be_made_is_an_error_and_never_an_open_door(project):
    where = project(test_a="def test_a(): open('made', 'w')\n")
    _, said = run(where, "--sandbox", "-o", "sandbox_ro=/no/such/place", status=4)
    assert "/no/such/place" in said and not (where / "made").exists()


def test_roots_tests_read_nothing_that_only_root_may_and_what_a_test_writes_is_its_callers(project):
    where = project(
        test_files="""
import pytest
def test_secret(): assert open("secret").read() == "secret"
@pytest.mark.sandbox(keep_caller=True)
def test_secret_of_the_callers(): assert open("secret").read() == "secret"
def test_source(tmp_path):
    assert open(__file__).read()
    (tmp_path / "made").write_text("x")
"""
    )
    secret = where / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    # A directory that others may not enter would be shown with all its files as the test's own.
    where.chmod(0o755)
    _, found, said = outcomes(where, "--sandbox=test", f"--basetemp={where / 'base'}")
    kinds = {name: kind for name, (kind, _) in found.items()}
    denied = "failure" if os.geteuid() == 0 else "passed"
    assert kinds == {"test_secret": denied, "test_secret_of_the_callers": "passed", "test_source": "passed"}, said
    assert denied == "passed" or "PermissionError" in found["test_secret"][1]
    # Beside it a link to the directory of the last one.
    made = where / "base" / "test_source0" / "made"
    assert made.stat().st_uid == os.geteuid()
    # The twin: without the sandbox the same test reads it.
    _, found, _ = outcomes(where, "--sandbox=off")
    assert found["test_secret"][0] == "passed"


def test_a_weaker_cell_of_one_test_is_an_error_where_nothing_may_be_weak(project):
    where = project(
        test_a="import pytest\n@pytest.mark.sandbox(keep_caller=True)\ndef test_weak(): pass\ndef test_strong(): pass\n"
    )
    _, found, said = outcomes(where, "--sandbox=test", "--sandbox-require")
    assert found["test_strong"][0] == "passed", said
    if os.geteuid() == 0:
        assert found["test_weak"][0] == "error" and "not enforced here: identity" in found["test_weak"][1], said
    else:
        # Nobody else's tests can read what the caller cannot.
        assert found["test_weak"][0] == "passed", said


def test_what_is_set_up_and_torn_down_between_tests_is_known_to_the_next_one(project):
    where = project(
        test_between="""
import os, pytest
trace = []
@pytest.fixture(scope="module", params=["a", "b"])
def wide(request): trace.append("+" + request.param); yield request.param; trace.append("-" + request.param)
@pytest.fixture(scope="class")
def of_class(): trace.append("+class"); yield; trace.append("-class")
def test_first(request): assert trace == [] and request.session.testsfailed == 0
def test_fails(): assert 0
def test_counts(request): assert request.session.testsfailed == 1
def test_wide(wide): assert trace == (["+a"] if wide == "a" else ["+a", "-a", "+b"])
def test_wide_too(wide): assert trace[-1] == "+" + wide
class TestOne:
    def test_in(self, of_class): assert trace[-1] == "+class"
    def test_in_too(self, of_class): assert trace[-1] == "+class" and trace.count("+class") == 1
def test_after(): assert trace == ["+a", "-a", "+b", "+class", "-class"]
@pytest.mark.sandbox(network="none")
def test_another_policy(): assert trace[-1] == "-class"
def test_last(): assert trace[-1] == "-class"
"""
    )
    _, free, said = outcomes(where, "--sandbox=off")
    _, boxed, _ = outcomes(where, "--sandbox=test")
    kinds = {name: kind for name, (kind, _) in free.items()}
    assert [name for name, kind in kinds.items() if kind != "passed"] == ["test_fails"], said
    assert {name: kind for name, (kind, _) in boxed.items()} == kinds, boxed


def test_tests_of_a_file_share_their_process_whatever_time_each_has(project):
    where = project(
        test_file="""
import os, time, pytest
state = []
@pytest.mark.sandbox(timeout=30)
def test_one(): state.append(os.getpid())
def test_two(): assert state == [os.getpid()]
@pytest.mark.sandbox(timeout=0.5)
def test_slow(): time.sleep(60)
def test_three(): assert state == []
"""
    )
    _, found, said = outcomes(where, "--sandbox=file")
    kinds = {name: kind for name, (kind, _) in found.items()}
    # What was killed with the slow one is gone for those after it.
    assert kinds == {"test_one": "passed", "test_two": "passed", "test_slow": "failure", "test_three": "passed"}, said


def test_nothing_survives_a_killed_pytest(project):
    marker = f"8{os.getpid()}66"
    where = project(
        test_sleeps=f"import subprocess\ndef test_sleeps(): subprocess.run(['sleep', '{marker}'])\ndef test_next(): pass\n"
    )
    # All copies of pytest have its command line.
    own = str(where / "test_sleeps.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--sandbox=test", own]
    if "sandcell" not in _entry_points():
        command[3:3] = ["-p", "sandcell.pytest_plugin"]
    runner = subprocess.Popen(command, cwd=where, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        # Pytest, the template, and at least for the first test who watches and who runs it.
        _until(lambda: _alive(marker) and len(_alive(own)) >= 4)
    finally:
        runner.kill()
        runner.wait()
    _until(lambda: not _alive(marker) and not _alive(own))


def _alive(marker):
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and marker in _words(pid)]


def _words(pid):
    try:
        return open(f"/proc/{pid}/cmdline").read().split("\0")
    except OSError:
        # It has ended meanwhile.
        return []


def _until(there):
    for _ in range(600):
        if there():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to that in a minute")


def test_settings_of_the_ini_file_hold(project):
    where = project(test_a="import os\ndef test_a(): assert os.getpid() < 100; open('out/made', 'w')\n")
    (where / "out").mkdir()
    (where / "pytest.ini").write_text("[pytest]\nsandbox = test\nsandbox_rw = out\n")
    run(where, status=0)
    assert (where / "out" / "made").exists()


def test_importing_the_plugin_is_light():
    code = "import sys, json; before = set(sys.modules); import sandcell.pytest_plugin; print(json.dumps(sorted(set(sys.modules) - before)))"
    imported = json.loads(subprocess.run([sys.executable, "-c", "import pytest\n" + code], capture_output=True, text=True).stdout)
    assert not {"asyncio", "sandcell._pytest_cells", "sandcell._pytest_child"} & set(imported), imported
