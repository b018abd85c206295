"""How long reads may wait, kept for all of them by one thread.

A socket's own timeout is a timer that is made, started and stopped with every read: a tenth of all that a delta takes.
Who waits long says until when, and this looks now and then; what is over is then up to `LOOK` seconds late.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

log = logging.getLogger(__name__)

#: Seconds between two looks at those who wait.
LOOK = 0.25
#: Seconds from which on a wait is left to this; a shorter one has a timer of its own, and ends on time.
LONG = 2.0


class Waits(Protocol):
    def give_up(self, now: float) -> None:
        """End the wait if it is over by now, in seconds of `time.monotonic`."""


class Watch:
    """Looks at those who wait; its thread begins with the first of them, and ends with the process."""

    def __init__(self) -> None:
        self._waiting: set[Waits] = set()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, waits: Waits) -> None:
        """Look at it from now on, until it is discarded."""
        self._waiting.add(waits)
        with self._starting:
            # One of before a fork is not here any more.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="read-watch", daemon=True)
                self._thread.start()

    def discard(self, waits: Waits) -> None:
        self._waiting.discard(waits)

    def __len__(self) -> int:
        """Return how many are looked at."""
        return len(self._waiting)

    def _run(self) -> None:
        while True:
            time.sleep(LOOK)
            now = time.monotonic()
            for waits in list(self._waiting):
                try:
                    waits.give_up(now)
                except Exception:
                    # It must go on: without it, nobody's wait has an end.
                    log.exception("a read could not be ended")


#: The one of this process.
watch = Watch()
