"""Session: code runs in one interpreter that keeps its variables; values, outputs, errors, pictures and files return."""

import asyncio
import os
import sys
import threading
import time

import pytest

import sandcell

#: Where this Python has it, if not among its own packages.
PACKAGES = [entry for entry in sys.path if os.path.isdir(f"{entry}/matplotlib")]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def session():
    with sandcell.Session(timeout=60, path=PACKAGES) as made:
        yield made


def until(fact, seconds=30.0):
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_variables_stay_and_the_last_expression_is_the_value(session):
    first = session.run("import math\nkept = 2\nprint('out'); import sys; print('err', file=sys.stderr)\nkept + 1")
    assert (first.value, first.repr, first.stdout, first.stderr) == (3, "3", "out\n", "err\n")
    assert first.error is None and first.outcome is None and not first.state_lost
    second = session.run("math.floor(kept + 0.5)")
    assert second.value == 2 and not second.fresh
    assert session.run("kept = 5").value is None
    assert session.run("kept; None").repr is None


def test_code_may_await_outside_functions(session):
    result = session.run("import asyncio\nqueue = asyncio.Queue()\nawait queue.put(20)\nawait asyncio.sleep(0.01, 22) + await queue.get()")
    assert (result.value, result.error) == (42, None)
    # One loop for all runs: what waits in one is answered in another.
    session.run("task = asyncio.ensure_future(queue.get())\nawait asyncio.sleep(0)")
    assert session.run("await queue.put('later')\nawait task").value == "later"
    assert session.run("async def numbers():\n    yield 1\n    yield 2\n[n async for n in numbers()]").value == [1, 2]
    assert session.run("async with asyncio.Lock() as lock: pass\nlock is None").value is True
    error = session.run("async def fails():\n    1 / 0\nawait fails()").error
    assert error.name == "ZeroDivisionError" and "1 / 0" in error.traceback and "_session_inside" not in error.traceback
    # Between, a loop of the code's own is the code's.
    assert session.run("asyncio.run(asyncio.sleep(0, 5))").value == 5
    assert session.run("await asyncio.sleep(0, 6)").value == 6
    assert session.run("def f(): await g()").error.name == "SyntaxError"


def test_an_await_is_interrupted_and_does_not_go_on(session):
    session.run("import asyncio\nseen = []\nwaited = asyncio.Event()")
    code = """
try:
    open('waits', 'w').close()
    await waited.wait()
    seen.append('went on')
finally:
    seen.append('ended')
"""
    results = []
    running = threading.Thread(target=lambda: results.append(session.run(code)))
    running.start()
    until(lambda: "waits" in session.files())
    assert session.interrupt()
    running.join(60)
    assert results[0].error.name == "KeyboardInterrupt" and not results[0].state_lost
    assert session.run("waited.set()\nawait asyncio.sleep(0.01)\nseen").value == ["ended"]


def test_a_value_that_is_no_plain_data_comes_as_text_with_the_reason(session):
    result = session.run("object()")
    assert result.value is None and result.repr.startswith("<object object at")
    assert "builtins.object" in result.value_error
    assert session.run("{'a': [1, 2.5, b'x']}").value == {"a": [1, 2.5, b"x"]}


def test_an_exception_is_told_with_the_lines_of_the_code(session):
    error = session.run("def f():\n    return 1 / 0\nf()").error
    assert (error.name, error.message) == ("ZeroDivisionError", "division by zero")
    assert "return 1 / 0" in error.traceback and "_session_inside" not in error.traceback
    error = session.run("class Mine(Exception): pass\nraise Mine('why')").error
    assert (error.name, error.message) == ("Mine", "why")
    assert session.run("1 +").error.name == "SyntaxError"
    assert session.run("import sys; sys.exit(3)").error.name == "SystemExit"
    assert session.run("6 * 7").value == 42


def test_what_is_shown_comes_as_jupyters_display_data(session):
    result = session.run(
        "class Table:\n"
        "    def __repr__(self): return 'a table'\n"
        "    def _repr_html_(self): return '<table/>'\n"
        "class Bundle:\n"
        "    def _repr_mimebundle_(self, include=None, exclude=None):\n"
        "        return {'application/json': {'a': 1}, 'image/png': b'png'}, {'image/png': {'width': 3}}\n"
        "display(Table(), metadata={'from': 'here'})\nBundle()"
    )
    table, bundle = result.displays
    assert table.data == {"text/plain": "a table", "text/html": "<table/>"}
    assert table.metadata == {"from": "here"}
    assert bundle.data["application/json"] == '{"a": 1}' and bundle.data["image/png"] == b"png"
    assert bundle.metadata == {"image/png": {"width": 3}}
    assert not result.displays_truncated


def test_figures_of_matplotlib_come_as_png(session):
    pytest.importorskip("matplotlib")
    result = session.run("import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nNone", timeout=300)
    assert result.error is None, result.error
    (figure,) = result.displays
    assert figure.data["image/png"].startswith(PNG)
    assert session.run("plt.get_fignums()").value == []


def test_an_interrupt_ends_the_code_and_keeps_the_variables(session):
    session.run("here = 1")
    results = []
    code = "import time\nopen('began', 'w').close()\nwhile True: time.sleep(0.1)"
    running = threading.Thread(target=lambda: results.append(session.run(code)))
    running.start()
    until(lambda: "began" in session.files())
    assert session.interrupt()
    running.join(60)
    assert results[0].error.name == "KeyboardInterrupt" and not results[0].state_lost
    assert session.run("here").value == 1
    assert not session.interrupt()


