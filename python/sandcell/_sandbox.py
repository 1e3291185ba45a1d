"""What programs run in: a Sandbox for each, or a Cell for many; and run, the call for one program."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from . import _native
from ._errors import translating
from ._options import LIMITS, LISTS, Duration, Limits, Policy, checked, path
from ._program import Args, Stream
from ._run import Runner
from ._types import Change, CompletedProcess, Enforced, Finding, Identity, Path, Step, Usage, known, standing

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Sandbox(Runner[_native.Sandbox]):
    """A checked policy, ready to run programs, each in a sandbox of its own. Usable from any thread.

    The keywords are the options of the program `sandcell`; `timeout` and `env` hold for every run, `env` on top of
    the clean default. Raises PolicyError for what makes no sense.
    """

    def __init__(
        self, *, timeout: Duration | None = None, env: Mapping[str, str] | None = None, **options: Unpack[Policy]
    ) -> None:
        self._build(checked({**options, "timeout": timeout, "env": env}))

    def _build(self, values: dict[str, Any]) -> None:
        self._leftovers_fail = values.get("leftovers") == "fail"
        self._timeout = values.get("timeout")
        with translating():
            self._native = _native.Sandbox(values)

    def explain(self) -> list[Step]:
        """The steps that a run would take. Nothing is run.

        Raises UnsupportedError for what this host cannot enforce.
        """
        with translating():
            return [known(Step, step) for step in json.loads(self._native.explain())]

    def image_argv(self, words: Iterable[Path] = ()) -> list[str]:
        """The program that the image names, for `run`: its entry point with these words, or with its own where there
        are none. Raises PolicyError where nothing names a program."""
        with translating():
            return self._native.image_argv([path("words", word) for word in words])

    def prepare_ids(self) -> None:
        """Does ahead of the first run what takes some milliseconds where sub-ids are used."""
        with translating():
            self._native.prepare_ids()

    def start(self) -> Cell:
        """Starts a sandbox in which many programs can be run, one after another or at once: start once, run many.

        Raises SetupError or UnsupportedError where the sandbox cannot be made.
        """
        return Cell(self)


def shared(options: Mapping[str, Any]) -> Sandbox:
    """A Sandbox that may have been built before: what building costs is paid once for each policy, not for each run."""
    values = checked(options)
    if not values.keys().isdisjoint(("seccomp", "image")):  # files, or names of them, that may have changed
        return _built(values)
    key = [(name, tuple(value) if isinstance(value, list) else value) for name, value in values.items()]
    # What it depends on besides: the caller's rights, and where in the cgroups a limit would be placed.
    if not LIMITS.isdisjoint(values):
        with open("/proc/self/cgroup", "rb") as file:
            key.append(("", file.read()))
    return _remembered(os.geteuid(), os.getegid(), tuple(key))


def _built_for(euid: int, egid: int, key: tuple[Any, ...]) -> Sandbox:
    return _built({name: list(value) if name in LISTS else value for name, value in key if name})


_remembered: Callable[[int, int, tuple[Any, ...]], Sandbox] = lru_cache(maxsize=8)(_built_for)


def _built(values: dict[str, Any]) -> Sandbox:
    sandbox = Sandbox.__new__(Sandbox)
    sandbox._build(values)
    return sandbox


class Cell(Runner[_native.Cell]):
    """A started sandbox in which many programs are run: they share its processes, files and limits.

    A context manager; leaving it, `close` and the end of the object end everything in it. Usable from any thread.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._leftovers_fail = sandbox._leftovers_fail
        self._timeout = sandbox._timeout
        with translating():
            self._native = sandbox._native.start()
        self._identity, self._enforced = standing(self._native.standing())

    def __enter__(self) -> Cell:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it and everything in it; returns when nothing of it is left. A second time does nothing. Programs that
        still ran have the outcome `killed`; starting another one raises ValueError."""
        self._native.close()

    def fileno(self) -> int:
        """A pidfd: readable when the cell has ended. It is the cell's own: do not close it."""
        return self._native.fileno()

    @property
    def identity(self) -> Identity:
        """Who its programs are."""
        return self._identity

    @property
    def enforced(self) -> list[Enforced]:
        """What is enforced, and by what."""
        return list(self._enforced)

    def usage(self) -> Usage:
        """What it has used so far, as far as its cgroups count it: start it with a limit."""
        return known(Usage, json.loads(self._native.usage()))

    def changes(self) -> list[Change]:
        """The files that differ from the layers so far. Empty for a root that is no overlay."""
        with translating():
            return [Change(kind, path) for kind, path in self._native.changes()]

    def freeze(self) -> None:
        """Stops everything in it until `thaw`. Raises UnsupportedError without a cgroup: start it with a limit."""
        with translating():
            self._native.freeze()

    def thaw(self) -> None:
        """Lets everything in it go on."""
        with translating():
            self._native.thaw()

    def set_limits(self, **limits: Unpack[Limits]) -> None:
        """Changes the limits that are named; the others stay. Only kinds of limits that it was started with.

        Raises PolicyError for a value that makes no sense or a limit that it was not started with.
        """
        unknown = sorted(set(limits) - Limits.__annotations__.keys())
        if unknown:
            raise TypeError(f"set_limits has no keyword {unknown[0]!r}; it has {', '.join(Limits.__annotations__)}")
        with translating():
            self._native.set_limits(checked(limits))


def run(
    args: Args,
    *,
    stdin: Stream = None,
    input: str | bytes | None = None,
    stdout: Stream = None,
    stderr: Stream = None,
    capture_output: bool = False,
    executable: Path | None = None,
    shell: bool = False,
    cwd: Path | None = None,
    env: Mapping[Any, Any] | None = None,
    pass_fds: Iterable[int] = (),
    timeout: Duration | None = None,
    check: bool = False,
    text: bool | None = None,
    universal_newlines: bool | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    track_changes: bool = False,
    learn: bool = False,
    **options: Unpack[Policy],
) -> CompletedProcess[Any]:
    """Runs a program in a sandbox of its own: the keywords of subprocess.run (see Sandbox.run) and those of Sandbox.

    What can be prepared for a policy is kept for the next run with the same one; at most 8 policies are remembered.
    """
    return shared(options).run(
        args,
        stdin=stdin,
        input=input,
        stdout=stdout,
        stderr=stderr,
        capture_output=capture_output,
        executable=executable,
        shell=shell,
        cwd=cwd,
        env=env,
        pass_fds=pass_fds,
        timeout=timeout,
        check=check,
        text=text,
        universal_newlines=universal_newlines,
        encoding=encoding,
        errors=errors,
        track_changes=track_changes,
        learn=learn,
    )


def adopt_cgroup() -> str:
    """Makes room for limits where the caller's own cgroup was delegated to it: moves this process into a group of its
    own beneath, whose path is returned. Call it once, early, before other processes are started; it does nothing where
    limits work already.

    Raises UnsupportedError where the group was not delegated or holds other processes.
    """
    with translating():
        return os.fspath(_native.adopt_cgroup())


def doctor() -> list[Finding]:
    """What this host allows, what blocks, and the remedy; found out by running small sandboxes."""
    return [known(Finding, line) for line in json.loads(_native.doctor())]


async def run_async(args: Args, **keywords: Any) -> CompletedProcess[Any]:
    """As `run`, in the running asyncio loop. Where the task is cancelled, the program has ended with all that it had
    started when the cancellation goes on."""
    options = {name: keywords.pop(name) for name in list(keywords) if name not in _RUN}
    return await shared(options).run_async(args, **keywords)


_RUN = frozenset(Runner.run_async.__kwdefaults__ or ())
