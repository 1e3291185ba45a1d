"""Session: what hostile code does to its interpreter and its files ends that interpreter at most. Each case is followed
by the positive control: the same session runs code and has its files."""

import threading

import pytest

import sandcell

LIMIT = 16 << 20

#: Finds the socket and the token of the answer, as hostile code would.
WIRE = """
import os, signal, socket, sys, time
def wire():
    frame = sys._getframe()
    while "reply" not in frame.f_locals or "token" not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals["reply"], frame.f_locals["token"]
def size(number):
    return number.to_bytes(8, "big")
def message(data):
    reply, token = wire()
    reply.sendall(token + size(len(data)) + size(0) + data)
"""

#: A true answer, with 7 as its value.
SEVEN = 'b"Dt" + size(2) + b"i" + size(7) + b"t" + size(5) + b"NNNl" + size(0) + b"F"'


@pytest.fixture(scope="module")
def session():
    with sandcell.Session(timeout=60, result_limit=LIMIT) as made:
        yield made


@pytest.fixture(autouse=True)
def control(session):
    session.run(WIRE)
    yield
    result = session.run("40 + 2")
    assert result.value == 42 and result.error is None and result.outcome is None
    session.put("control", b"here")
    assert session.get("control") == b"here" and "control" in session.files()


def test_an_answer_that_the_code_writes_itself_is_data(session):
    result = session.run(f"message({SEVEN}); wire()[0].shutdown(socket.SHUT_WR)")
    assert result.value == 7 and result.outcome is None


@pytest.mark.parametrize(
    "code",
    [
        "wire()[0].sendall(b'x' * 1000)",
        "message(b'P' + __import__('pickle').dumps(print))",
        "message(b'Di' + size(7))",
        "message(b'Dt' + size(2) + b'NN')",
        "message(b'Dt' + size(2) + b'N' + b't' + size(5) + b'NNNl' + size(1) + b'N' + b'F')",
        f"message({SEVEN} + b'N')",
        "message(b'D' + b'l' * 10000)",
        f"reply, token = wire(); data = {SEVEN}; reply.sendall((token + size(len(data)) + size(0) + data) * 2)",
        f"reply, token = wire(); data = {SEVEN}; reply.sendall(bytes(16) + size(len(data)) + size(0) + data)",
    ],
)
def test_an_answer_that_makes_no_sense_ends_the_interpreter(session, code):
    result = session.run(code + "\ntime.sleep(1000)")
    assert result.outcome.kind == "killed" and result.state_lost, result
    assert "cannot be read" in result.reason and result.value is None
    assert session.run("1").fresh


def test_an_answer_that_is_too_large_ends_the_interpreter(session):
    result = session.run("reply, token = wire(); reply.sendall(token + size(1 << 40) + size(0)); time.sleep(1000)")
    assert result.outcome.kind == "output_limit" and "result_limit" in result.reason


def test_an_answer_that_stops_halfway_costs_no_more_than_the_timeout(session):
    with pytest.raises(sandcell.SessionTimeout) as caught:
        session.run("reply, token = wire(); reply.sendall(token[:5])\nwhile True: pass", timeout="500ms")
    assert caught.value.state_lost and caught.value.run.outcome.kind == "timed_out"


def test_a_second_answer_reaches_no_later_run(session):
    result = session.run(f"message({SEVEN})\ntime.sleep(0.1)\n'another'")
    assert result.value in (7, None)
    assert session.run("'mine'").value == "mine"


def test_children_that_answer_too_answer_nobody(session):
    result = session.run("pid = os.fork()\npid")
    assert isinstance(result.value, int) and result.outcome is None
    result = session.run(f"if not os.fork():\n    time.sleep(0.3); message({SEVEN}); os._exit(0)\n'parent'")
    assert result.value in ("parent", 7)
    for number in range(5):
        assert session.run(str(number)).value == number


def test_a_child_that_holds_everything_does_not_hold_the_caller(session):
    result = session.run("if os.fork(): os._exit(5)\ntime.sleep(1000)")
    assert result.outcome.kind == "exited" and result.outcome.code == 5


def test_builtins_that_are_replaced_are_the_codes_own_affair(session):
    result = session.run(
        "import builtins, traceback\n"
        "def broken(*_, **__): raise RuntimeError('broken')\n"
        "for name in 'repr len isinstance type str compile exec eval getattr print memoryview'.split():\n"
        "    setattr(builtins, name, broken)\n"
        "1"
    )
    assert result.error is not None or result.outcome is not None
    session.reset()


def test_a_huge_text_is_cut(session):
    result = session.run("class Huge:\n    def __repr__(self): return 'x' * (200 << 20)\nHuge()")
    assert len(result.repr) < 1 << 17 and "[...]" in result.repr
    result = session.run("raise ValueError('x' * (50 << 20))")
    assert result.error.name == "ValueError" and len(result.error.message) < 1 << 17
    assert session.run("'x' * (10 << 20)").value_error is not None


