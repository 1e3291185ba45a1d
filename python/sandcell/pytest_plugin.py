"""The pytest plugin: options and settings. What works is in _pytest_cells, imported only with --sandbox."""

from __future__ import annotations

import os
from typing import Any

import pytest

MODES = ("test", "file", "worker", "off")
_LIMITS = {
    "memory": "bytes of memory for each cell, such as 512M",
    "pids": "processes and threads of each cell",
    "disk": "bytes that /tmp, /dev/shm and the home of each cell may hold together",
    "network": "none, loopback (a private one, the default), user (the public internet) or host",
    "timeout": "time for each test, such as 30s; then everything in its cell is killed",
}


def open_descriptors() -> set[int]:
    # But for the one that lists.
    return {fd for fd in map(int, os.listdir("/proc/self/fd")) if os.path.lexists(f"/proc/self/fd/{fd}")}


#: What is known of the watchdog of faulthandler.
WATCHDOG: pytest.StashKey[Any] = pytest.StashKey()
#: What was open before conftest files were imported: no business of the tests.
_BEFORE = open_descriptors()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sandbox", "sandboxes for tests (sandcell)")
    group.addoption(
        "--sandbox",
        nargs="?",
        const="test",
        choices=MODES,
        help="run each test, each file, or all tests of a worker in a sandbox; without a word: each test",
    )
    group.addoption("--sandbox-require", action="store_true", help="anything that cannot be enforced is an error")
    parser.addini("sandbox", "the mode without --sandbox: test, file, worker or off", default="off")
    parser.addini("sandbox_require", "as --sandbox-require", type="bool", default=False)
    parser.addini("sandbox_ro", "more files and directories to show, read-only", type="paths", default=[])
    parser.addini("sandbox_rw", "files and directories that tests may write to", type="paths", default=[])
    parser.addini("sandbox_allow_hosts", "names that tests may reach, one a line, as the option allow_hosts", type="linelist", default=[])
    parser.addini("sandbox_best_effort", "what may go unenforced, by name", type="args", default=[])
    for name, words in _LIMITS.items():
        parser.addini(f"sandbox_{name}", words, default="")


def _mode(config: pytest.Config) -> str:
    return getattr(config.known_args_namespace, "sandbox", None) or config.getini("sandbox")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    if _mode(early_config) != "off":
        # Before a conftest file can set one.
        from ._pytest_watchdog import Watchdog

        early_config.stash[WATCHDOG] = Watchdog()


@pytest.fixture(scope="session")
def sandbox_policy() -> dict[str, object]:
    """Keywords of sandcell.Sandbox for the cells of tests, over the settings; override it where other tests need
    others. Marks go over it."""
    return {}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "sandbox(memory=…, pids=…, disk=…, network=…, allow_hosts=…, timeout=…): how the cell of this test differs; see sandcell.Sandbox",
    )
    mode = _mode(config)
    if mode not in MODES:
        raise pytest.UsageError(f"sandbox = {mode}: write {', '.join(MODES)}")
    if mode == "off":
        return
    require = config.getoption("sandbox_require") or config.getini("sandbox_require")
    if config.getoption("usepdb", False) or config.getoption("trace", False):
        if require:
            raise pytest.UsageError("--sandbox-require: there are no sandboxes under --pdb")
        config.pluginmanager.register(_Off(), "sandcell-off")
        return
    from ._pytest_carried import Carried
    from ._pytest_cells import Cells

    config.pluginmanager.register(Cells(config, mode, require, _BEFORE), "sandcell-cells")
    config.pluginmanager.register(Carried(config), "sandcell-carried")


class _Off:
    def pytest_report_header(self) -> str:
        return "sandbox: off under --pdb: nothing is enforced"
