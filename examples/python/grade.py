"""Grades 100 submissions in parallel, with a progress bar. A submission that hangs or crashes costs nobody else."""

import concurrent.futures
import os
import random
import sys

import sandcell

ANSWERS = [
    "print(int(input()) ** 2)",  # right
    "print(int(input()) * 2)",  # wrong
    "while True: pass",  # hangs
    "import os; os.abort()",  # crashes
    "print(open('/etc/shadow').read())",  # pries
]
BOX = sandcell.Sandbox(timeout="2s", grace="100ms", output_limit="64K", rlimit={"as": "1G"})


def grade(code: str) -> str:
    for given, wanted in ((3, "9"), (12, "144")):
        try:
            r = BOX.run(["/usr/bin/python3", "-I", "-c", code], input=f"{given}\n", capture_output=True, text=True)
        except sandcell.TimeoutExpired:
            return "timed out"
        if not r.outcome.success:
            return "failed" if r.outcome.kind == "exited" else str(r.outcome)
        if r.stdout.strip() != wanted:
            return "wrong"
    return "right"


def main(count: int) -> None:
    draw = random.Random(1)
    submissions = [draw.choices(ANSWERS, weights=[60, 25, 5, 5, 5])[0] for _ in range(count)]
    verdicts: dict[str, int] = {}
    # Threads are enough: the interpreter is free while a sandbox runs.
    with concurrent.futures.ThreadPoolExecutor((os.cpu_count() or 1) * 2) as pool:
        for done, verdict in enumerate(pool.map(grade, submissions), 1):
            verdicts[verdict] = verdicts.get(verdict, 0) + 1
            bar = "#" * (done * 40 // count)
            print(f"\r[{bar:40}] {done}/{count}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for verdict, number in sorted(verdicts.items()):
        print(f"{verdict:20} {number}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
