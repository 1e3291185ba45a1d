"""Executor: tasks in Python processes in sandboxes."""

import concurrent.futures
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest

import sandcell

HERE = os.path.dirname(os.path.abspath(__file__))


def executor(workers=2, **keywords):
    packages = [e for e in sys.path if any(os.path.isdir(os.path.join(e, p)) for p in ("pytest", "sandcell"))]
    return sandcell.Executor(workers, path=[HERE, *packages], **keywords)


def square(x):
    return x * x


def failing():
    return {}["missing"]


def user():
    return os.getuid(), os.getpid()


class Hostile:
    def __reduce__(self):
        return os.system, ("touch /tmp/sandcell-escaped",)


class Point:
    pass


class Huge:
    def __reduce__(self):
        return bytearray, (1 << 40,)


def hostile():
    return Hostile()


def huge():
    return Huge()


def plain():
    return [bytearray(b"a"), b"b", {1.5: (None, True)}, frozenset("x"), 1 << 100, 2j, ValueError("v").args]


def drip():
    piece = (1 << 20).to_bytes(8, "big")  # an answer's length, and then a byte at a time
    while True:
        os.write(int(sys.argv[1]), piece)
        piece = b"x"
        time.sleep(0.1)


def point():
    return Point()


def unpicklable():
    return lambda: None


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def leave():
    os._exit(7)


def leave_politely():
    sys.exit(8)


def loop():
    while True:
        pass


def big():
    return b"x" * (1 << 20)


def unanswering():
    os.closerange(3, 1024)
    loop()


def test_results_come_back_in_order_from_inside():
    with executor() as pool:
        assert list(pool.map(square, range(20))) == [n * n for n in range(20)]
        uid, pid = pool.submit(user).result()
        assert uid >= 1000 and pid < 10 < os.getpid()
        assert pool.submit(lambda x: x + 1, 1).result() == 2 if "cloudpickle" in sys.modules else True
        assert isinstance(pool, concurrent.futures.Executor)
    with pytest.raises(RuntimeError):
        pool.submit(square, 1)


class Own(Exception):
    pass


def own():
    raise Own("what\x1b[2J", 7)


def test_an_exception_of_ones_own_keeps_its_name_text_and_traceback():
    with executor(1) as pool:
        with pytest.raises(sandcell.TaskError, match="Own.*what") as caught:
            pool.submit(own).result()
        assert caught.value.type_name == f"{__name__}.Own" and caught.value.outcome is None
        assert "in own" in caught.value.traceback and "in own" in str(caught.value.__cause__)
        assert "\x1b" not in str(caught.value) + caught.value.traceback
    with executor(1, decoders={Own: lambda fields: Own(*fields["args"])}) as pool:
        with pytest.raises(Own) as caught:
            pool.submit(own).result()
        assert caught.value.args == ("what\x1b[2J", 7)


def test_an_exception_of_the_task_is_the_futures():
    with executor(1) as pool:
        with pytest.raises(KeyError, match="missing") as caught:
            pool.submit(failing).result()
        assert "in failing" in str(caught.value.__cause__)
        with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
            pool.submit(square, sys.stdout.buffer).result()
        assert pool.submit(square, 3).result() == 9


@pytest.mark.parametrize(
    "task, outcome",
    [(crash, {"signal": 11}), (leave, {"code": 7}), (leave_politely, {"code": 8}), (loop, {"kind": "timed_out"}),
     (drip, {"kind": "timed_out"}), (unanswering, {"kind": "killed"})],
)  # fmt: skip
def test_a_task_takes_its_worker_down_and_no_other_task(task, outcome):
    # The others' time is the same: on a busy machine a few seconds are not enough for them.
    with executor(2, timeout=10 if "kind" in outcome else 60) as pool:
        good = [pool.submit(square, n) for n in range(5)]
        bad = pool.submit(task)
        good += [pool.submit(square, n) for n in range(5)]
        with pytest.raises(sandcell.TaskError) as caught:
            bad.result()
        for name, value in outcome.items():
            assert getattr(caught.value.outcome, name) == value
        assert [f.result() for f in good] == [n * n for n in range(5)] * 2


def eat():
    held = []
    while True:
        held.append(b"x" * (1 << 20))


def test_a_task_that_eats_memory_fails_with_that_outcome():
    try:
        pool = executor(1, memory="128M", timeout=60)
        assert pool.submit(square, 2).result() == 4
    except sandcell.UnsupportedError:
        return  # this host's cgroups are not the caller's: refused, as it must be
    with pool:
        with pytest.raises(sandcell.TaskError) as caught:
            pool.submit(eat).result()
        assert caught.value.outcome.kind == "out_of_memory"
        assert pool.submit(square, 3).result() == 9


def test_only_plain_results_are_accepted():
    with executor(1) as pool:
        for task, name in ((hostile, "Hostile"), (huge, "Huge"), (point, "Point"), (unpicklable, "builtins.function")):
            with pytest.raises(sandcell.TaskError, match=f"has a .*{name} in it.*Hint: return plain data") as caught:
                pool.submit(task).result()
            # What lets a pickle run anything is no advice.
            assert "getattr" not in str(caught.value) and "cloudpickle" not in str(caught.value)
        assert not os.path.exists("/tmp/sandcell-escaped")
        assert pool.submit(plain).result() == plain()


def test_trust_says_what_to_use_instead():
    with pytest.raises(sandcell.PolicyError, match="decoders.*unsafe_pickle"):
        executor(1, trust=["numpy"])


def test_any_type_comes_back_as_a_pickle_where_the_caller_says_that_it_is_unsafe():
    with executor(1, unsafe_pickle=True) as pool:
        assert isinstance(pool.submit(point).result(), Point)
        with pytest.raises(Own, match="what") as caught:
            pool.submit(own).result()
        assert "in own" in str(caught.value.__cause__)


def test_a_result_may_not_be_larger_than_said():
    with executor(1, result_limit="64K") as pool:
        with pytest.raises(sandcell.TaskError) as caught:
            pool.submit(big).result()
        assert caught.value.outcome.kind == "output_limit"
        assert pool.submit(square, 3).result() == 9


def worker_and_traces():
    os.environ["TRACE"] = os.environ.get("TRACE", "") + "x"
    return os.environ["TRACE"]


def test_a_worker_can_be_replaced_after_each_task():
    with executor(1, max_tasks_per_child=1) as pool:
        assert [pool.submit(worker_and_traces).result() for _ in range(2)] == ["x", "x"]
    with executor(1) as pool:
        assert [pool.submit(worker_and_traces).result() for _ in range(2)] == ["x", "xx"]


def test_an_exception_in_the_block_does_not_wait_for_tasks():
    with pytest.raises(KeyboardInterrupt), executor(1) as pool:
        running = pool.submit(time.sleep, 1000)
        waiting = pool.submit(square, 2)
        while not running.running():
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert waiting.cancelled()
    assert isinstance(running.exception(), sandcell.TaskError)


def test_a_policy_that_makes_no_sense_is_refused_at_once():
    with pytest.raises(sandcell.PolicyError, match="memory"):
        sandcell.Executor(memory="64Q")
    with pytest.raises(ValueError):
        sandcell.Executor(0)


def test_nothing_of_it_is_left():
    with executor(2) as pool:
        assert list(pool.map(square, range(4))) == [0, 1, 4, 9]
        workers = [worker.popen.pid for worker in pool._alive]
    for pid in workers:
        assert subprocess.run(["kill", "-0", str(pid)], stderr=subprocess.DEVNULL).returncode != 0
