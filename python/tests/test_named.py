"""Cells with a name, which outlive whoever started them."""

import itertools
import os
import subprocess
import sys

import pytest

import sandcell

NUMBERS = itertools.count()


@pytest.fixture
def name():
    name = f"py-{os.getpid()}-{next(NUMBERS)}"
    yield name
    for cell in sandcell.cells():
        if cell.name == name:
            cell.kill()
            cell.remove()


def test_a_cell_is_found_runs_programs_and_leaves_its_outcome(name):
    cell = sandcell.Sandbox().detach(name)
    cell.run(["sh", "-c", "echo kept > /tmp/file"], check=True)
    found = sandcell.Cell.find(name)
    assert found.run(["cat", "/tmp/file"], capture_output=True, text=True).stdout == "kept\n"
    with found.cell() as inner:
        assert inner.run(["true"]).returncode == 0
    assert found.info()["state"] == "running", "closing the handle ends nothing"
    with pytest.raises(sandcell.TimeoutExpired):
        found.wait(timeout=0.05)
    found.stop()
    assert cell.wait().outcome.kind == "killed"
    with pytest.raises(sandcell.SandboxError):
        found.run(["true"])
    found.remove()
    with pytest.raises(sandcell.PolicyError):
        sandcell.Cell.find(name)


def test_a_main_program_has_a_log_and_an_input(name):
    script = "echo begin; read line; echo got $line; echo error >&2; exit 3"
    cell = sandcell.Sandbox().detach(name, ["sh", "-c", script], keep_stdin=True, log_max_size=4096)
    with cell.attach() as attached:
        with pytest.raises(sandcell.SandboxError):
            cell.attach()
        attached.write(b"typed\n")
    result = cell.wait()
    assert result.returncode == 3 and result.args == ["sh", "-c", script]
    lines = [(line.stream, line.text) for line in cell.logs(follow=True)]
    assert sorted(lines) == [(1, b"begin"), (1, b"got typed"), (2, b"error")]
    first, second, *_ = cell.logs()
    assert [line.text for line in cell.logs(offset=first.next)][0] == second.text
    assert len(list(cell.logs(tail=1))) == 1


def test_names_programs_and_settings_that_make_no_sense_are_told(name):
    box = sandcell.Sandbox()
    for wrong in ["", "a/b", "..", "a\0b", "a" * 65]:
        with pytest.raises(sandcell.PolicyError):
            box.detach(wrong)
    with pytest.raises(FileNotFoundError):
        box.detach(name, ["/does/not/exist"])
    with pytest.raises(sandcell.PolicyError):
        box.detach(name, ["true"], restart="sometimes")
    with pytest.raises(sandcell.PolicyError):
        box.detach(name, log_max_size="5 apples")
    box.detach(name)
    with pytest.raises(sandcell.SetupError) as taken:
        box.detach(name)
    assert taken.value.errno == 17 and taken.value.hint


def test_a_cell_outlives_its_process_and_a_command_does_not(name):
    start = f"import sandcell; sandcell.Sandbox().detach({name!r}, ['sleep', '1000'])"
    subprocess.run([sys.executable, "-c", start], check=True)
    cell = sandcell.Cell.find(name)
    assert cell.run(["echo", "alive"], capture_output=True, text=True).stdout == "alive\n"
    assert name in [other.name for other in sandcell.cells()]
