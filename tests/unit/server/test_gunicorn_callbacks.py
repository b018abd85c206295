"""Callbacks and other requests on one connection of the worker: each is answered once, in order."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import gevent
import pytest
from gevent import socket
from gunicorn.config import Config

from server.connection_slots import ConnectionLimits, ConnectionSlots
from server.fast_path import FastConnection, FastPath
from server.sockets import PacedSocket
from server.worker import DrainingWorker
from services import metrics
from tests.unit.server.test_gunicorn_worker_serving import App, Client, listening, make_worker, serving, until

pytest.importorskip("gunicorn_h1c", reason="the fast path needs gunicorn's parser in C")

#: Keep-alive in seconds, for tests that wait until an idle connection is closed.
IDLE = 0.3

_LENGTH = re.compile(rb"Content-Length: (\d+)")


def callback(number: int) -> bytes:
    body = b"callback %d" % number
    return b"POST /wechat/callback HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


ORDINARY = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class CallbackApp(App):
    """An app whose callbacks return their body; requests by WSGI return its name."""

    def __init__(self) -> None:
        super().__init__("old")
        self.reset()
        self.extensions["wechatlaibao.callbacks"] = SimpleNamespace(path="/wechat/callback", reply=self._reply)

    def reset(self) -> None:
        self.name, self.large_reply, self.fails = "old", b"", False
        self.stream: Iterable[bytes] | None = None
        for event in (self.requested, self.may_reply):
            event.clear()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self.stream is None:
            return super().__call__(environ, start_response)
        start_response("200 OK", [])
        return self.stream

    def _reply(self, path: str, query: str, body: bytes) -> tuple[int, str, bytes]:
        if self.fails:
            raise OSError("a bug")
        if query == "slow":
            self.requested.set()
            self.may_reply.wait(20)
        return 200, "text/plain", self.large_reply or b"fast " + body


class KeptClient(Client):
    """A connection that reads replies one by one."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(listener)
        self._left = b""

    def next(self) -> tuple[bytes, bytes]:
        """Return head and body of the next reply."""
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


class RunningWorker(NamedTuple):
    """A worker, its app, and the socket it serves."""

    listener: socket.socket
    callback_app: CallbackApp
    worker: DrainingWorker


@contextmanager
def running_worker() -> Iterator[RunningWorker]:
    """Run a worker; at the end it gets SIGTERM, which has no effect if the test has sent one."""
    with contextmanager(listening)() as listener:
        running = RunningWorker(
            listener, callback_app := CallbackApp(), make_worker(listener, app=callback_app, workers=2)
        )
        with serving(running.worker):
            yield running
            callback_app.drained.set()
            callback_app.may_reply.set()
            running.worker.handle_exit(signal.SIGTERM, None)


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningWorker]:
    """One worker for all tests that do not stop it."""
    with running_worker() as running:
        yield running


@pytest.fixture
def leaving() -> Iterator[RunningWorker]:
    """A worker of its own, for tests that stop it."""
    with running_worker() as running:
        yield running


@pytest.fixture
def listener(shared: RunningWorker) -> socket.socket:
    return shared.listener


@pytest.fixture
def callback_app(shared: RunningWorker) -> CallbackApp:
    shared.callback_app.reset()
    return shared.callback_app


@pytest.fixture
def worker(shared: RunningWorker, callback_app: CallbackApp, monkeypatch: pytest.MonkeyPatch) -> DrainingWorker:
    monkeypatch.setattr(shared.worker, "_idle_timeout", shared.worker.cfg.keepalive)
    return shared.worker


def test_requests_of_both_kinds_share_a_connection(worker: DrainingWorker, listener: socket.socket) -> None:
    """Callbacks go through the fast path, the others through gunicorn; each gets its own reply."""
    with KeptClient(listener) as client:
        for number in range(3):
            client.socket.sendall(callback(number))
            assert client.next()[1] == b"fast callback %d" % number
            client.socket.sendall(ORDINARY)
            assert client.next()[1] == b"old"


