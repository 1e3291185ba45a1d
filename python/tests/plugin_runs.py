"""Runs of pytest with the plugin, as its users start it: in a process of its own, on a project made here."""

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import pytest

MODES = ["test", "file", "worker"]


@pytest.fixture
def project(tmp_path):
    # The outer directory is what rootdir would otherwise be looked for in.
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")

    def make(**files):
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        return tmp_path

    return make


def command(*arguments):
    start = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    if "sandcell" not in _entry_points():
        start[3:3] = ["-p", "sandcell.pytest_plugin"]
    return start


def run(directory, *arguments, status=None, timeout=240):
    """Exit status and output of pytest with the plugin."""
    done = subprocess.run(
        command(*arguments), cwd=directory, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, errors="replace"
    )
    text = done.stdout + done.stderr
    if status is not None:
        assert done.returncode == status, text
    return done.returncode, text


def _entry_points():
    from importlib.metadata import entry_points

    return {point.name for point in entry_points(group="pytest11")}


def outcomes(directory, *arguments, timeout=240):
    """What became of each test, from the junit file: how, and with which words."""
    file = directory / "junit.xml"
    code, text = run(directory, f"--junitxml={file}", "-q", *arguments, timeout=timeout)
    assert file.exists(), text
    found = {}
    for case in ElementTree.parse(file).iter("testcase"):
        kinds = [(child.tag, (child.get("message") or "") + (child.text or "")) for child in case if child.tag != "properties"]
        kinds = [kind for kind in kinds if not kind[0].startswith("system")]
        found[case.get("name")] = kinds[0] if kinds else ("passed", "")
    return code, found, text


def kinds(found):
    return {name: kind for name, (kind, _) in found.items()}


def alive(marker):
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and marker in _words(pid)]


def _words(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().split("\0")
    except OSError:
        # It has ended meanwhile.
        return []


def until(there):
    for _ in range(600):
        if there():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to that in a minute")
