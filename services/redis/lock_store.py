"""Short locks over all replicas: whoever holds one does the work, and a dead holder's lock ends by itself.

    dify_lock:<name>    string, the holder's random token; always with a life

A lock keeps work from being done twice; it is not a fence. What must never happen twice needs its own check.
"""

from __future__ import annotations

import secrets
from contextlib import suppress

from services.errors import StoreUnavailable
from services.redis.store import Call, ScriptRunner, script


class LockStore:
    """Take and give back named locks."""

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner

    def acquire(self, name: str, ttl: float, token: str = "") -> str | None:
        """Take the lock for `ttl` seconds and return the token that releases it; `None` when another holds it.

        Who names a `token` may take a lock again that it could not give back, or did not know to have.

        Raises:
            StoreUnavailable: Redis did not answer; the lock may be held until its life ends.
        """
        token = token or secrets.token_hex(16)
        try:
            taken = self._runner.run([Call(script("lock"), (_lock(name),), (token, ttl))])[0]
        except StoreUnavailable:
            # It may be ours without our knowing, and would keep everybody out for its life.
            with suppress(StoreUnavailable):
                self.release(name, token)
            raise
        return token if taken else None

    def release(self, name: str, token: str) -> bool:
        """Give the lock back; `False` when it ended, or is another's, by now.

        Raises:
            StoreUnavailable: Redis did not answer; the lock ends by itself.
        """
        return bool(self._runner.run([delete_if(_lock(name), token)])[0])


def _lock(name: str) -> str:
    return f"dify_lock:{name}"


def delete_if(key: str, value: str) -> Call:
    """Return the call that deletes `key` in one step if it holds `value`: 1 when it did."""
    return Call(script("delete_if"), (key,), (value,))
