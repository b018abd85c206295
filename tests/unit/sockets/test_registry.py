"""The upkeep of a process's sockets, where no real connection can show it."""

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

CALLER = Caller("key:0123456789abcdef")


class FakeSocket:
    """A socket that notes what is done to it; `stuck` makes a sender wait, as a client that does not read."""

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
    """A registry that is away, wrong, or says what it is told."""

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
    registry = SocketRegistry(cast(SocketStore, store), sentence=str, renewal=0.02)
    registry.start()
    yield registry
    registry.stop()


def visit_of(registry: SocketRegistry, token: str, *, enter: bool = True) -> tuple[SocketSession, FakeSocket]:
    """Return a visit of the one client, known to the registry."""
    socket = FakeSocket(token)

    def admit(visit: SocketSession, caller: Caller) -> Peer:
        registry.enter(visit, caller)
        return FakePeer()

    visit = SocketSession(cast(Socket, socket), "chat", "client-a", callers=Callers("none"), admit=admit, sentence=str)
    registry.add(visit)
    if enter:
        registry.enter(visit, CALLER)
    return visit, socket


def test_a_slow_reader_holds_up_nobody(registry: SocketRegistry, store: FakeStore) -> None:
    """The goodbye to a client that reads nothing is waited for by nobody else: renewals go on."""
    _, stuck = visit_of(registry, "stuck")
    stuck.free.clear()
    store.verdicts = {"stuck": "dismissed"}
    wait_until(lambda: store.renewals > 3)

    before = store.renewals
    wait_until(lambda: store.renewals > before + 3)

    assert stuck.codes == []
    stuck.free.set()
    wait_until(lambda: stuck.codes == [4410])


def test_a_goodbye_is_said_once(registry: SocketRegistry, store: FakeStore) -> None:
    """However often Redis says so, and whoever says it too."""
    _, socket = visit_of(registry, "dismissed")
    store.verdicts = {"dismissed": "dismissed"}

    wait_until(lambda: socket.codes and store.renewals > 5)

    assert socket.codes == [4410]


def test_the_newer_one_wins_without_redis(registry: SocketRegistry, store: FakeStore) -> None:
    """Also when the older one's place came from a clock ahead of Redis's."""
    store.error, store.time = StoreUnavailable("away"), 500.0
    _, older = visit_of(registry, "older")
    store.error, store.time = None, 100.0

    newer_visit, newer = visit_of(registry, "newer")

    assert (older.codes, newer.codes) == ([4409], [])
    store.error = StoreUnavailable("away")
    _, newest = visit_of(registry, "newest")
    assert newer.codes == [4409]
    registry.remove(newer_visit)
    _, last = visit_of(registry, "last")
    assert (newest.codes, last.codes) == ([4409], [])


def test_who_was_overtaken_while_it_registered_gives_way(registry: SocketRegistry, store: FakeStore) -> None:
    """Of two that open at once, the one that Redis holds for the older closes, whoever comes home first."""
    store.time = 200.0
    _, newer = visit_of(registry, "newer")
    store.register = lambda entry, *, after=0.0: 150.0  # type: ignore[method-assign]

    _, older = visit_of(registry, "older")

    assert (older.codes, newer.codes) == ([4409], [])


@pytest.mark.parametrize("error", [StoreUnavailable("away"), RuntimeError("a mistake of ours")])
def test_the_keeper_outlives_what_goes_wrong(
    registry: SocketRegistry, store: FakeStore, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage is told by who speaks to Redis, anything else here; afterwards it goes on, and nobody was closed."""
    _, socket = visit_of(registry, "here")
    store.error = error
    before = store.renewals
    wait_until(lambda: store.renewals > before + 3)
    assert socket.codes == []

    store.error, store.verdicts = None, {"here": "superseded"}

    wait_until(lambda: 4409 in socket.codes)
    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert bool(told) is isinstance(error, RuntimeError)


def test_who_left_during_an_outage_is_not_kept_for_ever(registry: SocketRegistry, store: FakeStore) -> None:
    """What Redis could not be told ends there by itself; renewals are not held up by it."""
    visit, _ = visit_of(registry, "gone")
    store.error = StoreUnavailable("away")
    registry.remove(visit)
    before = store.renewals
    wait_until(lambda: store.renewals > before + 2)

    store.error = None
    other, _ = visit_of(registry, "other")
    registry.remove(other)

    wait_until(lambda: store.left == ["other"])


def test_a_socket_that_opens_while_all_leave_is_told_so(registry: SocketRegistry) -> None:
    """Who came between the last check and the leaving is not forgotten."""
    registry.leave()

    _, socket = visit_of(registry, "late", enter=False)

    assert socket.codes[0] == 1012


def test_the_last_ones_are_taken_out_at_the_end(store: FakeStore) -> None:
    """Also those that left when the keeper looked for the last time."""
    registry = SocketRegistry(cast(SocketStore, store), sentence=str)
    visit, _ = visit_of(registry, "last")
    registry.remove(visit)

    registry.stop()

    assert store.left == ["last"]


def test_an_end_without_redis_is_an_end() -> None:
    """Stopping needs nobody."""
    client = connect(f"redis://127.0.0.1:{free_port()}/0", pool_size=1)
    registry = SocketRegistry(SocketStore(ScriptRunner(client), replica="one", secret=b"fake"), sentence=str)
    visit, _ = visit_of(registry, "here")
    registry.remove(visit)

    registry.stop()

    client.close()
