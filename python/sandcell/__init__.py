"""Rootless sandboxes for Linux, with subprocess's habits.

>>> import sandcell
>>> r = sandcell.run(["/bin/sh", "-c", "id -u"], capture_output=True, text=True, memory="64M", timeout=10)
>>> r.returncode, r.stdout, r.outcome.kind, r.usage.memory_peak_bytes
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if not sys.platform.startswith("linux"):
    raise ImportError("sandcell needs Linux: it is made of Linux namespaces, seccomp and cgroups")

from . import owned
from ._errors import (
    CalledProcessError,
    PolicyError,
    SandboxError,
    SetupError,
    TaskError,
    TimeoutExpired,
    UnsupportedError,
)
from ._images import Build, Pruned, Store, StoreLimits
from ._native import __version__
from ._options import IoMax, Policy
from ._popen import Popen
from ._program import DEVNULL, PIPE, STDOUT
from ._sandbox import Cell, Pool, Sandbox, adopt_cgroup, doctor, run, run_async, start_async
from ._terminal import Terminal
from ._types import Change, CompletedProcess, Connection, Enforced, Finding, Identity, Leftover, NetworkReport, Outcome, PoolStats, Published, Step, Usage

if TYPE_CHECKING:
    from ._aio import Process
    from ._executor import Executor, interpreter_paths
    from ._named import Attached, LogLine, NamedCell, cells
    from ._session import Display, RunError, RunResult, Session, SessionTimeout
    from ._template import Template

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "Attached",
    "Build",
    "CalledProcessError",
    "Cell",
    "Change",
    "CompletedProcess",
    "Connection",
    "Display",
    "Enforced",
    "Executor",
    "Finding",
    "Identity",
    "IoMax",
    "Leftover",
    "LogLine",
    "NamedCell",
    "NetworkReport",
    "Outcome",
    "Policy",
    "PolicyError",
    "Pool",
    "PoolStats",
    "Popen",
    "Process",
    "Pruned",
    "Published",
    "RunError",
    "RunResult",
    "Sandbox",
    "SandboxError",
    "Session",
    "SessionTimeout",
    "SetupError",
    "Step",
    "Store",
    "StoreLimits",
    "TaskError",
    "Template",
    "Terminal",
    "TimeoutExpired",
    "UnsupportedError",
    "Usage",
    "__version__",
    "adopt_cgroup",
    "cells",
    "doctor",
    "interpreter_paths",
    "owned",
    "run",
    "run_async",
    "start_async",
]


_LATER = {"Executor": "_executor", "interpreter_paths": "_executor", "Process": "_aio", "Template": "_template"}
_LATER.update(dict.fromkeys(("Attached", "LogLine", "NamedCell", "cells"), "_named"))
_LATER.update(dict.fromkeys(("Display", "RunError", "RunResult", "Session", "SessionTimeout"), "_session"))


def __getattr__(name: str) -> object:
    # Not at once: they import much that most callers do not need.
    if name in _LATER:
        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
