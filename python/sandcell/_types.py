"""What comes of a run."""

from __future__ import annotations

import html
import json
import os
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Union

if TYPE_CHECKING:
    from ._errors import CalledProcessError

Path = Union[str, bytes, "PathLike[str]", "PathLike[bytes]"]
Made = TypeVar("Made")
#: bytes, str or None.
Output = TypeVar("Output")


def known(cls: type[Made], values: dict[str, Any]) -> Made:
    """Only the fields that the class has: a report may have more."""
    names: dict[str, Any] = cls.__dataclass_fields__  # type: ignore[attr-defined]
    if not values.keys() <= names.keys():
        values = {name: value for name, value in values.items() if name in names}
    return cls(**values)


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    #: exited, signaled, timed_out, out_of_memory, output_limit, syscall_denied or killed.
    kind: str
    #: The exit status, with ``exited``.
    code: int | None = None
    #: The signal's number, with ``signaled``.
    signal: int | None = None
    #: Whether the kernel wrote a core dump, with ``signaled``.
    core_dumped: bool | None = None
    #: The system call's name, with ``syscall_denied``.
    syscall: str | None = None
    #: Which time ran out, with ``timed_out``: ``wall`` or ``cpu``.
    of: str | None = None

    @property
    def success(self) -> bool:
        """Whether it ended by itself with status 0."""
        return self.code == 0

    @property
    def returncode(self) -> int:
        """As subprocess has it: the exit status, or a signal's number negated. What the sandbox ended counts as
        SIGKILL, but SIGXFSZ for the output limit and SIGSYS for a denied system call."""
        if self.code is not None:
            return self.code
        if self.signal is not None:
            return -self.signal
        signals = {"output_limit": signal.SIGXFSZ, "syscall_denied": signal.SIGSYS}
        return -signals.get(self.kind, signal.SIGKILL)

    def _repr_html_(self) -> str:
        colour = "green" if self.success else "crimson"
        return f'<span style="color: {colour}">{html.escape(str(self))}</span>'

    def __str__(self) -> str:
        particulars = [str(v) for v in (self.code, self.signal, self.syscall) if v is not None]
        return " ".join([self.kind.replace("_", " "), *particulars])


@dataclass(frozen=True)
class PoolStats:
    """What a Pool has done so far."""

    #: Programs that took a sandbox that waited.
    hits: int
    #: Programs for which none was there.
    misses: int
    #: Sandboxes that wait now.
    waiting: int


@dataclass(frozen=True)
class Usage:
    """What a run used; None where nothing on this host counted it. Times in seconds, sizes in bytes."""

    wall_seconds: float | None = None
    user_seconds: float | None = None
    system_seconds: float | None = None
    #: Of the cgroup where there is one, otherwise of the largest single process.
    memory_peak_bytes: int | None = None
    pids_peak: int | None = None
    output_bytes: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    throttled_seconds: float | None = None
    oom_kills: int | None = None
    pids_refused: int | None = None
    #: Share of time, 0 to 100 %, in which some process waited for it (average over 10 s; cgroup v2 only).
    memory_pressure: float | None = None
    cpu_pressure: float | None = None
    io_pressure: float | None = None

    def _repr_html_(self) -> str:
        return _table((name, _figure(name, value)) for name, value in vars(self).items() if value is not None)


@dataclass(frozen=True)
class Identity:
    """Who the program was, inside and as the host saw it."""

    uid: int
    gid: int
    host_uid: int
    host_gid: int


@dataclass(frozen=True)
class Enforced:
    """One thing that was asked for, and what carried it out."""

    #: The option: memory, pids, network, …
    item: str
    requested: int | float | str
    #: namespace, cgroup2, cgroup1, rlimit, tmpfs, seccomp, landlock, supervisor or nothing.
    by: str
    why: str | None = None
    host_uid: int | None = None
    disjoint: bool | None = None


@dataclass(frozen=True)
class Step:
    """One step of a run in words."""

    #: Stable name of the kind of step, such as bind or seccomp.
    name: str
    #: The path or name that it is about; may be empty.
    subject: str
    words: str


@dataclass(frozen=True)
class Finding:
    """One thing that this host allows, or does not."""

    name: str
    ok: bool
    detail: str
    #: What to do about it; may be empty.
    remedy: str


@dataclass(frozen=True)
class Leftover:
    """A process that was still alive when the program ended."""

    pid: int
    command: str


@dataclass(frozen=True)
class Change:
    """A file that differs from the layers."""

    #: added, modified or deleted.
    kind: str
    #: Inside; absolute.
    path: str


@dataclass(frozen=True)
class Connection:
    """Connections of one kind to one target, with the network user."""

    #: The name that led there, or that was asked for.
    host: str | None
    #: None for a name that was not looked up.
    address: str | None
    port: int
    #: tcp, udp, or dns for a name.
    protocol: str
    #: allowed, refused (by the rules) or failed (the peer could not be reached).
    verdict: str
    #: The rule that decided, as an option of the program.
    rule: str | None
    #: Why it was refused or failed.
    why: str | None
    count: int
    bytes_sent: int
    bytes_received: int


