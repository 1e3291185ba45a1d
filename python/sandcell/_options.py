"""The keywords of Sandbox: checked here, so that a mistake is named with its keyword, and handed on as bytes and
seconds."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict, Union

from ._errors import PolicyError
from ._types import Path

Size = Union[int, str]
Duration = Union[int, float, str]
Bind = Union[Path, "tuple[Path, Path]"]


class IoMax(TypedDict, total=False):
    """Limits on one block device, each per second."""

    read_bytes: Size
    write_bytes: Size
    read_ops: int
    write_ops: int


class Policy(TypedDict, total=False):
    """The options of the program `sandcell`, `-` as `_`. Sizes are bytes or "64M", durations seconds or "500ms"."""

    root: Path
    image: str
    store: Path
    #: Where the host's ids come from: auto, disjoint or shared.
    host_ids: str
    volumes: Iterable[str | tuple[str, Path]]
    layers: Iterable[Path]
    upper: Path
    ro: Iterable[Bind]
    rw: Iterable[Bind]
    tmpfs: Iterable[Path | tuple[Path, Size]]
    #: Read-only files: what is in them, by where they are; with permission bits as ("#!/bin/sh\\n", 0o755), 0o644 otherwise.
    files: Mapping[Path, str | bytes | tuple[str | bytes, int]]
    user: str | int | tuple[int, int]
    #: How many ids the sandbox has; 1 by default.
    id_count: int
    wait_for_ids: Duration
    hostname: str
    memory: Size
    #: Above this the kernel slows the sandbox down to reclaim; cgroup v2, as are io_weight and io_max.
    memory_high: Size
    swap: Size
    pids: int
    cpus: float
    #: Share of the CPU against others, 1 to 10,000; 100 is the kernel's default.
    cpu_weight: int
    #: CPU time of all processes together.
    cpu_time: Duration
    cpuset: str
    disk: Size
    #: Files and directories that the private writable directories may hold together.
    inodes: int
    #: Share of block input and output, 1 to 10,000.
    io_weight: int
    #: Per block device ("/dev/sda" or "8:0").
    io_max: Mapping[str, IoMax]
    #: A cgroup v2 directory to work beneath, instead of the one that is found.
    cgroup: Path
    rlimit: Mapping[str, Size | tuple[Size, Size]]
    grace: Duration
    output_limit: Size
    #: namespaces, or landlock: weaker, for hosts that forbid user namespaces.
    isolation: str
    network: str
    seccomp: Path
    #: default (what the kernel can do), required (all of it, or an error) or off.
    landlock: str
    cap_add: Iterable[str]
    keep_env: bool
    #: Files of the caller in bind mounts belong to the program: its own UID is the program's on the host.
    keep_caller: bool
    chdir: Path
    best_effort: Iterable[str]
    leftovers: str
    #: File mode creation mask; 0o022 by default.
    umask: int


class Limits(TypedDict, total=False):
    """What Cell.set_limits can change; as in Policy."""

    memory: Size
    swap: Size
    pids: int
    cpus: float
    cpuset: str


_SHIFTS = {"": 0, "B": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def whole(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise PolicyError(key, f"{value!r} is not a whole number")
    if not 0 <= value < 1 << 64:
        raise PolicyError(key, f"{value} is negative, or more than 64 bits can count")
    return value


def size(key: str, value: Any) -> int:
    """Bytes: 4096, "512K", "64M", "2G", "1T"; powers of 1024."""
    if not isinstance(value, str):
        return whole(key, value)
    found = re.fullmatch(r"([0-9]+)([BKMGT]?)(?:iB)?", value)
    if not found:
        raise PolicyError(key, f"{value!r} is not a size", "write 4096, '512K', '64M' or '2G'")
    return whole(key, int(found[1]) << _SHIFTS[found[2]])


def seconds(key: str, value: Any) -> float:
    """A number of seconds, or "500ms", "30s", "5m", "2h"."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", value) if isinstance(value, str) else None
    if found:
        return float(found[1]) * _SECONDS[found[2]]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PolicyError(key, f"{value!r} is not a duration", "write seconds, or '500ms', '30s', '5m'")
    return float(value)


