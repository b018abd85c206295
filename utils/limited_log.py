"""A log line that anybody can cause: some of them are written, and then one that says how many were not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

#: Lines that are written in each window, and the window's seconds.
LINES = 20
SECONDS = 10.0


def _later(seconds: float, call: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


class LimitedLog:
    """Writes one kind of warning, at most `lines` in any window of `seconds`.

    When a window ends in which lines were dropped, one more line says how many.
    """

    def __init__(
        self,
        log: logging.Logger,
        message: str,
        *,
        lines: int = LINES,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], None] = _later,
    ) -> None:
        """Take the logger, the message, and `later`, which calls a function after so many seconds."""
        self._log = log
        self._message = message
        self._lines = lines
        self._seconds = seconds
        self._clock = clock
        self._later = later
        self._lock = threading.Lock()
        self._ends = clock()
        self._written = 0
        self._dropped = 0

    def warning(self, extra: Mapping[str, object]) -> None:
        """Write the line, or count it as dropped."""
        if self._may_write():
            self._log.warning(self._message, extra=dict(extra))

    def _may_write(self) -> bool:
        with self._lock:
            now = self._clock()
            if now >= self._ends and not self._dropped:
                self._ends, self._written = now + self._seconds, 0
            if self._written < self._lines:
                self._written += 1
                return True
            self._dropped += 1
            is_first, left = self._dropped == 1, max(0.0, self._ends - now)
        if is_first:
            self._later(left, self._tell)
        return False

    def _tell(self) -> None:
        """End the window: say how many lines were dropped in it."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            self._ends = self._clock()
        self._log.warning("lines dropped", extra={"line": self._message, "dropped": dropped})
