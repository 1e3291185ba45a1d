"""asyncio: the end of a program is a descriptor that becomes readable, so the running loop is all that is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any, TypeVar

from ._popen import Popen
from ._types import CompletedProcess, Outcome, Usage

if TYPE_CHECKING:
    from ._sandbox import Cell, Sandbox
    from ._terminal import Terminal

T = TypeVar("T")

#: How often, in seconds, it is looked whether a supervisor that ought to have ended a program is overdue.
_LOOK = 1.0
#: How long to read on, in seconds, when the program has ended and others in its cell hold its pipes.
_AFTERMATH = 0.2


class Process:
    """A program that runs, in the manner of asyncio.subprocess.Process. When this is gone, so is the program."""

    #: Where it was asked for with PIPE.
    stdin: asyncio.StreamWriter | None = None
    stdout: asyncio.StreamReader | None = None
    stderr: asyncio.StreamReader | None = None

    def __init__(self, popen: Popen[bytes]) -> None:
        self._popen = popen
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._transports: list[asyncio.BaseTransport] = []
        self._loop.add_reader(popen.fileno(), self._look)

    async def _connect(self, limit: int) -> None:
        popen = self._popen
        if popen.stdin:
            transport, protocol = await self._loop.connect_write_pipe(
                lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), popen.stdin
            )
            self._transports.append(transport)
            self.stdin = asyncio.StreamWriter(transport, protocol, None, self._loop)
        if popen.stdout:
            self.stdout = await self._reader(popen.stdout, limit)
        if popen.stderr:
            self.stderr = await self._reader(popen.stderr, limit)

    async def _reader(self, pipe: IO[bytes], limit: int) -> asyncio.StreamReader:
        reader = asyncio.StreamReader(limit)
        transport, _ = await self._loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        self._transports.append(transport)
        return reader

    def _look(self) -> None:
        if not self._ended.done():
            try:
                if self._popen.poll() is None:
                    return
                self._ended.set_result(None)
            except Exception as error:
                self._ended.set_exception(error)
        self._loop.remove_reader(self._popen.fileno())

    @property
    def pid(self) -> int:
        """As Popen.pid."""
        return self._popen.pid

    @property
    def terminal(self) -> Terminal | None:
        """As Popen.terminal: `read_async` and `write_async` are for this loop."""
        return self._popen.terminal

    @property
    def returncode(self) -> int | None:
        """As Popen.returncode; None while it runs."""
        return self._popen.returncode

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it runs."""
        return self._popen.outcome

    @property
    def usage(self) -> Usage | None:
        """What it used; None while it runs."""
        return self._popen.usage

    @property
    def result(self) -> CompletedProcess[Any] | None:
        """All that is known of the run, without its output; None while it runs."""
        return self._popen.result

    async def wait(self) -> int:
        """Waits for the end; the return code. A task that is cancelled here leaves the program running."""
        while not self._ended.done():
            await asyncio.wait([self._ended], timeout=_LOOK)
            self._look()
        self._ended.result()
        assert self._popen.returncode is not None
        return self._popen.returncode

    async def communicate(self, input: bytes | None = None) -> tuple[bytes | None, bytes | None]:
        """Writes the input and reads the outputs, those that are pipes, until the program has ended."""
        reads = [asyncio.ensure_future(r.read()) for r in (self.stdout, self.stderr) if r is not None]
        feed = asyncio.ensure_future(self._feed(input))
        try:
            await self.wait()
            if reads:
                # Those that others in a cell hold on to: what has come by now is all.
                await asyncio.wait(reads, timeout=_AFTERMATH)
                for reader in (self.stdout, self.stderr):
                    if reader is not None and not reader.at_eof():
                        reader.feed_eof()
            rest = iter(await asyncio.gather(*reads))
        finally:
            for task in (feed, *reads):
                task.cancel()
            self._close()
        return (
            None if self.stdout is None else next(rest),
            None if self.stderr is None else next(rest),
        )

    async def _feed(self, input: bytes | None) -> None:
        if self.stdin is not None:
            try:
                if input:
                    self.stdin.write(input)
                    await self.stdin.drain()
            except (BrokenPipeError, ConnectionResetError):
                pass  # the program does not want it: not our error
            self.stdin.close()

    def _close(self) -> None:
        for transport in self._transports:
            transport.close()

    def send_signal(self, signal: int) -> None:
        """As Popen.send_signal."""
        self._popen.send_signal(signal)

    def send_signal_group(self, signal: int) -> None:
        """As Popen.send_signal_group."""
        self._popen.send_signal_group(signal)

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self._popen.terminate()

    def kill(self) -> None:
        """As Popen.kill."""
        self._popen.kill()

    def _abandon(self) -> None:
        """Ends it now; returns when it is over."""
        self._loop.remove_reader(self._popen.fileno())
        self._popen.kill()
        self._popen.wait()
        self._close()


async def start(popen: Popen[bytes], limit: int = 1 << 16) -> Process:
    """Connects what was started with unbuffered pipes to the running loop."""
    process = Process(popen)
    try:
        await process._connect(limit)
    except BaseException:
        process._abandon()
        raise
    return process


async def finish(process: Process, input: bytes) -> CompletedProcess[Any]:
    """To its end; where the task is cancelled, the program ends before this returns."""
    try:
        out, err = await process.communicate(input)
    except BaseException:
        process._abandon()
        raise
    assert process.result is not None
    result = process.result
    result.stdout, result.stderr = out, err
    return result


class Starting:
    """A cell that is being started: ``await`` it, or say ``async with``, which closes it at its end."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._cell: Cell | None = None

    def __await__(self) -> Generator[Any, None, Cell]:
        return self._start().__await__()

    async def _start(self) -> Cell:
        return await _in_thread(self._sandbox.start, lambda cell: cell.close())

    async def __aenter__(self) -> Cell:
        self._cell = await self._start()
        return self._cell

    async def __aexit__(self, *exception: object) -> None:
        assert self._cell is not None
        await _in_thread(self._cell.close)


async def _in_thread(call: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """Where the task is cancelled, the call has ended and what it made is undone when the cancellation goes on."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="sandcell-start")
    running = asyncio.get_running_loop().run_in_executor(thread, call)
    thread.shutdown(False)
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return running.result()
    if running.exception() is None and undo is not None:
        undo(running.result())
    raise cancelled
