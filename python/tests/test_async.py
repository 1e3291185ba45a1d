"""asyncio, and other loops by way of the pidfd."""

import asyncio
import gc
import os
import signal

import anyio
import pytest
import trio

import sandcell

SH = "/bin/sh"


@pytest.fixture(scope="module")
def box():
    return sandcell.Sandbox()


def test_a_run_gives_what_the_waiting_one_gives(box):
    async def main():
        r = await box.run_async(
            [SH, "-c", "cat; echo err >&2; exit 3"], input="wörd\r\n", capture_output=True, text=True
        )
        assert (r.returncode, r.stdout, r.stderr, r.outcome.code) == (3, "wörd\n", "err\n", 3)
        assert r.usage.wall_seconds > 0
        data = os.urandom(1 << 20)
        assert (await sandcell.run_async(["cat"], input=data, stdout=sandcell.PIPE)).stdout == data
        assert (await sandcell.run_async(["true"], input=data)).returncode == 0

    asyncio.run(main())


def test_errors_are_those_of_the_waiting_one(box):
    async def main():
        with pytest.raises(sandcell.TimeoutExpired) as caught:
            await box.run_async([SH, "-c", "echo before; sleep 1000"], capture_output=True, text=True, timeout=0.2)
        assert (caught.value.timeout, caught.value.output) == (0.2, b"before\n")
        with pytest.raises(sandcell.CalledProcessError):
            await box.run_async(["false"], check=True)
        with pytest.raises(FileNotFoundError):
            await box.run_async(["/no/such/program"])
        with pytest.raises(sandcell.PolicyError, match="memory"):
            await sandcell.run_async(["true"], memory="64Q")
        with pytest.raises(TypeError, match="memroy"):
            await sandcell.run_async(["true"], memroy="64M")

    asyncio.run(main())


def test_many_run_side_by_side(box):
    async def main():
        return await asyncio.gather(
            *(box.run_async([SH, "-c", f"echo {n}"], capture_output=True, text=True) for n in range(20))
        )

    assert [r.stdout for r in asyncio.run(main())] == [f"{n}\n" for n in range(20)]


def test_a_task_that_is_cancelled_takes_its_program_along(box):
    ours, theirs = os.pipe()

    async def main():
        line = f"echo up >&{theirs}; sleep 1000"  # sh knows descriptors of one digit only
        task = asyncio.create_task(box.run_async(["bash", "-c", line], stdout=sandcell.PIPE, pass_fds=[theirs]))
        await asyncio.get_running_loop().run_in_executor(None, os.read, ours, 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        os.close(theirs)
        assert os.read(ours, 1) == b""
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(box.run_async(["sleep", "1000"]), 0.1)

    asyncio.run(main())
    os.close(ours)


def test_streams_are_asyncios(box):
    async def main():
        p = await box.create_subprocess_exec("cat", stdin=sandcell.PIPE, stdout=sandcell.PIPE)
        assert p.returncode is None and p.pid > 0
        p.stdin.write(b"a line\n")
        await p.stdin.drain()
        assert await p.stdout.readline() == b"a line\n"
        p.stdin.close()
        assert (await p.wait(), await p.wait(), p.returncode, p.outcome.kind) == (0, 0, 0, "exited")
        p = await box.create_subprocess_exec("sleep", "1000")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(p.wait(), 0.1)
        p.terminate()
        assert await p.wait() == -signal.SIGTERM
        p = await box.create_subprocess_exec("sleep", "1000", timeout=0.1)
        assert (await p.wait(), p.outcome.kind) == (-signal.SIGKILL, "timed_out")
        p = await box.create_subprocess_exec(SH, "-c", "echo a; echo b >&2", stdout=sandcell.PIPE, stderr=sandcell.PIPE)
        assert await p.communicate() == (b"a\n", b"b\n")
        with pytest.raises(ValueError, match="text"):
            await box.create_subprocess_exec("true", text=True)

    asyncio.run(main())


def test_pipes_that_others_in_a_cell_hold_do_not_keep_the_loop(box):
    async def main():
        with box.start() as cell:
            r = await cell.run_async([SH, "-c", "echo a; sleep 1000 &"], capture_output=True)
            assert (r.stdout, r.stderr) == (b"a\n", b"")

    asyncio.run(main())


def test_nothing_is_left_open(box):
    async def main():
        for _ in range(3):
            await box.run_async(["cat"], input=b"x", capture_output=True)
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            await box.run_async(["cat"], input=b"x", capture_output=True)
            with pytest.raises(sandcell.TimeoutExpired):
                await box.run_async(["sleep", "1000"], capture_output=True, timeout=0.02)
        await asyncio.sleep(0)
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before

    asyncio.run(main())


async def waited(wait_readable, p):
    await wait_readable(p.fileno())
    return p.poll()


def test_trio_waits_by_the_pidfd(box):
    async def main():
        with box.Popen(["cat"], stdin=sandcell.PIPE) as p:
            with trio.move_on_after(0.1) as scope:
                await waited(trio.lowlevel.wait_readable, p)
            assert scope.cancelled_caught
            p.stdin.close()
            return await waited(trio.lowlevel.wait_readable, p)

    assert trio.run(main) == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio_waits_by_the_pidfd(box, backend):
    async def main():
        with box.Popen(["sleep", "0.1"]) as p:
            return await waited(anyio.wait_readable, p)

    assert anyio.run(main, backend=backend) == 0
