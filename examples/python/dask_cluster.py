"""A Dask LocalCluster whose tasks run in sandboxes: pip install sandcell distributed.

The scheduler, the graph and the clients are Dask's; what a task computes happens in a worker process of
sandcell.Executor. The same `executor=` works for workers on other machines: `distributed.Worker(..., executor=...)`.
"""

import os
import sys
from typing import Any

from distributed import Client, LocalCluster

import sandcell


def total(n: int) -> int:
    return sum(range(n))


def crash(n: int) -> Any:
    os._exit(n)


def main() -> None:
    with (
        # Functions of Dask's own wrap the task: its packages are needed inside, and shown read-only.
        sandcell.Executor(2, timeout="60s", path=[p for p in sys.path if os.path.isdir(os.path.join(p, "distributed"))]) as pool,
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, executor=pool
        ) as cluster,
        Client(cluster) as client,
    ):
        print("sum of sums:", sum(client.gather(client.map(total, range(20)))))
        try:
            client.submit(crash, 3, retries=0).result()
        except sandcell.TaskError as error:
            print("a task that crashes:", error)
        print("and the next one:", client.submit(total, 4).result())


if __name__ == "__main__":
    main()
