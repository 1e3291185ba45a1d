"""Template: a Python that is prepared once; each piece of code gets a copy of it in a sandbox of its own."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import sandcell

PACKAGES = [entry for entry in sys.path if os.path.isdir(f"{entry}/numpy")]
PREPARATION = """
import hashlib, os, random, secrets, socket, ssl, sys, tempfile, time, uuid, multiprocessing
began = time.monotonic_ns()
kept = [1, 2, 3]
"""


@pytest.fixture(scope="module")
def template():
    with sandcell.Template(PREPARATION, timeout=60) as made:
        yield made


def until(fact, seconds=60.0):
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_code_finds_what_was_prepared_and_its_result_is_that_of_a_session(template):
    first, second = (template.run("print('out'); print('err', file=sys.stderr)\nkept.append(4); kept, began") for _ in range(2))
    assert first.value == second.value and first.value[0] == [1, 2, 3, 4]
    assert (first.stdout, first.stderr, first.error, first.outcome) == ("out\n", "err\n", None, None)
    assert first.fresh and second.fresh
    assert template.run("1 / 0").error.name == "ZeroDivisionError"
    assert template.run("import asyncio\nawait asyncio.sleep(0, 5)").value == 5
    assert template.run("display(1)").error is None


def test_a_run_finds_nothing_of_an_earlier_one(template):
    code = """
found = [name for name in ('left', 'kept_left') if name in globals()] + [entry for entry in os.listdir('/tmp') if entry == 'left']
left = 1
kept.append(5)
open('/tmp/left', 'w').close()
found + kept
"""
    assert [template.run(code).value for _ in range(2)] == [[1, 2, 3, 5]] * 2
    processes = "sorted(int(name) for name in os.listdir('/proc') if name.isdigit()) == [1, os.getpid()]"
    assert template.run(processes).value is True
    # The control: in a session the second run finds what the first has left.
    with sandcell.Session() as session:
        session.run(PREPARATION)
        assert [session.run(code).value for _ in range(2)] == [[1, 2, 3, 5], ["left", "left", 1, 2, 3, 5, 5]]


#: Waits until there is a file that the caller makes in a directory that is shown.
WAIT = "while not os.path.exists({!r}): time.sleep(0.01)\n"


def test_two_runs_at_once_have_nothing_in_common_and_cannot_touch_each_other(tmp_path):
    (tmp_path / "shown").mkdir(mode=0o755)
    os.chmod(tmp_path, 0o755)
    go, looks = tmp_path / "shown" / "go", WAIT.format("/shown/go")
    facts = "{name: os.readlink(f'/proc/self/ns/{name}') for name in ('pid', 'mnt', 'net', 'ipc', 'uts', 'user')}"
    waits = f"""
here = socket.socket(socket.AF_UNIX); here.bind('\\0meet'); here.listen()
mine = bytearray(b'the first one alone')
open('/dev/shm/first', 'w').close(); open('/tmp/first', 'w').close()
print('ready', flush=True)
{looks}
facts = {facts}
os.getuid(), socket.gethostname(), facts, bytes(mine), os.listdir('/tmp')
"""
    attack = f"""
seen = []
def tries(what):
    try:
        seen.append(str(what()))
    except OSError:
        pass
pids = [int(name) for name in os.listdir('/proc') if name.isdigit() and int(name) not in (1, os.getpid())]
seen += [str(pid) for pid in pids]
for pid in range(2, 5000):
    if pid != os.getpid():
        tries(lambda: os.kill(pid, 9) or f'killed {{pid}}')
        tries(lambda: open(f'/proc/{{pid}}/mem', 'rb') and f'read {{pid}}')
tries(lambda: socket.socket(socket.AF_UNIX).connect('\\0meet') or 'met')
seen = [one for one in seen if one != 'None'] + [name for name in ('/tmp/first', '/dev/shm/first') if os.path.exists(name)]
facts = {facts}
os.getuid(), socket.gethostname(), facts, seen
"""
    with sandcell.Template(PREPARATION, ro=[(str(tmp_path / "shown"), "/shown")], timeout=120) as template:
        with ThreadPoolExecutor(1) as beside:
            try:
                waiting = beside.submit(template.run, waits)
                second = template.run(attack)
            finally:
                go.touch()
            first = waiting.result(120)
        assert first.error is None and second.error is None, (first.error, second.error)
        uid, name, facts, memory, files = first.value
        other_uid, other_name, other_facts, seen = second.value
        assert seen == [] and memory == b"the first one alone" and "first" in files
        assert name != other_name and uid != other_uid
        for kind in facts:
            assert len({facts[kind], other_facts[kind], os.readlink(f"/proc/self/ns/{kind}")}) == 3, kind
    # The control: in one sandbox the second can end the first.
    with sandcell.Sandbox().start() as cell:
        with cell.Popen(["sleep", "1000"]) as process:
            ends = "for p in /proc/[0-9]*; do grep -qs sleep $p/comm && kill -9 ${p#/proc/}; done; true"
            assert cell.run(["sh", "-c", ends]).returncode == 0
            assert process.wait(60) == -signal.SIGKILL


RANDOM = """
[random.random(), random.SystemRandom().random(), secrets.token_hex(), ssl.RAND_bytes(8).hex(), os.urandom(8).hex(), uuid.uuid4().hex,
 next(tempfile._get_candidate_names()), multiprocessing.current_process().authkey.hex()]
