"""Popen and Cell: what goes beyond subprocess, and the places where the two meet."""

import gc
import os
import selectors
import signal
import subprocess
import sys
import threading

import pytest

import sandcell

SH = "/bin/sh"


@pytest.fixture(scope="module")
def box():
    return sandcell.Sandbox()


@pytest.fixture
def cell(box):
    with box.start() as cell:
        yield cell


def test_streams_can_be_talked_to_while_the_program_runs():
    with sandcell.Popen(["cat"], stdin=sandcell.PIPE, stdout=sandcell.PIPE, text=True, bufsize=1) as p:
        assert isinstance(p, subprocess.Popen)
        p.stdin.write("a line\n")
        assert p.stdout.readline() == "a line\n"
        assert (p.poll(), p.returncode, p.outcome) == (None, None, None)
    assert (p.returncode, p.outcome.kind) == (0, "exited")
    assert p.args == ["cat"]


def test_communicate_carries_more_than_pipes_hold():
    data = os.urandom(1 << 20)
    with sandcell.Popen(["cat"], stdin=sandcell.PIPE, stdout=sandcell.PIPE, stderr=sandcell.PIPE) as p:
        assert p.communicate(data) == (data, b"")


def test_communicate_may_run_out_of_time_and_go_on():
    ours, theirs = os.pipe()
    line = f"echo a; read x <&{ours}; echo $x"  # sh knows descriptors of one digit only
    with sandcell.Popen(["bash", "-c", line], pass_fds=[ours], stdout=sandcell.PIPE, stderr=sandcell.PIPE) as p:
        with pytest.raises(sandcell.TimeoutExpired) as caught:
            p.communicate(timeout=0.2)
        assert (caught.value.timeout, caught.value.result) == (0.2, None)
        os.write(theirs, b"b\n")
        assert p.communicate() == (b"a\nb\n", b"")
    os.close(ours)
    os.close(theirs)


def test_waiting_may_run_out_of_time():
    with sandcell.Popen(["sleep", "1000"]) as p:
        with pytest.raises(subprocess.TimeoutExpired):
            p.wait(timeout=0.05)
        p.kill()
        assert p.wait() == -signal.SIGKILL
        assert p.outcome.kind == "killed"


def test_signals_reach_the_program():
    line = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.01; done"
    with sandcell.Popen([SH, "-c", line], stdout=sandcell.PIPE, text=True) as p:
        assert p.stdout.readline() == "ready\n"
        p.terminate()
        assert (p.stdout.readline(), p.wait()) == ("got it\n", 3)
    p.terminate()
    p.kill()
    p.send_signal(signal.SIGHUP)


def test_the_number_of_the_process_is_the_hosts():
    with sandcell.Popen(["sleep", "1000"]) as p:
        line = ""
        while not line and p.poll() is None:  # amid its execve, a process has none
            with open(f"/proc/{p.pid}/cmdline") as file:
                line = file.read()
        p.kill()
    assert line == "sleep\0001000\0"


def test_it_can_be_waited_for_with_a_selector():
    with sandcell.Popen(["cat"], stdin=sandcell.PIPE) as p, selectors.DefaultSelector() as selector:
        selector.register(p, selectors.EVENT_READ)
        assert selector.select(0) == []
        p.stdin.close()
        assert selector.select(60)[0][0].fileobj is p
        assert p.poll() == 0


def test_another_thread_can_ask_and_kill_while_one_waits():
    with sandcell.Popen(["sleep", "1000"]) as p:
        waiter = threading.Thread(target=p.wait)
        waiter.start()
        assert p.poll() is None
        p.kill()
        waiter.join(60)
        assert p.returncode == -signal.SIGKILL


def test_a_shell_takes_its_line_and_its_parameters():
    with sandcell.Popen("echo $0 $1", shell=True, stdout=sandcell.PIPE) as p:
        assert p.communicate()[0] == b"/bin/sh\n"
    with sandcell.Popen(["echo $0 $1", "a", "b"], shell=True, stdout=sandcell.PIPE) as p:
        assert p.communicate()[0] == b"a b\n"


