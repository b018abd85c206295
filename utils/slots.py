"""A semaphore whose waiting ends with a `Deadline`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from utils.deadline import Deadline


class Slots:
    """Allows at most `limit` holders at a time; 0 means no limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._changed = threading.Condition()

    @contextmanager
    def held(self, deadline: Deadline) -> Iterator[bool]:
        """Hold a slot during the block; wait for it until the deadline. Yields False if no slot became free."""
        if not self._limit:
            yield True
            return
        with deadline.interrupting(self._wake):
            taken = self._take(deadline)
        try:
            yield taken
        finally:
            if taken:
                self._release()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _take(self, deadline: Deadline) -> bool:
        with self._changed:
            while self._held >= self._limit:
                left = deadline.remaining()
                if left <= 0.0:
                    return False
                self._changed.wait(left)
            self._held += 1
            return True

    def _release(self) -> None:
        with self._changed:
            self._held -= 1
            self._changed.notify()
