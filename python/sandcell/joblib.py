"""A backend of joblib: `import sandcell.joblib`, then `joblib.parallel_config("sandcell", n_jobs=4, memory="512M")`.

Results come as those of an Executor do: plain data and arrays, or what `decoders` make, or with `unsafe_pickle=True`
anything.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from importlib import import_module
from typing import Any

from ._executor import Executor

# It has no types, and a checker guesses wrong ones.
_joblib: Any = import_module("joblib")
_parallel: Any = import_module("joblib.parallel")


class SandcellBackend(_parallel.AutoBatchingMixin, _parallel.ParallelBackendBase):  # type: ignore[misc]
    """The keywords are those of Executor; `n_jobs` are its workers."""

    supports_retrieve_callback = True

    def __init__(self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **options: Any) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._options = options
        self._pool: Executor | None = None

    def effective_n_jobs(self, n_jobs: int) -> int:
        """As joblib's processes have it: -1 is all CPUs."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        return int(n_jobs if n_jobs > 0 else max(_joblib.cpu_count() + 1 + n_jobs, 1))

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """Makes the executor of one call of Parallel."""
        self.parallel = parallel
        count = self.effective_n_jobs(n_jobs)
        self._pool = Executor(count, **self._options)
        return count

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None) -> Future[Any]:
        """A batch of calls is a task."""
        assert self._pool is not None
        future = self._pool.submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """What the task returned; raises what it raised."""
        return out.result()

    def terminate(self) -> None:
        """Ends the workers."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Ends the workers now, whatever they do."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool._killed = True
            pool.kill_workers()
            pool.shutdown(False, cancel_futures=True)
        if ensure_ready:
            self.configure(self.parallel.n_jobs, self.parallel)


_joblib.register_parallel_backend("sandcell", SandcellBackend)
