"""Callbacks and other requests on one connection of the worker: each answered once, in order, by whoever should."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import gevent
import pytest
from gevent import socket
from gunicorn.config import Config

from server.connection import LanedConnection
from server.connection_slots import ConnectionLimits, ConnectionSlots
from server.lane import CallbackLane
from server.sockets import PacedSocket
from server.worker import DrainingWorker
from services import metrics
from tests.unit.server.test_gunicorn_worker_serving import App, Client, listening, made, serving, until

pytest.importorskip("gunicorn_h1c", reason="the lane needs gunicorn's parser in C")

#: Seconds after which a connection without its next request is ended, where a test waits for that.
IDLE = 0.3

_LENGTH = re.compile(rb"Content-Length: (\d+)")


def callback(number: int) -> bytes:
    body = b"callback %d" % number
    return b"POST /wechat/callback HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


OTHER = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Endpoint(App):
    """An app with callbacks, answered with what was sent; by WSGI it says its name."""

    def __init__(self) -> None:
        super().__init__("old")
        self.begins_anew()
        self.extensions["wechatlaibao.callbacks"] = SimpleNamespace(path="/wechat/callback", reply=self._reply)

    def begins_anew(self) -> None:
        self.name, self.much, self.fails = "old", b"", False
        for event in (self.asked, self.may_answer):
            event.clear()

    def _reply(self, path: str, query: str, body: bytes) -> tuple[int, str, bytes]:
        if self.fails:
            raise OSError("a bug")
        if query == "slow":
            self.asked.set()
            self.may_answer.wait(20)
        return 200, "text/plain", self.much or b"lane " + body


class Reader(Client):
    """A connection whose replies are read one by one."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(listener)
        self._left = b""

    def next(self) -> tuple[bytes, bytes]:
        """Return the head and the body of the next reply."""
        while b"\r\n\r\n" not in self._left:
            self._more()
        head, _, rest = self._left.partition(b"\r\n\r\n")
        found = _LENGTH.search(head)
        assert found, head
        while len(rest) < int(found[1]):
            self._more()
            rest = self._left.partition(b"\r\n\r\n")[2]
        self._left = rest[int(found[1]) :]
        return head, rest[: int(found[1])]

    def _more(self) -> None:
        data = self.socket.recv(65536)
        assert data, "the connection ended"
        self._left += data


class Stand(NamedTuple):
    """A worker that serves an app on a socket."""

    listener: socket.socket
    endpoint: Endpoint
    worker: DrainingWorker


@contextmanager
def standing() -> Iterator[Stand]:
    """Serve; the worker is told to leave at the end, where the test has not done so."""
    with contextmanager(listening)() as listener:
        stand = Stand(listener, endpoint := Endpoint(), made(listener, app=endpoint, workers=2))
        with serving(stand.worker):
            yield stand
            endpoint.drained.set()
            endpoint.may_answer.set()
            stand.worker.handle_exit(signal.SIGTERM, None)


@pytest.fixture(scope="module")
def shared() -> Iterator[Stand]:
    """One worker for all tests that leave it serving: its end takes a second."""
    with standing() as stand:
        yield stand


@pytest.fixture
def leaving() -> Iterator[Stand]:
    """A worker of the test's own, for those that have it leave."""
    with standing() as stand:
        yield stand


@pytest.fixture
def listener(shared: Stand) -> socket.socket:
    return shared.listener


@pytest.fixture
def endpoint(shared: Stand) -> Endpoint:
    shared.endpoint.begins_anew()
    return shared.endpoint