def test_an_interrupt_that_comes_late_does_not_meet_the_next_run(session):
    for _ in range(20):
        result = session.run("None")
        session._interpreter.interrupt()
        assert result.error is None and session.run("1").value == 1


def test_a_timeout_interrupts_and_only_then_ends_the_interpreter(session):
    session.run("here = 1")
    with pytest.raises(sandcell.TimeoutExpired) as caught:
        session.run("print('so far')\nwhile True: pass", timeout="300ms")
    assert not caught.value.state_lost and caught.value.output == b"so far\n"
    assert caught.value.run.error.name == "KeyboardInterrupt"
    assert session.run("here").value == 1
    stubborn = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    with pytest.raises(sandcell.SessionTimeout, match="variables are lost") as caught:
        session.run(stubborn, timeout="300ms")
    assert caught.value.state_lost and caught.value.run.outcome.kind == "timed_out"
    result = session.run("'here' in globals()")
    assert result.fresh and result.value is False


@pytest.mark.parametrize(
    "code, kind",
    [
        ("import os; os._exit(7)", "exited"),
        ("import ctypes; ctypes.string_at(0)", "signaled"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signaled"),
    ],
)
def test_a_crash_is_the_outcome_and_the_next_run_begins_anew(session, code, kind):
    session.put("kept.txt", "kept")
    result = session.run(f"here = 1\nprint('before')\n{code}")
    assert result.outcome.kind == kind and result.state_lost and result.stdout == "before\n"
    after = session.run("'here' in globals(), open('kept.txt').read()")
    assert after.fresh and after.value == (False, "kept")
    assert not session.run("1").fresh


def test_too_much_memory_ends_the_interpreter_and_not_the_session():
    with sandcell.Session(memory="256M", timeout=120, best_effort=["memory", "swap"]) as session:
        if not any(line.item == "memory" and line.by.startswith("cgroup") for line in session._cell.enforced):
            # No cgroup for this user on this host: each process has the limit, which is told, and nothing is measured.
            assert session.run("1 + 1").value == 2 and session.memory is None
            assert [line.by for line in session._cell.enforced if line.item == "memory"] == ["rlimit"], session._cell.enforced
            return
        assert session.memory is None  # nothing runs yet
        session.run("1")
        less = session.memory
        session.run("held = bytes(64 << 20)\nheld = bytearray(b'x') * (64 << 20)")
        assert session.memory > less + (48 << 20)
        assert session.run("bytearray(1 << 30)").outcome.kind == "out_of_memory"
        assert session.run("1 + 1").value == 2


def test_reset_forgets_variables_and_keeps_files(session):
    session.run("here = 1; open('stays', 'w').close()")
    session.reset()
    result = session.run("import os; 'here' in globals(), os.path.exists('stays')")
    assert result.fresh and result.value == (False, True)


def test_files_are_put_listed_and_got(session):
    session.put("in/a.csv", b"1,2\n")
    assert session.run("open('in/a.csv').read()").value == "1,2\n"
    session.run("open('out.bin', 'wb').write(bytes(range(256)))")
    assert session.get("out.bin") == bytes(range(256))
    assert session.files()["in/a.csv"] == 4
    with pytest.raises(FileNotFoundError):
        session.get("nothing")
    for name in ("../x", "/etc/passwd", "a//b", ".", "a\0b"):
        with pytest.raises(ValueError):
            session.get(name)


def test_outputs_are_cut_at_their_limit(session):
    result = session.run("print('x' * 5000)\nimport sys; print('y' * 10, file=sys.stderr)", output_limit="1K")
    assert result.stdout == "x" * 1024 and result.stdout_truncated
    assert result.stderr == "y" * 10 + "\n" and not result.stderr_truncated
    result = session.run("import os; os.system('echo from a program')")
    assert result.stdout == "from a program\n"


def test_a_task_runs_code_and_its_cancellation_ends_the_code(session):
    async def main():
        assert (await session.run_async("here = 3\nhere")).value == 3
        code = "import time\nopen('long', 'w').close()\nwhile True: time.sleep(0.1)"
        task = asyncio.ensure_future(session.run_async(code))
        while "long" not in session.files():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not session.interrupt()
        assert (await session.run_async("here")).value == 3

    asyncio.run(main())


def test_a_closed_session_says_so_and_leaves_nothing():
    session = sandcell.Session()
    session.run("import subprocess; subprocess.Popen(['sleep', '1000']) and None")
    session.close()
    session.close()
    for call in (lambda: session.run("1"), session.files, lambda: session.put("a", b"")):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_closing_ends_the_code_that_runs():
    session = sandcell.Session()
    results = []
    running = threading.Thread(
        target=lambda: results.append(session.run("open('began', 'w').close()\nwhile True: pass"))
    )
    running.start()
    until(lambda: "began" in session.files())
    session.close()
    running.join(60)
    assert results[0].outcome.kind in ("killed", "signaled")


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(sandcell.PolicyError, match="isolation"):
        sandcell.Session(isolation="landlock")
    with pytest.raises(sandcell.PolicyError, match="result_limit"):
        sandcell.Session(result_limit="1K")
    with pytest.raises(TypeError):
        sandcell.Session(nothing=1)
