"""Many at once, and forked: nothing is lost, nothing is left."""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading

import sandcell

THREADS, RUNS = 64, 50


def in_a_child(work):
    """Forks, works in the child, and tells whether that went well."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def descendants():
    """Children of any of this process's threads."""
    found = 0
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            found += len(file.read().split())
    return found


def test_64_threads_of_50_runs_each_get_their_own_results_and_leave_nothing():
    with sandcell.Sandbox().start() as cell:
        box = sandcell.Sandbox()
        box.run(["true"])  # what the sandbox keeps for all its runs is opened by the first
        gc.collect()
        before, children = len(os.listdir("/proc/self/fd")), descendants()
        wrong = []

        def work(thread):
            for run in range(RUNS):
                word = f"{thread}.{run}"
                # A sandbox of its own for each costs the machine some milliseconds: every tenth run is one.
                runner = box if run % 10 == 0 else cell
                try:
                    r = runner.run(["sh", "-c", f"cat; exit {run}"], input=word, capture_output=True, text=True)
                    if (r.stdout, r.returncode) != (word, run):
                        wrong.append((word, r))
                except Exception as error:
                    wrong.append((word, error))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        gc.collect()
        assert (len(os.listdir("/proc/self/fd")), descendants()) == (before, children)


def test_a_forked_child_runs_programs_and_ends_none_of_its_parents():
    box = sandcell.Sandbox()
    cell = box.start()
    p = box.Popen(["cat"], stdin=sandcell.PIPE, stdout=sandcell.PIPE)

    def work():
        nonlocal p, cell
        assert box.run(["echo", "x"], capture_output=True).stdout == b"x\n"
        assert sandcell.run(["true"], user="root").returncode == 0
        assert cell.run(["true"]).returncode == 0
        p = cell = None
        gc.collect()

    assert in_a_child(work)
    assert p.communicate(b"still here") == (b"still here", None)
    assert cell.run(["true"]).returncode == 0
    cell.close()


def answer(n):
    return sandcell.run(["echo", str(n)], capture_output=True, text=True).stdout


def test_workers_of_multiprocessing_run_programs():
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            assert pool.map(answer, range(4)) == [f"{n}\n" for n in range(4)]


def test_the_end_of_the_caller_is_the_end_of_the_program():
    program = (
        "import sandcell, os, sys\n"
        "p = sandcell.Popen(['sleep', '1000'], stderr=int(sys.argv[1]))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ours, theirs = os.pipe()
    subprocess.run([sys.executable, "-c", program, str(theirs)], pass_fds=[theirs])
    os.close(theirs)
    assert os.read(ours, 1) == b""
    os.close(ours)


def test_signals_of_children_stay_the_callers():
    program = (
        "import sandcell, signal, os\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "assert sandcell.run(['sh', '-c', 'exit 3']).returncode == 3\n"
        "assert signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
