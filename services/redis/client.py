"""The connections to Redis, and their pools. Every wait has a timeout.

Each new connection looks its server up again, and sends login and database in one round trip. Timeouts obey the budget
of `routes.within`.
"""

from __future__ import annotations

import math
import queue
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, DefaultParser, parse_url
from redis.retry import Retry

from config.addresses import RedisUrl
from services.redis.routes import MOMENT, Address, Resolver, Route, first_answers, left, within

#: Seconds after its last use for which a connection is assumed to be open. A check costs 2 µs, and 87 µs under gevent,
#: whose poll() goes through the hub.
FRESH_SECONDS = 1.0
#: Errors raised if a server does not answer, or not in Redis's protocol.
FAILURES = (redis.RedisError, OSError, UnicodeDecodeError)

Words = tuple[str | int | float, ...]


@dataclass(frozen=True, slots=True)
class Greeting:
    """The first commands of a connection. Hidden from repr: pools print it, and it contains a password."""

    words: tuple[Words, ...] = field(default=(), repr=False)


class _Bounded(AbstractConnection):
    """The common part of all kinds of connections."""

    def __init__(self, *, route: Route, resolver: Resolver, wait: float, greeting: Greeting, **options: Any) -> None:
        self._route = route
        self._resolver = resolver
        self._greeting = greeting
        self._generation = route.generation
        self._wait = wait
        self._used_at = -math.inf
        super().__init__(parser_class=_Parser, socket_timeout=wait, socket_connect_timeout=wait, **options)

    def connect(self) -> None:
        """Connect, unless the connection is open and its route unchanged; pools call it before each use."""
        if self._sock:
            self._route.look()
            if self._generation == self._route.generation:
                return
            self.disconnect()
        super().connect()  # type: ignore[no-untyped-call]

    def make_ready(self) -> None:
        """Connect; connect again if the server closed the connection since its last use."""
        self.connect()
        if time.monotonic() - self._used_at > FRESH_SECONDS and self._hung_up():
            self.disconnect()  # type: ignore[no-untyped-call]
            self.connect()

    def _hung_up(self) -> bool:
        try:
            # Between requests nothing but the end of the connection can be readable.
            return bool(self.can_read())
        except FAILURES:
            return True

    def on_connect_check_health(self, check_health: bool = True) -> None:
        """Log in and select the database in one round trip, where the library takes one for each."""
        super().on_connect_check_health(check_health)
        if self._greeting.words:
            words = self.pack_commands(self._greeting.words)  # type: ignore[no-untyped-call]
            self.send_packed_command(words, check_health=False)
            for _ in self._greeting.words:
                self.read_response()

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send the command in one piece: each of several pieces would get the full timeout."""
        if not self._sock:
            self.connect()
        if self._sock:
            self._sock.settimeout(left(self._wait))
        super().send_packed_command([b"".join(command)], check_health)  # type: ignore[no-untyped-call]
        self._used_at = time.monotonic()


class _Parser(DefaultParser):  # type: ignore[misc, valid-type]
    """Limits each read to the rest of the budget, which all parts of a slow reply share."""

    def read_from_socket(self, timeout: Any = None, raise_on_timeout: bool = True) -> Any:
        try:
            return super().read_from_socket(left(self._socket_timeout), raise_on_timeout)
        except redis.TimeoutError:
            # The reply may have come while this process was stopped.
            return super().read_from_socket(MOMENT, raise_on_timeout)


class TcpConnection(_Bounded, redis.Connection):
    """A TCP connection to the address of its route."""

    def _connect(self) -> socket.socket:
        name, self.port = self._route.target(left(self._wait))
        self._generation = self._route.generation
        self.host, error = name, OSError(f"{name} has no address")
        for address in self._resolver.addresses(name, left(self._wait)):
            # The library resolves `host` without a timeout; an IP address needs no lookup.
            self.host, self.socket_connect_timeout = address, left(self._wait)
            try:
                return cast(socket.socket, super()._connect())  # type: ignore[no-untyped-call]
            except OSError as exc:
                error = exc
            finally:
                self.host = name
        raise error


class TlsConnection(redis.SSLConnection, TcpConnection):
    """The same over TLS; the certificate is checked against the route's name, not the resolved address."""


