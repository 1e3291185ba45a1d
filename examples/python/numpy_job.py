"""A numpy job with a memory limit, and what it used over time as a plot: pip install sandcell numpy."""

import os
import sys
import time
from importlib.util import find_spec

import sandcell

JOB = """
import time, numpy
total = 0.0
for megabytes in range(4, 64, 4):
    held = numpy.random.default_rng(1).random((megabytes << 20) // 8)
    total += float(held.sum())
    time.sleep(0.03)
print(round(total))
"""

#: Where numpy is installed.
PACKAGES = os.path.dirname(os.path.dirname(getattr(find_spec("numpy"), "origin", None) or "/"))


def start(limit: str) -> sandcell.Cell:
    shown = [*sandcell.interpreter_paths(), PACKAGES]
    try:
        return sandcell.Sandbox(memory=limit, ro=shown).start()
    except sandcell.UnsupportedError as error:
        # Refused is the default. Here the job matters more than its limit; the report says that there is none.
        print(f"no memory limit here: {error.hint}")
        return sandcell.Sandbox(memory=limit, ro=shown, best_effort=["memory"]).start()


def main() -> None:
    samples: list[tuple[float, int]] = []
    with start("512M") as cell:
        began = time.monotonic()
        # One thread for the algebra: each further one has memory of its own.
        with cell.Popen(
            [sys.executable, "-c", JOB],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": PACKAGES, "OPENBLAS_NUM_THREADS": "1"},
            stdout=sandcell.PIPE,
            text=True,
        ) as job:
            while job.poll() is None:
                samples.append((time.monotonic() - began, cell.usage().memory_peak_bytes or 0))
                time.sleep(0.05)
            print("the sum is", job.stdout.read().strip() if job.stdout else "")
        print("by", {line.item: line.by for line in cell.enforced}["memory"])
        outcome = job.outcome
    top = max(peak for _, peak in samples) or 1
    for seconds, peak in samples[:: max(len(samples) // 12, 1)]:
        print(f"{seconds:6.2f} s {peak / (1 << 20):7.1f} MiB |{'*' * (peak * 40 // top)}")
    print(f"the job {outcome}")


if __name__ == "__main__":
    main()
