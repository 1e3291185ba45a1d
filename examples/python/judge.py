"""A judge: runs a submission against tests, each in a sandbox of its own, and gives a verdict for each.

    judge.py SUBMISSION.py TESTS [--time 2s] [--memory 256M] [--output 1M]

TESTS has pairs of files, NAME.in and NAME.out. The verdicts: AC accepted, WA wrong answer, TLE too much time, MLE too
much memory, OLE too much output, RE ended badly. A line for each test, and the first bad verdict as the last line.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import pathlib
import signal
import sys
from dataclasses import dataclass

import sandcell

#: By outcome; others are RE.
VERDICTS = {"timed_out": "TLE", "out_of_memory": "MLE", "output_limit": "OLE"}
PYTHON = "/usr/bin/python3"


@dataclass(frozen=True)
class Verdict:
    name: str
    verdict: str
    seconds: float | None
    memory: int | None
    why: str = ""

    def __str__(self) -> str:
        used = "" if self.seconds is None else f"{self.seconds:6.2f} s"
        held = "" if self.memory is None else f"{self.memory / (1 << 20):7.1f} MiB"
        return f"{self.name:12} {self.verdict:4} {used} {held} {self.why}".rstrip()


class Judge:
    """One submission and its limits; any number of tests may run at once, each in a sandbox that was built ahead."""

    def __init__(self, code: bytes, time: str, memory: str, output: str) -> None:
        # CPU time counts on a busy machine; the wall clock ends what sleeps.
        options: sandcell.Policy = {
            "files": {"/submission.py": code},
            "cpu_time": time,
            # Where no cgroup counts it, as for most ordinary users, a resource limit does, in whole seconds.
            "best_effort": ["cpu_time"],
            "output_limit": output,
            "network": "none",
            "grace": "100ms",
        }
        options.update(memory_limit(memory))
        self.pool = sandcell.Sandbox(timeout=10 * seconds(time), **options).pool(os.cpu_count() or 1)

    def judge(self, name: str, given: bytes, wanted: bytes) -> Verdict:
        try:
            r = self.pool.run([PYTHON, "-I", "/submission.py"], input=given, capture_output=True)
        except sandcell.TimeoutExpired as expired:
            assert expired.result is not None
            r = expired.result
        verdict, why = VERDICTS.get(r.outcome.kind, "RE"), ""
        if r.outcome.signal == signal.SIGXCPU:
            verdict = "TLE"  # by the resource limit
        if r.outcome.success:
            verdict = "AC" if same(r.stdout, wanted) else "WA"
        elif verdict == "RE":
            why = last_line(r.stderr)
            if why == "MemoryError":
                verdict = "MLE"  # by the limit on address space, where no cgroup counts
            why = f"{r.outcome} {why}".rstrip()
        used = r.usage
        spent = None if used.user_seconds is None else used.user_seconds + (used.system_seconds or 0)
        return Verdict(name, verdict, spent, used.memory_peak_bytes, why)


def memory_limit(memory: str) -> sandcell.Policy:
    """By cgroup where this host lets the caller have one, otherwise of address space."""
    try:
        if sandcell.run(["true"], memory=memory, swap=0).returncode == 0:
            return {"memory": memory, "swap": 0}
    except sandcell.SandboxError:
        pass
    return {"rlimit": {"as": memory}}


def seconds(duration: str) -> float:
    return float(duration.removesuffix("ms")) / 1000 if duration.endswith("ms") else float(duration.removesuffix("s"))


def same(output: bytes, wanted: bytes) -> bool:
    """But for spaces at the ends of lines, and empty lines at the end."""
    return [line.rstrip() for line in output.rstrip().split(b"\n")] == [
        line.rstrip() for line in wanted.rstrip().split(b"\n")
    ]


def last_line(stderr: bytes) -> str:
    """For a terminal: nothing that it acts on."""
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return "".join(c if c.isprintable() else "?" for c in lines[-1][:200]) if lines else ""


def tests(directory: pathlib.Path) -> list[tuple[str, bytes, bytes]]:
    pairs = [(given, given.with_suffix(".out")) for given in sorted(directory.glob("*.in"))]
    if not pairs:
        sys.exit(f"judge: {directory} has no files NAME.in")
    return [(given.stem, given.read_bytes(), wanted.read_bytes()) for given, wanted in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description="Judges a Python program by its answers to tests.")
    parser.add_argument("submission", type=pathlib.Path)
    parser.add_argument("tests", type=pathlib.Path)
    parser.add_argument("--time", default="2s", help="CPU time of each test")
    parser.add_argument("--memory", default="256M")
    parser.add_argument("--output", default="1M")
    options = parser.parse_args()
    judge = Judge(options.submission.read_bytes(), options.time, options.memory, options.output)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = list(pool.map(lambda test: judge.judge(*test), tests(options.tests)))
    judge.pool.close()
    for verdict in verdicts:
        print(verdict)
    final = next((one.verdict for one in verdicts if one.verdict != "AC"), "AC")
    print(final)
    sys.exit(final != "AC")


if __name__ == "__main__":
    main()
