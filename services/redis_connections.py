"""How a connection to Redis finds its server, greets it and waits for it: nothing of it takes longer than it may.

Each new connection asks anew where its server is. The greeting is one round trip. Waits obey `redis_waits.within`.
"""

from __future__ import annotations

import math
import queue
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import redis
from hiredis import pack_command
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, DefaultParser, parse_url
from redis.retry import Retry

from config.redis_urls import RedisUrl
from services.redis_calls import Words
from services.redis_routes import Address, Resolver, Route
from services.redis_waits import first_answers, left, within

#: Seconds after its last use for which a connection is taken to be open: asking costs more than an exchange.
FRESH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a connection says first. Pools print what their connections are made with: this has a secret in it."""

    words: tuple[Words, ...] = field(default=(), repr=False)


class _Bounded(AbstractConnection):
    """What every kind of connection does."""

    def __init__(self, *, route: Route, resolver: Resolver, wait: float, greeting: Greeting, **options: Any) -> None:
        self._route = route
        self._resolver = resolver
        self._greeting = greeting
        self._generation = route.generation
        self._wait = wait
        self._used_at = -math.inf
        super().__init__(parser_class=_Parser, socket_timeout=wait, socket_connect_timeout=wait, **options)

    def connect(self) -> None:
        """Connect, unless this connection is open and leads where it should; pools call it before each use."""
        if self._sock:
            self._route.look()
            if self._generation == self._route.generation:
                return
            self.disconnect()
        super().connect()  # type: ignore[no-untyped-call]

    def make_ready(self) -> None:
        """Connect, and connect anew where the server has hung up since the last use."""
        self.connect()
        if time.monotonic() - self._used_at > FRESH_SECONDS and self._hung_up():
            self.disconnect()  # type: ignore[no-untyped-call]
            self.connect()

    def _hung_up(self) -> bool:
        try:
            # What was read to its end has nothing more to say.
            return bool(self.can_read())
        except (redis.RedisError, OSError):
            return True

    def on_connect_check_health(self, check_health: bool = True) -> None:
        """Log in and choose the database in one round trip; the library takes one for each."""
        super().on_connect_check_health(check_health)
        if self._greeting.words:
            words = self.pack_commands(self._greeting.words)
            self.send_packed_command(words, check_health=False)
            for _ in self._greeting.words:
                self.read_response()

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send all of it as one: its parts would each have the whole timeout."""
        if not self._sock:
            self.connect()
        if self._sock:
            self._sock.settimeout(left(self._wait))
        super().send_packed_command([b"".join(command)], check_health)  # type: ignore[no-untyped-call]

    # The library's own packing and reading cost more than the exchange itself: 8 and 5 microseconds a command.

    def pack_commands(self, commands: Iterable[Words]) -> list[bytes]:
        return [b"".join([pack_command(words) for words in commands])]  # type: ignore[arg-type]

    def read_response(self, disable_decoding: bool = False, **options: Any) -> Any:
        """Return the next reply; one that is an error is raised.

        Raises:
            redis.RedisError: there is none in time, or it is an error.
        """
        try:
            reply = self._parser.read_response(disable_decoding=disable_decoding)
        except BaseException as exc:
            self.disconnect()  # type: ignore[no-untyped-call]
            if isinstance(exc, OSError) or type(exc) is redis.ConnectionError:
                where = self._host_error()  # type: ignore[no-untyped-call]
                raise redis.ConnectionError(f"while reading from {where}: {exc}") from exc
            raise
        self._used_at = time.monotonic()
        if isinstance(reply, redis.ResponseError):
            raise reply
        return reply


class _Parser(DefaultParser):  # type: ignore[misc, valid-type]
    """Gives each read what is left of the budget: a reply that comes by drops is not waited for drop by drop."""

    def read_from_socket(self, timeout: Any = None, raise_on_timeout: bool = True) -> Any:
        return super().read_from_socket(left(self._socket_timeout), raise_on_timeout)


