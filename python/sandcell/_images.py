"""Images: a store of them, and what makes new ones. Running one is the keyword `image` of Sandbox."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from . import _native
from ._errors import translating
from ._options import path
from ._types import Path


class Store:
    """A directory of images and volumes: the user's own, or the one that is named. Any number of processes and threads
    may use one at a time.

    >>> store = Store()
    >>> store.load("app.tar")
    >>> Sandbox(image="app:1").run(["id"])
    """

    def __init__(self, directory: Path | None = None) -> None:
        with translating():
            self._native = _native.Store(None if directory is None else path("directory", directory))

    @property
    def path(self) -> str:
        """Where it is: the keyword `store` of Sandbox."""
        return os.fspath(self._native.path)

    def load(self, source: Path, *, name: str | None = None, format: str = "detect") -> list[str]:
        """Loads images from an archive or directory; their names. `format` is "oci", "docker", "rootfs" (a plain root
        file system) or "detect"."""
        with translating():
            return self._native.load(path("source", source), format, name)

    def images(self) -> list[dict[str, Any]]:
        """The images: dicts of Id, Names, Created, Size, SharedSize, Layers."""
        with translating():
            return json.loads(self._native.images())  # type: ignore[no-any-return]

    def inspect(self, image: str) -> dict[str, Any]:
        """All about an image, with the keys of `podman inspect`."""
        with translating():
            return json.loads(self._native.inspect(image))  # type: ignore[no-any-return]

    def history(self, image: str) -> list[dict[str, Any]]:
        """The steps that made an image, the newest first: dicts of created, createdBy, size, comment, layer."""
        with translating():
            return json.loads(self._native.history(image))  # type: ignore[no-any-return]

    def commit(self, upper: Path, name: str | None = None) -> str:
        """Makes an image of what runs with `upper` on an image changed; its id."""
        with translating():
            return self._native.commit(path("upper", upper), name)

    def save(self, images: str | Iterable[str], to: Path, *, format: str = "oci-archive") -> None:
        """Writes images to a new file or directory: "oci-archive", "oci-dir" or "docker-archive"."""
        names = [images] if isinstance(images, str) else list(images)
        with translating():
            self._native.save(names, path("to", to), format)

    def tag(self, image: str, name: str) -> None:
        """Gives an image another name."""
        with translating():
            self._native.tag(image, name)

    def remove(self, image: str) -> None:
        """Takes a name away; an image without any goes, with the layers that no other image has."""
        with translating():
            self._native.remove(image)

    def prune(self) -> int:
        """Removes images without a name and layers without an image; how many bytes that was."""
        with translating():
            return self._native.prune()

    def build(
        self,
        context: Path,
        *,
        name: str | None = None,
        dockerfile: Path | None = None,
        args: Mapping[str, str] | None = None,
        network: str = "loopback",
        timestamp: int | None = None,
        cache: bool = True,
    ) -> str:
        """Makes an image by the steps of a Dockerfile (that of the directory `context`); its id."""
        context = path("context", context)
        file = os.path.join(context, "Dockerfile") if dockerfile is None else path("dockerfile", dockerfile)
        with translating():
            values = list((args or {}).items())
            return self._native.build(file, context, name, values, network, timestamp, cache)

    def volumes(self) -> list[dict[str, Any]]:
        """The volumes: dicts of Name, Mountpoint, CreatedUnix, InUse."""
        with translating():
            return json.loads(self._native.volumes())  # type: ignore[no-any-return]

    def remove_volume(self, volume: str) -> None:
        """Removes a volume with all that is in it."""
        with translating():
            self._native.remove_volume(volume)
