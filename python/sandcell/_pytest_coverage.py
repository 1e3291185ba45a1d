"""Coverage of tests that run in copies of this process: coverage.py's data files are the first process's alone, so
what a copy has measured travels with its reports."""

from __future__ import annotations

import os
import sys
from typing import Any


def current() -> Any:
    """The running coverage.Coverage, if there is one."""
    module = sys.modules.get("coverage")
    return module.Coverage.current() if module else None


def begin(running: Any) -> None:
    """In the copy: from here on into memory."""
    if running is not None:
        collector = running._collector
        collector.covdata = sys.modules["coverage"].CoverageData(no_disk=True)
        # What the first process has measured is its own to tell. The sets stay: frames that are on the stack add to them.
        for lines in list(collector.data.values()):
            lines.clear()


def finish(running: Any) -> bytes:
    """In the copy: what has been measured."""
    if running is None:
        return b""
    running.stop()
    collector = running._collector
    collector.flush_data()
    return collector.covdata.dumps()


def add(measured: list[bytes]) -> None:
    """In the first process: lays what the copies have measured beside its own data files, to be combined with them
    as those of subprocesses are."""
    running = current()
    if running is None or not measured:
        return
    make = sys.modules["coverage"].CoverageData
    base = running.config.data_file
    together = make(basename=base, suffix=f"sandcell.{os.getpid()}")
    for piece in measured:
        data = make(no_disk=True)
        data.loads(piece)
        together.update(data)
    together.write()
    together.close()
    # It may have measured nothing itself, which is nothing to be warned of then.
    running._warn_no_data = False
    measured.clear()
