"""Executor: the replies of `hostile_replies`, and others' answers.

Each reply fails the task that it answers or is data, within the task's timeout; nothing of it is executed, the caller's
memory and state stay as they are, and the tasks before and after it get results of their own.
"""

import decimal
import fractions
import os
import resource
import sys
import time

import pytest

import sandcell
from hostile_replies import CASES, DATA, FAILS, GONE, LIMIT, RAISES, STAYS, TIMES_OUT, Wire, attack, square, text

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = [entry for entry in sys.path if any(os.path.isdir(f"{entry}/{name}") for name in ("pytest", "sandcell"))]
#: Of a task. What the bar adds is 1 s; here more, for a machine that is busy with other things.
TIMEOUT, MORE = 5.0, 8.0
#: How the worker ended, where it did.
KINDS = {FAILS: (None, "output_limit"), RAISES: (None,), TIMES_OUT: ("timed_out",), GONE: ("killed",)}


def executor(**keywords):
    return sandcell.Executor(1, path=[HERE, *PACKAGES], **keywords)


def peak():
    """The most memory that this process had since `forget`, in bytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) << 10


def forget():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def state():
    flags = [on for on in decimal.getcontext().flags.values()]
    fraction = {name: value for name, value in vars(fractions.Fraction).items() if callable(value)}
    return flags, fraction, sys.getrecursionlimit(), resource.getrlimit(resource.RLIMIT_AS), dict(os.environ)


@pytest.fixture(scope="module")
def pool():
    numpy_and_arrow()
    with executor(timeout=TIMEOUT, result_limit=LIMIT) as pool:
        yield pool


def numpy_and_arrow():
    """Imported before anything is measured, where they are there."""
    for name in ("numpy", "pyarrow"):
        try:
            __import__(name)
        except ImportError:
            pass


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_reply_fails_its_own_task_and_changes_nothing(name, pool, tmp_path):
    mark = tmp_path / "executed"
    assert pool.submit(square, 3).result() == 9
    before = state()
    forget()
    resting, began = peak(), time.monotonic()
    future = pool.submit(attack, name, str(mark))
    error = future.exception()
    took, grown = time.monotonic() - began, peak() - resting
    following = [pool.submit(square, n) for n in range(4)]
    # For whoever measures.
    if costs := os.environ.get("SANDCELL_COSTS"):
        with open(costs, "a") as file:
            print(grown / (1 << 20), took - TIMEOUT, name, file=file)

    value = CASES[name][1]
    if value in KINDS:
        assert isinstance(error, sandcell.TaskError), error
        assert all(c.isprintable() or c in "\n\t" for c in f"{error}{error.__cause__}")
        kind = error.outcome and error.outcome.kind
        assert kind in KINDS[value]
    elif value in (DATA, STAYS):
        assert error is None
    else:
        assert future.result() == value
    assert [f.result() for f in following] == [0, 1, 4, 9]
    assert took < TIMEOUT + MORE
    # A result, and its message, may take the limit each.
    assert grown <= (64 << 20) + 2 * LIMIT
    assert not mark.exists()
    assert state() == before


def test_there_are_enough_of_them():
    assert len(CASES) >= 60


def test_what_is_looked_at_would_show():
    forget()
    resting = peak()
    held = bytearray(os.urandom(1 << 20)) * 100
    assert peak() - resting > (64 << 20) and held
    before = state()
    fractions.Fraction.canary = lambda: None
    try:
        assert state() != before
    finally:
        del fractions.Fraction.canary


def test_a_pickle_that_runs_a_program_would_run_it_where_the_caller_says_so(tmp_path):
    mark = tmp_path / "executed"
    with executor(timeout=30, unsafe_pickle=True) as pool:
        pool.submit(attack, "a_pickle_where_unsafe_pickles_are_not_taken", str(mark)).result()
    assert mark.exists()


def late(seconds):
    """Answers when it is too late, from a child that outlives the task."""
    wire = Wire()
    if os.fork() == 0:
        time.sleep(seconds)
        try:
            wire.done(text("late"))
        finally:
            os._exit(0)
    return "own"


def twice():
    return os.getpid() if os.fork() else "child"


def test_a_task_that_forks_and_answers_twice_gives_nothing_to_the_next():
    with executor(timeout=60) as pool:
        for _ in range(10):
            assert isinstance(pool.submit(twice).result(), int)
            assert pool.submit(square, 3).result() == 9
            assert pool.submit(late, 0.01).result() == "own"
            assert pool.submit(time.sleep, 0.05).result() is None
            assert pool.submit(square, 4).result() == 16
