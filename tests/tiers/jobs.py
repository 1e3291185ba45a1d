"""Jobs: commands that run side by side, as many as there are processors, each after those that it needs."""

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import results


@dataclass
class Job:
    who: str
    name: str
    command: list[str]
    # Names of jobs that must have passed before.
    after: tuple[str, ...] = ()
    # How many processors it keeps busy.
    slots: int = 1
    timeout: int = 1200
    cwd: Path | None = None
    env: dict[str, str] = field(default_factory=dict)
    # None: a step that has no tests of its own, such as a build.
    read: Callable | None = results.lines
    many_lines: bool = False
    report: Path | None = None
    result: results.Result = field(default_factory=results.Result)
    wall: float = 0.0
    cpu: float = 0.0
    ok: bool = False

    @property
    def title(self) -> str:
        return self.name

    @property
    def alone(self) -> str:
        return f"{self.who} {shlex.quote(self.name)}"

    @property
    def key(self) -> str:
        return f"{self.who}/{self.name}"


# The sessions of jobs that run.
RUNNING: set[int] = set()


def carry_out(job: Job, log: Path) -> None:
    """Runs one job to its end; whatever it has started ends with it."""
    started = time.monotonic()
    with log.open("wb") as out:
        try:
            child = subprocess.Popen(
                job.command, cwd=job.cwd, env={**os.environ, **job.env}, stdin=subprocess.DEVNULL,
                stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )
        except OSError as error:
            out.write(f"cannot run {job.command[0]}: {error}\n".encode())
            status = 127
        else:
            RUNNING.add(child.pid)
            timer = threading.Timer(job.timeout, end, (child.pid,))
            timer.start()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = status = os.waitstatus_to_exitcode(status)
            timer.cancel()
            RUNNING.discard(child.pid)
            job.cpu = usage.ru_utime + usage.ru_stime
    job.wall = time.monotonic() - started
    if status and job.wall >= job.timeout:
        with log.open("a") as out:
            out.write(f"\nended after {job.timeout} s\n")
    job.result = job.read(job, log, status) if job.read else results.Result()
    if job.read is None and status != 0:
        job.result.fail(job.name, job.alone, log.read_text(errors="replace")[-20000:])
    job.ok = status == 0 and job.result.failed == 0


def end(session: int) -> None:
    """TERM to all of a session, and KILL to those who stay."""
    for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 0)):
        for process in Path("/proc").iterdir():
            try:
                fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
                if process.name.isdigit() and int(fields[3]) == session:
                    os.kill(int(process.name), number)
            except (OSError, IndexError):
                continue
        time.sleep(patience)


def end_all() -> None:
    for session in list(RUNNING):
        end(session)


def run(jobs: list[Job], slots: int, logs: Path, tell: Callable[[Job], None]) -> None:
    """All jobs, the first of the list first. A job whose need failed fails too."""
    waiting = list(jobs)
    running: set[str] = set()
    done: dict[str, Job] = {}
    changed = threading.Condition()
    known = {job.key for job in jobs}
    free = slots

    def worker(job: Job, taken: int) -> None:
        nonlocal free
        log = logs / job.key.replace("/", "-").replace(" ", "-")
        try:
            carry_out(job, log)
        except Exception as error:  # A bug of ours must not hang the others.
            job.result = results.Result()
            job.result.fail(job.name, job.alone, f"tests/tiers: {error!r}")
        with changed:
            free += taken
            running.discard(job.key)
            done[job.key] = job
            tell(job)
            changed.notify_all()

    with changed:
        while waiting or running:
            started = False
            for job in list(waiting):
                needs = [need for need in job.after if need in known]
                lost = [need for need in needs if need in done and not done[need].ok]
                if lost:
                    waiting.remove(job)
                    job.result = results.Result()
                    job.result.fail(job.name, job.alone, f"not run, because {lost[0]} failed")
                    done[job.key] = job
                    tell(job)
                    started = True
                    continue
                taken = min(job.slots, slots)
                if taken <= free and all(need in done for need in needs):
                    waiting.remove(job)
                    free -= taken
                    running.add(job.key)
                    threading.Thread(target=worker, args=(job, taken), daemon=True).start()
                    started = True
                elif taken > free and taken == slots and all(need in done for need in needs):
                    # One that wants everything is not passed by for ever.
                    break
            if not started:
                if not running and waiting:
                    raise RuntimeError(f"jobs wait for each other: {[job.key for job in waiting]}")
                changed.wait()
