"""The examples that serve others: a judge, a CI step runner, a code interpreter."""

import base64
import json
import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLES = next(
    path
    for path in (os.path.join(HERE, "../examples"), os.path.join(HERE, "../../examples/python"))
    if os.path.isdir(path)
)


def example(name, *words, **keywords):
    file = os.path.join(EXAMPLES, name)
    with open(file, encoding="utf-8") as text:
        assert len(text.readlines()) < 250
    return subprocess.run(
        [sys.executable, file, *map(str, words)], capture_output=True, text=True, timeout=300, **keywords
    )


SUBMISSIONS = {
    "AC": "print(int(input()) ** 2)",
    "WA": "print(int(input()) * 5)",
    "TLE": "while True: pass",
    "MLE": "held = bytearray(b'x') * (400 << 20); print(len(held))",
    "RE": "raise SystemExit(3)",
    "OLE": "while True: print('x' * 1000)",
}


@pytest.mark.parametrize("verdict", SUBMISSIONS)
def test_the_judge_finds_the_verdict(tmp_path, verdict):
    (tmp_path / "main.py").write_text(SUBMISSIONS[verdict])
    for name, given, wanted in (("small", 3, 9), ("large", 12, 144)):
        (tmp_path / f"{name}.in").write_text(f"{given}\n")
        (tmp_path / f"{name}.out").write_text(f"{wanted}\n")
    told = example("judge.py", tmp_path / "main.py", tmp_path, "--time", "1s", "--output", "64K")
    lines = told.stdout.splitlines()
    assert lines[-1] == verdict and told.returncode == (verdict != "AC"), told.stdout + told.stderr
    assert [line.split()[:2] for line in lines[:2]] == [["large", verdict], ["small", verdict]]


def steps(tmp_path, *entries):
    file = tmp_path / "steps.json"
    file.write_text(json.dumps({"env": {"CI": "yes"}, "steps": entries}))
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    return example(
        "steps.py", file, "--workspace", work, "--logs", tmp_path / "logs", "--cache", tmp_path / "cache"
    )


def test_the_step_runner_runs_each_step_with_its_caches_and_logs(tmp_path):
    entries = (
        {"name": "make", "run": "echo $CI; echo made >file; echo kept >/cache/file", "cache": ["all:/cache"]},
        {"name": "use it", "run": "cat file /cache/file; ls /tmp", "cache": ["all:/cache"]},
        {"name": "may fail", "run": "exit 3", "allow_failure": True},
        {"name": "has none", "run": "test ! -e /cache"},
    )
    told = steps(tmp_path, *entries)
    assert told.returncode == 0, told.stdout + told.stderr
    assert (tmp_path / "logs/01-make.log").read_text() == "yes\n"
    assert (tmp_path / "logs/02-use-it.log").read_text() == "made\nkept\n"
    assert (tmp_path / "work/file").stat().st_uid == os.geteuid()
    assert "failed, allowed" in told.stdout


def test_the_step_runner_ends_with_the_first_failure_and_says_why(tmp_path):
    told = steps(
        tmp_path, {"name": "slow", "run": "echo began; sleep 1000", "timeout": "1s"}, {"name": "next", "run": "true"}
    )
    assert told.returncode == 124 and "timed out" in told.stdout and "began" in told.stdout
    assert "next" not in told.stdout
    told = steps(tmp_path, {"name": "bad", "run": "false; echo not here"})
    assert told.returncode == 1 and "not here" not in told.stdout
    for wrong in ({"name": "../up", "run": "true"}, {"name": "a", "run": "true", "cach": []}, {"name": "a"}):
        told = steps(tmp_path, {"name": "first", "run": "touch ran"}, wrong)
        assert told.returncode == 1 and told.stderr.startswith("steps: ")
    assert not (tmp_path / "work/ran").exists()


def test_the_interpreter_answers_each_line_with_a_line():
    data = base64.b64encode(b"1,2\n").decode()
    requests = [
        {"run": "x = 2\nprint('out')\nx + 1"},
        {"put": "a.csv", "data": data},
        {"run": "open('a.csv').read(), x"},
        {"run": "1 / 0"},
        {"run": "while True: pass", "timeout": 0.5},
        {"run": "import os; os._exit(4)"},
        {"run": "'x' in globals()"},
        {"get": "a.csv"},
        {"get": "../etc/passwd"},
        {"files": True},
        {"nothing": True},
    ]
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    told = example("interpreter.py", input=lines)
    assert told.returncode == 0, told.stderr
    answers = [json.loads(line) for line in told.stdout.splitlines()]
    first, put, read, failed, slow, crashed, fresh, got, outside, files, nothing = answers
    assert (first["result"], first["stdout"]) == ("3", "out\n") and put == {"put": "a.csv"}
    assert read["result"] == "('1,2\\n', 2)" and failed["error"]["name"] == "ZeroDivisionError"
    assert slow["timed_out"] and slow["ended"] is None
    assert crashed["ended"] == "exited 4" and fresh["fresh"] and fresh["result"] == "False"
    assert got == {"data": data} and files == {"files": {"a.csv": 4}}
    assert "failed" in outside and "failed" in nothing
