"""sandcell.run against the machine itself. Nothing here needs more rights than the caller has."""

import gc
import os
import signal
import subprocess
import sys
import threading

import pytest

import sandcell

SH = "/bin/sh"


def shell(line, **keywords):
    return sandcell.run([SH, "-c", line], capture_output=True, **keywords)


def child_processes():
    """Of all threads of this process, dead ones that nobody has waited for included."""
    found = set()
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            found.update(file.read().split())
    return found


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_output_and_status_are_those_of_the_program():
    r = shell("echo out; echo err >&2; exit 7")
    assert (r.returncode, r.stdout, r.stderr) == (7, b"out\n", b"err\n")
    assert (r.outcome.kind, r.outcome.code, r.outcome.success) == ("exited", 7, False)
    assert r.args == [SH, "-c", "echo out; echo err >&2; exit 7"]


def test_a_single_string_is_a_program_without_arguments():
    assert sandcell.run("true").returncode == 0
    assert sandcell.run(b"/bin/false").returncode == 1


def test_text_is_decoded_and_newlines_are_made_one():
    assert shell(r"printf 'a\r\nb\303\244'", text=True, encoding="utf-8").stdout == "a\nbä"
    assert shell(r"printf '\377'", encoding="utf-8", errors="replace").stdout == "\ufffd"
    with pytest.raises(UnicodeDecodeError):
        shell(r"printf '\377'", encoding="utf-8")


def test_input_of_more_than_a_pipe_holds_comes_back():
    data = os.urandom(1 << 20)
    assert sandcell.run(["cat"], input=data, capture_output=True).stdout == data
    assert sandcell.run(["cat"], input="wörd", capture_output=True, encoding="utf-8").stdout == "wörd"


def test_input_that_nobody_reads_is_no_error():
    assert sandcell.run(["true"], input=b"x" * (1 << 20)).returncode == 0


def test_streams_go_where_subprocess_sends_them(tmp_path):
    merged = sandcell.run([SH, "-c", "echo a; echo b >&2"], stdout=sandcell.PIPE, stderr=sandcell.STDOUT)
    assert (merged.stdout, merged.stderr) == (b"a\nb\n", None)
    with open(tmp_path / "out", "w+b") as file:
        quiet = sandcell.run([SH, "-c", "echo a; echo b >&2"], stdout=file, stderr=sandcell.DEVNULL)
        file.seek(0)
        assert (quiet.stdout, quiet.stderr, file.read()) == (None, None, b"a\n")


def test_keywords_that_exclude_each_other_raise_as_in_subprocess():
    with pytest.raises(ValueError, match="capture_output"):
        sandcell.run(["true"], capture_output=True, stdout=sandcell.PIPE)
    with pytest.raises(ValueError, match="stdin"):
        sandcell.run(["true"], input=b"", stdin=sandcell.PIPE)