def test_the_timeout_of_the_policy_ends_it():
    with sandcell.Popen(["sleep", "1000"], timeout=0.1) as p:
        assert p.wait() == -signal.SIGKILL
        assert p.outcome.kind == "timed_out"


def test_what_it_used_and_who_it_was_is_known():
    with sandcell.Popen(["true"], user=(4321, 4321)) as p:
        assert p.identity.uid == 4321
        assert "network" in [line.item for line in p.enforced]
        assert p.usage is None
        p.wait()
        assert p.usage.wall_seconds > 0
        assert p.result.report["error"] is None


@pytest.mark.parametrize("keyword", [{"preexec_fn": print}, {"close_fds": False}, {"restore_signals": False}])
def test_what_cannot_be_in_a_sandbox_is_refused_by_name(keyword):
    with pytest.raises(sandcell.PolicyError, match=next(iter(keyword))):
        sandcell.Popen(["true"], **keyword)


def test_options_belong_to_the_sandbox_where_there_is_one(box):
    with pytest.raises(TypeError, match="memory"):
        sandcell.Popen(["true"], sandbox=box, memory="64M")
    with pytest.raises(TypeError, match="memroy"):
        sandcell.Popen(["true"], memroy="64M")


def test_programs_that_cannot_start_leave_nothing_open(box):
    box.run(["true"])  # what the sandbox keeps for all its runs is opened by the first
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for args, keywords, error in [
        (["/no/such/program"], {}, FileNotFoundError),
        (["true"], {"cwd": "/no/such/directory"}, FileNotFoundError),
        (["/etc/passwd"], {}, PermissionError),
        (["true\0"], {}, ValueError),
        ([], {}, sandcell.PolicyError),
        (["true"], {"env": {"A=": "b"}}, sandcell.PolicyError),
    ]:
        pipes = dict.fromkeys(["stdin", "stdout", "stderr"], sandcell.PIPE)
        with pytest.raises(error):
            box.Popen(args, **pipes, **keywords)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_object_that_is_dropped_takes_its_program_along(box):
    ours, theirs = os.pipe()
    p = box.Popen(["sleep", "1000"], stdout=theirs)
    os.close(theirs)
    with pytest.warns(ResourceWarning, match="still running"):
        del p
        gc.collect()
    assert os.read(ours, 1) == b""
    os.close(ours)


def test_processes_left_over_can_be_made_a_failure():
    # Until it has executed sleep it is a shell.
    script = 'sleep 1000 & while read name </proc/$!/comm && [ "$name" != sleep ]; do :; done'
    with sandcell.Popen([SH, "-c", script], leftovers="fail") as p:
        with pytest.raises(sandcell.SandboxError, match="sleep"):
            p.wait()
        assert p.returncode == 0


def test_programs_of_a_cell_share_its_files_and_its_processes(cell):
    executed = 'while read name </proc/$!/comm && [ "$name" != sleep ]; do :; done'
    cell.run([SH, "-c", f"echo kept >/tmp/file; sleep 1000 >/dev/null 2>&1 & {executed}"], check=True)
    assert cell.run(["cat", "/tmp/file"], capture_output=True).stdout == b"kept\n"
    with cell.Popen(["pidof", "sleep"], stdout=sandcell.PIPE) as p:
        assert p.communicate()[0].strip().isdigit()
    assert cell.identity == cell.run(["true"]).identity
    assert "network" in [line.item for line in cell.enforced]


def test_pipes_that_others_hold_do_not_keep_the_caller(cell):
    line = "echo out; echo err >&2; sleep 1000 &"
    r = cell.run([SH, "-c", line], capture_output=True, text=True)
    assert (r.stdout, r.stderr) == ("out\n", "err\n")
    with cell.Popen([SH, "-c", line], stdout=sandcell.PIPE, stderr=sandcell.PIPE, text=True) as p:
        assert p.communicate() == ("out\n", "err\n")
    data = b"x" * (1 << 20)
    with cell.Popen(["cat"], stdin=sandcell.PIPE, stdout=sandcell.PIPE) as p:
        assert p.communicate(data) == (data, None)
    with cell.Popen(["sleep", "1000"], stdout=sandcell.PIPE) as p:
        with pytest.raises(sandcell.TimeoutExpired):
            p.communicate(timeout=0.3)
        p.kill()


