"""A kernel provisioner for Jupyter: any notebook's kernel in a sandbox of its own. See docs/python.md.

The kernel has no network for this: its sockets are files in a directory that is shared with it. It may do there what it
likes, so the client never opens a name in that directory: each socket is linked into a private one first.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import tempfile
import time
from typing import Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from . import owned
from ._errors import PolicyError
from ._executor import interpreter_paths
from ._options import Policy
from ._popen import Popen
from ._program import DEVNULL
from ._sandbox import Sandbox

#: Where the kernel finds its connection file, and makes its sockets.
CONNECTION = "/run/sandcell/connection.json"
SHARED = "/run/sandcell/sockets"
PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
#: How long a kernel may take until it has all of its sockets, and how often that is looked at; in seconds.
_START, _LOOK = 60.0, 0.05


class Provisioner(LocalProvisioner):  # type: ignore[misc,unused-ignore]  # where jupyter_client is not installed
    """`sandcell-provisioner`. Its configuration in kernel.json is the keywords of Sandbox."""

    def __init__(self, **keywords: Any) -> None:
        known = {*Policy.__annotations__, "env"}
        self._options = {name: keywords.pop(name) for name in list(keywords) if name in known}
        refused = self._options.keys() & {"keep_id", "keep_caller", "isolation", "host_ids", "user"}
        if refused:
            raise PolicyError(min(refused), "is the provisioner's own: the kernel's sockets belong to the caller")
        super().__init__(**keywords)
        #: The caller's own directory, and the one within it that the kernel of this launch has.
        self._private: str | None = None
        self._shared: str | None = None

    async def pre_launch(self, **keywords: Any) -> dict[str, Any]:
        manager = self.parent
        if manager is None:
            raise RuntimeError("the provisioner needs a kernel manager")
        if self._private is None:
            self._private = tempfile.mkdtemp(prefix="sandcell-")
            manager.cache_ports = False
            manager.transport = "ipc"
            manager.ip = os.path.join(self._private, "k")
        made: dict[str, Any] = await super().pre_launch(**keywords)
        return made

    async def launch_kernel(self, cmd: list[str], **keywords: Any) -> Any:
        assert self._private is not None and self.parent is not None
        with open(self.parent.connection_file, encoding="utf-8") as file:
            connection = json.load(file)
        self._forget()
        self._shared = tempfile.mkdtemp(prefix="shared-", dir=self._private)
        connection["ip"] = f"{SHARED}/k"
        words = [CONNECTION if word == self.parent.connection_file else word for word in cmd]
        kernel = self._sandbox(json.dumps(connection), keywords.get("env", {})).Popen(
            words, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
        )
        try:
            await self._connect(kernel, [connection[port] for port in PORTS])
        except BaseException:
            kernel.kill()
            kernel.wait()
            raise
        self.process, self.pid, self.pgid = kernel, kernel.pid, None
        return self.connection_info

    def _sandbox(self, connection: str, env: dict[str, str]) -> Sandbox:
        options = dict(self._options)
        # Of the server's environment a kernel gets what its kernel.json names.
        named = {name: env[name] for name in self.kernel_spec.env if name in env}
        options["env"] = {**named, **options.get("env", {})}
        options["ro"] = [*((path, path) for path in interpreter_paths()), *options.get("ro", ())]
        options["rw"] = [(self._shared, SHARED), *options.get("rw", ())]
        options["files"] = {CONNECTION: (connection, 0o444), **options.get("files", {})}
        return Sandbox(keep_id=True, **options)

    async def _connect(self, kernel: Popen[Any], ports: list[int]) -> None:
        """Links the kernel's sockets, when they are there, to where the client opens them."""
        assert self._private is not None and self._shared is not None
        until, left = time.monotonic() + _START, list(ports)
        while left:
            if kernel.poll() is not None:
                raise RuntimeError(f"the kernel ended before it had its sockets: {kernel.outcome}")
            if time.monotonic() > until:
                raise RuntimeError(f"the kernel had not all of its sockets after {_START:.0f} seconds")
            left = [port for port in left if not self._link(port)]
            await asyncio.sleep(_LOOK if left else 0)

    def _link(self, port: int) -> bool:
        source, place = f"{self._shared}/k-{port}", f"{self._private}/k-{port}"
        try:
            os.link(source, place, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if not stat.S_ISSOCK(os.lstat(place).st_mode):
            os.unlink(place)
            raise RuntimeError("the kernel has made something else where its socket should be")
        return True

    def _forget(self) -> None:
        """Of an earlier kernel's sockets and directory."""
        assert self._private is not None
        for name in os.listdir(self._private):
            path = os.path.join(self._private, name)
            if stat.S_ISDIR(os.lstat(path).st_mode):
                owned.remove(path)
            else:
                os.unlink(path)
        self._shared = None

    async def kill(self, restart: bool = False) -> None:
        if self.process is not None:
            self.process.kill()

    async def cleanup(self, restart: bool = False) -> None:
        if self._private is not None and not restart:
            self._forget()
            os.rmdir(self._private)
            self._private = None
        await super().cleanup(restart)

    def resolve_path(self, path_str: str) -> None:
        """The kernel's files are not the server's."""
