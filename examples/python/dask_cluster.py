"""A Dask LocalCluster whose tasks run in sandboxes: pip install sandcell distributed.

The scheduler, the graph and the clients are Dask's; what a task computes happens in a worker process of
sandcell.Executor. The same `executor=` works for workers on other machines: `distributed.Worker(..., executor=...)`.
"""

import os
import sys
from typing import Any

from distributed import Client, LocalCluster

import sandcell

#: Functions of Dask's own wrap the task: its packages are needed inside, and shown read-only. (Those of the
#: interpreter itself are there anyway.)
PACKAGES = [entry for entry in sys.path if os.path.isdir(os.path.join(entry, "distributed"))]


def total(n: int) -> int:
    return sum(range(n))


def crash(n: int) -> Any:
    os._exit(n)


def main() -> None:
    with (
        sandcell.Executor(2, timeout="60s", path=PACKAGES) as pool,
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0", executor=pool
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        totals: Any = client.gather(client.map(total, range(20)))
        print("sum of sums:", sum(totals))
        try:
            client.submit(crash, 3, retries=0).result()
        except sandcell.TaskError as error:
            print("a task that crashes:", error)
        print("and the next one:", client.submit(total, 4).result())


if __name__ == "__main__":
    main()
