"""What programs run in: a Sandbox for each, or a Cell for many; and run, the call for one program."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, overload

from . import _native
from ._errors import translating
from ._options import LIMITS, LISTS, Duration, Limits, Policy, checked, path, seconds
from ._program import Args, Stream
from ._run import Runner, Running
from ._types import (
    Change,
    CompletedProcess,
    Enforced,
    Finding,
    Identity,
    Path,
    PoolStats,
    Published,
    Step,
    Usage,
    known,
    standing,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._aio import Starting
    from ._named import NamedCell


class Sandbox(Runner[_native.Sandbox]):
    """A checked policy, ready to run programs, each in a sandbox of its own. Usable from any thread.

    The keywords are the options of the program `sandcell`; `timeout`, `env` and `cwd` hold for every run that says
    nothing else, `env` on top of the clean default. Raises PolicyError for what makes no sense.
    """

    def __init__(
        self,
        *,
        timeout: Duration | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        **options: Unpack[Policy],
    ) -> None:
        self._build(checked({**options, "timeout": timeout, "env": env, "cwd": cwd}))

    def _build(self, values: dict[str, Any]) -> None:
        self._leftovers_fail = values.get("leftovers") == "fail"
        self._timeout = seconds("timeout", values["timeout"]) if "timeout" in values else None
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

    def pool(self, size: int) -> Pool:
        """Builds `size` sandboxes ahead (1 to 1000) and keeps as many waiting, so that a program starts about as fast as
        without a sandbox: see Pool. Raises PolicyError for a policy that allows only one at a time."""
        return Pool(self, size)

    def detach(
        self,
        name: str,
        args: Iterable[Path] = (),
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        log_max_size: int | str = "10M",
        log_files: int = 5,
        keep_stdin: bool = False,
        restart: Literal["no", "on-failure", "always"] = "no",
    ) -> NamedCell:
        """Starts a cell with a name, which lives on when this process has ended: with a main program, whose output is
        its log and with which it ends, or without one. See `Cell.find` and `cells`.

        Raises PolicyError for a name that is none, SetupError (FileExistsError's number) where it is taken, and
        FileNotFoundError or PermissionError for a program that cannot be executed.
        """
        from ._named import NamedCell, started

        settings = {
            "cwd": None if cwd is None else path("cwd", cwd),
            "env": None if env is None else [(str(key), str(value)) for key, value in env.items()],
            "log_max_size": log_max_size,
            "log_files": log_files,
            "keep_stdin": keep_stdin,
            "restart": restart,
        }
        return NamedCell(started(self._native, name, [path("args", arg) for arg in args], settings))

    def start_async(self) -> Starting:
        """As `start`, in the running asyncio loop: ``async with box.start_async() as cell``, or ``await`` it and close
        it. Where the task is cancelled, the cell is closed when the cancellation goes on."""
        from ._aio import Starting

        return Starting(self)


def shared(options: Mapping[str, Any]) -> Sandbox:
    """A Sandbox that may have been built before: what building costs is paid once for each policy, not for each run."""
    values = checked(options)
    if not values.keys().isdisjoint(("seccomp", "image", "env_file")):  # files, or names of them, that may have changed
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
        with translating():
            self._begin(sandbox._native.start(), sandbox._leftovers_fail, sandbox._timeout)

    @staticmethod
    def find(name: str) -> NamedCell:
        """The cell of this name, of the calling user: see Sandbox.detach. Raises PolicyError where there is none."""
        from ._named import find

        return find(name)

    def _begin(self, native: _native.Cell, leftovers_fail: bool, timeout: float | None) -> None:
        self._leftovers_fail = leftovers_fail
        self._timeout = timeout
        self._native = native
        self._identity, self._enforced, self._published = standing(self._native.standing())

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
    def published(self) -> list[Published]:
        """The ports that are published on the host, with those that were chosen for 0."""
        return self._published

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


class Pool(Runner[_native.Pool]):
    """Sandboxes of one policy that are built ahead. Each serves one program and is never used again: who takes one
    launches the next; where none waits, the program gets one that is made for it. What of the host a program sees is as
    fresh as in a new sandbox; what it inherits (nice value, processors, resource limits) is what this process had when the
    sandbox was launched. `track_changes` and `learn` are decided before a sandbox is built, and refused.

    A context manager; leaving it, `close` and the end of the object end what waits, and so does the end of this process.
    In a forked process it is empty and stays so. Usable from any thread.
    """

    def __init__(self, sandbox: Sandbox, size: int) -> None:
        self._leftovers_fail = sandbox._leftovers_fail
        self._timeout = sandbox._timeout
        with translating():
            self._native = sandbox._native.pool(size)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends what waits. Programs that run go on. A second time does nothing; starting another one raises ValueError."""
        self._native.close()

    def stats(self) -> PoolStats:
        """What it has done so far."""
        return PoolStats(*self._native.stats())


class RunningAlone(Running, Policy, total=False):
    """The same, and the keywords of Sandbox."""


@overload
def run(
    args: Args, *,
    text: Literal[True], input: str | None = None, universal_newlines: bool | None = None,
    encoding: str | None = None, errors: str | None = None,
    **keywords: Unpack[RunningAlone],
) -> CompletedProcess[str]: ...
@overload
def run(
    args: Args, *,
    encoding: str, input: str | None = None, text: Literal[True] | None = None,
    universal_newlines: bool | None = None, errors: str | None = None,
    **keywords: Unpack[RunningAlone],
) -> CompletedProcess[str]: ...
@overload
def run(
    args: Args, *,
    text: Literal[False] | None = None, input: bytes | None = None,
    universal_newlines: Literal[False] | None = None, encoding: None = None, errors: None = None,
    **keywords: Unpack[RunningAlone],
) -> CompletedProcess[bytes]: ...
@overload
def run(
    args: Args, *,
    text: bool | None = None, input: str | bytes | None = None,
    universal_newlines: bool | None = None, encoding: str | None = None, errors: str | None = None,
    **keywords: Unpack[RunningAlone],
) -> CompletedProcess[Any]: ...
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


def start_async(**options: Unpack[Policy]) -> Starting:
    """A cell, started in the running asyncio loop: see Sandbox.start_async."""
    return shared(options).start_async()


@overload
async def run_async(
    args: Args, *,
    text: Literal[True], input: str | None = None, universal_newlines: bool | None = None,
    encoding: str | None = None, errors: str | None = None,
    **keywords: Unpack[RunningAlone],
) -> CompletedProcess[str]: ...
@overload
async def run_async(
    args: Args, *,
    encoding: str, input: str | None = None, text: Literal[True] | None = None,
    universal_newlines: bool | None = None, errors: str | None = None,
    **keywords: Unpack[RunningAlone],
) -> CompletedProcess[str]: ...
@overload
async def run_async(
    args: Args, *,
    text: Literal[False] | None = None, input: bytes | None = None,
    universal_newlines: Literal[False] | None = None, encoding: None = None, errors: None = None,
    **keywords: Unpack[RunningAlone],
) -> CompletedProcess[bytes]: ...
@overload
async def run_async(
    args: Args, *,
    text: bool | None = None, input: str | bytes | None = None,
    universal_newlines: bool | None = None, encoding: str | None = None, errors: str | None = None,
    **keywords: Unpack[RunningAlone],
) -> CompletedProcess[Any]: ...
async def run_async(args: Args, **keywords: Any) -> CompletedProcess[Any]:
    """As `run`, in the running asyncio loop. Where the task is cancelled, the program has ended with all that it had
    started when the cancellation goes on."""
    options = {name: keywords.pop(name) for name in list(keywords) if name not in _RUN}
    result: CompletedProcess[Any] = await shared(options).run_async(args, **keywords)
    return result


_RUN = frozenset(Runner.run_async.__kwdefaults__ or ())
