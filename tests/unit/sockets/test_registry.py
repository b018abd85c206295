"""The registry of a process's sockets, in cases that no real connection can produce."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from channels.sockets.registry import SocketRegistry
from channels.sockets.session import SocketSession
from channels.sockets.socket import Closed, Peer, Socket
from services.errors import StoreUnavailable
from services.identity.callers import Caller, Callers
from services.redis.store import ScriptRunner, connect
from services.sockets.store import OpenSocket, SocketStore, Verdict
from tests.support.servers.processes import free_port, wait_until
from tests.support.texts import KEYS

CALLER = Caller("key:0123456789abcdef")


class FakeSocket:
    """A socket that records its close codes; with `free` cleared `send` blocks, as for a client that does not read."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.connected_at = 1_767_225_600.0
        self.last_received = 0.0
        self.closing = False
        self.codes: list[int] = []
        self.free = threading.Event()
        self.free.set()

    def send(self, frame: Any) -> bool:
        return self.free.wait(30.0)

    def close(self, code: int, reason: str = "") -> None:
        self.codes.append(code)


class FakePeer:
    busy = False

    def opened(self) -> None: ...

    def received(self, text: str) -> None: ...

    def closed(self, closed: Closed) -> None: ...


class FakeStore:
    """A socket store that fails with `error`, or returns the verdicts it was given."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.verdicts: dict[str, Verdict] = {}
        self.time = 100.0
        self.renewals = 0
        self.left: list[str] = []

    def now(self) -> float:
        return self.time

    def register(self, entry: OpenSocket, *, after: float = 0.0) -> float:
        if self.error:
            raise self.error
        return max(self.time, after + 0.001)

    def renew(self, sockets: list[tuple[OpenSocket, float]]) -> dict[str, Verdict]:
        self.renewals += 1
        if self.error:
            raise self.error
        tokens = {entry.token for entry, _ in sockets}
        return {token: why for token, why in self.verdicts.items() if token in tokens}

    def leave(self, sockets: list[OpenSocket]) -> None:
        if self.error and sockets:
            raise self.error
        self.left += [entry.token for entry in sockets]


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def registry(store: FakeStore) -> Iterator[SocketRegistry]:
    registry = SocketRegistry(cast(SocketStore, store), texts=KEYS, renewal=0.02)
    registry.start()
    yield registry
    registry.stop()


def session_of(registry: SocketRegistry, token: str, *, enter: bool = True) -> tuple[SocketSession, FakeSocket]:
    """Return a session of client-a in the registry, and its socket."""
    socket = FakeSocket(token)

    def admit(session: SocketSession, caller: Caller) -> Peer:
        registry.enter(session, caller)
        return FakePeer()

    session = SocketSession(cast(Socket, socket), "chat", "client-a", callers=Callers("none"), admit=admit, texts=KEYS)
    registry.add(session)
    if enter:
        registry.enter(session, CALLER)
    return session, socket


def test_a_slow_reader_does_not_delay_renewals(registry: SocketRegistry, store: FakeStore) -> None:
    """The frame before the close waits for a client that reads nothing; renewals continue meanwhile."""
    _, stuck = session_of(registry, "stuck")
    stuck.free.clear()
    store.verdicts = {"stuck": "dismissed"}
    wait_until(lambda: store.renewals > 3)

    before = store.renewals
    wait_until(lambda: store.renewals > before + 3)

    assert stuck.codes == []
    stuck.free.set()
    wait_until(lambda: stuck.codes == [4410])


def test_a_dismissed_socket_is_closed_once(registry: SocketRegistry, store: FakeStore) -> None:
    """However often Redis returns the verdict, the socket is closed once."""
    _, socket = session_of(registry, "dismissed")
    store.verdicts = {"dismissed": "dismissed"}

    wait_until(lambda: socket.codes and store.renewals > 5)

    assert socket.codes == [4410]


def test_a_newer_socket_closes_the_older_without_redis(registry: SocketRegistry, store: FakeStore) -> None:
    """Also if the `since` of the older one came from a clock ahead of Redis's."""
    store.error, store.time = StoreUnavailable("away"), 500.0
    _, older = session_of(registry, "older")
    store.error, store.time = None, 100.0

    newer_session, newer = session_of(registry, "newer")

    assert (older.codes, newer.codes) == ([4409], [])
    store.error = StoreUnavailable("away")
    _, newest = session_of(registry, "newest")
    assert newer.codes == [4409]
    registry.remove(newer_session)
    _, last = session_of(registry, "last")
    assert (newest.codes, last.codes) == ([4409], [])


def test_a_socket_superseded_during_registration_is_closed(registry: SocketRegistry, store: FakeStore) -> None:
    """Of two sockets that open at once the one that is older in Redis closes, whichever registers first here."""
    store.time = 200.0
    _, newer = session_of(registry, "newer")
    store.register = lambda entry, *, after=0.0: 150.0  # type: ignore[method-assign]

    _, older = session_of(registry, "older")

    assert (older.codes, newer.codes) == ([4409], [])


@pytest.mark.parametrize("error", [StoreUnavailable("away"), RuntimeError("a mistake of ours")])
def test_renewals_continue_after_an_error(
    registry: SocketRegistry, store: FakeStore, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The Redis client logs an outage, the registry any other error; renewals continue, and no socket was closed."""
    _, socket = session_of(registry, "here")
    store.error = error
    before = store.renewals
    wait_until(lambda: store.renewals > before + 3)
    assert socket.codes == []

    store.error, store.verdicts = None, {"here": "superseded"}

    wait_until(lambda: 4409 in socket.codes)
    errors = [
        line for line in caplog.records if line.levelno >= logging.ERROR and line.name == SocketRegistry.__module__
    ]
    assert bool(errors) is isinstance(error, RuntimeError)


def test_a_socket_that_left_during_an_outage_is_dropped(registry: SocketRegistry, store: FakeStore) -> None:
    """An entry that could not be removed expires in Redis; it is not kept here, and renewals continue."""
    session, _ = session_of(registry, "gone")
    store.error = StoreUnavailable("away")
    registry.remove(session)
    before = store.renewals
    wait_until(lambda: store.renewals > before + 2)

    store.error = None
    other, _ = session_of(registry, "other")
    registry.remove(other)

    wait_until(lambda: store.left == ["other"])


def test_a_socket_that_opens_during_shutdown_is_closed(registry: SocketRegistry) -> None:
    """A socket that is added after `leave` is closed as soon as it opens."""
    registry.leave()

    _, socket = session_of(registry, "late", enter=False)

    assert socket.codes[0] == 1012


def test_the_last_sockets_are_removed_at_the_end(store: FakeStore) -> None:
    """`stop` also removes the sockets that ended after the last renewal."""
    registry = SocketRegistry(cast(SocketStore, store), texts=KEYS)
    session, _ = session_of(registry, "last")
    registry.remove(session)

    registry.stop()

    assert store.left == ["last"]


def test_the_registry_stops_without_redis() -> None:
    """Stopping raises nothing when Redis is down."""
    client = connect(f"redis://127.0.0.1:{free_port()}/0", pool_size=1)
    registry = SocketRegistry(SocketStore(ScriptRunner(client), replica="one", secret=b"fake"), texts=KEYS)
    session, _ = session_of(registry, "here")
    registry.remove(session)

    registry.stop()

    client.close()