"""


def test_random_numbers_of_two_runs_differ(template):
    first, second = (template.run(RANDOM).value for _ in range(2))
    assert len(first) == 8 and not set(first) & set(second)


def test_numpy_is_prepared_and_its_random_numbers_differ():
    with sandcell.Template("import numpy\nnumpy.random.seed(3)\nnumpy.linalg.inv(numpy.eye(200))", path=PACKAGES) as template:
        first, second = (template.run("[numpy.random.random(), numpy.random.default_rng().random()]").value for _ in range(2))
        assert not set(first) & set(second)
        assert template.run("numpy.linalg.inv(numpy.eye(300)).sum()").value == 300


def test_what_the_runs_of_a_template_share_is_what_the_documentation_says(template):
    code = "[hash('text'), id(kept), began]"
    assert template.run(code).value == template.run(code).value
    # The control: of another template it is another one.
    with sandcell.Template(PREPARATION) as other:
        assert other.run(code).value[0] != template.run(code).value[0]


def test_nothing_of_the_caller_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "do-not-tell")
    with open(tmp_path / "open", "w+") as file:
        os.set_inheritable(file.fileno(), True)
        with sandcell.Template("import os\nopened = open('/etc/hosts')", env={"GIVEN": "yes"}) as template:
            result = template.run(
                "links = [f'/proc/self/fd/{n}' for n in os.listdir('/proc/self/fd')]\n"
                "links = [os.readlink(link).partition(':')[0] for link in links if os.path.lexists(link)]\n"
                "[dict(os.environ), open('/proc/self/environ').read(), sorted(links)]"
            )
    environment, raw, descriptors = result.value
    assert environment["GIVEN"] == "yes" and environment["HOME"] != os.environ.get("HOME")
    assert "do-not-tell" not in raw and "SECRET_OF_THE_CALLER" not in environment
    assert "LD_LIBRARY_PATH" not in environment  # of the process that was prepared
    # Standard streams, and sockets for requests, for interrupts and for the answer.
    assert descriptors == ["/dev/null", "pipe", "pipe", "socket", "socket", "socket"]


def test_the_file_of_the_interpreter_cannot_be_written_to_by_way_of_proc(template):
    code = """
import fcntl
def kept():
    try:
        fd = os.open('/proc/self/exe', os.O_RDONLY)
    except PermissionError:  # by Landlock
        return True
    status = os.fstat(fd)
    try:
        return fcntl.fcntl(fd, 1034) & 8 != 0  # F_GET_SEALS, F_SEAL_WRITE
    except OSError:
        return status.st_uid != os.getuid() and not status.st_mode & 0o022
kept()
"""
    assert template.run(code).value is True
    with sandcell.Template(PREPARATION, landlock="off", host_ids="shared") as other:
        assert other.run(code).value is True


@pytest.mark.parametrize(
    "preparation, error, words",
    [
        ("import a_module_that_is_not", ModuleNotFoundError, "a_module_that_is_not"),
        ("1 +", SyntaxError, "invalid syntax"),
        ("raise SystemExit(3)", sandcell.TaskError, "ended its process"),
        ("import os; os.kill(os.getpid(), 9)", sandcell.TaskError, "ended its process"),
        ("import threading, time; threading.Thread(target=time.sleep, args=(1000,), name='sleeper').start()", RuntimeError, "sleeper"),
        ("import mmap; memory = mmap.mmap(-1, 4096)", RuntimeError, "share"),
    ],
)
def test_a_preparation_that_fails_or_leaves_what_copies_cannot_have_is_an_error(preparation, error, words):
    with pytest.raises(error, match=words):
        sandcell.Template(preparation)
    assert sandcell.Template("").run("1").value == 1


def test_a_preparation_that_does_not_end_is_ended():
    with pytest.raises(sandcell.TaskError, match="in time"):
        sandcell.Template("while True: pass", preparation_timeout=1)


def test_how_a_run_ends_is_told_and_the_next_one_has_a_copy_all_the_same(template):
    outcome = template.run("os._exit(3)").outcome
    assert (outcome.kind, outcome.code) == ("exited", 3)
    outcome = template.run("os.kill(os.getpid(), 9)").outcome
    assert (outcome.kind, outcome.signal) == ("signaled", 9)
    with pytest.raises(sandcell.SessionTimeout) as expired:
        template.run("print('began', flush=True)\nwhile True: pass", timeout=0.5)
    assert expired.value.run.error.name == "KeyboardInterrupt" and expired.value.run.stdout == "began\n"
    with pytest.raises(sandcell.SessionTimeout) as expired:
        template.run("import signal; signal.signal(2, signal.SIG_IGN)\nwhile True: pass", timeout=0.5)
    assert expired.value.run.outcome.kind == "timed_out"
    assert template.run("kept").value == [1, 2, 3]


def test_an_answer_that_the_code_writes_itself_is_data_or_ends_the_run(template):
    wire = """
