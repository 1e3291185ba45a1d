"""What a piece of code that uses numpy costs in a copy of a Template, with a sandbox of its own, against a plain Python that
imports numpy, without any sandbox; and a task of an Executor with a new worker for each. Interleaved rounds: medians and
their quotient (`chrt -f 1` in front where others use the machine)."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import sandcell

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 50
CODE = "numpy.arange(3).sum()"


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


def copied(template: sandcell.Template, value: str) -> None:
    result = template.run(CODE)
    assert result.error is None and result.repr is not None and value in result.repr, result


def main() -> None:
    cold = [sys.executable, "-c", f"import numpy; {CODE}"]
    template, pool = sandcell.Template("import numpy"), sandcell.Executor(1, max_tasks_per_child=1)
    # An option that holds only for workers that are programs.
    started = sandcell.Executor(1, max_tasks_per_child=1, output_limit="1G")
    with template, pool, started:
        calls: dict[str, Callable[[], object]] = {
            "python, cold": lambda: subprocess.run(cold, check=True),
            "Template.run": lambda: copied(template, "3"),
            "Executor, new worker": lambda: pool.submit(abs, -3).result(),
            "the same, started": lambda: started.submit(abs, -3).result(),
        }
        took: dict[str, list[float]] = {name: [] for name in calls}
        for number in range(ROUNDS + 1):
            for name, call in calls.items():
                milliseconds = timed(call)
                if number:  # the first warms up
                    took[name].append(milliseconds)
    first = statistics.median(took["python, cold"])
    for name, list_ in took.items():
        median = statistics.median(list_)
        print(f"{name:20} {median:7.2f} ms   {median / first:.3f} x python, cold")


if __name__ == "__main__":
    main()
