"""The access to Redis of all stores: calls in pipelines, one retry, one error class, one log line per outage.

Stores see no difference between a single server, a master named by Sentinels, and a Redis Cluster. Every exchange has a
timeout, and every script may run twice, so `ScriptRunner.run` retries once when a connection broke.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import redis

from config.addresses import parse_redis_url
from config.errors import SettingsError
from services.errors import StoreRefused, StoreUnavailable
from services.redis.calls import Call, Replies, Script, SingleServer, all_scripts, load_calls, script
from services.redis.client import FAILURES, BoundedPool, PoolCrowded, dialer
from services.redis.cluster import WHOLE_CLUSTER, ClusterClient
from services.redis.outages import Outages
from services.redis.routes import Resolver, Route, SentinelRoute, within

__all__ = ["Call", "Script", "ScriptRunner", "connect", "redis_errors", "script", "servers"]

#: Timeout in seconds of one wait: for a free connection, for connecting, for a reply.
SOCKET_TIMEOUT = 0.5
#: Timeout of an exchange, with all its waits, as a multiple of one wait: a callback needs two exchanges within 2 s.
EXCHANGE = 1.8
#: Redis refuses the password, the user, or one of its rights. The next attempt has the same answer.
REFUSALS = (
    redis.AuthenticationError,
    redis.exceptions.AuthenticationWrongNumberOfArgsError,
    redis.exceptions.NoPermissionError,
)


def connect(url: str, *, pool_size: int, timeout: float = SOCKET_TIMEOUT) -> redis.Redis:
    """Return a client that connects at first use, with `timeout` seconds for each wait.

    For a Redis Cluster it is a `ClusterClient`, with `pool_size` connections to each node.

    Raises:
        SettingsError: the address cannot be used.
    """
    try:
        address = parse_redis_url(url)
        resolver = Resolver()
        dial = dialer(address, timeout=timeout, resolver=resolver)
        if address.kind == "cluster":
            return ClusterClient(dial, address.hosts, pool_size=pool_size)
        if address.kind == "sentinel":
            asked = dialer(address, timeout=timeout, resolver=resolver, sentinels=True)
            words, majority = ("SENTINEL MASTER", address.service), len(address.hosts) // 2 + 1
            route: Route = SentinelRoute(address.service, partial(asked.ask_all, address.hosts, words, enough=majority))
        else:
            route = Route(*address.hosts)
    except ValueError as exc:
        raise SettingsError(f"REDIS_URL is wrong: expected {exc}") from exc
    return dial.client(route, pool_size)


def servers(client: redis.Redis) -> list[redis.Redis]:
    """Return a client for each server that holds keys, for commands that concern a server and not a key.

    Raises:
        StoreUnavailable: no node of a Redis Cluster answers.
    """
    with redis_errors():
        return client.servers() if isinstance(client, ClusterClient) else [client]


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn every error of Redis and its client into `StoreUnavailable`, or into its `StoreRefused`."""
    try:
        yield
    except redis.ResponseError as exc:
        # The client's message may contain the command with its values: keep only Redis's error code.
        raise _kind(exc)(f"redis refused: {type(exc).__name__} {str(exc).split(' ')[0]}") from None
    except FAILURES as exc:
        raise _kind(exc)(f"redis: {type(exc).__name__}: {exc}") from exc


def _kind(error: Exception) -> type[StoreUnavailable]:
    return StoreRefused if isinstance(error, REFUSALS) else StoreUnavailable


