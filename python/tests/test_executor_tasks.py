"""Executor: how tasks are handed out: initializers, chunks, workers that are replaced, modules and functions."""

import os
import pickle
import random
import select
import signal
import subprocess
import sys
import textwrap

import pytest

import sandcell

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = [entry for entry in sys.path if any(os.path.isdir(f"{entry}/{name}") for name in ("pytest", "sandcell"))]
#: Set by the initializer, inside.
TOLD = []


def executor(workers=1, **keywords):
    return sandcell.Executor(workers, path=[HERE, *PACKAGES], **keywords)


def tell(*words):
    TOLD.extend(words)
    return tell  # nobody looks at it


def told():
    return TOLD


def number():
    return random.random()


def fail(word):
    raise LookupError(word)


def leave():
    os._exit(3)


def pair(left, right):
    return left, right, os.getpid()


def test_an_initializer_is_called_once_in_each_worker():
    with executor(initializer=tell, initargs=("a", "b")) as pool:
        assert [pool.submit(told).result() for _ in range(2)] == [["a", "b"]] * 2
        with pytest.raises(sandcell.TaskError):
            pool.submit(leave).result()
        assert pool.submit(told).result() == ["a", "b"]


def test_an_initializer_that_fails_fails_the_task_that_needed_the_worker():
    with executor(initializer=fail, initargs=("nothing there",)) as pool:
        with pytest.raises(sandcell.TaskError, match="initializer failed: LookupError: nothing there") as caught:
            pool.submit(told).result()
        assert isinstance(caught.value.__cause__, LookupError)
    with executor(initializer=leave) as pool:
        with pytest.raises(sandcell.TaskError, match="initializer failed") as caught:
            pool.submit(told).result()
        assert caught.value.outcome.code == 3


def test_chunks_of_map_are_tasks():
    with executor(max_tasks_per_child=1) as pool:
        found = list(pool.map(pair, range(5), "abcde", chunksize=2))
        assert [(left, right) for left, right, _ in found] == list(zip(range(5), "abcde"))
        with pytest.raises(ValueError, match="chunksize"):
            pool.map(pair, [], [], chunksize=0)
        with pytest.raises(LookupError):
            list(pool.map(fail, range(5), chunksize=3))
    # A worker of its own for each chunk, and none for each item: what the first told is there for the second.
    with executor(max_tasks_per_child=1) as pool:
        found = list(pool.map(remembered, range(4), chunksize=2))
    assert found == [1, 2, 1, 2]


def remembered(_):
    TOLD.append(None)
    return len(TOLD)


@pytest.mark.parametrize("count", [0, -1])
def test_a_worker_has_at_least_one_task(count):
    with pytest.raises(sandcell.PolicyError, match="max_tasks_per_child"):
        executor(max_tasks_per_child=count)


def run(program, *arguments, **variables):
    """A program of the caller's own, with this package; its output."""
    places = os.pathsep.join([os.path.dirname(os.path.dirname(os.path.abspath(sandcell.__file__))), *PACKAGES])
    environment = {**os.environ, "PYTHONPATH": places, **variables}
    words = [sys.executable, str(program), *arguments]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)


def test_without_cloudpickle_functions_of_the_program_itself_are_refused_with_a_hint(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
            import sys
            sys.modules["cloudpickle"] = None  # as if it were not installed
            import importlib.util
            find = importlib.util.find_spec
            importlib.util.find_spec = lambda name: None if name == "cloudpickle" else find(name)
            import sandcell

            def work():
                return 1

            with sandcell.Executor(1) as pool:
                for task in (work, lambda: 1):
                    try:
                        print(pool.submit(task).result())
                    except Exception as error:
                        print(type(error).__name__, error)
            """)
    )
    told = run(program)
    assert told.stdout.count("PicklingError") == 2 and told.stdout.count("Hint: install cloudpickle") == 2, told


def test_a_module_that_is_not_there_inside_is_an_error_that_names_its_directory(tmp_path):
    """As that of an editable install, whose directory is no site-packages."""
    place = tmp_path / "elsewhere" / "src"
    (place / "editable").mkdir(parents=True)
    (place / "editable" / "__init__.py").write_text("def work():\n    return 7\n")
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
            import sys
            sys.path.append(sys.argv[1])
            import editable
            import sandcell

            for keywords in ({}, {"path": [sys.argv[1]]}):
                with sandcell.Executor(1, **keywords) as pool:
                    try:
                        print(pool.submit(editable.work).result())
                    except sandcell.TaskError as error:
                        print(error)
            """)
    )
    told = run(program, str(place))
    assert told.stdout.count("No module named 'editable'") == 1 and f"path=[{str(place)!r}]" in told.stdout, told
    assert told.stdout.endswith("\n7\n")