def test_with_the_switch_off_gunicorn_serves_callbacks(
    worker: DrainingWorker, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `server.fast_path.ENABLED` off, the worker answers the same callbacks by WSGI."""
    assert worker._callback_fast_path()
    monkeypatch.setattr("server.fast_path.ENABLED", False)
    assert worker._callback_fast_path() is None
    monkeypatch.setattr(worker, "_fast_path", None)

    with KeptClient(listener) as client:
        client.socket.sendall(callback(1))
        assert client.next()[1] == b"old"


@pytest.mark.parametrize("size", [1, 7, 60, 100, 10_000])
def test_requests_may_arrive_in_any_pieces(worker: DrainingWorker, listener: socket.socket, size: int) -> None:
    """Requests may be cut anywhere, or arrive together: gunicorn reads those that the fast path does not get whole."""
    sent = b"".join((callback(1), ORDINARY, callback(2), callback(3), ORDINARY))
    with KeptClient(listener) as client:
        for start in range(0, len(sent), size):
            client.socket.sendall(sent[start : start + size])
            gevent.sleep(0)
        bodies = [client.next()[1] for _ in range(5)]

    # Requests that gunicorn reads get the app's name as reply, callbacks too.
    replies = [b"fast callback 1", b"old", b"fast callback 2", b"fast callback 3", b"old"]
    assert [body for body, fast in zip(bodies, replies, strict=True) if body not in (fast, b"old")] == []


def test_a_large_callback_is_served_by_gunicorn(worker: DrainingWorker, listener: socket.socket) -> None:
    """A callback that does not arrive in one read is served by WSGI; the next one takes the fast path again."""
    large = b"POST /wechat/callback HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
    with KeptClient(listener) as client:
        client.socket.sendall(large)
        assert client.next()[1] == b"old"
        client.socket.sendall(callback(1))
        assert client.next()[1] == b"fast callback 1"


def test_a_draining_workers_reply_to_a_callback_closes_the_connection(leaving: RunningWorker) -> None:
    """The client reconnects to another replica; a kept connection is still served once."""
    listener, callback_app, worker = leaving
    with KeptClient(listener) as kept:
        kept.socket.sendall(callback(1))
        assert b"Connection: keep-alive" in kept.next()[0]
        worker.handle_exit(signal.SIGTERM, None)
        assert callback_app.draining.wait(10)

        kept.socket.sendall(callback(2))
        assert b"Connection: close" in kept.next()[0]
        assert kept.ended()


def test_a_new_connection_is_answered_after_the_drain() -> None:
    """The listener may still accept it; closing a connection with unread bytes would reset it."""
    paths: list[str] = []

    def handle(name: Any, request: Any, client: Any, addr: Any) -> None:
        paths.append(request.path)
        raise StopIteration

    ended = SimpleNamespace(
        cfg=Config(), keeps=False, alive=False, timeout_ctx=lambda: gevent.Timeout(10, False), handle_request=handle
    )
    near, far = socket.socketpair()
    slots = ConnectionSlots(ConnectionLimits(), slots=10)
    fast_path = FastPath(lambda path, query, body: None, "/wechat/callback")
    far.sendall(callback(1))

    FastConnection(ended, fast_path, slots, near, ("127.0.0.1", 1)).serve(None)

    assert paths == ["/wechat/callback"]
    far.close()


def test_a_running_callback_gets_its_reply_when_the_worker_stops(leaving: RunningWorker) -> None:
    """After the drain, only idle connections are closed."""
    listener, callback_app, worker = leaving
    with KeptClient(listener) as client, KeptClient(listener) as idle:
        client.socket.sendall(callback(1).replace(b"callback ", b"callback?slow ", 1))
        idle.socket.sendall(callback(2))
        idle.next()
        assert callback_app.requested.wait(10)
        callback_app.drained.set()
        worker.handle_exit(signal.SIGTERM, None)
        assert idle.ended()

        callback_app.may_reply.set()
        assert client.next()[1] == b"fast callback 1"


def test_an_idle_connection_is_closed(worker: DrainingWorker, listener: socket.socket) -> None:
    """It is closed when gunicorn's keep-alive time is over."""
    with KeptClient(listener) as client:
        client.socket.sendall(callback(1))
        client.next()
        # It waits for the next request with the long time, and for the one after that with the short one.
        worker._idle_timeout = IDLE
        client.socket.sendall(callback(2))
        client.next()
        assert client.ended()


@pytest.fixture(params=[callback(1), ORDINARY], ids=["fast_path", "WSGI"])
def large_request(request: pytest.FixtureRequest, callback_app: CallbackApp) -> bytes:
    """A request whose reply is larger than all buffers on its way."""
    callback_app.large_reply = b"x" * 5_000_000
    callback_app.name = callback_app.large_reply.decode()
    return bytes(request.param)


def test_a_client_that_reads_nothing_loses_its_connection(
    worker: DrainingWorker,
    listener: socket.socket,
    large_request: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It holds its slot for `send_seconds`."""
    monkeypatch.setattr(PacedSocket, "send_seconds", 0.1)
    stalled = metrics.CONNECTIONS_REFUSED.labels("stalled")
    before = stalled._value.get()
    with KeptClient(listener) as client:
        client.socket.sendall(large_request)
        until(lambda: stalled._value.get() == before + 1)
        until(lambda: worker._servers[0].pool.free_count() == worker._servers[0].pool.size)
    assert not [record for record in caplog.records if record.name.startswith(("server", "gunicorn"))]


def test_a_stream_whose_client_reads_nothing_ends(
    worker: DrainingWorker, listener: socket.socket, callback_app: CallbackApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is closed after `send_seconds`, which frees its slot: event streams have no other limit of this kind."""
    monkeypatch.setattr(PacedSocket, "send_seconds", 0.1)
    callback_app.stream = stream = Endless()
    with KeptClient(listener) as client:
        client.socket.sendall(ORDINARY)
        until(lambda: stream.closed)

    until(lambda: worker._servers[0].pool.free_count() == worker._servers[0].pool.size)


class Endless:
    """A body of pieces of 4 KiB without an end."""

    closed = False

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield b"x" * 4096

    def close(self) -> None:
        self.closed = True


def test_a_client_that_reads_slowly_gets_the_whole_reply(
    worker: DrainingWorker, listener: socket.socket, large_request: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the many waits for it has the full time."""
    waits: list[float] = []

    def wait_write(fileno: int, timeout: float) -> None:
        waits.append(timeout)
        wait(fileno, timeout)

    wait = socket.wait_write
    monkeypatch.setattr(socket, "wait_write", wait_write)
    with KeptClient(listener) as client:
        client.socket.sendall(large_request)
        assert len(client.next()[1]) == 5_000_000

    assert len(waits) > 2
    assert set(waits) == {PacedSocket.send_seconds}


def test_an_incomplete_body_closes_the_connection(worker: DrainingWorker, listener: socket.socket) -> None:
    """After the reply, the worker waits for the rest of the body for the keep-alive time."""
    with KeptClient(listener) as client:
        client.socket.sendall(ORDINARY)
        client.next()
        worker._idle_timeout = IDLE
        client.socket.sendall(b"POST /other HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        assert client.next()[1] == b"old"
        assert client.ended()


def test_a_client_that_disconnects_causes_no_error(
    worker: DrainingWorker, listener: socket.socket, callback_app: CallbackApp, caplog: pytest.LogCaptureFixture
) -> None:
    """Its reply is dropped, its slot is released, the next client is served, and no error is logged."""
    with KeptClient(listener) as gone:
        gone.socket.sendall(callback(1).replace(b"callback ", b"callback?slow ", 1))
        assert callback_app.requested.wait(10)
        gone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    callback_app.may_reply.set()

    with KeptClient(listener) as client:
        client.socket.sendall(callback(2))
        assert client.next()[1] == b"fast callback 2"
    until(lambda: worker._servers[0].pool.free_count() == worker._servers[0].pool.size)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_an_error_in_the_fast_path_closes_only_its_connection(
    worker: DrainingWorker, listener: socket.socket, callback_app: CallbackApp
) -> None:
    """An exception of a callback's handler does not affect other connections."""
    callback_app.fails = True
    with KeptClient(listener) as client:
        client.socket.sendall(callback(1))
        assert client.ended()
    callback_app.fails = False
    with KeptClient(listener) as client:
        client.socket.sendall(callback(2))
        assert client.next()[1] == b"fast callback 2"


@pytest.mark.parametrize(
    ("name", "value"), [("accesslog", "-"), ("proxy_protocol", "v1"), ("certfile", "x"), ("keepalive", 0)]
)
def test_options_of_gunicorn_turn_the_fast_path_off(name: str, value: Any) -> None:
    """The fast path supports no access log, no PROXY protocol, no TLS and no keep-alive of 0."""
    worker = make_worker(app=CallbackApp())
    before = worker._callback_fast_path()
    worker.cfg.set(name, value)
    after = worker._callback_fast_path()
    worker.tmp.close()

    assert before is not None
    assert after is None
