"""Images: a store of them, and what makes new ones. Running one is the keyword `image` of Sandbox."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, IO, Any, NamedTuple, TypedDict, cast

from . import _native
from ._errors import PolicyError, translating
from ._options import Duration, Policy, Size, checked, path, seconds, size, whole
from ._types import Change, Path

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: Told how far it is: bytes done, bytes in all.
Progress = Callable[[int, int], object]
#: Told of a step: its number, how many there are, its text, and whether its layer is taken from an earlier build.
BuildProgress = Callable[[int, int, str, bool], object]


def _descriptor(file: IO[bytes], stack: contextlib.ExitStack) -> int:
    """What a file is read from; where Python has read ahead, or there is none, that is a copy."""
    if isinstance(file, io.RawIOBase):
        with contextlib.suppress(io.UnsupportedOperation):
            return file.fileno()
    copy = stack.enter_context(tempfile.TemporaryFile())
    shutil.copyfileobj(file, copy, 1 << 20)
    copy.seek(0)
    return copy.fileno()


class StoreLimits(TypedDict, total=False):
    """What an image may at most be that is loaded or pulled."""

    #: 500 by default, which is the most that an overlay stacks.
    layers: int
    #: Members of a layer; 1,000,000.
    members: int
    #: Of a layer's uncompressed tar; 32 GiB.
    layer_bytes: Size
    #: How many times larger than the compressed layer that may be; 250.
    ratio: int
    #: For a whole load; no limit by default.
    time: Duration


class Pruned(NamedTuple):
    """What was removed."""

    #: Ids of images.
    images: list[str]
    #: Diff ids of layers that no image has any more.
    layers: list[str]
    #: Of their files and blobs.
    bytes: int


class Build:
    """The steps of an image on top of another one, or of nothing ("scratch"); Store.build makes it.

    >>> build = Build("debian:12").copy(["app"], "/usr/bin/app").env("MODE", "fast").cmd(["app"])
    >>> Store().build(build, context=".", name="app:1")

    Each call adds a step and returns the object; what is wrong with one is a PolicyError of the build.
    """

    def __init__(self, base: str) -> None:
        self.base = base
        self._steps: list[tuple[str, list[str]]] = []

    def _step(self, kind: str, *words: str) -> Build:
        if not all(isinstance(word, str) for word in words):
            raise PolicyError(kind, f"{words!r} are not strings")
        self._steps.append((kind, list(words)))
        return self

    def run(self, args: str | Iterable[str]) -> Build:
        """Runs a line of shell, or a program without one (a list): what it changes is a layer."""
        return self._step("run", args) if isinstance(args, str) else self._step("run_words", *args)

    def copy(self, sources: str | Iterable[str], dest: str, *, owner: str | None = None, mode: int | None = None) -> Build:
        """Copies files of the context, and what is in its directories: a layer. `dest` is a directory where it ends with
        a slash, is one in the image, or where there are several sources, in which `*`, `?` and `[…]` are patterns.
        `owner` is "USER[:GROUP]" (root otherwise), `mode` permission bits (those of the files otherwise)."""
        files = [sources] if isinstance(sources, str) else list(sources)
        bits = "" if mode is None else f"{whole('mode', mode):o}"
        return self._step("copy", dest, owner or "", bits, *files)

    def env(self, key: str, value: str) -> Build:
        """Sets an environment variable, for the steps that follow and for runs."""
        return self._step("env", key, value)

    def label(self, key: str, value: str) -> Build:
        """Sets a label."""
        return self._step("label", key, value)

    def workdir(self, directory: str) -> Build:
        """The working directory, for the steps that follow and for runs."""
        return self._step("workdir", directory)

    def user(self, user: str) -> Build:
        """Who the programs are, of the steps that follow and of runs: "USER[:GROUP]", names or numbers."""
        return self._step("user", user)

    def expose(self, port: str) -> Build:
        """A port that the image's program listens at: "80" or "53/udp". For people to read."""
        return self._step("expose", port)

    def volume(self, directory: str) -> Build:
        """A directory whose content is worth keeping."""
        return self._step("volume", directory)

    def stop_signal(self, signal: str) -> Build:
        """The signal that ends the image's program gently, "SIGTERM". For other tools to read."""
        return self._step("stop_signal", signal)

    def cmd(self, args: Iterable[str]) -> Build:
        """The program of a run, or the arguments of the entry point."""
        return self._step("cmd", *args)

    def entrypoint(self, args: Iterable[str]) -> Build:
        """The program of a run that the caller's words are arguments of."""
        return self._step("entrypoint", *args)


