"""Terminals of a sandbox's own."""

import asyncio
import signal
import subprocess

import pytest

import sandcell


def until(terminal, text):
    shown = b""
    while text not in shown:
        data = terminal.read(timeout=60)
        assert data, shown
        shown += data
    return shown


def test_a_program_is_talked_to_at_a_terminal_of_its_own():
    script = "tty; stty size; read line; echo got $line; stty size"
    with sandcell.Popen(["sh", "-c", script], terminal=(33, 99)) as popen:
        terminal = popen.terminal
        assert (popen.stdin, popen.stdout, terminal.size) == (None, None, (33, 99))
        assert until(terminal, b"33 99\r\n") == b"/dev/pts/0\r\n33 99\r\n"
        terminal.resize(5, 6)
        assert terminal.write(b"typed\n", timeout=60) == 6
        assert b"got typed" in until(terminal, b"5 6\r\n")
        assert popen.wait() == 0
        assert terminal.read() == b""
    assert terminal.closed
    with pytest.raises(ValueError):
        terminal.read()


def test_streams_that_are_said_are_no_terminal():
    with sandcell.Popen(
        ["sh", "-c", "for fd in 0 1 2; do test -t $fd && echo $fd; done; :"], stdout=subprocess.PIPE, terminal=True
    ) as popen:
        assert popen.terminal.size == (24, 80)
        assert popen.stdout.read() == b"0\n2\n"


def test_the_end_of_a_with_block_hangs_up():
    with sandcell.Popen(["sleep", "1000"], terminal=True) as popen:
        pass
    assert popen.returncode == -signal.SIGHUP


def test_nobody_waits_longer_than_was_said():
    with sandcell.Popen(["sh", "-c", "stty raw -echo; echo ready; exec sleep 1000"], terminal=True) as popen:
        until(popen.terminal, b"ready")
        until_quiet(popen.terminal)
        assert 0 < popen.terminal.write(bytes(1 << 20), timeout=0.05) < 1 << 20


def until_quiet(terminal):
    with pytest.raises(TimeoutError):
        while terminal.read(timeout=0.05):
            pass


@pytest.mark.parametrize("size", [(1,), (1, -1), (1, 1 << 16), "80x24", 80, (True, 1)])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(sandcell.PolicyError, match="terminal"):
        sandcell.Popen(["true"], terminal=size)


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(sandcell.PolicyError, match="output_limit"):
        sandcell.Popen(["true"], terminal=True, output_limit="1M")


def test_a_terminal_in_the_loop_of_asyncio():
    async def talk():
        with sandcell.Sandbox().start() as cell:
            process = await cell.create_subprocess_exec("sh", "-c", "stty -echo; read x; echo got $x; cat", terminal=(5, 6))
            typed = b"x" * 3000 + b"\n"
            await process.terminal.write_async(typed)
            shown = b""
            while b"got x" not in shown or not shown.endswith(b"x\r\n"):
                shown += await process.terminal.read_async()
            await process.terminal.write_async(b"\x04")
            assert await process.wait() == 0
            assert await process.terminal.read_async() == b""
            return shown

    assert b"got " + b"x" * 3000 in asyncio.run(talk())
