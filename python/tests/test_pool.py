"""Sandboxes that are built before a program comes."""

import os
import subprocess
import sys
import threading
import time

import pytest

import sandcell


def test_a_program_takes_what_waits_and_another_one_is_launched():
    with sandcell.Sandbox().pool(2) as pool:
        assert pool.stats() == sandcell.PoolStats(hits=0, misses=0, waiting=2)
        done = pool.run(["sh", "-c", "echo $NAME; cat; exit 3"], env={"NAME": "bound"}, input="typed", text=True, capture_output=True)
        assert (done.stdout, done.returncode) == ("bound\ntyped", 3)
        assert pool.stats() == sandcell.PoolStats(hits=1, misses=0, waiting=2)
        with pool.Popen(["sh", "-c", "read line; echo $line"], stdin=sandcell.PIPE, stdout=sandcell.PIPE, text=True) as process:
            assert process.communicate("spoken\n")[0] == "spoken\n"
        with pytest.raises(sandcell.TimeoutExpired):
            pool.run(["sleep", "1000"], timeout=0.1)
        assert pool.stats().hits == 3
    pool.close()
    with pytest.raises(ValueError, match="closed"):
        pool.run(["true"])


def test_two_programs_of_a_pool_share_no_file_and_no_process():
    script = "test -e /tmp/left && echo found; touch /tmp/left; ls /proc | grep -c '^[0-9]'"
    sandbox = sandcell.Sandbox()
    with sandbox.pool(2) as pool:
        first, second = (pool.run(["sh", "-c", script], text=True, capture_output=True).stdout for _ in range(2))
    assert first == second and "found" not in second
    # The control: in a cell the second finds what the first has left.
    with sandbox.start() as cell:
        assert [("found" in cell.run(["sh", "-c", script], text=True, capture_output=True).stdout) for _ in range(2)] == [False, True]


def test_a_forked_process_has_an_empty_pool_and_leaves_its_parents_alone():
    with sandcell.Sandbox().pool(1) as pool:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                done = pool.run(["echo", "child"], capture_output=True)
                os.write(write, repr((done.stdout, pool.stats().misses, pool.stats().waiting)).encode())
                pool.close()
                status = 0
            finally:
                os._exit(status)
        os.close(write)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        with open(read, "rb") as pipe:
            assert pipe.read() == repr((b"child\n", 1, 0)).encode()
        assert pool.run(["echo", "parent"], capture_output=True).stdout == b"parent\n"
        assert pool.stats() == sandcell.PoolStats(hits=1, misses=0, waiting=1)


def test_a_fork_while_another_thread_takes_from_the_pool_does_not_hang():
    with sandcell.Sandbox().pool(1) as pool:
        over = threading.Event()

        def take():
            while not over.is_set():
                pool.run(["true"])

        thread = threading.Thread(target=take)
        thread.start()
        try:
            for _ in range(20):
                pid = os.fork()
                if pid == 0:
                    pool.stats()
                    os._exit(0)
                until = time.monotonic() + 60
                while os.waitpid(pid, os.WNOHANG)[0] == 0:
                    assert time.monotonic() < until, "the child hangs"
                    time.sleep(0.001)
        finally:
            over.set()
            thread.join()


def test_what_is_decided_before_a_sandbox_is_built_is_refused():
    sandbox = sandcell.Sandbox()
    with sandbox.pool(1) as pool:
        for keyword in ("track_changes", "learn"):
            with pytest.raises(sandcell.PolicyError, match=keyword):
                pool.run(["true"], **{keyword: True})
        assert pool.stats() == sandcell.PoolStats(hits=0, misses=0, waiting=1)
    for size in (0, 1001):
        with pytest.raises(sandcell.PolicyError, match="size"):
            sandbox.pool(size)


def test_what_a_program_inherits_is_that_of_the_call_and_in_a_pool_that_of_the_launch():
    # So `run` cannot take from a pool unasked.
    code = """
import os, resource, sandcell
show = ["sh", "-c", "ulimit -n"]
def shown(run):
    return int(run(show, capture_output=True, text=True).stdout)
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
with sandcell.Sandbox().pool(1) as pool:
    assert [shown(sandcell.run) for _ in range(5)] == [400] * 5
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    assert [shown(sandcell.run), shown(pool.run), shown(pool.run)] == [300, 400, 300]
    assert pool.stats().hits == 2
"""
    subprocess.run([sys.executable, "-c", code], check=True)
