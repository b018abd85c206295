"""Rate-limit log lines that any client can cause, and log how many were dropped."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

#: Maximum of lines per window, and the length of the window in seconds.
LINES = 20
SECONDS = 10.0


def _later(seconds: float, call: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


class LimitedLog:
    """Logs one kind of warning, at most `lines` per window of `seconds`.

    At the end of a window in which lines were dropped, one more line gives their number.
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
        """`later` calls a function after a number of seconds; the default uses a timer thread."""
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
        """Log the warning with these extra fields, or count it as dropped."""
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
        """End the window and log how many lines were dropped in it."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            self._ends = self._clock()
        self._log.warning("lines dropped", extra={"line": self._message, "dropped": dropped})
