"""What tasks of sandcell.Executor cost against ProcessPoolExecutor: an array of 100 MB there and back, and 1,000 tiny
tasks, one after the other and submitted at once. Interleaved rounds on workers that have started: medians, their quotient,
and that of the best rounds, which a busy machine disturbs less (`chrt -f 1` in front, even less)."""

import copy
import statistics
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor

import numpy

import sandcell

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 9
ARRAY = numpy.frombuffer(bytes(range(250)) * 400_000, "u1")


def array(pool: Executor) -> float:
    began = time.perf_counter()
    found = pool.submit(copy.copy, ARRAY).result()
    took = time.perf_counter() - began
    assert found.nbytes == ARRAY.nbytes and found[-1] == ARRAY[-1]
    return took


def tiny(pool: Executor) -> float:
    began = time.perf_counter()
    for number in range(1000):
        assert pool.submit(abs, number).result() == number
    return time.perf_counter() - began


def together(pool: Executor) -> float:
    """All are submitted first."""
    began = time.perf_counter()
    assert list(pool.map(abs, range(1000))) == list(range(1000))
    return time.perf_counter() - began


def main() -> None:
    with ProcessPoolExecutor(1) as theirs, sandcell.Executor(1) as ours:
        for name, measure in (("100 MB", array), ("1,000 tasks", tiny), ("1,000 at once", together)):
            took: dict[str, list[float]] = {"ours": [], "theirs": []}
            for number in range(ROUNDS + 1):
                for which, pool in (("ours", ours), ("theirs", theirs)):
                    seconds = measure(pool)
                    if number:  # the first warms up
                        took[which].append(seconds)
            here, there = (statistics.median(took[which]) for which in ("ours", "theirs"))
            best = min(took["ours"]) / min(took["theirs"])
            figures = f"sandcell {here * 1000:7.1f} ms   processes {there * 1000:7.1f} ms   {here / there:.2f} x"
            print(f"{name:14} {figures}   best {best:.2f} x")


if __name__ == "__main__":
    main()