class ScriptRunner:
    """Sends calls together: one round trip for any number of calls and nodes."""

    def __init__(
        self, client: redis.Redis, *, beside: ScriptRunner | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the client; `beside` is another runner for the same Redis: both log an outage only once."""
        self._target = client if isinstance(client, ClusterClient) else SingleServer(client)
        pool = client.connection_pool
        self._timeout = pool.timeout if isinstance(pool, BoundedPool) else SOCKET_TIMEOUT
        self._clock = clock
        self._outages: Outages = beside._outages if beside else Outages(clock)

    def run(
        self,
        calls: Sequence[Call],
        *,
        attempts: int = 2,
        retry_seconds: float = SOCKET_TIMEOUT,
        mistyped: bool = False,
    ) -> list[Any]:
        """Return one reply per call; with `mistyped`, a WRONGTYPE error is returned instead of raised.

        Further `attempts` begin within `retry_seconds`, which is longer for a caller that can wait for a crowded pool.

        Raises:
            StoreUnavailable: Redis is away, or returned an error. Some calls may have been carried out.
        """
        replies = self._attempt(calls, attempts, retry_seconds)
        errors = self._note(replies, mistyped=mistyped)
        if error := next(filter(None, errors), None):
            raise error
        return replies.values

    def run_each(self, calls: Sequence[Call], *, attempts: int = 1, retry_seconds: float = SOCKET_TIMEOUT) -> list[Any]:
        """Return each call's reply or its own `StoreUnavailable`: no call fails because of another.

        `attempts` and `retry_seconds` are those of `run`.

        Raises:
            StoreUnavailable: no node replied. Some calls may have been carried out.
        """
        replies = self._attempt(calls, attempts, retry_seconds)
        errors = self._note(replies)
        if all(map(_is_lost, replies.values)) and (error := next(iter(errors), None)):
            raise error
        if not errors:
            return replies.values
        return [error or value for value, error in zip(replies.values, errors, strict=True)]

    def away(self, key: str) -> bool:
        """Tell whether a key's node failed within the last moments: it may lack writes that owners have shown."""
        return self._outages.concern(self._target.home(key))

    def home(self, key: str) -> str:
        """Return the name of a key's node if it is known; "" if there is only one node."""
        return self._target.home(key)

    def load(self) -> None:
        """Load every script on every node, so that no question pays for a script's first use.

        Raises:
            StoreUnavailable: a node is away; the others have the scripts.
        """
        self._everywhere(load_calls(Call(one, ()) for one in all_scripts()))

    def ping(self) -> None:
        """Raise `StoreUnavailable` unless Redis answers; of a Redis Cluster, every primary."""
        self._everywhere([Call(None, ("PING",))])

    def clock_skew(self) -> float:
        """Return the seconds by which Redis's clock is ahead of this machine's; of a Redis Cluster, the largest skew.

        Raises:
            StoreUnavailable: Redis is away.
        """
        before = time.time()
        times = self._everywhere([Call(None, ("TIME",))])
        here = (before + time.time()) / 2
        return max((float(seconds) + int(micros) / 1e6 - here for seconds, micros in times), key=abs)

    def _everywhere(self, calls: Iterable[Call]) -> list[Any]:
        with within(EXCHANGE * self._timeout):
            replies = self._target.everywhere(calls)
        if error := next(filter(None, self._note(replies)), None):
            raise error
        return replies.values

    def _attempt(self, calls: Sequence[Call], attempts: int, retry_seconds: float) -> Replies:
        """Send the calls; retry those whose connection broke, up to `attempts` and for `retry_seconds`.

        Those without a reply are sent again only where as much time is left as an exchange may take.
        """
        began, enough = self._clock(), EXCHANGE * self._timeout
        with within(EXCHANGE * self._timeout + retry_seconds - SOCKET_TIMEOUT):
            replies = self._target.exchange(calls)
            for _ in range(attempts - 1):
                left = began + retry_seconds - self._clock()
                retried = (redis.ConnectionError, redis.TimeoutError) if left >= enough else redis.ConnectionError
                broken = [i for i, value in enumerate(replies.values) if isinstance(value, retried)]
                if not broken or left < 0.0:
                    break
                again = self._target.exchange([calls[i] for i in broken])
                for i, *reply in zip(broken, *again, strict=True):
                    replies.values[i], replies.nodes[i] = reply
        return replies

    def _note(self, replies: Replies, *, mistyped: bool = False) -> list[StoreUnavailable | None]:
        """Return each reply's `StoreUnavailable`, None for an answer, [] if all are answers; log outages."""
        values = replies.values
        if not self._outages.away and not any(isinstance(value, Exception) for value in values):
            return []
        errors = [None if mistyped and _is_mistyped(value) else _ours(value) for value in values]
        states: dict[str, StoreUnavailable | None] = {}
        for value, node, error in zip(values, replies.nodes, errors, strict=True):
            if isinstance(value, PoolCrowded):
                self._outages.crowded()
                continue
            states.setdefault(node, None)
            # A node that answers may report that other nodes are missing.
            others = isinstance(value, redis.exceptions.ClusterDownError) and node not in self._outages.away
            if error:
                states[WHOLE_CLUSTER if others else node] = error
        self._outages.note(states, self._target.names)
        return errors


def _ours(value: Any) -> StoreUnavailable | None:
    """Return a reply's error as `StoreUnavailable`, None for an answer."""
    try:
        with redis_errors():
            if isinstance(value, Exception):
                raise value
    except StoreUnavailable as exc:
        return exc
    return None


def _is_lost(value: Any) -> bool:
    """Tell whether there was no reply at all, not even an error of Redis."""
    return isinstance(value, Exception) and not isinstance(value, redis.ResponseError)


def _is_mistyped(value: Any) -> bool:
    return isinstance(value, redis.ResponseError) and str(value).startswith("WRONGTYPE")
