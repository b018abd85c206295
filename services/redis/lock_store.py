"""Short locks over all replicas; the lock of a dead holder expires.

    dify_lock:<name>    string, the holder's random token; always with an expiry

A lock avoids doing work twice, but is no fence. Work that must never happen twice needs its own check.
"""

from __future__ import annotations

import secrets
from contextlib import suppress

from services.errors import StoreUnavailable
from services.redis.store import Call, ScriptRunner, script


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


def _lock(name: str) -> str:
    return f"dify_lock:{name}"


def delete_if(key: str, value: str) -> Call:
    """Return the call that deletes `key` if it holds `value`; its reply is 1 if it did."""
    return Call(script("delete_if"), (key,), (value,))
