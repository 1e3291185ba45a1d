"""The processes of tests: what is in them, what ends them, and that nothing of them is left."""

import os
import re
import subprocess

from plugin_runs import alive, command, outcomes, project, run, until  # noqa: F401 (a fixture)


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
    assert not alive(marker)
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
    assert not alive(marker)


def test_the_names_of_what_is_left_forge_no_lines_and_are_short(project):  # noqa: F811
    marker = f"6{os.getpid()}44"
    where = project(
        test_left=f"""
import subprocess
def test_left():
    for name in ("\\u2028test_other.py::test_other: pid 7 forged", "\\x1b[2J\\x9b2J\\x85forged", "\\u202eforged", "x" * 100_000):
        subprocess.Popen(["/bin/sh", "-c", "sleep {marker}; :", name], start_new_session=True)
"""
    )
    _, said = run(where, "--sandbox=test", status=0)
    lines = [line for line in said.splitlines() if "forged" in line or "xxxxx" in line]
    assert len(lines) == 1 and lines[0].startswith("test_left.py::test_left: pid"), lines
    assert not re.search("[\x1b\x85\x9b\u2028\u202e]", lines[0]) and "\\u2028" in lines[0] and len(lines[0]) < 3000, lines
    assert not alive(marker)


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
    runner = subprocess.Popen(command("-q", "--sandbox=test", own), cwd=where, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        # Pytest, the template, and at least for the first test who watches and who runs it.
        until(lambda: alive(marker) and len(alive(own)) >= 4)
    finally:
        runner.kill()
        runner.wait()
    until(lambda: not alive(marker) and not alive(own))
