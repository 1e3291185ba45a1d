"""Images: a store of them, and what makes new ones. Running one is the keyword `image` of Sandbox."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import _native
from ._errors import PolicyError, translating
from ._options import path
from ._types import Change, Path

#: Told how far it is: bytes done, bytes in all.
Progress = Callable[[int, int], object]
#: Told of a step: its number, how many there are, its text, and whether its layer is taken from an earlier build.
BuildProgress = Callable[[int, int, str, bool], object]


class Store:
    """A directory of images and volumes: the user's own, or the one that is named. Any number of processes and threads
    may use one at a time.

    >>> store = Store()
    >>> store.load("app.tar")
    >>> Sandbox(image="app:1").run(["id"])

    Work that takes long is done in another thread, so that Ctrl-C ends it at once; the store is as it was before then.
    So it is where a `progress` raises. They are called from that thread, with bytes at most some 20 times a second.
    """

    def __init__(self, directory: Path | None = None) -> None:
        with translating():
            self._native = _native.Store(None if directory is None else path("directory", directory))

    @property
    def path(self) -> str:
        """Where it is: the keyword `store` of Sandbox."""
        return os.fspath(self._native.path)

    def pull(
        self,
        image: str,
        *,
        name: str | None = None,
        auth_file: Path | None = None,
        credentials: tuple[str, str] | None = None,
        ca_file: Path | None = None,
        plain_http: bool = False,
        durable: bool = False,
        progress: Progress | None = None,
    ) -> str:
        """Gets an image from its registry, "[HOST[:PORT]/]NAME[:TAG][@DIGEST]"; its id. Without a host it is docker.io's.

        `name` is its name here, instead of the registry's. Credentials are those that `docker login` or `podman login`
        left, of `auth_file` in Docker's form, or a user and password. `ca_file` (PEM) is trusted besides the system's
        certificates; `plain_http` does without TLS; `durable` waits until everything is on the disk.
        """
        auth = None if auth_file is None else path("auth_file", auth_file)
        ca = None if ca_file is None else path("ca_file", ca_file)
        if credentials is not None and not (isinstance(credentials, tuple) and len(credentials) == 2):
            raise PolicyError("credentials", "are not a user and a password")
        with translating():
            return self._native.pull(image, name, auth, credentials, ca, plain_http, durable, progress)

    def load(
        self,
        source: Path,
        *,
        name: str | None = None,
        format: str = "detect",
        durable: bool = False,
        progress: Progress | None = None,
    ) -> list[str]:
        """Loads images from an archive or directory; their names. `format` is "oci", "docker", "rootfs" (a plain root
        file system) or "detect"; `durable` waits until everything is on the disk."""
        with translating():
            return self._native.load(path("source", source), format, name, durable, progress)

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

    def diff(self, upper: Path, *, base: str | None = None) -> list[Change]:
        """What runs with `upper` on an image changed. `base` is the image, instead of the one that was run."""
        kinds = {"A": "added", "C": "modified", "D": "deleted"}
        with translating():
            return [Change(kinds[letter], file) for letter, file in self._native.diff(path("upper", upper), base)]

    def commit(
        self,
        upper: Path,
        name: str | None = None,
        *,
        base: str | None = None,
        change: Iterable[str] = (),
        message: str | None = None,
        author: str | None = None,
        created: str | None = None,
        created_by: str = "sandcell commit",
    ) -> str:
        """Makes an image of what runs with `upper` on an image changed; its id.

        `base` is the image that it lies on, instead of the one that was run. `change` are lines of a Dockerfile that
        change the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR. `created` is a date
        (RFC 3339); without one the same changes make the same image.
        """
        words = name, base, list(change), message, author, created, created_by
        with translating():
            return self._native.commit(path("upper", upper), *words)

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
        show_output: bool = False,
        progress: BuildProgress | None = None,
    ) -> str:
        """Makes an image by the steps of a Dockerfile (that of the directory `context`); its id.

        `timestamp`, in seconds since 1970, is the image's date and the latest of new files. `show_output` lets programs
        write to the caller's own standard output and error.
        """
        context = path("context", context)
        file = os.path.join(context, "Dockerfile") if dockerfile is None else path("dockerfile", dockerfile)
        with translating():
            values = list((args or {}).items())
            return self._native.build(file, context, name, values, network, timestamp, cache, show_output, progress)

    def volumes(self) -> list[dict[str, Any]]:
        """The volumes: dicts of Name, Mountpoint, CreatedUnix, InUse."""
        with translating():
            return json.loads(self._native.volumes())  # type: ignore[no-any-return]

    def remove_volume(self, volume: str) -> None:
        """Removes a volume with all that is in it."""
        with translating():
            self._native.remove_volume(volume)
