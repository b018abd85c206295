"""A bound on how many things happen at once, whose waiting a `Deadline` ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from utils.deadline import Deadline


class Slots:
    """At most `limit` holders at a time; 0 means no bound."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._changed = threading.Condition()

    @contextmanager
    def held(self, deadline: Deadline) -> Iterator[bool]:
        """Hold a slot for the block, after waiting no longer than the deadline; False means there was none to have."""
        if not self._limit:
            yield True
            return
        with deadline.interrupting(self._wake):
            taken = self._take(deadline)
        try:
            yield taken
        finally:
            if taken:
                self._give_back()

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

    def _give_back(self) -> None:
        with self._changed:
            self._held -= 1
            self._changed.notify()