class Unloadable:
    def __reduce__(self):
        return fail, ("no",)


def test_a_task_that_cannot_be_loaded_inside_says_so():
    with executor() as pool:
        with pytest.raises(sandcell.TaskError, match="cannot be loaded inside: builtins.LookupError: no"):
            pool.submit(told, Unloadable()).result()
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            pool.submit(told, sys.stdout.buffer)


def test_joblib_runs_its_calls_in_sandboxes():
    joblib = pytest.importorskip("joblib")
    import sandcell.joblib  # registers it

    with joblib.parallel_config("sandcell", n_jobs=2, path=[HERE, *PACKAGES], timeout=60):
        found = joblib.Parallel()(joblib.delayed(pair)(n, str(n)) for n in range(20))
        assert [(left, right) for left, right, _ in found] == [(n, str(n)) for n in range(20)]
        assert all(pid < 10 for _, _, pid in found)
        with pytest.raises(LookupError, match="no"):
            joblib.Parallel()(joblib.delayed(fail)("no") for _ in range(4))
        with pytest.raises(sandcell.TaskError):
            joblib.Parallel()(joblib.delayed(leave)() for _ in range(4))
        again = joblib.Parallel(return_as="generator")(joblib.delayed(pair)(n, n) for n in range(3))
        assert [left for left, _, _ in again] == [0, 1, 2]


def test_a_worker_of_one_task_is_a_copy_in_a_sandbox_of_its_own():
    with executor(max_tasks_per_child=1, initializer=tell, initargs=("told",)) as pool:
        ids = [pool.submit(os.getuid).result(60) for _ in range(3)]
        numbers = [pool.submit(number).result(60) for _ in range(3)]
        assert pool.submit(told).result(60) == ["told"]
        assert len(set(ids)) == 3 and len(set(numbers)) == 3
        warm = pool._warm
        assert warm is not None
        # It is made anew where it was killed.
        os.kill(warm._process.pid, signal.SIGKILL)
        assert pool.submit(abs, -3).result(60) == 3 and pool._warm is not warm
        with pytest.raises(sandcell.TaskError) as failed:
            pool.submit(os._exit, 3).result(60)
        assert failed.value.outcome.code == 3
        process = pool._warm._process.pid
    assert not os.path.exists(f"/proc/{process}")


def test_where_a_fork_cannot_enter_a_sandbox_workers_are_started(monkeypatch):
    start = sandcell.Sandbox.start

    def start_and_end(sandbox):
        cell = start(sandbox)
        signal.pidfd_send_signal(cell.fileno(), signal.SIGKILL)
        select.select([cell.fileno()], [], [], 60)
        return cell

    monkeypatch.setattr(sandcell.Sandbox, "start", start_and_end)
    with sandcell.Executor(1, max_tasks_per_child=1) as pool:
        assert [pool.submit(abs, -number).result(60) for number in range(3)] == [0, 1, 2]
        assert not pool._is_warm
    with sandcell.Executor(1, max_tasks_per_child=1, initializer=abs, initargs=(-1,)) as pool:
        assert pool.submit(abs, -1).result(60) == 1 and not pool._is_warm


def test_an_option_that_holds_for_programs_only_has_workers_that_are_programs():
    with sandcell.Executor(1, max_tasks_per_child=1, output_limit="1M") as pool:
        assert pool.submit(abs, -3).result(60) == 3
        assert pool._warm is None
