"""Rootless sandboxes for Linux, with subprocess's habits.

>>> import sandcell
>>> r = sandcell.run(["/bin/sh", "-c", "id -u"], capture_output=True, text=True, memory="64M", timeout=10)
>>> r.returncode, r.stdout, r.outcome.kind, r.usage.memory_peak_bytes
"""

import sys
from typing import TYPE_CHECKING

if not sys.platform.startswith("linux"):
    raise ImportError("sandcell needs Linux: it is made of Linux namespaces, seccomp and cgroups")

from ._errors import (
    CalledProcessError,
    PolicyError,
    SandboxError,
    SetupError,
    TaskError,
    TimeoutExpired,
    UnsupportedError,
)
from ._native import __version__
from ._popen import Popen
from ._program import DEVNULL, PIPE, STDOUT
from ._sandbox import Cell, Sandbox, run, run_async
from ._types import CompletedProcess, Enforced, Identity, Leftover, Outcome, Usage

if TYPE_CHECKING:
    from ._executor import Executor

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "CalledProcessError",
    "Cell",
    "CompletedProcess",
    "Enforced",
    "Executor",
    "Identity",
    "Leftover",
    "Outcome",
    "PolicyError",
    "Popen",
    "Sandbox",
    "SandboxError",
    "SetupError",
    "TaskError",
    "TimeoutExpired",
    "UnsupportedError",
    "Usage",
    "__version__",
    "run",
    "run_async",
]


def __getattr__(name: str) -> object:
    # Not at once: it imports much that most callers do not need.
    if name == "Executor":
        from ._executor import Executor

        return Executor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
