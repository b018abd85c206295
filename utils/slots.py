"""Semaphores: one whose waiting ends with a `Deadline`, and one that also limits the holders with one key."""

from __future__ import annotations

import threading
from collections import Counter
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
                with self._changed:
                    self._held -= 1
                    self._changed.notify()

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


class KeyedSlots:
    """Allows at most `limit` holders at a time, and at most `limit_per_key` of one key."""

    def __init__(self, limit: int, limit_per_key: int) -> None:
        self._limit = limit
        self._limit_per_key = limit_per_key
        self._held: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def held(self, key: str, timeout: float) -> Iterator[bool]:
        """Hold a slot during the block; wait `timeout` seconds for it. Yields False if no slot became free."""
        with self._changed:
            taken = self._changed.wait_for(lambda: self._is_free(key), timeout)
            self._held[key] += taken
        try:
            yield taken
        finally:
            with self._changed:
                self._held[key] -= taken
                if not self._held[key]:
                    del self._held[key]
                self._changed.notify_all()

    def _is_free(self, key: str) -> bool:
        return self._held.total() < self._limit and self._held[key] < self._limit_per_key
