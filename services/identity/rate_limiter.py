"""Rate limits over all replicas: fixed windows of the library `limits`, counted in Redis.

    dify_rate:LIMITER/<kind>/<who>/<amount>/<multiples>/<unit>    string, a count; lives one window. `who` is hashed

While Redis is unreachable every question is allowed: the limit protects the provider, and without Redis a question
ends before it reaches one.
"""

from __future__ import annotations

import hashlib
import hmac
import time

from limits import RateLimitItem, parse_many
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from services.errors import StoreUnavailable
from services.identity.callers import USER, owner_of
from services.redis.store import Call, ScriptRunner, script
from utils.keyring import Keyring, keys_of
from utils.networks import network

PREFIX = "dify_rate"


class RateLimiter:
    """Count questions and requests. Thread-safe.

    `user`, `key` and `ip` are rates such as "20/minute;100/hour", "" for no limit. Names are hashed with `secret`, the
    same on all replicas, so that addresses can be neither read nor guessed from Redis.
    """

    def __init__(self, runner: ScriptRunner, *, user: str, key: str, ip: str, secret: Keyring) -> None:
        self._limiter = FixedWindowRateLimiter(RedisWindows(runner))
        self._user = _items(user)
        self._key = _items(key)
        self._ip = _items(ip)
        self._secret = secret

    def question(self, principal: str, client_id: str) -> bool:
        """Count a question and return whether it is allowed; True while Redis is unreachable.

        A user has one count over all clients. An API key or "anonymous" is shared, so each client id has its own count;
        a client id of "" is one count for the principal. All of them count for the API key too, or for all anonymous
        callers together.
        """
        if principal.startswith(USER):
            return self._counts(self._user, "user", principal)
        # In this order a question that is refused to one user is not counted for all users of its key.
        within = self._counts(self._user, "user", f"{principal}/{client_id}")
        return within and self._counts(self._key, "key", owner_of(principal))

    def address(self, ip: str) -> bool:
        """Count a request of an address and return whether it is allowed; True for "" or while Redis is unreachable."""
        return not ip or self._counts(self._ip, "ip", network(ip))

    def _counts(self, items: list[RateLimitItem], kind: str, name: str) -> bool:
        try:
            secret = keys_of(self._secret)[0]
            hashed = hmac.new(secret, name.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:24]
            # A question that a short window rejects is not counted in the longer ones.
            return all(self._limiter.hit(item, kind, hashed) for item in items)
        except StoreUnavailable:
            return True


class RedisWindows(Storage):
    """A storage for `limits` on the product's own Redis client: its pools, its timeouts, Sentinel and Cluster."""

    STORAGE_SCHEME = None

    def __init__(self, runner: ScriptRunner) -> None:
        super().__init__()
        self._runner = runner

    @property
    def base_exceptions(self) -> type[Exception]:
        return StoreUnavailable

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return int(self._runner.run([Call(script("sockets_count"), (_key(key),), (amount, expiry))])[0])

    def get(self, key: str) -> int:
        return int(self._runner.run([Call(None, ("GET", _key(key)))])[0] or 0)

    def get_expiry(self, key: str) -> float:
        """Return the time, in seconds since 1970, at which the window ends."""
        return time.time() + int(self._runner.run([Call(None, ("PTTL", _key(key)))])[0]) / 1000

    def check(self) -> bool:
        self._runner.ping()
        return True

    def reset(self) -> int | None:
        raise NotImplementedError("windows end by themselves")

    def clear(self, key: str) -> None:
        self._runner.run([Call(None, ("DEL", _key(key)))])


def _key(key: str) -> str:
    return f"{PREFIX}:{key}"


def _items(rates: str) -> list[RateLimitItem]:
    """Return the windows of a setting, the shortest first."""
    return sorted(parse_many(rates), key=RateLimitItem.get_expiry) if rates else []