@dataclass(frozen=True)
class Published:
    """A port of the sandbox that is published on the host."""

    #: Where the host listens.
    address: str
    #: The port of the host: the one that was chosen, where 0 was asked for.
    host_port: int
    cell_port: int
    #: tcp or udp.
    protocol: str
    #: How many connections, or clients of UDP, have come so far; counted in reports, as the bytes are.
    connections: int
    bytes_sent: int
    bytes_received: int


@dataclass(frozen=True)
class NetworkReport:
    """What was reached, and what was refused, with the network user."""

    connections: list[Connection]
    #: The published ports, and what came by them.
    published: list[Published]
    #: Connections and refusals beyond the 256 that are listed.
    more: int
    #: The relay ended before the sandbox did: from then on nothing could be reached.
    lost: bool

    def refused(self) -> list[Connection]:
        """What the rules have refused."""
        return [line for line in self.connections if line.verdict == "refused"]


@dataclass
class CompletedProcess(Generic[Output]):
    """subprocess.CompletedProcess with what the sandbox knows of the run."""

    args: Sequence[Path] | Path
    returncode: int
    stdout: Output
    stderr: Output
    outcome: Outcome
    usage: Usage
    identity: Identity
    enforced: list[Enforced]
    leftovers: list[Leftover]
    #: What went wrong in cleaning up; the result stands all the same.
    warnings: list[str]
    #: With `track_changes`, the files that the run added, changed or removed in its overlay.
    changes: list[Change] | None
    #: That list is not complete: it would be longer than 40 MiB, or something moved directories meanwhile.
    changes_truncated: bool
    #: With `learn`, the smallest system call profile that lets the run's calls through, in the JSON form of Docker's:
    #: written to a file, it is what the keyword `seccomp` takes.
    learned: str | None
    #: With the network user: what was reached, and what was refused. In a cell, by all its programs so far.
    network: NetworkReport | None
    #: The whole report, as the program `sandcell` writes it.
    report: dict[str, Any] = field(repr=False)

    def check_returncode(self) -> None:
        """Raises CalledProcessError unless the program ended with status 0."""
        if self.returncode:
            raise self._error()

    def _repr_html_(self) -> str:
        """For notebooks: what was run, what came of it, what it used, what was enforced."""
        args = self.args if isinstance(self.args, Sequence) and not isinstance(self.args, (str, bytes)) else [self.args]
        rows = [("program", html.escape(" ".join(os.fsdecode(word) for word in args)))]
        rows.append(("outcome", self.outcome._repr_html_()))
        outputs: list[tuple[str, Any]] = [("stdout", self.stdout), ("stderr", self.stderr)]
        for name, text in outputs:
            if text:
                shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
                rows.append((name, f"<pre>{html.escape(shown[:2000])}{'…' if len(shown) > 2000 else ''}</pre>"))
        rows.append(("usage", self.usage._repr_html_()))
        enforced = ((line.item, html.escape(f"{line.requested} by {line.by}")) for line in self.enforced)
        rows.append(("enforced", _table(enforced)))
        return _table(rows)

    # Made here and not where it is raised: a local name there would keep its own frame alive.
    def _error(self) -> CalledProcessError:
        from ._errors import CalledProcessError

        outputs: list[Any] = [self.stdout, self.stderr]
        error = CalledProcessError(self.returncode, self.args, *outputs)
        error.result = self
        return error


def _table(rows: Iterable[tuple[str, str]]) -> str:
    """Of a name and HTML each."""
    return f"<table>{''.join(f'<tr><th>{html.escape(name)}</th><td>{cell}</td></tr>' for name, cell in rows)}</table>"


def _figure(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return f"{value / (1 << 20):,.1f} MiB"
    return f"{value:.3f} s" if name.endswith("_seconds") else f"{value:g}"


#: The report's JSON, and the profile that was learned.
Told = tuple[str, Union[str, None]]


def completed(args: Any, stdout: Any, stderr: Any, told: Told) -> CompletedProcess[Any]:
    report = json.loads(told[0])
    outcome = known(Outcome, report["outcome"])
    return CompletedProcess(
        args,
        outcome.returncode,
        stdout,
        stderr,
        outcome,
        known(Usage, report["usage"]),
        known(Identity, report["identity"]),
        [known(Enforced, line) for line in report["enforced"]],
        [known(Leftover, line) for line in report["leftovers"]],
        report["warnings"],
        None if report["changes"] is None else [known(Change, line) for line in report["changes"]],
        report["changes_truncated"],
        told[1],
        _network(report["network"]),
        report,
    )


def _network(told: dict[str, Any] | None) -> NetworkReport | None:
    if told is None:
        return None
    connections = [known(Connection, line) for line in told["connections"]]
    published = [known(Published, line) for line in told["published"]]
    return NetworkReport(connections, published, told["more"], told["lost"])


def standing(text: str) -> tuple[Identity, list[Enforced], list[Published]]:
    """From the JSON of something that still runs."""
    told = json.loads(text)
    enforced = [known(Enforced, line) for line in told["enforced"]]
    return known(Identity, told["identity"]), enforced, [known(Published, line) for line in told["published"]]