def test_the_environment_is_clean_or_exactly_what_was_given(monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    assert b"SECRET" not in shell("env").stdout
    assert b"PATH=" in shell("env").stdout
    given = sandcell.run(["/usr/bin/env"], env={"A": "b"}, capture_output=True, text=True)
    assert given.stdout == "A=b\n"
    assert b"SECRET=1" in shell("env", keep_env=True).stdout


def test_the_working_directory_is_one_inside():
    assert shell("pwd", cwd="/usr").stdout == b"/usr\n"


def test_check_raises_with_the_outcome():
    with pytest.raises(subprocess.CalledProcessError) as caught:
        shell("echo why >&2; exit 3", check=True)
    error = caught.value
    assert isinstance(error, sandcell.CalledProcessError)
    assert (error.returncode, error.stderr, error.result.outcome.code) == (3, b"why\n", 3)
    assert shell("true", check=True).returncode == 0


def test_a_signal_is_a_negative_status():
    r = shell("kill -9 $$")
    assert (r.returncode, r.outcome.kind, r.outcome.signal) == (-signal.SIGKILL, "signaled", signal.SIGKILL)


def test_a_timeout_raises_with_what_was_written_by_then():
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        shell("echo before; sleep 1000", timeout=0.5, text=True)
    error = caught.value
    assert isinstance(error, sandcell.TimeoutExpired)
    assert (error.timeout, error.output, error.result.outcome.kind) == (0.5, b"before\n", "timed_out")
    assert shell("true", timeout="30s").returncode == 0


def test_a_timeout_of_the_policy_holds_for_every_run():
    box = sandcell.Sandbox(timeout="200ms")
    for _ in range(2):
        with pytest.raises(sandcell.TimeoutExpired, match="0.2 seconds"):
            box.run(["sleep", "1000"])


def test_a_program_that_cannot_be_executed_raises_as_in_subprocess():
    with pytest.raises(FileNotFoundError) as caught:
        sandcell.run(["/no/such/program"])
    assert "/no/such/program" in str(caught.value)
    with pytest.raises(PermissionError):
        sandcell.run(["/etc/passwd"])


@pytest.mark.parametrize(
    "keyword, value",
    [("memory", "64Q"), ("memory", -1), ("pids", 1.5), ("network", "moon"), ("user", "nobody:x"), ("cap_add", "NET_RAW"),
     ("rlimit", {"files": 3}), ("grace", "soon"), ("env", ["A=b"]), ("ro", "/usr"), ("keep_env", 1)],
)  # fmt: skip
def test_a_keyword_that_makes_no_sense_is_named(keyword, value):
    with pytest.raises(sandcell.PolicyError, match=keyword) as caught:
        sandcell.Sandbox(**{keyword: value})
    assert isinstance(caught.value, ValueError)


def test_an_unknown_keyword_is_a_type_error():
    with pytest.raises(TypeError, match="memroy"):
        sandcell.run(["true"], memroy="64M")


def test_no_arguments_at_all_are_refused():
    with pytest.raises(sandcell.PolicyError, match="args"):
        sandcell.run([])


def test_the_identity_and_what_was_enforced_are_told():
    r = shell("id -u", text=True)
    assert int(r.stdout) == r.identity.uid >= 1000
    assert {e.item: e.by for e in r.enforced}["network"] == "namespace"
    assert int(shell("id -u", user="root").stdout) == 0
    assert int(shell("id -u", user=(4321, 4321)).stdout) == 4321


def test_usage_counts_time_and_output():
    r = shell("echo hello")
    assert r.usage.wall_seconds > 0
    assert r.usage.user_seconds is not None


def test_an_output_limit_ends_the_program():
    r = shell("while :; do echo yyyyyyyyyyyyyyyy; done", output_limit="64K")
    assert r.outcome.kind == "output_limit"
    assert r.returncode == -signal.SIGXFSZ
    assert 0 < len(r.stdout) <= 64 << 10


def test_a_limit_on_files_holds():
    assert shell("ulimit -n", rlimit={"nofile": (64, 128)}).stdout == b"64\n"
    assert shell("ulimit -Hn", rlimit={"nofile": (64, 128)}).stdout == b"128\n"


def test_binds_are_read_only_or_writable(tmp_path):
    tmp_path.chmod(0o777)
    (tmp_path / "file").write_text("content")
    where = str(tmp_path)
    refused = shell("cat /data/file; echo new >/data/other", ro=[(where, "/data")])
    assert refused.stdout == b"content" and refused.returncode != 0
    assert not (tmp_path / "other").exists()
    shell("echo new >/data/other", rw=[f"{where}:/data"], check=True)
    assert (tmp_path / "other").read_text() == "new\n"


def test_processes_left_over_can_be_made_a_failure():
    # Until it has executed sleep it is a shell.
    script = 'sleep 1000 & while read name </proc/$!/comm && [ "$name" != sleep ]; do :; done'
    assert shell(script, leftovers="report").leftovers[0].pid > 1
    with pytest.raises(sandcell.SandboxError, match="sleep"):
        shell(script, leftovers="fail")


def test_a_setup_that_fails_says_which_step(tmp_path):
    with pytest.raises(sandcell.SetupError) as caught:
        sandcell.run(["true"], layers=[tmp_path], upper="/proc/no-such-dir")
    error = caught.value
    assert isinstance(error, sandcell.SandboxError) and isinstance(error, OSError)
    assert (error.kind, error.stage, error.filename) == ("setup", "upper", "/proc/no-such-dir/upper")
    assert error.errno is not None


def test_a_bind_of_nothing_is_refused_before_anything_starts():
    with pytest.raises(sandcell.PolicyError, match="/no/such/dir"):
        sandcell.run(["true"], ro=[("/no/such/dir", "/data")])


def test_a_descriptor_is_passed_on():
    ours, theirs = os.pipe()
    try:
        os.write(theirs, b"through\n")
        os.close(theirs)
        line = f"cat <&{ours}"  # sh knows descriptors of one digit only
        assert sandcell.run(["bash", "-c", line], pass_fds=[ours], capture_output=True).stdout == b"through\n"
    finally:
        os.close(ours)


def test_a_descriptor_that_is_not_open_is_refused():
    with pytest.raises(OSError):
        sandcell.run(["true"], stdout=999)


def test_no_descriptor_and_no_process_is_left():
    gc.collect()  # what earlier tests have left in cycles must not go away amid the counting
    before, children = open_descriptors(), child_processes()
    for _ in range(5):
        shell("echo x; sleep 1000 &")
        with pytest.raises(FileNotFoundError):
            shell("true", executable="/no/such/program")
        with pytest.raises(sandcell.TimeoutExpired):
            shell("sleep 1000", timeout=0.05)
        with pytest.raises(sandcell.CalledProcessError):
            shell("false", check=True)
    assert (open_descriptors(), child_processes()) == (before, children)


def test_threads_run_side_by_side_and_the_interpreter_is_free():
    # Each waits for a line that only the other writes: one at a time, they would wait for ever.
    first, second = os.pipe(), os.pipe()
    results = {}

    def work(name, line, mine, other):
        results[name] = sandcell.run([SH, "-c", line], stdin=mine, stdout=other, timeout=60).returncode

    threads = [
        threading.Thread(target=work, args=("a", "echo go; read x", first[0], second[1])),
        threading.Thread(target=work, args=("b", "echo go; read x", second[0], first[1])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for fd in (*first, *second):
        os.close(fd)
    assert results == {"a": 0, "b": 0}


@pytest.mark.parametrize("capture", [True, False])
def test_an_interrupt_ends_the_wait_and_the_program(capture):
    program = (
        "import sandcell, sys\n"
        "try:\n"
        "    sandcell.run(['/bin/sh', '-c', 'echo up >&2; echo up; exec sleep 1000'], stderr=int(sys.argv[1]),\n"
        "                 stdout=sandcell.PIPE if sys.argv[2] == 'True' else sandcell.DEVNULL)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    ours, theirs = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", program, str(theirs), str(capture)], stdout=subprocess.PIPE, pass_fds=[theirs]
    ) as python:
        os.close(theirs)
        assert os.read(ours, 3) == b"up\n"
        python.send_signal(signal.SIGINT)
        assert python.communicate(timeout=60)[0] == b"interrupted\n"
        # The last holder of the pipe is gone: nothing is left running.
        assert os.read(ours, 1) == b""
    os.close(ours)
