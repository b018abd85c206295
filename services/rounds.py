"""A function that a thread calls repeatedly until the process leaves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from services.errors import StoreUnavailable

log = logging.getLogger(__name__)

#: Minimal seconds between two rounds, however often `wake` is called.
SHORTEST = 0.25


class Rounds:
    """A thread that calls `work`, which returns the seconds until its next call."""

    def __init__(self, name: str, work: Callable[[], float], *, pause: float) -> None:
        """Take the function; `pause` is the seconds until the next round after one that failed."""
        self._work = work
        self._pause = pause
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Begin the next round now."""
        self._woken.set()

    def stop(self) -> None:
        """End after the current round; returns at once."""
        self._stopping.set()
        self._woken.set()

    def join(self, seconds: float) -> bool:
        """Wait for the end of the thread; return whether it has ended."""
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            pause = self._round()
            if not self._stopping.wait(SHORTEST):
                self._woken.wait(max(0.0, pause - SHORTEST))

    def _round(self) -> float:
        try:
            return self._work()
        except StoreUnavailable as exc:
            log.debug("round not done", extra={"round": self._thread.name, "cause": str(exc)})
        except Exception:
            log.exception("round failed", extra={"round": self._thread.name})
        return self._pause
