"""What the Python of a sandcell.Template or Executor runs; handed to it as code, behind that of `_worker` or `_session_inside`.

It prepares itself outside of any sandbox, with nothing but what it was told to run, and then does nothing but fork. Each fork
is in a cell of its own before it runs anything of a request.
"""

import fcntl
import gc
import os
import pickle
import signal
import socket
import sys
import traceback
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._session_inside import Session, start
    from ._session_inside import main as begin
    from ._worker import plain, raised, receive, send
else:
    #: What answers requests, of the code before this.
    begin = globals().get("main")

#: Of fcntl(2), which the module fcntl does not name before Python 3.13.
F_SETSIG = 10


def main(control: socket.socket, arguments: "list[str]") -> None:
    caller, native, *paths = arguments
    sys.path[:0] = paths
    request = receive(control)
    if request is None:
        return
    token, reply, parts = request
    source, state, patience = pickle.loads(parts[0])
    # Nobody else ends it where the caller is gone meanwhile.
    signal.setitimer(signal.ITIMER_REAL, patience)
    session = Session(None) if isinstance(state, str) else None
    try:
        prepare(session, source)
        answer = plain(None, frozenset())
    except Exception as error:
        answer = raised(b"R", error, frozenset())
    with reply:
        send(reply, token, *answer)
    signal.setitimer(signal.ITIMER_REAL, 0)
    del request, reply, parts, answer
    server = extension(native).Server(control.detach(), int(caller))
    # What the forks never change is not looked at by their collector: each page of it would have to be copied.
    gc.collect()
    gc.freeze()
    entered = server.serve([0, 1, 2])
    try:
        enter(entered, session, state)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(125)


def prepare(session: "Session | None", source: str) -> None:
    if session is not None:
        session.execute(source)
        # Its descriptors are not there in the forks.
        session.loop = None
    threading = sys.modules.get("threading")
    if threading is not None and threading.active_count() > 1:
        names = ", ".join(sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread()))
        raise RuntimeError(f"the preparation left threads, which its copies would not have: {names}. Hint: end them in it.")
    with open("/proc/self/maps") as maps:
        shared = [words for words in (line.split(None, 5) for line in maps) if words[1][1] == "w" and words[1][3] == "s"]
    if shared:
        name = (shared[0] + ["memory"])[5].strip()
        raise RuntimeError(
            f"the preparation made memory that all its copies would share and could write to: {name}. Hint: unmap it in it."
        )


def extension(path: str) -> Any:
    """The native half of sandcell, without sandcell: copies have no use for that."""
    spec = spec_from_file_location("sandcell._native", path, loader=ExtensionFileLoader("sandcell._native", path))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def enter(entered: Any, session: "Session | None", state: Any) -> None:
    """In a fork: from here on in a cell. `state`: the directory of a session, or the settings of a worker. Never returns."""
    out, err, number, *rest = entered.descriptors
    os.dup2(out, 1)
    os.dup2(err, 2)
    try:
        entered.confine()
    except Exception as error:
        os.write(2, f"the sandbox could not be entered: {error.args}\n".encode())
        os._exit(125)
    os.close(out)
    os.close(err)
    start_anew(entered.environment())
    control = socket.socket(fileno=number)
    if session is not None:
        # A signal without anybody who has to know our number: whoever writes to it has it sent.
        interrupts = rest[0]
        fcntl.fcntl(interrupts, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(interrupts, F_SETSIG, signal.SIGINT)
        fcntl.fcntl(interrupts, fcntl.F_SETFL, os.O_RDWR | os.O_NONBLOCK | os.O_ASYNC)
        start(session, state)
        begin(control, [str(interrupts)], session)
    else:
        begin(control, [], state)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)


def start_anew(environment: "list[tuple[str, str]]") -> None:
    """What each copy has of its own. The module random sees to itself when a process forks."""
    os.environ.clear()
    os.environ.update(environment)
    for name, anew in ANEW.items():
        if name in sys.modules:
            anew(sys.modules[name])


def new_names(tempfile: Any) -> None:
    tempfile.tempdir = tempfile._name_sequence = None


def new_key(process: Any) -> None:
    process.current_process().authkey = os.urandom(32)


#: By module, where it has been imported. That of OpenSSL looks at the number of the process only, which is small in here.
ANEW = {
    "numpy.random": lambda random: random.seed(),
    "_ssl": lambda ssl: ssl.RAND_add(os.urandom(48), 48.0),
    "multiprocessing.process": new_key,
    "tempfile": new_names,
}