@pytest.fixture
def worker(shared: Stand, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> DrainingWorker:
    monkeypatch.setattr(shared.worker, "_idle_timeout", shared.worker.cfg.keepalive)
    return shared.worker


def test_requests_of_both_kinds_share_a_connection(worker: DrainingWorker, listener: socket.socket) -> None:
    """Each gets its own reply, whichever way it goes."""
    with Reader(listener) as client:
        for number in range(3):
            client.socket.sendall(callback(number))
            assert client.next()[1] == b"lane callback %d" % number
            client.socket.sendall(OTHER)
            assert client.next()[1] == b"old"


def test_with_the_switch_off_gunicorn_serves_callbacks(
    worker: DrainingWorker, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker without the fast path answers the same requests by WSGI."""
    assert worker._callback_lane()
    monkeypatch.setattr("server.lane.ENABLED", False)
    assert worker._callback_lane() is None
    monkeypatch.setattr(worker, "_lane", None)

    with Reader(listener) as client:
        client.socket.sendall(callback(1))
        assert client.next()[1] == b"old"


@pytest.mark.parametrize("size", [1, 7, 60, 100, 10_000])
def test_requests_may_come_in_any_pieces(worker: DrainingWorker, listener: socket.socket, size: int) -> None:
    """Cut in the middle, or several at once: what the lane does not take whole, gunicorn puts together."""
    sent = b"".join((callback(1), OTHER, callback(2), callback(3), OTHER))
    with Reader(listener) as client:
        for start in range(0, len(sent), size):
            client.socket.sendall(sent[start : start + size])
            gevent.sleep(0)
        bodies = [client.next()[1] for _ in range(5)]

    # By WSGI this app says its name, whatever it is asked.
    lanes = [b"lane callback 1", b"old", b"lane callback 2", b"lane callback 3", b"old"]
    assert [body for body, lane in zip(bodies, lanes, strict=True) if body not in (lane, b"old")] == []


def test_a_large_callback_is_gunicorns(worker: DrainingWorker, listener: socket.socket) -> None:
    """One that does not come in one piece goes the way of all requests, and the next one has the lane again."""
    large = b"POST /wechat/callback HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
    with Reader(listener) as client:
        client.socket.sendall(large)
        assert client.next()[1] == b"old"
        client.socket.sendall(callback(1))
        assert client.next()[1] == b"lane callback 1"


def test_while_it_leaves_a_callbacks_reply_ends_its_connection(leaving: Stand) -> None:
    """The client comes back to another replica; a promise made before is kept once more."""
    listener, endpoint, worker = leaving
    with Reader(listener) as kept:
        kept.socket.sendall(callback(1))
        assert b"Connection: keep-alive" in kept.next()[0]
        worker.handle_exit(signal.SIGTERM, None)
        assert endpoint.draining.wait(10)

        kept.socket.sendall(callback(2))
        assert b"Connection: close" in kept.next()[0]
        assert kept.ended()


def test_a_new_connection_is_answered_after_the_drain_too() -> None:
    """Until the listener is closed it accepts connections; one that were closed unread would be reset."""
    asked: list[str] = []

    def handle(name: Any, request: Any, client: Any, addr: Any) -> None:
        asked.append(request.path)
        raise StopIteration

    ended = SimpleNamespace(
        cfg=Config(), keeps=False, alive=False, timeout_ctx=lambda: gevent.Timeout(10, False), handle_request=handle
    )
    near, far = socket.socketpair()
    slots = ConnectionSlots(ConnectionLimits(), slots=10)
    lane = CallbackLane(lambda path, query, body: None, "/wechat/callback")
    far.sendall(callback(1))

    LanedConnection(ended, lane, slots, near, ("127.0.0.1", 1)).serve(None)

    assert asked == ["/wechat/callback"]
    far.close()


def test_a_callback_in_a_handler_gets_its_reply_when_the_worker_ends(leaving: Stand) -> None:
    """Idle connections are cut after the drain, this one is not idle."""
    listener, endpoint, worker = leaving
    with Reader(listener) as client, Reader(listener) as idle:
        client.socket.sendall(callback(1).replace(b"callback ", b"callback?slow ", 1))
        idle.socket.sendall(callback(2))
        idle.next()
        assert endpoint.asked.wait(10)
        endpoint.drained.set()
        worker.handle_exit(signal.SIGTERM, None)
        assert idle.ended()

        endpoint.may_answer.set()
        assert client.next()[1] == b"lane callback 1"


def test_an_idle_connection_is_ended(worker: DrainingWorker, listener: socket.socket) -> None:
    """After the time that gunicorn keeps one for the next request."""
    worker._idle_timeout = IDLE
    with Reader(listener) as client:
        client.socket.sendall(callback(1))
        client.next()
        assert client.ended()


@pytest.mark.parametrize("request_", [callback(1), OTHER], ids=["lane", "WSGI"])
def test_a_reply_that_nobody_takes_ends_its_connection(
    worker: DrainingWorker,
    listener: socket.socket,
    endpoint: Endpoint,
    request_: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A client that reads nothing holds its slot for `send_seconds`; one that reads slowly gets all of it."""
    monkeypatch.setattr(PacedSocket, "send_seconds", 1.0)
    endpoint.much = b"x" * 5_000_000
    endpoint.name = endpoint.much.decode()
    stalled = metrics.CONNECTIONS_REFUSED.labels("stalled")
    before = stalled._value.get()
    with Reader(listener) as client, Reader(listener) as slow:
        client.socket.sendall(request_)
        slow.socket.sendall(request_)
        taken = 0
        while taken < 5_000_000:
            taken += len(slow.socket.recv(200_000))
            gevent.sleep(0.05)
        until(lambda: stalled._value.get() == before + 1)
        until(lambda: worker._servers[0].pool.free_count() >= worker._servers[0].pool.size - 1)
    assert not caplog.records


def test_a_body_that_nobody_sends_ends_its_connection(worker: DrainingWorker, listener: socket.socket) -> None:
    """What is left of it is waited for as long as a next request is."""
    worker._idle_timeout = IDLE
    with Reader(listener) as client:
        client.socket.sendall(b"POST /other HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        assert client.next()[1] == b"old"
        assert client.ended()


def test_a_client_that_goes_away_costs_nothing(
    worker: DrainingWorker, listener: socket.socket, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """Its reply has nobody to go to; the worker serves the next one, and logs no error."""
    with Reader(listener) as gone:
        gone.socket.sendall(callback(1).replace(b"callback ", b"callback?slow ", 1))
        assert endpoint.asked.wait(10)
        gone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    endpoint.may_answer.set()

    with Reader(listener) as client:
        client.socket.sendall(callback(2))
        assert client.next()[1] == b"lane callback 2"
    until(lambda: worker._servers[0].pool.free_count() == worker._servers[0].pool.size)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_what_fails_in_the_lane_ends_its_connection_alone(
    worker: DrainingWorker, listener: socket.socket, endpoint: Endpoint
) -> None:
    """Whatever is raised there, others are served."""
    endpoint.fails = True
    with Reader(listener) as client:
        client.socket.sendall(callback(1))
        assert client.ended()
    endpoint.fails = False
    with Reader(listener) as client:
        client.socket.sendall(callback(2))
        assert client.next()[1] == b"lane callback 2"


@pytest.mark.parametrize(
    ("name", "value"), [("accesslog", "-"), ("proxy_protocol", "v1"), ("certfile", "x"), ("keepalive", 0)]
)
def test_where_gunicorn_has_more_to_do_there_is_no_lane(name: str, value: Any) -> None:
    """An access log, the PROXY protocol, TLS: the lane knows nothing of them."""
    worker = made(app=Endpoint())
    before = worker._callback_lane()
    worker.cfg.set(name, value)
    after = worker._callback_lane()
    worker.tmp.close()

    assert before is not None
    assert after is None
