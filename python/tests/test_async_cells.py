"""Cells that are started, used and closed in an asyncio loop."""

import asyncio
import threading
import time

import pytest

import sandcell


def test_a_cell_is_started_and_closed_in_the_loop():
    async def main():
        async with sandcell.Sandbox().start_async() as cell:
            await cell.run_async(["sh", "-c", "echo kept >/tmp/file"])
            return cell, await cell.run_async(["cat", "/tmp/file"], capture_output=True, text=True)

    cell, result = asyncio.run(main())
    assert result.stdout == "kept\n"
    with pytest.raises(ValueError):
        cell.run(["true"])


def test_a_cell_that_is_awaited_is_closed_by_its_owner():
    async def main():
        cell = await sandcell.start_async(network="none")
        with cell:
            return (await cell.run_async(["true"])).returncode

    assert asyncio.run(main()) == 0


def test_the_loop_goes_on_while_cells_start():
    async def main():
        box = sandcell.Sandbox()
        cells = await asyncio.gather(*(box.start_async() for _ in range(4)))
        codes = await asyncio.gather(*(cell.run_async(["sh", "-c", f"exit {n}"]) for n, cell in enumerate(cells)))
        for cell in cells:
            cell.close()
        return [done.returncode for done in codes]

    assert asyncio.run(main()) == [0, 1, 2, 3]


def test_a_cell_whose_start_is_cancelled_is_closed(monkeypatch):
    started, begun, go = [], threading.Event(), threading.Event()
    start = sandcell.Sandbox.start

    def slowly(self):
        begun.set()
        assert go.wait(60)
        started.append(start(self))
        return started[-1]

    monkeypatch.setattr(sandcell.Sandbox, "start", slowly)

    async def main():
        async def use():
            async with sandcell.Sandbox().start_async():
                raise AssertionError("it was cancelled before")

        task = asyncio.ensure_future(use())
        while not begun.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()  # twice: the second one must not leave it behind
        await asyncio.sleep(0)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    with pytest.raises(ValueError):
        started[0].run(["true"])
    end = time.monotonic() + 30
    while any(thread.name.startswith("sandcell-start") for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_error_of_the_start_and_of_the_body_comes_through(monkeypatch):
    def fails(self):
        raise sandcell.SetupError("not today")

    async def start():
        async with sandcell.Sandbox().start_async() as cell:
            started.append(cell)
            raise KeyError("mine")

    started = []
    with pytest.raises(KeyError, match="mine"):
        asyncio.run(start())
    with pytest.raises(ValueError):
        started[0].run(["true"])
    monkeypatch.setattr(sandcell.Sandbox, "start", fails)
    with pytest.raises(sandcell.SetupError, match="not today"):
        asyncio.run(start())
