"""A terminal of the sandbox's own, from outside: what is written is typed, what the program shows can be read."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import termios
import time
from types import TracebackType

from ._errors import PolicyError


def size_of(wanted: tuple[int, int] | bool | None) -> tuple[int, int] | None:
    """What the keyword `terminal` comes to."""
    if wanted is None or wanted is False:
        return None
    if wanted is True:
        return 24, 80
    if isinstance(wanted, tuple) and len(wanted) == 2 and all(type(n) is int and 0 <= n < 1 << 16 for n in wanted):
        return wanted
    raise PolicyError("terminal", f"{wanted!r} is neither True nor (rows, columns), up to 65535 each")


class Terminal:
    """The other end of a program's terminal: `Popen.terminal`. When it is closed, or gone, the terminal hangs up and the
    program gets SIGHUP.

    What is read is the program's: escape sequences act on a terminal that they are shown on.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._ended = False

    def fileno(self) -> int:
        """The descriptor, for select and the like; it does not block. It lives as long as this object."""
        if self._fd < 0:
            raise ValueError("the terminal is closed")
        return self._fd

    def read(self, size: int = 1 << 16, timeout: float | None = None) -> bytes:
        """Waits until the program shows something; b"" when nobody has the terminal any more. Raises TimeoutError."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return self._read(size)
            except BlockingIOError:
                self._wait(select.POLLIN, until)

    def write(self, data: bytes, timeout: float | None = None) -> int:
        """Types all of it, or what the program takes within that time: how many bytes that was."""
        until = None if timeout is None else time.monotonic() + timeout
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self.fileno(), rest) :]
            except BlockingIOError:
                try:
                    self._wait(select.POLLOUT, until)
                except TimeoutError:
                    break
        return len(data) - len(rest)

    async def read_async(self, size: int = 1 << 16) -> bytes:
        """As `read`, in the running asyncio loop."""
        while True:
            try:
                return self._read(size)
            except BlockingIOError:
                await self._ready(writes=False)

    async def write_async(self, data: bytes) -> None:
        """Types all of it, in the running asyncio loop."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self.fileno(), rest) :]
            except BlockingIOError:
                await self._ready(writes=True)

    def resize(self, rows: int, columns: int) -> None:
        """Changes the size; programs in the foreground get SIGWINCH."""
        size = size_of((rows, columns))
        assert size is not None
        fcntl.ioctl(self.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        answer = fcntl.ioctl(self.fileno(), termios.TIOCGWINSZ, bytes(8))
        rows, columns, *_ = struct.unpack("HHHH", answer)
        return rows, columns

    def close(self) -> None:
        """Hangs up. A second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._fd < 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _read(self, size: int) -> bytes:
        try:
            return os.read(self.fileno(), size)
        except OSError as error:
            # Its other end is closed, and what was in it has been read.
            if error.errno == errno.EIO:
                self._ended = True
                return b""
            raise

    def _wait(self, events: int, until: float | None) -> None:
        poll = select.poll()
        poll.register(self.fileno(), events)
        left = None if until is None else max(until - time.monotonic(), 0) * 1000
        if not poll.poll(left):
            raise TimeoutError("the terminal was not ready in time")

    async def _ready(self, writes: bool) -> None:
        import asyncio  # heavy, and for few

        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        add, remove = (loop.add_writer, loop.remove_writer) if writes else (loop.add_reader, loop.remove_reader)
        fd = self.fileno()
        add(fd, wake)
        try:
            await ready
        finally:
            remove(fd)
