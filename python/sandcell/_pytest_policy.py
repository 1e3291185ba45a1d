"""Which policy the cell of a test has: settings, the fixture sandbox_policy and marks; what is shown, and which
descriptors are kept."""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path
from typing import Any

import pytest

from . import _pytest_coverage as coverage
from ._errors import PolicyError
from ._pytest_wider import being_set_up
from .pytest_plugin import open_descriptors
from ._types import Enforced

_SYSTEM = tuple(Path(p) for p in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt"))


class Policies:
    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self._shown: list[Path] = []

    def of(self, item: pytest.Item) -> dict[str, Any]:
        """Keywords of Sandbox. The fixture sandbox_policy is set up where somebody has overridden it."""
        asked: dict[str, Any] = {}
        request = getattr(item, "_request", None)
        if not self._plain(item) and request:
            state = item.session._setupstate
            if item.session not in state.stack:
                state.setup(item.session)  # type: ignore[arg-type]
            with being_set_up(item):
                asked.update(request.getfixturevalue("sandbox_policy"))
        for mark in reversed(list(item.iter_markers("sandbox"))):
            if mark.args:
                raise TypeError(f"the mark sandbox takes keywords, not {mark.args!r}")
            asked.update(mark.kwargs)
        return self.over_settings(asked)

    def of_next(self, item: pytest.Item, nextitem: pytest.Item, options: dict[str, Any]) -> dict[str, Any] | None:
        """That of the next test, where it can be known without setting up its fixtures; `options` are those of this one."""
        if not (self._plain(item) and self._plain(nextitem)):
            return None
        if not any(True for each in (item, nextitem) for _ in each.iter_markers("sandbox")):
            return options
        try:
            return self.of(nextitem)
        except Exception:
            # It is told where that test runs.
            return None

    @staticmethod
    def _plain(item: pytest.Item) -> bool:
        """Whether nobody has overridden the fixture sandbox_policy for it."""
        return len(item.session._fixturemanager.getfixturedefs("sandbox_policy", item) or ()) <= 1

    def over_settings(self, asked: dict[str, Any]) -> dict[str, Any]:
        ini = self.config.getini
        options: dict[str, Any] = {}
        for name in ("memory", "pids", "disk", "network", "timeout"):
            value = ini(f"sandbox_{name}")
            if value:
                options[name] = value
        if ini("sandbox_best_effort"):
            options["best_effort"] = list(ini("sandbox_best_effort"))
        # A mark that names a network means that one.
        if ini("sandbox_allow_hosts") and "network" not in asked:
            options["allow_hosts"] = list(ini("sandbox_allow_hosts"))
        # What a test writes is the caller's. Root's files can be mapped to a stranger (idmapped mounts), and the stranger
        # cannot read what only root may; nobody else's can, so that tests of others keep the caller's UID.
        options["keep_id"] = os.geteuid() != 0
        options.update(asked)
        self._shown = self._shown or self._sources()
        rw = [str(path) for path in (*self._outputs(), *ini("sandbox_rw"), *asked.get("rw", ()))]
        ro = [str(path) for path in (*self._shown, *ini("sandbox_ro"), *asked.get("ro", ()))]
        return {**options, "ro": [path for path in ro if path not in rw], "rw": rw}

    def _sources(self) -> list[Path]:
        """What a Python program needs to see, and the tests; each directory once."""
        config = self.config
        home = Path.home()
        tops = [config.rootpath, config.invocation_params.dir, *(Path(arg.split("::")[0]) for arg in config.args)]
        python = [sys.prefix, sys.base_prefix, sys.exec_prefix, *site.getsitepackages(), *sys.path]
        python.append(os.path.dirname(os.path.realpath(sys.executable)))
        wanted = [path.absolute() for path in (*tops, *map(Path, python)) if path.exists()]
        chosen: list[Path] = []
        for path in sorted({Path(os.path.normpath(p)) for p in wanted}, key=lambda p: len(p.parts)):
            if any(path.is_relative_to(other) for other in (*chosen, *_SYSTEM)):
                continue
            if home.is_relative_to(path):
                raise PolicyError("rootdir", f"{path} would show the whole home", "start pytest in the project")
            chosen.append(path)
        return chosen

    def _outputs(self) -> list[Path]:
        factory = getattr(self.config, "_tmp_path_factory", None)
        outputs = [factory.getbasetemp()] if factory else []
        if "hypothesis" in sys.modules:
            from hypothesis.configuration import storage_directory

            found = storage_directory()
            # Newer versions give an object that has the path.
            examples = Path(os.path.abspath(getattr(found, "path", found)))
            examples.mkdir(parents=True, exist_ok=True)
            outputs.append(examples)
        return outputs


def weaknesses(lines: list[Enforced]) -> list[str]:
    """What of a policy is not enforced. A network of the host's is none: it was asked for."""
    weak = []
    for line in lines:
        if line.by == "nothing" and (line.item, line.requested) != ("network", "host"):
            weak.append(f"{line.item} ({line.why})" if line.why else line.item)
        elif line.item == "identity" and os.geteuid() == 0 and not line.disjoint:
            weak.append(f"identity (tests can read what only root may among the files that are shown: {line.why})")
    return weak


class Descriptors:
    """Which descriptors tests may have: those that conftest files, hooks of the session's beginning, modules and wider
    fixtures have opened, and those of pytest's capturing and logging."""

    def __init__(self, config: pytest.Config, before: set[int]) -> None:
        self.config = config
        #: What there was before any conftest file.
        self._before = before
        self._opened: set[int] = set()

    def begin(self) -> None:
        self._before = open_descriptors()

    def end(self) -> None:
        self._opened |= {fd for fd in open_descriptors() - self._before if not _is_coverage(fd)}

    def kept(self) -> list[int]:
        kept = {0, 1, 2} | self._opened
        capture = self.config.pluginmanager.getplugin("capturemanager")
        streams = getattr(capture, "_global_capturing", None)
        for stream in (getattr(streams, name, None) for name in ("in_", "out", "err")):
            kept.add(getattr(stream, "targetfd_save", -1))
            kept.add(_number(getattr(stream, "tmpfile", None)))
        logging = self.config.pluginmanager.getplugin("logging-plugin")
        kept.add(_number(getattr(getattr(logging, "log_file_handler", None), "stream", None)))
        return sorted(fd for fd in kept if _keepable(fd))


def _is_coverage(fd: int) -> bool:
    """Whether it is a database that coverage.py has open: who writes to it writes what this process reads."""
    running = coverage.current()
    try:
        return running is not None and os.readlink(f"/proc/self/fd/{fd}").startswith(os.path.realpath(running.config.data_file))
    except OSError:
        return True


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
        return True
    except OSError:
        return False


def _number(file: Any) -> int:
    try:
        return file.fileno()
    except (AttributeError, OSError, ValueError):
        return -1


def _keepable(fd: int) -> bool:
    """Whether it is open, and no directory: one would lead out."""
    return _is_open(fd) and not os.path.isdir(fd)
