"""Locks by name within this process, so that one thread at a time looks up a user."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from services.errors import AuthError


class UserLocks:
    """One lock per name; a lock that no thread holds or waits for is removed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, name: str, timeout: float) -> Iterator[None]:
        """Hold the lock of `name` during the block, waiting up to `timeout` seconds for it.

        Raises:
            AuthError: `auth_unavailable`, another thread holds it for longer.
        """
        with self._lock:
            lock, wanted = self._locks.get(name, (threading.Lock(), 0))
            self._locks[name] = (lock, wanted + 1)
        try:
            if not lock.acquire(timeout=timeout):
                raise AuthError("another call for this user takes too long", code="auth_unavailable")
            try:
                yield
            finally:
                lock.release()
        finally:
            self._leave(name)

    def _leave(self, name: str) -> None:
        with self._lock:
            lock, wanted = self._locks.pop(name)
            if wanted > 1:
                self._locks[name] = (lock, wanted - 1)