def test_a_cell_that_is_closed_has_ended_everything(box):
    cell = box.start()
    p = cell.Popen(["sleep", "1000"])
    with selectors.DefaultSelector() as selector:
        selector.register(cell, selectors.EVENT_READ)
        assert selector.select(0) == []
    cell.close()
    cell.close()
    assert p.wait() == -signal.SIGKILL
    assert p.outcome.kind == "killed"
    with pytest.raises(ValueError, match="closed"):
        cell.run(["true"])
    with pytest.raises(ValueError, match="closed"):
        cell.fileno()


def test_killing_one_program_leaves_the_cell_to_the_others(cell):
    first, second = cell.Popen(["sleep", "1000"]), cell.Popen(["cat"], stdin=sandcell.PIPE)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    second.stdin.close()
    assert second.wait() == 0


def limited():
    """A cell with limits of its own, or None where this host's cgroups are not the caller's."""
    try:
        return sandcell.Sandbox(memory="64M", pids=16).start()
    except sandcell.UnsupportedError:
        return None


def test_a_cell_can_be_frozen_measured_and_given_other_limits(cell):
    for action in (cell.freeze, cell.thaw):
        with pytest.raises(sandcell.UnsupportedError):
            action()
    with pytest.raises(TypeError, match="user"):
        cell.set_limits(user="root")
    own = limited()
    if own is None:
        return
    with own:
        with own.Popen(["cat"], stdin=sandcell.PIPE, stdout=sandcell.PIPE, bufsize=0) as p:
            own.freeze()
            p.stdin.write(b"x")
            with selectors.DefaultSelector() as selector:
                selector.register(p.stdout, selectors.EVENT_READ)
                assert selector.select(0.2) == []
                own.thaw()
                assert selector.select(60) != []
            p.stdin.close()
        assert own.usage().memory_peak_bytes > 0
        many = [SH, "-c", "sleep 1 & sleep 1 & sleep 1 & sleep 1 & wait"]
        assert own.run(many, stderr=sandcell.DEVNULL).returncode == 0
        own.set_limits(pids=3)
        assert own.run(many, stderr=sandcell.DEVNULL).returncode != 0
        with pytest.raises(ValueError, match="memory"):
            own.set_limits(memory="many")


@pytest.mark.parametrize(
    "call",
    [
        "p.wait()",
        "p.wait(timeout=1000)",
        "p.communicate()",
        "p.communicate(timeout=1000)",
        "cell.run(['sleep', '1000'])",
        "cell.run(['sleep', '1000'], capture_output=True)",
        "q.communicate()",
    ],
)
def test_an_interrupt_ends_every_call_at_once_and_the_process_leaves_nothing(call):
    program = (
        "import sandcell, sys, time\n"
        "box = sandcell.Sandbox()\n"
        "cell = box.start()\n"
        "hold = int(sys.argv[1])\n"
        "p = box.Popen(['sleep', '1000'], stdout=sandcell.PIPE, stderr=hold)\n"
        "q = cell.Popen(['sleep', '1000'], stdout=sandcell.PIPE, stderr=hold)\n"
        "print('up', flush=True)\n"
        f"try:\n    {call}\n"
        "except KeyboardInterrupt:\n"
        "    print(time.monotonic(), flush=True)\n"
        "    raise SystemExit(0)\n"
    )
    ours, theirs = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, str(theirs)],
        stdout=subprocess.PIPE,
        pass_fds=[theirs],
        text=True,
    ) as python:
        os.close(theirs)
        assert python.stdout.readline() == "up\n"
        # Into the call; too early, it would be no interrupt of a wait, but none the less of the call.
        threading.Event().wait(0.1)
        python.send_signal(signal.SIGINT)
        assert float(python.communicate(timeout=60)[0]) > 0
        assert python.returncode == 0
        assert os.read(ours, 1) == b"", "something still holds the pipe"
    os.close(ours)