class TcpConnection(_Bounded, redis.Connection):
    """A connection to where its route leads."""

    def _connect(self) -> socket.socket:
        self.host, self.port = self._route.target(left(self._wait))
        self._generation = self._route.generation
        error: OSError = OSError(f"{self.host} has no address")
        for family, place in self._resolver.addresses(self.host, self.port, left(self._wait)):
            try:
                return self._dial(family, place)
            except OSError as exc:
                error = exc
        raise error

    def _dial(self, family: int, place: tuple[Any, ...]) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in self.socket_keepalive_options.items():
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
            sock.settimeout(left(self._wait))
            sock.connect(place)
        except BaseException:
            sock.close()
            raise
        return sock


class TlsConnection(redis.SSLConnection, TcpConnection):
    """The same over TLS; the certificate is checked against the route's name, not the resolved address."""


class SocketConnection(_Bounded, redis.UnixDomainSocketConnection):
    """A connection through a socket's file."""


class PoolCrowded(redis.ConnectionError):
    """All connections were in use for longer than one waits: that says nothing about Redis."""


class BoundedPool(redis.BlockingConnectionPool):
    """A pool whose wait for a free connection obeys the budget too."""

    def __init__(self, *, route: Route, timeout: float, **options: Any) -> None:
        self.route = route
        #: Seconds one wait may take: for a place here, for a connection, for a reply.
        self.patience = timeout
        super().__init__(timeout=timeout, wait=timeout, route=route, **options)  # type: ignore[no-untyped-call]

    @property
    def timeout(self) -> float:
        return left(self.patience)

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        """The library sets what it was given: `patience`."""

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> redis.Connection:
        """Return a connection that is ready, waiting for one; raises `PoolCrowded` when none becomes free."""
        self._checkpid()
        try:
            connection = self.pool.get(timeout=self.timeout)
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
        """End the connections that nobody uses: whoever waits for a reply at this moment gets it."""
        self.disconnect(inuse_connections=False)


@dataclass(frozen=True)
class Dialer:
    """Makes the connections to servers that take the same login."""

    kind: type[_Bounded]
    timeout: float
    options: dict[str, Any] = field(repr=False)

    def pool(self, route: Route, size: int) -> BoundedPool:
        return BoundedPool(
            route=route, timeout=self.timeout, max_connections=size, connection_class=self.kind, **self.options
        )

    def connection(self, route: Route) -> AbstractConnection:
        return self.kind(route=route, wait=self.timeout, **self.options)

    def ask(self, address: Address, words: Words) -> tuple[Address, Any]:
        """Ask one server by a connection of its own; return who answered, and what."""
        connection = self.connection(Route(address))
        try:
            with within(2 * self.timeout):
                connection.send_packed_command(connection.pack_command(*words))  # type: ignore[no-untyped-call]
                return address, connection.read_response()
        finally:
            connection.disconnect()  # type: ignore[no-untyped-call]

    def ask_all(self, addresses: Sequence[Address], words: Words, *, enough: int) -> list[tuple[Address, Any]]:
        """Ask servers at once, so that one that hangs holds nobody up; return the first `enough` answers, or fewer."""
        asks = [partial(self.ask, address, words) for address in addresses]
        return first_answers(asks, enough=enough, timeout=self.timeout)


def dialer(url: RedisUrl, *, timeout: float, resolver: Resolver, sentinels: bool = False) -> Dialer:
    """Return the dialer for a URL's servers, or for its `sentinels`.

    Raises:
        ValueError: the URL's options are not the client library's.
    """
    kind = SocketConnection if url.kind == "socket" else TlsConnection if url.tls else TcpConnection
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
        # Each word of a longer greeting would be a round trip more for whoever needs a new connection.
        "driver_info": None,
        "decode_responses": True,
        # A poll reads a bounded number of bytes: a text cut inside a character loses that character.
        "encoding_errors": "ignore",
    }
    made = Dialer(kind, timeout, options)
    try:
        made.connection(Route())
    except (TypeError, redis.RedisError) as exc:
        raise ValueError(f"options of the client library after ?, but: {exc}") from exc
    return made


def _given_options(url: RedisUrl) -> dict[str, Any]:
    """Return the options of a URL's query; how long things take is not for it to say."""
    given = parse_url(f"redis://host?{url.query}")  # type: ignore[no-untyped-call]
    ours = ("host", "timeout", "max_connections", "socket_timeout", "socket_connect_timeout", "connection_class")
    options = {name: value for name, value in given.items() if name not in ours}
    return {**options, "path": url.path} if url.kind == "socket" else options
