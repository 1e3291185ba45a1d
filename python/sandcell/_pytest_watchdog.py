"""The watchdog of faulthandler across forks: it is a thread that holds a lock, and a copy has the lock without the thread,
so that whoever cancels the watchdog there waits for ever. pytest cancels it wherever a test fails."""

from __future__ import annotations

import faulthandler
import time
from typing import Any


class Watchdog:
    """Remembers what the watchdog was set to, which faulthandler does not tell."""

    def __init__(self) -> None:
        self._later, self._cancel = faulthandler.dump_traceback_later, faulthandler.cancel_dump_traceback_later
        self._set: tuple[float, tuple[Any, ...], dict[str, Any]] | None = None
        faulthandler.dump_traceback_later = self.dump_traceback_later
        faulthandler.cancel_dump_traceback_later = self.cancel_dump_traceback_later

    def dump_traceback_later(self, *arguments: Any, **keywords: Any) -> None:
        self._later(*arguments, **keywords)
        self._set = (time.monotonic(), arguments, keywords)

    def cancel_dump_traceback_later(self) -> None:
        self._cancel()
        self._set = None

    def pause(self) -> None:
        """Before a fork."""
        self._cancel()

    def resume(self) -> None:
        """After it, in the first process: what is left of the time."""
        if self._set is None:
            return
        began, arguments, keywords = self._set
        timeout, *others = arguments or (keywords["timeout"],)
        rest = timeout - (time.monotonic() - began)
        again = (arguments[1:] and arguments[1]) or keywords.get("repeat", False)
        if rest > 0 or again:
            self._later(max(rest, 0.001) if not again else timeout, *others, **{k: v for k, v in keywords.items() if k != "timeout"})

    def restore(self) -> None:
        faulthandler.dump_traceback_later, faulthandler.cancel_dump_traceback_later = self._later, self._cancel
