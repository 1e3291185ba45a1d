"""The keywords of Sandbox. The library's options table says which there are, and reads their values; here they are only brought
into one shape, so that a policy that was built before is found again."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict, Union

from . import _native
from ._errors import PolicyError, translating
from ._types import Path

Size = Union[int, str]
Count = Union[int, str]
Fraction = Union[int, float, str]
Duration = Union[int, float, str]
Bind = Union[Path, "tuple[Path, Path]"]


class IoMax(TypedDict, total=False):
    """Limits on one block device, each per second."""

    read_bytes: Size
    write_bytes: Size
    read_ops: Count
    write_ops: Count


# BEGIN options: made from the options table by sandbox/tests/options
class Policy(TypedDict, total=False):
    """The options of the program `sandcell`, `-` as `_`; docs/options.md has them all."""

    #: Root file system: host is a read-only view of the system directories, never the homes
    root: Path
    #: The root is an image of the store; what it says of its runs is the default
    image: str
    #: The store of images and volumes
    store: Path
    #: Read-only layer of an overlay root; the first is the lowest
    layers: Iterable[Path]
    #: Where writes to the overlay go: thrown away, or kept in DIR
    upper: Path
    #: Show a file or directory of the host read-only; a colon in a path is written \:
    ro: Iterable[Bind]
    #: Show a file or directory of the host, writable as far as the caller's own rights go
    rw: Iterable[Bind]
    #: An empty writable directory in memory
    tmpfs: Iterable[Path | tuple[Path, Size]]
    #: A read-only file with this content; the mode is 644 unless one is given
    files: Mapping[Path, str | bytes | tuple[str | bytes, int]] | Sequence[str]
    #: A directory of the store that outlives runs
    volumes: Iterable[str | tuple[str, Path] | tuple[str, Path, str]]
    #: Show a device of the host, or those in a directory of it, beneath /dev; ro: it cannot be opened for writing
    devices: Iterable[str]
    #: Show one Unix socket of the host, such as an SSH agent's
    sockets: Iterable[str]
    #: Let a name be reached, at TCP ports 80 and 443 or those given; everything else is refused then
    allow_hosts: Iterable[str]
    #: Refuse a name, whatever else is allowed
    deny_hosts: Iterable[str]
    #: Let addresses be reached, private ones too
    allow_nets: Iterable[str]
    #: Refuse addresses, whatever else is allowed
    deny_nets: Iterable[str]
    #: Publish a port of the sandbox on the host, at 127.0.0.1 unless ADDR is given; HOST 0 is a free port
    publish: Mapping[int | str, int | str] | Sequence[str]
    #: Let a port of the host's own 127.0.0.1 be reached, as host.containers.internal
    host_ports: Iterable[int | str]
    #: Have connections go by a proxy, which looks names up, too; the rules hold all the same
    upstream_proxy: str
    #: Who the program is inside
    user: str | int | tuple[int, int]
    #: Limit of each process, as in setrlimit(2): nofile=256, fsize=64M, stack=unlimited
    rlimit: Mapping[str, Size | tuple[Size, Size]] | Sequence[str]
    #: System call filter; FILE has the JSON form of Docker's profiles
    seccomp: Path
    #: Allow a named set of system calls on top of the filter
    seccomp_with: Iterable[str]
    #: Take a named set of system calls out of the filter
    seccomp_without: Iterable[str]
    #: Let programs trace each other, make namespaces inside, or have a socket that gives them the host
    allow: Iterable[str]
    #: Keep a capability inside; all are dropped otherwise
    cap_add: Iterable[str]
    #: Set variables, one KEY[=VALUE] a line; empty lines and lines with # are skipped
    env_file: Iterable[Path]
    #: Where the host cannot enforce ITEM (or all), go on and say so in the report
    best_effort: Iterable[str]
    #: Where its UID on the host comes from; auto: a leased sub-UID if available, else the caller's; disjoint: a
    #: leased sub-UID or an error; shared: the caller's
    host_ids: Literal["auto", "disjoint", "shared"]
    #: What keeps programs apart from the host: landlock is for hosts that forbid user namespaces, and weaker
    isolation: Literal["namespaces", "landlock"]
    #: The network; loopback is a private one, user the public internet through a relay that keeps rules
    network: Literal["none", "loopback", "host", "user"]
    #: Landlock behind the namespaces: what the kernel can do, every rule or an error, or not at all
    landlock: Literal["default", "required", "off"]
    #: Processes still alive when the program ends are killed, killed and listed, or make the run a failure
    leftovers: Literal["kill", "report", "fail"]
    #: Memory of all processes together, page cache included; more is an out-of-memory kill
    memory: Size
    #: Memory above which the kernel slows the sandbox down to reclaim (cgroup v2)
    memory_high: Size
    #: Swap on top of the memory; 0 by default where memory is limited
    swap: Size
    #: Processes and threads
    pids: Count
    #: CPUs, such as 0.5
    cpus: Fraction
    #: Share of the CPU against others, 1 to 10000; 100 is the kernel's default
    cpu_weight: Count
    #: CPUs that may be used, such as 0-3,8
    cpuset: str
    #: CPU time of all processes together
    cpu_time: Duration
    #: What the throw-away upper, /tmp, the home and the other private directories may hold together
    disk: Size
    #: Files and directories that they may hold together
    inodes: Count
    #: Share of block input and output, 1 to 10000; 100 is the kernel's default
    io_weight: Count
    #: A cgroup v2 directory to work beneath, instead of the one that is found
    cgroup: Path
    #: Limit one block device: bytes and operations per second
    io_max: Mapping[str, IoMax] | Sequence[str]
    #: How many ids the program has: 65536 for a whole distribution, with cap_add for what changes user
    id_count: Count
    #: Map the caller's own UID and GID to the program's, so that files of the caller in bind mounts are its own
    keep_id: bool
    #: Give what other ids than the caller's own have made in writable binds to the caller when a run has ended
    reclaim: bool
    #: How long to wait for free ids
    wait_for_ids: Duration
    #: The program is the init of a system, PID 1 of its own: systemd, OpenRC, busybox; implies root, 65536 ids, a
    #: cgroup and a grace of 30s
    init: bool
    #: The host's name inside
    hostname: str
    #: Between SIGTERM and SIGKILL
    grace: Duration
    #: What a program may write to standard output and error together before it is ended
    output_limit: Size
    #: Publish the ports that the image exposes, each at a free port of the host's 127.0.0.1
    publish_all: bool
    #: Pass the caller's environment on
    keep_env: bool
    #: File mode creation mask
    umask: Count
    #: Deprecated: cwd.
    chdir: Path
    #: Deprecated: keep_id.
    keep_caller: bool


class Limits(TypedDict, total=False):
    """What Cell.set_limits can change; as in Policy."""

    memory: Size
    memory_high: Size
    swap: Size
    pids: Count
    cpus: Fraction
    cpu_weight: Count
    cpuset: str
    io_weight: Count
    io_max: Mapping[str, IoMax] | Sequence[str]
# END options


_TABLE = _native.options_table()
_KEYWORDS = frozenset(row[0] for row in _TABLE)
#: Names from before, and what is said instead.
_BEFORE = {"chdir": "cwd", **{old: row[0] for row in _TABLE for old in row[2]}}
#: The keywords whose checked values are lists.
LISTS = frozenset(row[0] for row in _TABLE if row[3])
#: Those that say how much all processes may use together, and where.
LIMITS = frozenset(row[0] for row in _TABLE if row[4]) | {"cgroup"}


def whole(key: str, value: Any) -> int:
    """A whole number."""
    with translating():
        number: int = _native.read("count", key, value)
    return number


def size(key: str, value: Any) -> int:
    """Bytes: 4096, "512K", "64M", "2G", "1T"; powers of 1024."""
    with translating():
        number: int = _native.read("size", key, value)
    return number


def seconds(key: str, value: Any) -> float:
    """A number of seconds, or "500ms", "30s", "5m", "2h"."""
    with translating():
        number: float = _native.read("duration", key, value)
    return number


def path(key: str, value: Any) -> str:
    try:
        return os.fsdecode(value)
    except TypeError:
        raise PolicyError(key, f"{value!r} is not a path") from None


def environment(key: str, value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, Mapping):
        raise PolicyError(key, f"{value!r} is not a mapping")
    return [(path(key, name), path(key, text)) for name, text in value.items()]


def _pair(value: Any) -> tuple[Any, Any]:
    """One for both of two."""
    return value if isinstance(value, tuple) and len(value) == 2 else (value, value)


def _file(key: str, dest: Any, given: Any) -> tuple[str, bytes, Any]:
    content, mode = given if isinstance(given, tuple) and len(given) == 2 else (given, 0o644)
    if not isinstance(content, (str, bytes)):
        raise PolicyError(key, f"{content!r} is no content of a file", "give a str or bytes, or (content, 0o755)")
    if isinstance(mode, bool) or not isinstance(mode, int):
        raise PolicyError(key, f"{mode!r} is not a whole number", "write three octal digits, such as 0o755")
    return path(key, dest), content.encode() if isinstance(content, str) else content, mode


def _figures(key: str, value: Any) -> tuple[tuple[str, Any], ...]:
    if not isinstance(value, Mapping):
        known = ", ".join(IoMax.__annotations__)
        raise PolicyError(key, f"{value!r} is not a mapping of {known}", "write {'8:0': {'read_bytes': '1M'}}")
    return tuple(value.items())


#: Keywords that are mappings (or lists of texts, as the program takes them): what becomes of an item, and what to write.
_MAPPINGS = {
    "files": (_file, "write {'/run/app.conf': 'text'}"),
    "rlimit": (lambda _, name, value: (name, *_pair(value)), "write {'nofile': 256} or {'nofile': (256, 512)}"),
    "io_max": (lambda key, name, value: (name, _figures(key, value)), "write {'8:0': {'read_bytes': '1M'}}"),
    "env": (lambda key, name, value: (path(key, name), path(key, value)), "write {'LANG': 'C'}"),
}


def _shaped(key: str, value: Any) -> Any:
    """Without objects of other libraries: strings, bytes, numbers, and tuples of them."""
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, (tuple, list)):
        return tuple(_shaped(key, item) for item in value)
    if isinstance(value, (str, bytes, int, float)):
        return value
    # NumPy's and their like.
    for name in ("__index__", "__float__"):
        if hasattr(type(value), name):
            return int(value) if name == "__index__" else float(value)
    raise PolicyError(key, f"{value!r} is no value of an option")


def _checked(key: str, value: Any) -> Any:
    # Variables are a mapping, as subprocess has them.
    if key in _MAPPINGS and (key == "env" or not isinstance(value, (list, tuple))):
        one, hint = _MAPPINGS[key]
        if not isinstance(value, Mapping):
            raise PolicyError(key, f"{value!r} is not a mapping", hint)
        return [_shaped(key, one(key, name, item)) for name, item in value.items()]
    if key in LISTS:
        # A lone string would be taken apart into its letters.
        if isinstance(value, (str, bytes, os.PathLike)) or not isinstance(value, Iterable):
            raise PolicyError(key, f"{value!r} is not a list", "write it in brackets: [...]")
        # A mapping is a list of pairs: {"/src": "/dest"}.
        return [_shaped(key, item) for item in (value.items() if isinstance(value, Mapping) else value)]
    return _shaped(key, value)


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """As the native half wants them; None stands for the default."""
    values = {}
    for given, value in options.items():
        key = _BEFORE.get(given, given)
        if key not in _KEYWORDS:
            raise TypeError(f"sandcell has no keyword {given!r}; it has {', '.join(sorted(_KEYWORDS))}")
        if value is None:
            continue
        if key != given:
            warnings.warn(f"the keyword {given} is deprecated: say {key}", DeprecationWarning, stacklevel=3)
            if options.get(key) is not None:
                raise PolicyError(key, f"is given twice: as {given}, too")
        values[key] = _checked(key, value)
    return values