def wire():
    frame = sys._getframe()
    while 'reply' not in frame.f_locals or 'token' not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals['reply'], frame.f_locals['token']
reply, token = wire()
"""
    assert template.run(wire + "reply.sendall(b'x' * 1000)").outcome.kind == "killed"
    size = "(7).to_bytes(8, 'big')"
    pickled = "b'P' + __import__('pickle').dumps(print)"
    result = template.run(wire + f"data = {pickled}\nreply.sendall(token + len(data).to_bytes(8, 'big') + bytes(8) + data)")
    assert result.value is None and result.outcome.kind == "killed"
    assert template.run(wire + f"reply.sendall(token + (1 << 60).to_bytes(8, 'big') + bytes(8) + {size})").outcome.kind == "output_limit"
    assert template.run("kept").value == [1, 2, 3]


def test_what_a_run_has_started_ends_with_it(template):
    code = "import subprocess\nsubprocess.Popen(['sleep', '1000.125'], start_new_session=True).pid > 1"
    assert template.run(code).value is True

    def gone():
        for name in os.listdir("/proc"):
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if b"1000.125" in file.read():
                        return False
            except OSError:
                pass
        return True

    until(gone)


def test_each_run_has_limits_of_its_own():
    with sandcell.Template("import time", memory="96M", swap=0) as template:
        try:
            eaten = template.run("held = bytearray(b'x') * (400 << 20)")
        except sandcell.SandboxError as error:
            # A user to whom no group is given: refused, and never run without the limit.
            assert os.geteuid() != 0 and "no cgroup can hold this limit" in str(error)
            return
        assert eaten.outcome.kind == "out_of_memory"
        code = "held = bytearray(b'x') * (60 << 20)\ntime.sleep(1)\nlen(held)"
        with ThreadPoolExecutor(3) as threads:
            assert [done.value for done in threads.map(lambda _: template.run(code), range(3))] == [60 << 20] * 3


def test_when_the_template_is_killed_the_next_run_gets_another(template):
    process = template._warm._process.pid
    os.kill(process, signal.SIGKILL)
    assert template.run("kept").value == [1, 2, 3]
    assert template._warm._process.pid != process


def test_threads_share_a_template(template):
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda n: template.run(f"{n} * 2").value, range(24))) == [n * 2 for n in range(24)]


def test_a_fork_of_the_caller_has_no_template_and_leaves_that_of_its_parent_alone(template):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            template.run("1")
        except ValueError:
            template.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert template.run("kept").value == [1, 2, 3]


def test_when_the_caller_is_killed_the_template_and_its_runs_end_though_a_fork_of_it_lives():
    caller = """
import os, sandcell, sys, threading, time
template = sandcell.Template("import time")
threading.Thread(target=template.run, args=("print(1)\\nwhile True: time.sleep(1)",), daemon=True).start()
process = template._warm._process.pid
def forks():
    with open(f"/proc/{process}/task/{process}/children") as file:
        return file.read().split()
def inside():
    with open(f"/proc/{forks()[0]}/task/{forks()[0]}/children") as file:
        return file.read().split()
while not forks() or not inside(): time.sleep(0.01)
child = os.fork()
if child == 0:
    time.sleep(1000)
print(process, *forks(), *inside(), child, flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", caller], stdout=subprocess.PIPE, text=True) as process:
        *ours, child = map(int, process.stdout.readline().split())
        try:
            assert len(ours) == 3 and all(lives(pid) for pid in ours) and lives(child)
            process.kill()
            until(lambda: not any(lives(pid) for pid in ours))
            assert lives(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_an_interrupt_of_the_caller_ends_the_run(template):
    main = threading.main_thread().ident
    timer = threading.Timer(0.5, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        template.run("while True: time.sleep(1)")
    timer.join()
    assert template.run("kept").value == [1, 2, 3]


@pytest.mark.parametrize(
    "option",
    [{"isolation": "landlock"}, {"image": "x"}, {"root": "/tmp"}, {"init": True}, {"cpu_time": "1s"}, {"leftovers": "fail"}, {"reclaim": True}],
)
def test_an_option_that_would_not_hold_for_a_copy_is_refused(option):
    with pytest.raises(sandcell.PolicyError, match=next(iter(option))):
        sandcell.Template("", **option)


def test_a_closed_template_runs_nothing_and_leaves_no_process():
    template = sandcell.Template("")
    process = template._warm._process.pid
    assert template.run("1").value == 1
    template.close()
    template.close()
    with pytest.raises(ValueError, match="closed"):
        template.run("1")
    assert not lives(process)
