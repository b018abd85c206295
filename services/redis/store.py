"""The one way to Redis for all stores: calls in pipelines, one retry of ours, our error, one log line per outage.

A server, a master that Sentinels name, or a Cluster: stores see no difference. Every exchange has an end by the clock,
and every script may be run twice, so `ScriptRunner.run` does it once more when a connection broke.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import redis

from config.addresses import parse_redis_url
from services.errors import SettingsError, StoreUnavailable
from services.redis.client import (
    FAILURES,
    BoundedPool,
    Call,
    PoolCrowded,
    Replies,
    Script,
    all_scripts,
    dialer,
    script,
)
from services.redis.cluster import WHOLE_CLUSTER, ClusterClient, Pipeline, load_calls
from services.redis.outages import Outages
from services.redis.routes import Resolver, Route, SentinelRoute, within

__all__ = ["Call", "Script", "ScriptRunner", "connect", "redis_errors", "script", "servers"]

#: Seconds one wait for Redis may take: for a place in the pool, a connection, a reply.
SOCKET_TIMEOUT = 0.5
#: How much longer than one wait a whole exchange may take: a callback needs two, and has two seconds.
WHOLE = 1.8


def connect(url: str, *, pool_size: int, timeout: float = SOCKET_TIMEOUT) -> redis.Redis:
    """Return a client that connects when first used and waits at most `timeout` seconds for anything.

    Of a cluster it is a `ClusterClient`, with `pool_size` connections to each node.

    Raises:
        SettingsError: the address cannot be used.
    """
    try:
        place = parse_redis_url(url)
        resolver = Resolver()
        dial = dialer(place, timeout=timeout, resolver=resolver)
        if place.kind == "cluster":
            return ClusterClient(dial, place.hosts, pool_size=pool_size)
        if place.kind == "sentinel":
            asked = dialer(place, timeout=timeout, resolver=resolver, sentinels=True)
            words, majority = ("SENTINEL MASTER", place.service), len(place.hosts) // 2 + 1
            route: Route = SentinelRoute(place.service, partial(asked.ask_all, place.hosts, words, enough=majority))
        else:
            route = Route(*place.hosts)
    except ValueError as exc:
        raise SettingsError(f"REDIS_URL is wrong: expected {exc}") from exc
    return dial.client(route, pool_size)


def servers(client: redis.Redis) -> list[redis.Redis]:
    """Return a client of each server that holds keys, for what is asked of servers and not of keys.

    Raises:
        StoreUnavailable: no node of a cluster answers.
    """
    with redis_errors():
        return client.servers() if isinstance(client, ClusterClient) else [client]


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn whatever Redis or its client raises into `StoreUnavailable`."""
    try:
        yield
    except redis.ResponseError as exc:
        # The client may put the refused command into the message, values included: only Redis's own word goes on.
        raise StoreUnavailable(f"redis refused: {type(exc).__name__} {str(exc).split(' ')[0]}") from None
    except FAILURES as exc:
        raise StoreUnavailable(f"redis: {type(exc).__name__}: {exc}") from exc