def _limits(limits: Mapping[str, Any]) -> list[tuple[str, float]]:
    unknown = sorted(limits.keys() - StoreLimits.__annotations__.keys())
    if unknown:
        raise PolicyError("limits", f"there is no {unknown[0]!r}", f"they are {', '.join(StoreLimits.__annotations__)}")
    values: dict[str, float] = {}
    for name, value in limits.items():
        check: Callable[[str, Any], float] = size if name == "layer_bytes" else seconds if name == "time" else whole
        values[name] = check(name, value)
    for name, value in values.items():
        if not 0 < value < 1 << 53:
            raise PolicyError(name, f"{limits[name]!r} is out of range")
    return list(values.items())


class Store:
    """A directory of images and volumes: the user's own, or the one that is named. Any number of processes and threads
    may use one at a time. `limits` are for what is loaded and pulled through this object.

    >>> store = Store()
    >>> store.load("app.tar")
    >>> Sandbox(image="app:1").run(["id"])

    Work that takes long is done in another thread, so that Ctrl-C ends it at once; the store is as it was before then.
    So it is where a `progress` raises. They are called from that thread, with bytes at most some 20 times a second.
    """

    def __init__(self, directory: Path | None = None, *, limits: StoreLimits | None = None) -> None:
        most = _limits(limits or {})
        with translating():
            self._native = _native.Store(None if directory is None else path("directory", directory), most)

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
        platform: str | None = None,
        plain_http: bool = False,
        durable: bool = False,
        progress: Progress | None = None,
    ) -> str:
        """Gets an image from its registry, "[HOST[:PORT]/]NAME[:TAG][@DIGEST]"; its id. Without a host it is docker.io's.

        `name` is its name here, instead of the registry's. Credentials are those that `docker login` or `podman login`
        left, of `auth_file` in Docker's form, or a user and password. `ca_file` (PEM) is trusted besides the system's
        certificates; `platform` ("linux/arm64") is meant instead of this host's, and its image cannot run here; `plain_http`
        does without TLS; `durable` waits until everything is on the disk.
        """
        auth = None if auth_file is None else path("auth_file", auth_file)
        ca = None if ca_file is None else path("ca_file", ca_file)
        if credentials is not None and not (isinstance(credentials, tuple) and len(credentials) == 2):
            raise PolicyError("credentials", "are not a user and a password")
        with translating():
            return self._native.pull(image, name, auth, credentials, ca, platform, plain_http, durable, progress)

    def load(
        self,
        source: Path | IO[bytes],
        *,
        name: str | None = None,
        format: str = "detect",
        created: str | None = None,
        platform: str | None = None,
        durable: bool = False,
        progress: Progress | None = None,
    ) -> list[str]:
        """Loads images from an archive or directory, or from a binary file that is open, such as a pipe; their names. `format` is "oci", "docker", "rootfs" (a plain root
        file system) or "detect"; `created` is the date (RFC 3339) of an image made of a root file system, which has none
        otherwise; `platform` as for `pull`; `durable` waits until everything is on the disk. Raises SetupError for what is damaged or breaks a limit."""
        with contextlib.ExitStack() as stack, translating():
            file, descriptor = "-", None
            if hasattr(source, "read"):
                descriptor = _descriptor(cast("IO[bytes]", source), stack)
            else:
                file = path("source", source)
            return self._native.load(file, descriptor, format, name, created, platform, durable, progress)

    def images(self) -> list[dict[str, Any]]:
        """The images: dicts of Id, Names, Created, Size, SharedSize (bytes, and how many of them other images have, too),
        Layers."""
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
        upper: Path | None,
        name: str | None = None,
        *,
        base: str | None = None,
        change: Iterable[str] = (),
        message: str | None = None,
        author: str | None = None,
        created: str | None = None,
        created_by: str = "sandcell commit",
    ) -> str:
        """Makes an image of what runs with `upper` on an image changed, or, where that is None, of `base` with another
        configuration; its id.

        `base` is the image that it lies on, instead of the one that was run. `change` are lines of a Dockerfile that
        change the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR. `created` is a date
        (RFC 3339); without one the same changes make the same image.
        """
        words = name, base, list(change), message, author, created, created_by
        with translating():
            return self._native.commit(None if upper is None else path("upper", upper), *words)

    def save(self, images: str | Iterable[str], to: Path, *, format: str = "oci-archive") -> None:
        """Writes images to a new file or directory: "oci-archive", "oci-dir" or "docker-archive"."""
        names = [images] if isinstance(images, str) else list(images)
        with translating():
            self._native.save(names, path("to", to), format)

    def tag(self, image: str, name: str) -> None:
        """Gives an image another name."""
        with translating():
            self._native.tag(image, name)

    def remove(self, image: str) -> Pruned:
        """Takes a name away; an image without any goes, with the layers that no other image has."""
        with translating():
            return Pruned(*self._native.remove(image))

    def prune(self) -> Pruned:
        """Removes images without a name and layers without an image."""
        with translating():
            return Pruned(*self._native.prune())

    def build(
        self,
        what: Build | Path | None = None,
        *,
        context: Path | None = None,
        name: str | None = None,
        dockerfile: Path | None = None,
        args: Mapping[str, str] | None = None,
        target: str | None = None,
        platform: str | None = None,
        secrets: Mapping[str, bytes | str | os.PathLike[str]] | None = None,
        ssh: Mapping[str, Path] | None = None,
        timestamp: int | None = None,
        cache: bool = True,
        show_output: bool = False,
        progress: BuildProgress | None = None,
        **policy: Unpack[Policy],
    ) -> str:
        """Makes an image by the steps of a Build, or of a Dockerfile (that of the directory `what`); its id.

        `context` is where the files to be copied are: the directory `what`, or for a Build the one that is named.
        `target` is the stage that becomes the image; `platform` ("linux/arm64") is what it is for instead of this host. `secrets` are for `RUN --mount=type=secret`: bytes, or a file's path;
        they are in no layer. `ssh` has the sockets of agents for `RUN --mount=type=ssh`: {"default": path}.
        `timestamp`, in seconds since 1970, is the image's date and the latest of new files. `show_output` lets programs
        write to the caller's own standard output and error. What is left are keywords of Sandbox for the programs of the
        steps: `network`, `memory`; root, user, directory and environment are the build's. Raises PolicyError for a step
        that makes no sense, SetupError for one that fails.
        """
        base, file = "", None
        steps: list[tuple[str, list[str]]] = []
        if isinstance(what, Build):
            base, steps = what.base, what._steps
            if dockerfile is not None or args:
                raise PolicyError("dockerfile", "a Build has steps of its own, without ARG")
        else:
            context = what if context is None else context
            if context is None:
                raise PolicyError("context", "there is nothing to build", "name a directory, or give a Build")
            file = os.path.join(path("context", context), "Dockerfile")
            file = file if dockerfile is None else path("dockerfile", dockerfile)
        where = None if context is None else path("context", context)
        values, options = list((args or {}).items()), checked(policy)
        with translating():
            return self._native.build(
                file,
                base,
                steps,
                where,
                name,
                values,
                target,
                platform,
                [(id, content) for id, content in (secrets or {}).items() if isinstance(content, bytes)],
                [(id, path("secrets", file)) for id, file in (secrets or {}).items() if not isinstance(file, bytes)],
                [(id, path("ssh", socket)) for id, socket in (ssh or {}).items()],
                options,
                timestamp,
                cache,
                show_output,
                progress,
            )

    def volumes(self) -> list[dict[str, Any]]:
        """The volumes: dicts of Name, Mountpoint, CreatedUnix, InUse."""
        with translating():
            return json.loads(self._native.volumes())  # type: ignore[no-any-return]

    def remove_volume(self, volume: str) -> None:
        """Removes a volume with all that is in it."""
        with translating():
            self._native.remove_volume(volume)
