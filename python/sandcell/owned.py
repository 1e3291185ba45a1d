"""Trees whose files belong to leased ids: kept uppers, homes and images that sandboxes wrote.

Their owners are sub-ids of the caller, whom the caller cannot even look into where the mode says so. These functions
reach them, as `podman unshare` does. Root needs no sub-ids. No link is followed, whatever the tree holds.

All raise SandboxError (an OSError) with the path: it is not there, no directory, or belongs to ids that are not the
caller's.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass

from . import _native
from ._errors import translating
from ._options import path as _path
from ._types import Path

__all__ = ["Entry", "copy_out", "list", "reclaim", "remove"]


@dataclass(frozen=True)
class Entry:
    """One file of a tree."""

    #: Relative to the tree.
    path: str
    #: file, directory, symlink or other (a device, which an overlay's whiteout is, a pipe or a socket).
    kind: str
    #: Permission bits, with set-user-ID and its like.
    mode: int
    #: Bytes, as the file tells them.
    size: int
    #: The owner and group on the host.
    host_uid: int
    host_gid: int
    #: The owner and group inside, where the sandbox's map is noted beside the tree, as it is for a kept upper of
    #: several ids.
    uid: int | None
    gid: int | None


def list(tree: Path) -> builtins.list[Entry]:
    """Everything in the directory, each directory before what is in it, in the order of the names."""
    with translating():
        return [Entry(*entry) for entry in _native.owned_list(_path("tree", tree))]


def copy_out(tree: Path, dest: Path) -> builtins.list[str]:
    """Copies the directory to `dest`, which must not be there, as the caller's own: modes without set-user-ID and
    set-group-ID, times, holes and links as they are. Returns what has no copy: devices, pipes and sockets."""
    with translating():
        return _native.owned_copy_out(_path("tree", tree), _path("dest", dest))


def reclaim(tree: Path) -> None:
    """Makes the caller the owner of the directory and of everything in it; no sandbox may be running on it."""
    with translating():
        _native.owned_reclaim(_path("tree", tree))


def remove(tree: Path) -> None:
    """Removes the directory and everything in it, whatever its depth and modes: shutil.rmtree for such trees."""
    with translating():
        _native.owned_remove(_path("tree", tree))