class ServerLine:
    """The way to one server; a `ClusterClient` has the same methods. What fails is an exception among the replies."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._pool = client.connection_pool

    def exchange(self, calls: Sequence[Call]) -> Replies:
        values = self._pipeline(calls)
        unknown = [i for i, value in enumerate(values) if isinstance(value, redis.exceptions.NoScriptError)]
        if unknown:
            loads = load_calls(calls[i] for i in unknown)
            again = self._pipeline([*loads, *(calls[i] for i in unknown)])[len(loads) :]
            for i, value in zip(unknown, again, strict=True):
                values[i] = value
        if isinstance(self._pool, BoundedPool) and any(isinstance(v, redis.exceptions.ReadOnlyError) for v in values):
            # This is no master any more: the next connections find the one the name or the Sentinels lead to now.
            self._pool.route.renew()
        return Replies(values, [""] * len(values))

    def everywhere(self, calls: Iterable[Call]) -> Replies:
        return self.exchange(list(calls))

    def names(self) -> Collection[str]:
        return ("",)

    def home(self, key: str) -> str:
        return ""

    def _pipeline(self, calls: Sequence[Call]) -> list[Any]:
        pipeline = Pipeline(self._client, calls)
        try:
            pipeline.send()
            pipeline.read()
        finally:
            pipeline.close()
        return pipeline.replies


class ScriptRunner:
    """Sends calls together: one round trip for any number of them, however many nodes have a part in it."""

    def __init__(
        self, client: redis.Redis, *, beside: ScriptRunner | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the client; `beside` is another runner to the same Redis: an outage of both is told once."""
        self._line = client if isinstance(client, ClusterClient) else ServerLine(client)
        pool = client.connection_pool
        self._patience = pool.timeout if isinstance(pool, BoundedPool) else SOCKET_TIMEOUT
        self._clock = clock
        self._outages: Outages = beside._outages if beside else Outages(clock)

    def run(self, calls: Sequence[Call], *, attempts: int = 2, mistyped: bool = False) -> list[Any]:
        """Return one reply per call; with `mistyped` a key of another type than asked for reads as an error object.

        Raises:
            StoreUnavailable: Redis is away, or refused one of the calls. Some may have been carried out.
        """
        replies = self._attempt(calls, attempts)
        errors = self._note(replies, mistyped=mistyped)
        if error := next(filter(None, errors), None):
            raise error
        return replies.values

    def run_each(self, calls: Sequence[Call], *, attempts: int = 1, insist: float = SOCKET_TIMEOUT) -> list[Any]:
        """Return for each call its reply, or the `StoreUnavailable` that befell it: none fails because of another.

        Of the `attempts` another one begins within `insist` seconds: more where a crowd at the pool is waited out.

        Raises:
            StoreUnavailable: nothing came back from anywhere. Some may have been carried out.
        """
        replies = self._attempt(calls, attempts, insist)
        errors = self._note(replies)
        if all(map(_is_lost, replies.values)) and (error := next(iter(errors), None)):
            raise error
        if not errors:
            return replies.values
        return [error or value for value, error in zip(replies.values, errors, strict=True)]

    def away(self, key: str) -> bool:
        """Tell whether a key's node failed within the last moments: it may be behind what owners have shown."""
        return self._outages.concern(self._line.home(key))

    def home(self, key: str) -> str:
        """Return the name of a key's node, as far as it is known; "" where there is only one."""
        return self._line.home(key)

    def load(self) -> None:
        """Load every script, on every node, so that no question pays for the first use of one.

        Raises:
            StoreUnavailable: a node is away; the others have them.
        """
        self._everywhere(load_calls(Call(one, ()) for one in all_scripts()))

    def ping(self) -> None:
        """Raise `StoreUnavailable` unless Redis answers; of a cluster, every node that has keys."""
        self._everywhere([Call(None, ("PING",))])

    def clock_skew(self) -> float:
        """Return the seconds by which Redis's clock is ahead of this machine's; of a cluster, the one furthest off.

        Raises:
            StoreUnavailable: Redis is away.
        """
        before = time.time()
        times = self._everywhere([Call(None, ("TIME",))])
        here = (before + time.time()) / 2
        return max((float(seconds) + int(micros) / 1e6 - here for seconds, micros in times), key=abs)

    def _everywhere(self, calls: Iterable[Call]) -> list[Any]:
        with within(WHOLE * self._patience):
            replies = self._line.everywhere(calls)
        if error := next(filter(None, self._note(replies)), None):
            raise error
        return replies.values

    def _attempt(self, calls: Sequence[Call], attempts: int, insist: float = SOCKET_TIMEOUT) -> Replies:
        """Send the calls; those whose connection broke once more, while there is time and `attempts` are left."""
        began = self._clock()
        with within(WHOLE * self._patience + insist - SOCKET_TIMEOUT):
            replies = self._line.exchange(calls)
            for _ in range(attempts - 1):
                broken = [i for i, value in enumerate(replies.values) if isinstance(value, redis.ConnectionError)]
                if not broken or self._clock() - began > insist:
                    break
                again = self._line.exchange([calls[i] for i in broken])
                for i, *reply in zip(broken, *again, strict=True):
                    replies.values[i], replies.nodes[i] = reply
        return replies

    def _note(self, replies: Replies, *, mistyped: bool = False) -> list[StoreUnavailable | None]:
        """Return each reply's error as ours, None for an answer; [] where all are answers. Have outages logged."""
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
            # A node that is well may say that others are missing.
            others = isinstance(value, redis.exceptions.ClusterDownError) and node not in self._outages.away
            if error:
                states[WHOLE_CLUSTER if others else node] = error
        self._outages.note(states, self._line.names)
        return errors


def _ours(value: Any) -> StoreUnavailable | None:
    """Return a reply's error as ours, None for an answer."""
    try:
        with redis_errors():
            if isinstance(value, Exception):
                raise value
    except StoreUnavailable as exc:
        return exc
    return None


def _is_lost(value: Any) -> bool:
    """Tell whether there was no answer at all, not even a refusal."""
    return isinstance(value, Exception) and not isinstance(value, redis.ResponseError)


def _is_mistyped(value: Any) -> bool:
    return isinstance(value, redis.ResponseError) and str(value).startswith("WRONGTYPE")
