"""Short locks over all replicas: whoever holds one does the work, and a dead holder's lock ends by itself.

    dify_lock:<name>    string, the holder's random token; always with a life

A lock keeps work from being done twice; it is not a fence. What must never happen twice needs its own check.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from services.errors import StoreUnavailable

#: Deletes a key only while it holds this value: another's lock, or a newer token, stays.
DELETE_IF = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_DELETE_IF_SHA = hashlib.sha1(DELETE_IF.encode()).hexdigest()


class LockStore:
    """Take and give back named locks. `client` decodes replies to text and does not retry."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def acquire(self, name: str, ttl: float) -> str | None:
        """Take the lock for `ttl` seconds and return the token that releases it; `None` when another holds it.

        Raises:
            StoreUnavailable: Redis did not answer; the lock may be held until its life ends.
        """
        token = secrets.token_hex(16)
        with redis_errors():
            taken = self._redis.set(_lock(name), token, nx=True, px=max(1, int(ttl * 1000)))
        return token if taken else None

    def release(self, name: str, token: str) -> bool:
        """Give the lock back; `False` when it ended, or is another's, by now."""
        with redis_errors():
            return delete_if(self._redis, _lock(name), token)


def _lock(name: str) -> str:
    return f"dify_lock:{name}"


def delete_if(client: redis.Redis, key: str, value: str) -> bool:
    """Delete `key` in one step if it holds `value`, and tell whether it did."""
    try:
        return bool(client.evalsha(_DELETE_IF_SHA, 1, key, value))
    except redis.exceptions.NoScriptError:
        # EVAL runs it and leaves it loaded, on the right node of a Cluster too.
        return bool(client.eval(DELETE_IF, 1, key, value))


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn what redis-py raises into `StoreUnavailable`, which names the kind of failure only."""
    try:
        yield
    except redis.ResponseError as exc:
        # redis-py puts the refused command into the message, values included: its text goes nowhere.
        raise StoreUnavailable(f"Redis refused a command: {type(exc).__name__}") from None
    except (redis.RedisError, OSError, UnicodeDecodeError) as exc:
        raise StoreUnavailable(f"Redis did not answer: {type(exc).__name__}") from exc
