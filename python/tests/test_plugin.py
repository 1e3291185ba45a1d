"""The pytest plugin: what becomes of tests is what becomes of them without sandboxes, or what their misbehaviour deserves."""

import re
import subprocess

import pytest
from plugin_runs import MODES, command, outcomes, project, run  # noqa: F401 (a fixture)

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
    start = command("-q", "--sandbox=test", *cache)

    def again(*arguments):
        return subprocess.run([*start, *arguments], cwd=where, capture_output=True, text=True, timeout=240).stdout

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
