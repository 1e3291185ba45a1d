"""Start to end of `true`, in milliseconds. Run by tests/bench/python."""

import gc
import statistics
import subprocess
import sys
import time

import sandcell

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 300
GIBIBYTES = 2


def timed(call):
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def medians(calls, rounds):
    """Of each call, interleaved: what else the machine does falls on all of them."""
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(timed(call))
    return {name: statistics.median(list) for name, list in times.items()}


box = sandcell.Sandbox()
with box.start() as cell, box.pool(2) as pool:
    gc.collect()
    found = medians(
        {
            "subprocess.run": lambda: subprocess.run(["true"]),
            "sandcell.run": lambda: sandcell.run(["true"]),
            "Sandbox.run": lambda: box.run(["true"]),
            "Pool.run": lambda: pool.run(["true"]),
            "Cell.run": lambda: cell.run(["true"]),
        },
        ROUNDS,
    )
for name, median in found.items():
    print(f"{name:16} {median:7.3f} ms   {median / found['subprocess.run']:5.2f} x subprocess.run")

# The big one lives beside the small one, and both are asked in turn.
asked = """
import sys, time, sandcell
held = bytearray(int(sys.argv[1]) << 30)
held[::4096] = b"x" * len(held[::4096])
for line in sys.stdin:
    start = time.perf_counter()
    sandcell.run(["true"])
    print((time.perf_counter() - start) * 1e3, flush=True)
"""
pythons = {
    name: subprocess.Popen(
        [sys.executable, "-c", asked, str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    for name, size in (("small", 0), ("2 GB resident", GIBIBYTES))
}
times = {name: [] for name in pythons}
for _ in range(ROUNDS):
    for name, python in pythons.items():
        python.stdin.write("go\n")
        times[name].append(float(python.stdout.readline()))
for python in pythons.values():
    python.stdin.close()
    python.wait()
small, big = (statistics.median(list[1:]) for list in times.values())
print(f"from a small process {small:.3f} ms, with {GIBIBYTES} GB resident {big:.3f} ms: {big / small:.2f} x")
