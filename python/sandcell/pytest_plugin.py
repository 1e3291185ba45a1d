"""The pytest plugin: options and settings. What works is in _pytest_cells, imported only with --sandbox."""

from __future__ import annotations

import pytest

MODES = ("test", "file", "worker", "off")
_LIMITS = {
    "memory": "bytes of memory for each cell, such as 512M",
    "pids": "processes and threads of each cell",
    "disk": "bytes that /tmp, /dev/shm and the home of each cell may hold together",
    "network": "none, loopback (a private one, the default) or host",
    "timeout": "time for each test, such as 30s; then everything in its cell is killed",
}


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
    parser.addini("sandbox_best_effort", "what may go unenforced, by name", type="args", default=[])
    for name, words in _LIMITS.items():
        parser.addini(f"sandbox_{name}", words, default="")


@pytest.fixture(scope="session")
def sandbox_policy() -> dict[str, object]:
    """Keywords of sandcell.Sandbox for the cells of tests, over the settings; override it where other tests need
    others. Marks go over it."""
    return {}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "sandbox(memory=…, pids=…, disk=…, network=…, timeout=…): how the cell of this test differs; see sandcell.Sandbox",
    )
    mode = config.getoption("sandbox") or config.getini("sandbox")
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

    config.pluginmanager.register(Cells(config, mode, require), "sandcell-cells")
    config.pluginmanager.register(Carried(config), "sandcell-carried")


class _Off:
    def pytest_report_header(self) -> str:
        return "sandbox: off under --pdb: nothing is enforced"
