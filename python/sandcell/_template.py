"""Template: a Python that is prepared once, of which each piece of code gets a copy in a sandbox of its own."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ._boot import Gone
from ._errors import PolicyError, TaskError
from ._executor import _outermost, interpreter_paths
from ._options import Duration, Size, seconds, size
from ._reply import Rules
from ._sandbox import Sandbox
from ._session import _LEAST, DIRECTORY, _Asked, _Interpreter, _Output
from ._session_results import RunResult, expired
from ._types import Path
from ._warm import ONLY_FOR_PROGRAMS, Copy, Warm

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._options import Policy

__all__ = ["Template"]


class Template:
    """A Python that runs a preparation once; each `run` gets a copy of it in a sandbox of its own, in a few milliseconds.

    >>> with sandcell.Template("import numpy, pandas", memory="512M", timeout=10) as t:
    ...     t.run("numpy.arange(3).sum()").value

    **The preparation runs outside of any sandbox**, with the caller's rights, in a process of its own that has neither the
    caller's memory nor its environment: it is for code that the caller trusts as its own imports. Code of `run` never runs
    there. What the preparation leaves in memory every run can read: no secrets.

    Each run has processes, files, ids, limits and random numbers of its own, and nothing of another run. What all share:
    the memory that the preparation left, as it was, and with it where things lie in memory and the seed of ``hash``.
    Files that the preparation has opened are closed; threads, and memory that copies could write to together, are refused.

    preparation: code; its names are there in every run.
    timeout: seconds or "500ms" for each run; none by default. preparation_timeout: for the preparation.
    output_limit: of stdout and of stderr of each run, 1M by default; what comes after it is dropped.
    result_limit: the memory that the other parts of a result may take.
    path: directories to import from, shown read-only inside, besides the interpreter's own.
    The other keywords are those of Sandbox. Usable from any thread, not in a forked process.

    Raises what the preparation raises, PolicyError, and TaskError where it ends its process or takes too long.
    """

    def __init__(
        self,
        preparation: str = "",
        *,
        timeout: Duration | None = None,
        preparation_timeout: Duration = "1m",
        result_limit: Size = "256M",
        path: Iterable[Path] = (),
        **options: Unpack[Policy],
    ) -> None:
        own_limit = size("output_limit", options.pop("output_limit", "1M"))
        for name in ("isolation", "image", "root", "init", *ONLY_FOR_PROGRAMS):
            if options.get(name) not in (None, False, "namespaces", "host", "kill"):
                hint = "Leave it out, or use a Session."
                raise PolicyError(name, "a template's runs are copies of this Python, and no programs that are started", hint)
        self._timeout = None if timeout is None else seconds("timeout", timeout)
        self._patience = seconds("preparation_timeout", preparation_timeout)
        self._output_limit = own_limit
        self._rules = Rules(size("result_limit", result_limit), {}, False)
        if self._rules.result_limit < _LEAST:
            raise PolicyError("result_limit", "is too small for a result", "raise it; 4M is enough to start")
        self._preparation = preparation
        self._path = [os.path.abspath(os.fsdecode(entry)) for entry in path]
        shown = [(entry, entry) for entry in _outermost([*interpreter_paths(), *self._path])]
        options["ro"] = [*shown, *options.get("ro", ())]
        self._sandbox = Sandbox(**options)
        self._lock = threading.Lock()
        self._closed = False
        self._warm: Warm | None = self._prepared()

    def __enter__(self) -> Template:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(self, code: str, *, timeout: Duration | None = None, output_limit: Size | None = None) -> RunResult:
        """Runs code as `Session.run` does, in a copy of its own: what comes of it is the same, and `fresh` always True.
        What the code raises is the result's `error`.

        Raises SessionTimeout, a TimeoutExpired, and what starting a sandbox raises; ValueError once it is closed.
        """
        limit = self._timeout if timeout is None else seconds("timeout", timeout)
        asked = _Asked(code, limit, self._output_limit if output_limit is None else size("output_limit", output_limit))
        result = RunResult(fresh=True)
        copy = self._copy()
        try:
            timed_out = copy.run(asked, result, self._rules, _nothing)
            if copy.popen.failed:
                raise TaskError(f"the copy could not enter its sandbox: {copy.popen.failed}")
        finally:
            copy.end()
        if timed_out:
            raise expired(limit, result)
        return result

    def close(self) -> None:
        """Ends the Python that copies are made of; runs go on. A second time does nothing."""
        with self._lock:
            self._closed = True
            warm, self._warm = self._warm, None
        if warm is not None:
            warm.close()

    def _copy(self) -> _Copy:
        warm = self._ready()
        try:
            return _Copy(warm, self._sandbox)
        except Gone:
            # It was killed, for want of memory above all: another one does what it did.
            with self._lock:
                if self._warm is warm:
                    self._warm = None
            warm.close()
        try:
            return _Copy(self._ready(), self._sandbox)
        except Gone:
            raise TaskError("the Python that copies are made of was killed, twice") from None

    def _ready(self) -> Warm:
        with self._lock:
            if self._closed:
                raise ValueError("the template is closed")
            if self._warm is None:
                self._warm = self._prepared()
            return self._warm

    def _prepared(self) -> Warm:
        names = ("_worker", "_session_inside")
        return Warm(*names, source=self._preparation, state=DIRECTORY, path=self._path, patience=self._patience)


class _Copy(_Interpreter):
    """The interpreter of one run."""

    popen: Copy  # type: ignore[assignment]

    def __init__(self, warm: Warm, sandbox: Sandbox) -> None:
        self._warm = warm
        self.new = self.usable = True
        self.count = 0
        self.control, theirs = socket.socketpair()
        self._interrupts, numbers = socket.socketpair()
        self._interrupts.setblocking(False)
        (out, out_theirs), (err, err_theirs) = os.pipe(), os.pipe()
        self.outputs = [_Output(open(out, "rb", 0)), _Output(open(err, "rb", 0))]
        try:
            self.popen = warm.fork(sandbox, (out_theirs, err_theirs), [theirs.fileno(), numbers.fileno()])  # pyright: ignore[reportIncompatibleVariableOverride]
        except BaseException:
            self._close()
            raise
        finally:
            theirs.close()
            numbers.close()
            os.close(out_theirs)
            os.close(err_theirs)

    def end(self) -> None:
        if self.usable:
            # It has answered: nobody waits for its end.
            self._warm.leave(self.popen)
        else:
            self._kill()
        self._close()


def _nothing() -> None:
    pass