class SocketConnection(_Bounded, redis.UnixDomainSocketConnection):
    """A connection through a Unix socket."""


class PoolCrowded(redis.ConnectionError):
    """All connections of the pool stayed in use for the full timeout; no sign of a Redis outage."""


class BoundedPool(redis.BlockingConnectionPool):
    """A pool whose wait for a free connection obeys the budget too.

    The library's own `get_connection` checks each time if the server closed the connection, and keeps metrics: 14 µs
    more, and 100 µs more under gevent, of a poll's 200.
    """

    def __init__(self, *, route: Route, timeout: float, **options: Any) -> None:
        self.route = route
        super().__init__(timeout=timeout, wait=timeout, route=route, **options)  # type: ignore[no-untyped-call]

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> redis.Connection:
        """Return an open connection, waiting for a free one; raises `PoolCrowded` after the timeout."""
        self._checkpid()
        try:
            connection = self.pool.get(timeout=left(self.timeout))
        except queue.Empty as exc:
            raise PoolCrowded("all connections to redis are in use") from exc
        try:
            connection = connection or self.make_connection()  # type: ignore[no-untyped-call]
            connection.make_ready()
        except BaseException:
            self.pool.put_nowait(connection)
            raise
        return cast(redis.Connection, connection)

    def close(self) -> None:
        """Close the idle connections; a thread that waits for a reply still gets it."""
        self.disconnect(inuse_connections=False)


@dataclass(frozen=True)
class Dialer:
    """Makes the connections to servers that share a login."""

    kind: type[_Bounded]
    timeout: float
    options: dict[str, Any] = field(repr=False)

    def client(self, route: Route, size: int) -> redis.Redis:
        pool = BoundedPool(
            route=route, timeout=self.timeout, max_connections=size, connection_class=self.kind, **self.options
        )
        return redis.Redis.from_pool(pool)

    def ask(self, address: Address, words: tuple[str, ...]) -> tuple[Address, Any]:
        """Send one command to a server over a new connection; return the server and its reply."""
        client = self.client(Route(address), 1)
        try:
            with within(2 * self.timeout):
                return address, client.execute_command(*words)  # type: ignore[no-untyped-call]
        finally:
            client.close()

    def ask_all(
        self, addresses: Sequence[Address], words: tuple[str, ...], *, enough: int
    ) -> list[tuple[Address, Any]]:
        """Send one command to all servers in parallel; return the first `enough` replies, or fewer."""
        requests = [partial(self.ask, address, words) for address in addresses]
        return first_answers(requests, enough=enough, timeout=self.timeout)


def dialer(url: RedisUrl, *, timeout: float, resolver: Resolver, sentinels: bool = False) -> Dialer:
    """Return the dialer for the servers of a URL, or for its Sentinels if `sentinels`.

    Raises:
        ValueError: the client library does not know the URL's options.
    """
    kind: type[_Bounded] = SocketConnection if url.kind == "socket" else TlsConnection if url.tls else TcpConnection
    user, password = (url.sentinel_username, url.sentinel_password) if sentinels else (url.username, url.password)
    greeting: list[Words] = [("AUTH", *filter(None, (user, password)))] if password else []
    if url.db and not sentinels:
        greeting.append(("SELECT", url.db))
    options = {
        **_given_options(url),
        "resolver": resolver,
        "greeting": Greeting(tuple(greeting)),
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        # The library would send it in one more round trip for each new connection.
        "driver_info": None,
        "decode_responses": True,
        # A poll reads a bounded number of bytes: a character cut at their end is dropped.
        "encoding_errors": "ignore",
    }
    try:
        kind(route=Route(), wait=timeout, **options)
    except (TypeError, redis.RedisError) as exc:
        raise ValueError(f"options of the client library after ?, but: {exc}") from exc
    return Dialer(kind, timeout, options)


def _given_options(url: RedisUrl) -> dict[str, Any]:
    """Return the options of a URL's query, without the timeouts, which the settings define."""
    given = parse_url(f"redis://host?{url.query}")  # type: ignore[no-untyped-call]
    ours = ("host", "timeout", "max_connections", "socket_timeout", "socket_connect_timeout", "connection_class")
    options = {name: value for name, value in given.items() if name not in ours}
    return {**options, "path": url.path} if url.kind == "socket" else options