def test_an_endless_text_ends_with_the_timeout(session):
    code = "class Endless:\n    def __repr__(self):\n        while True: pass\nEndless()"
    with pytest.raises(sandcell.SessionTimeout) as caught:
        session.run(code, timeout="500ms")
    assert caught.value.run.error.name == "KeyboardInterrupt" and not caught.value.state_lost
    result = session.run("class Deep:\n    def __repr__(self): return repr(self)\nDeep()")
    assert result.error.name == "RecursionError"


def test_displays_without_end_are_cut(session):
    result = session.run("for n in range(100_000): display(n)")
    assert len(result.displays) == 1000 and result.displays_truncated
    large = "class Large:\n    def _repr_png_(self): return bytes(3 << 20)\nfor _ in range(100): display(Large())"
    result = session.run(large)
    assert 1 <= len(result.displays) < 10 and result.displays_truncated and result.outcome is None


def test_output_without_end_takes_no_memory_of_the_caller(session):
    with pytest.raises(sandcell.SessionTimeout) as caught:
        session.run("while True: os.write(1, bytes(65536))", timeout=1)
    assert len(caught.value.run.stdout) == 1 << 20 and caught.value.run.stdout_truncated


def test_descriptors_that_are_closed_end_the_interpreter(session):
    assert session.run("os.closerange(0, 1000)").outcome is not None
    assert session.run("1").fresh
    result = session.run("import os; os.close(1); os.close(2); 5")
    assert result.value == 5
    session.reset()


def test_texts_that_terminals_act_on_are_escaped(session):
    result = session.run("raise ValueError('\\x1b]0;title\\x07')")
    assert "\x1b" not in result.error.message + result.error.traceback and "\\x1b" in result.error.message
    result = session.run("class Odd:\n    def __repr__(self): return '\\x1b[31m'\ndisplay(Odd())\nOdd()")
    assert "\x1b" not in result.repr + result.displays[0].data["text/plain"]


def test_killing_its_parent_and_all_others_harms_no_other_session(session):
    with sandcell.Session(timeout=60) as other:
        other.run("here = 1")
        session.run("for pid in (os.getppid(), 1):\n    try: os.kill(pid, 9)\n    except OSError: pass")
        session.run("os.kill(-1, 9)")
        assert other.run("here").value == 1


def test_a_working_directory_that_is_removed_comes_back_with_the_next_file(session):
    session.put("a", b"1")
    session.run("import shutil; shutil.rmtree('/tmp/session')")
    assert session.files() == {}
    with pytest.raises(FileNotFoundError):
        session.get("a")
    session.put("a", b"2")
    assert session.get("a") == b"2"
    session.reset()


def test_no_link_is_followed_and_nothing_but_files_is_read(session):
    session.run(
        "os.chdir('/tmp/session')\n"
        "open('true', 'w').write('content')\nos.mkdir('inner'); open('inner/true', 'w').write('x')\n"
        "os.symlink('/etc/passwd', 'link'); os.symlink('/etc', 'directory'); os.symlink('true', 'near')\n"
        "os.mkfifo('fifo')"
    )
    assert session.get("true") == b"content" and session.get("inner/true") == b"x"
    for name in ("link", "near", "directory/passwd", "fifo", "inner"):
        with pytest.raises(OSError):
            session.get(name)
    names = session.files()
    assert {"true", "inner/true"} <= names.keys() and not {"link", "near", "fifo"} & names.keys()
    session.put("near", b"new")
    assert session.get("near") == b"new" and session.get("true") == b"content"
    session.run("import shutil; shutil.rmtree('/tmp/session'); os.symlink('/etc', '/tmp/session')")
    with pytest.raises(OSError):
        session.get("passwd")
    session.run("os.unlink('/tmp/session')")
    session.reset()


def test_a_file_that_is_too_large_is_refused(session):
    session.run("os.makedirs('/tmp/session', exist_ok=True)")
    session.run("with open('/tmp/session/large', 'wb') as file: file.truncate(1 << 40)")
    with pytest.raises(OSError, match="result_limit"):
        session.get("large")
    session.run("os.unlink('/tmp/session/large')")


def test_signals_that_are_blocked_do_not_hold_the_caller(session):
    code = "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass"
    with pytest.raises(sandcell.SessionTimeout) as caught:
        session.run(code, timeout="500ms")
    assert caught.value.state_lost


def test_threads_that_run_on_do_not_hold_the_next_run(session):
    session.run("import threading\ndef on():\n    while True: time.sleep(0.001)\nthreading.Thread(target=on).start()")
    assert session.run("3").value == 3
    session.reset()
    assert threading.active_count() < 10
