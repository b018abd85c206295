"""What is sent to Redis, and the connections it goes by: they find their server, greet it, and wait for a bounded time.

Each new connection asks anew where its server is. The greeting is one round trip. Waits obey `redis_routes.within`.
"""

from __future__ import annotations

import hashlib
import math
import queue
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, DefaultParser, parse_url
from redis.retry import Retry

from config.addresses import RedisUrl
from services.redis.routes import Address, Resolver, Route, first_answers, left, within

#: Each room has its Lua steps beside its stores: `services/<room>/lua/<name>.lua`.
ROOMS = Path(__file__).parents[1]

#: Seconds after its last use for which a connection is taken to be open. To look costs 2 µs, and 87 µs under gevent,
#: whose poll() goes through the hub.
FRESH_SECONDS = 1.0
#: What a server raises that does not answer, or not in Redis's words.
FAILURES = (redis.RedisError, OSError, UnicodeDecodeError)

Words = tuple[str | int | float, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua step with the prelude before it."""

    name: str
    source: str
    sha: str


@cache
def script(name: str) -> Script:
    """Return the script `services/<room>/lua/<name>.lua`."""
    source = "".join(_files()[part].read_text("utf-8") for part in ("prelude", name))
    return Script(name, source, hashlib.sha1(source.encode()).hexdigest())


def all_scripts() -> list[Script]:
    return [script(name) for name in _files() if name != "prelude"]


@cache
def _files() -> dict[str, Path]:
    return {path.stem: path for path in sorted(ROOMS.glob("*/lua/*.lua"), key=lambda path: path.stem)}


class Call(NamedTuple):
    """One command to be sent with others: a script, or a plain command when `script` is None.

    All its keys are in one slot of a cluster; the first of them says in which. Of a plain command that is the word
    after its name.
    """

    script: Script | None
    keys: tuple[str | int | float, ...]
    args: Words = ()

    @property
    def words(self) -> Words:
        """What is sent. Made when it is: thousands of calls may wait together, and tuples cost memory."""
        if self.script is None:
            return (*self.keys, *self.args)
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    @property
    def key(self) -> str:
        """Says which node of a cluster it is for; "" for any."""
        if self.script:
            return str(self.keys[0])
        return str(self.words[1]) if len(self.keys) + len(self.args) > 1 else ""


class Replies(NamedTuple):
    """The replies to some calls, in their order: values or exceptions, and the nodes they came from."""

    values: list[Any]
    #: "" where there is only one.
    nodes: list[str]


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
            # After its last reply a connection has nothing to read but its end.
            return bool(self.can_read())
        except FAILURES:
            return True

    def on_connect_check_health(self, check_health: bool = True) -> None:
        """Log in and choose the database in one round trip; the library takes one for each."""
        super().on_connect_check_health(check_health)
        if self._greeting.words:
            words = self.pack_commands(self._greeting.words)  # type: ignore[no-untyped-call]
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
        self._used_at = time.monotonic()


class _Parser(DefaultParser):  # type: ignore[misc, valid-type]
    """Gives each read what is left of the budget: the parts of a slow reply share one limit."""

    def read_from_socket(self, timeout: Any = None, raise_on_timeout: bool = True) -> Any:
        return super().read_from_socket(left(self._socket_timeout), raise_on_timeout)


class TcpConnection(_Bounded, redis.Connection):
    """A connection to where its route leads."""

    def _connect(self) -> socket.socket:
        name, self.port = self._route.target(left(self._wait))
        self._generation = self._route.generation
        self.host, error = name, OSError(f"{name} has no address")
        for address in self._resolver.addresses(name, left(self._wait)):
            # The library resolves `host` without a limit; a number takes it no time.
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
    """A connection through a socket's file."""


class PoolCrowded(redis.ConnectionError):
    """All connections were in use for longer than one waits: that says nothing about Redis."""


class BoundedPool(redis.BlockingConnectionPool):
    """A pool whose wait for a free connection obeys the budget too.

    The library's own `get_connection` looks whether the server has hung up each time, and keeps its own metrics: 14 µs
    more, and 100 µs more under gevent, of a poll's 200.
    """

    def __init__(self, *, route: Route, timeout: float, **options: Any) -> None:
        self.route = route
        super().__init__(timeout=timeout, wait=timeout, route=route, **options)  # type: ignore[no-untyped-call]

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> redis.Connection:
        """Return a connection that is ready, waiting for one; raises `PoolCrowded` when none becomes free."""
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
        """End the connections that nobody uses: a thread that waits for a reply at this moment gets it."""
        self.disconnect(inuse_connections=False)


@dataclass(frozen=True)
class Dialer:
    """Makes the connections to servers that take the same login."""

    kind: type[_Bounded]
    timeout: float
    options: dict[str, Any] = field(repr=False)

    def client(self, route: Route, size: int) -> redis.Redis:
        pool = BoundedPool(
            route=route, timeout=self.timeout, max_connections=size, connection_class=self.kind, **self.options
        )
        return redis.Redis.from_pool(pool)

    def ask(self, address: Address, words: tuple[str, ...]) -> tuple[Address, Any]:
        """Ask one server by a connection of its own; return who answered, and what."""
        client = self.client(Route(address), 1)
        try:
            with within(2 * self.timeout):
                return address, client.execute_command(*words)  # type: ignore[no-untyped-call]
        finally:
            client.close()

    def ask_all(
        self, addresses: Sequence[Address], words: tuple[str, ...], *, enough: int
    ) -> list[tuple[Address, Any]]:
        """Ask servers at once, so that one that hangs holds nobody up; return the first `enough` answers, or fewer."""
        asks = [partial(self.ask, address, words) for address in addresses]
        return first_answers(asks, enough=enough, timeout=self.timeout)


def dialer(url: RedisUrl, *, timeout: float, resolver: Resolver, sentinels: bool = False) -> Dialer:
    """Return the dialer for a URL's servers, or for its `sentinels`.

    Raises:
        ValueError: the URL's options are not the client library's.
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
        # Each word of a longer greeting would be a round trip more for each new connection.
        "driver_info": None,
        "decode_responses": True,
        # A poll reads a bounded number of bytes: a text cut inside a character loses that character.
        "encoding_errors": "ignore",
    }
    try:
        kind(route=Route(), wait=timeout, **options)
    except (TypeError, redis.RedisError) as exc:
        raise ValueError(f"options of the client library after ?, but: {exc}") from exc
    return Dialer(kind, timeout, options)


def _given_options(url: RedisUrl) -> dict[str, Any]:
    """Return the options of a URL's query; how long things take is not for it to say."""
    given = parse_url(f"redis://host?{url.query}")  # type: ignore[no-untyped-call]
    ours = ("host", "timeout", "max_connections", "socket_timeout", "socket_connect_timeout", "connection_class")
    options = {name: value for name, value in given.items() if name not in ours}
    return {**options, "path": url.path} if url.kind == "socket" else options
