"""Short locks over all replicas; the lock of a dead holder expires.

    dify_lock:<name>    string, the holder's random token; always with an expiry

A lock avoids doing work twice, but is no fence. Work that must never happen twice needs its own check.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from services.errors import StoreUnavailable
from services.redis.store import Call, ScriptRunner, script

T = TypeVar("T")

#: Seconds between two attempts to acquire a lock whose holder makes the value that is waited for.
POLL = 0.05


class LockStore:
    """Acquires and releases named locks."""

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner

    def acquire(self, name: str, ttl: float, token: str = "") -> str | None:
        """Acquire the lock for `ttl` seconds and return the token that releases it; `None` if another holds it.

        With its own `token` a caller can acquire again a lock that it failed to release.

        Raises:
            StoreUnavailable: Redis did not answer; the lock may be held until it expires.
        """
        token = token or secrets.token_hex(16)
        try:
            taken = self._runner.run([Call(script("lock"), (_lock(name),), (token, ttl))])[0]
        except StoreUnavailable:
            # The lock may have been acquired, and would block others until it expires.
            with suppress(StoreUnavailable):
                self.release(name, token)
            raise
        return token if taken else None

    def release(self, name: str, token: str) -> bool:
        """Release the lock; `False` if it has expired or has another holder.

        Raises:
            StoreUnavailable: Redis did not answer; the lock expires by itself.
        """
        return bool(self._runner.run([delete_if(_lock(name), token)])[0])

    def once(
        self,
        name: str,
        *,
        load: Callable[[], T | None],
        make: Callable[[], T],
        ttl: float,
        over: Callable[[], bool],
        token: str = "",
    ) -> T | None:
        """Return what `load` finds, else `make` it under the lock or wait until the lock's holder has stored it.

        `make` stores what it returns, so that `load` finds it in every process. Return None when `over` is true and
        another holder still has the lock.

        Raises:
            StoreUnavailable: Redis did not answer. With the same `token` the next call continues with its lock.
        """
        while True:
            held = self.acquire(name, ttl, token)
            try:
                # After the attempt: a holder stores the value before it releases the lock.
                if (found := load()) is not None:
                    return found
                if held:
                    return make()
            finally:
                # If Redis does not answer, the lock expires by itself; the result is valid all the same.
                with suppress(StoreUnavailable):
                    if held:
                        self.release(name, held)
            if over():
                return None
            time.sleep(POLL)


def _lock(name: str) -> str:
    return f"dify_lock:{name}"


def delete_if(key: str, value: str) -> Call:
    """Return the call that deletes `key` if it holds `value`; its reply is 1 if it did."""
    return Call(script("delete_if"), (key,), (value,))