def _word(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise PolicyError(key, f"{value!r} is not a string")
    return value


def path(key: str, value: Any) -> str:
    try:
        return os.fsdecode(value)
    except TypeError:
        raise PolicyError(key, f"{value!r} is not a path") from None


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise PolicyError(key, f"{value!r} is neither True nor False")
    return value


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PolicyError(key, f"{value!r} is not a number")
    return float(value)


def _each(one: Callable[[str, Any], Any]) -> Callable[[str, Any], list[Any]]:
    def every(key: str, value: Any) -> list[Any]:
        # A lone string would be taken apart into its letters.
        if isinstance(value, (str, bytes, os.PathLike)) or not isinstance(value, Iterable):
            raise PolicyError(key, f"{value!r} is not a list")
        return [one(key, item) for item in value]

    return every


def _bind(key: str, value: Any) -> tuple[str, str]:
    if isinstance(value, tuple) and len(value) == 2:
        return path(key, value[0]), path(key, value[1])
    source, colon, dest = path(key, value).partition(":")
    return source, dest if colon else os.path.abspath(source)


def _tmpfs(key: str, value: Any) -> tuple[str, int | None]:
    if isinstance(value, tuple) and len(value) == 2:
        return path(key, value[0]), size(key, value[1])
    dest, colon, limit = path(key, value).partition(":")
    return dest, size(key, limit) if colon else None


def _volume(key: str, value: Any) -> tuple[str, str, bool]:
    """"NAME:DEST" or "NAME:DEST:ro"; as a tuple, (NAME, DEST) or (NAME, DEST, "ro")."""
    parts = tuple(value.split(":")) if isinstance(value, str) else value
    if not isinstance(parts, tuple) or len(parts) not in (2, 3) or parts[2:] not in ((), ("ro",), ("rw",)):
        raise PolicyError(key, f"{value!r} is not a volume", "write 'NAME:DEST' or 'NAME:DEST:ro'")
    return _word(key, parts[0]), path(key, parts[1]), parts[2:] != ("ro",)


def _user(key: str, value: Any) -> str | tuple[int, int]:
    ids = tuple(value.split(":")) if isinstance(value, str) and value[:1].isdigit() else value
    ids = ids if isinstance(ids, tuple) else (ids,)
    if isinstance(value, str) and not value[:1].isdigit():
        return value
    try:
        uid, gid = (int(ids[0]), int(ids[-1]))
    except (TypeError, ValueError, IndexError):
        uid = gid = -1
    if len(ids) > 2 or not (0 <= uid < 1 << 32 and 0 <= gid < 1 << 32):
        raise PolicyError(key, f"{value!r} is not a user", "write 'random', 'root', 'caller', UID or (UID, GID)")
    return uid, gid


def _rlimit(key: str, value: Any) -> list[tuple[str, int, int]]:
    if not isinstance(value, Mapping):
        raise PolicyError(key, f"{value!r} is not a mapping", "write {'nofile': 256} or {'nofile': (256, 512)}")
    limits = []
    for name, limit in value.items():
        soft, hard = limit if isinstance(limit, tuple) and len(limit) == 2 else (limit, limit)
        limits.append((_word(key, name).lower().removeprefix("rlimit_"), size(key, soft), size(key, hard)))
    return limits


def _files(key: str, value: Any) -> list[tuple[str, bytes, int]]:
    if not isinstance(value, Mapping):
        raise PolicyError(key, f"{value!r} is not a mapping", "write {'/run/app.conf': 'text'}")
    files = []
    for dest, given in value.items():
        content, mode = given if isinstance(given, tuple) and len(given) == 2 else (given, 0o644)
        if not isinstance(content, (str, bytes)):
            raise PolicyError(key, f"{content!r} is no content of a file", "give a str or bytes, or (content, 0o755)")
        if whole(key, mode) > 0o777:
            raise PolicyError(key, f"the mode {mode:o} has bits beyond 777", "three octal digits, such as 0o755")
        files.append((path(key, dest), content.encode() if isinstance(content, str) else content, mode))
    return files


def _io_max(key: str, value: Any) -> list[tuple[str, int | None, int | None, int | None, int | None]]:
    limits = []
    for device, given in value.items() if isinstance(value, Mapping) else [("", value)]:
        if not isinstance(given, Mapping) or not set(given) <= IoMax.__annotations__.keys():
            known = ", ".join(IoMax.__annotations__)
            raise PolicyError(key, f"{given!r} is not a mapping of {known}", "write {'8:0': {'read_bytes': '1M'}}")
        r_bytes, w_bytes, r_ops, w_ops = (
            size(key, given[name]) if name in given else None for name in IoMax.__annotations__
        )
        limits.append((_word(key, device), r_bytes, w_bytes, r_ops, w_ops))
    return limits


def environment(key: str, value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, Mapping):
        raise PolicyError(key, f"{value!r} is not a mapping")
    return [(path(key, name), path(key, text)) for name, text in value.items()]


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("memory", "memory_high", "swap", "disk", "output_limit"), size),
    **dict.fromkeys(("image", "hostname", "cpuset"), _word),
    **dict.fromkeys(("host_ids", "isolation", "network", "landlock", "leftovers"), _word),
    **dict.fromkeys(("root", "store", "upper", "seccomp", "chdir", "cgroup"), path),
    **dict.fromkeys(("ro", "rw"), _each(_bind)),
    **dict.fromkeys(("cap_add", "best_effort"), _each(_word)),
    **dict.fromkeys(("timeout", "wait_for_ids", "grace", "cpu_time"), seconds),
    "layers": _each(path),
    "volumes": _each(_volume),
    **dict.fromkeys(("id_count", "pids", "cpu_weight", "inodes", "io_weight", "umask"), whole),
    "tmpfs": _each(_tmpfs),
    "files": _files,
    "io_max": _io_max,
    "user": _user,
    "cpus": _number,
    "rlimit": _rlimit,
    "env": environment,
    "keep_env": _flag,
    "keep_caller": _flag,
}

#: The keywords whose checked values are lists.
LISTS = frozenset(
    {"layers", "volumes", "ro", "rw", "tmpfs", "files", "rlimit", "io_max", "cap_add", "env", "best_effort"}
)
#: Those that say how much all processes may use together.
LIMITS = frozenset(
    {
        *("memory", "memory_high", "swap", "pids", "cpus", "cpu_weight", "cpu_time", "cpuset", "disk", "inodes"),
        *("io_weight", "io_max", "cgroup"),
    }
)


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """As the native half wants them; None stands for the default."""
    unknown = sorted(set(options) - set(_CHECKS))
    if unknown:
        raise TypeError(f"sandcell has no keyword {unknown[0]!r}; it has {', '.join(sorted(_CHECKS))}")
    return {key: _CHECKS[key](key, value) for key, value in options.items() if value is not None}
