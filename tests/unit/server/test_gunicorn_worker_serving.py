"""The worker on a real socket in this process: serving, draining, and handing over to other workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Self

import gevent
import pytest
from gevent import socket
from gunicorn.config import Config
from gunicorn.glogging import Logger

from server.worker import DrainingWorker, count_reload, forget


class App:
    """A WSGI app that replies with its name, at /slow after `may_reply`, and whose drain lasts until `drained`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.requested = gevent.event.Event()
        self.may_reply = gevent.event.Event()
        self.drained = gevent.event.Event()
        self.draining = gevent.event.Event()
        self.extensions = {"wechatlaibao": SimpleNamespace(close=self._close, leave=lambda: None)}

    def _close(self) -> None:
        self.draining.set()
        self.drained.wait(20)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/slow":
            self.requested.set()
            self.may_reply.wait(20)
        start_response("200 OK", [("Content-Length", str(len(self.name)))])
        return [self.name.encode()]


def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


#: Listening sockets; workers share them, as they do under the arbiter.
listener = pytest.fixture(listening, name="listener")
ops_listener = pytest.fixture(listening, name="ops_listener")


def make_worker(*listeners: socket.socket, app: App, workers: int = 1, age: int = 1) -> DrainingWorker:
    """Return a worker as the arbiter creates it, with its app loaded; `age` is its number."""
    config = Config()
    config.set("keepalive", 15)
    config.set("workers", workers)
    own = [socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=os.dup(each.fileno())) for each in listeners]
    worker = DrainingWorker(age, os.getppid(), own, SimpleNamespace(), 30, config, Logger(config))
    worker.wsgi = app
    return worker


@contextmanager
def serving(worker: DrainingWorker) -> Iterator[gevent.Greenlet]:
    """Run a worker during the block, from when it serves, and wait until it has stopped after the block."""
    worker.notify_seconds = 0.02
    greenlet = gevent.spawn(worker.run)
    until(lambda: bool(worker._servers))
    yield greenlet
    greenlet.join(20)
    assert greenlet.successful()
    worker.tmp.close()


def until(predicate: Callable[[], bool]) -> None:
    """Wait for the predicate, up to 20 seconds, while other greenlets run."""
    with gevent.Timeout(20):
        while not predicate():
            gevent.sleep(0.01)


class Client:
    """One kept connection."""

    def __init__(self, listener: socket.socket) -> None:
        self.socket = socket.create_connection(listener.getsockname(), timeout=10)

    def get(self) -> bytes:
        self.send_request()
        return self.read_reply()

    def send_request(self, path: bytes = b"/") -> None:
        self.socket.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: test\r\n\r\n")

    def read_reply(self) -> bytes:
        reply = b""
        while not reply.endswith((b"old", b"new")):
            more = self.socket.recv(4096)
            assert more, reply
            reply += more
        return reply

    def ended(self) -> bool:
        """Wait until the worker closes the connection, and return True."""
        return bool(self.socket.recv(1) == b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()


def test_a_draining_worker_serves_and_then_closes_idle_connections(listener: socket.socket) -> None:
    """New connections are served once; idle ones are closed after the drain and do not delay the stop."""
    app = App("old")
    worker = make_worker(listener, app=app, workers=2)
    with serving(worker), Client(listener) as idle:
        assert b"keep-alive" in idle.get()
        worker.handle_exit(signal.SIGTERM, None)
        assert app.draining.wait(10)

        with Client(listener) as fresh:
            assert b"Connection: close" in fresh.get()
            assert fresh.ended()
        app.drained.set()
        assert idle.ended()


def test_a_connection_accepted_at_the_end_of_a_drain_is_served(listener: socket.socket) -> None:
    """Its request is on its way: closed without a reply, it looks like a crash."""
    app = App("old")
    worker = make_worker(listener, app=app, workers=2)
    with serving(worker), Client(listener) as seen:
        seen.get()
        worker.handle_exit(signal.SIGTERM, None)
        assert app.draining.wait(10)
        with Client(listener) as fresh:
            until(lambda: len(next(iter(worker._slots.values()))._waiting) == 2)
            app.drained.set()
            assert seen.ended()

            assert b"Connection: close" in fresh.get()


def test_a_reloaded_worker_leaves_new_connections_to_its_successor(listener: socket.socket) -> None:
    """It accepts connections until the successor serves, and drains when its own connections are closed."""
    app, successor_app = App("old"), App("new")
    old = make_worker(listener, app=app)
    with serving(old), Client(listener) as kept:
        assert kept.get().endswith(b"old")
        count_reload(None)
        old.handle_exit(signal.SIGTERM, None)
        gevent.sleep(0.1)
        with Client(listener) as early:
            assert early.get().endswith(b"old")

        new = make_worker(listener, app=successor_app)
        with serving(new):
            until(lambda: old._servers[0].closed)
            with Client(listener) as fresh:
                assert fresh.get().endswith(b"new")
            assert not app.draining.is_set()
            assert b"Connection: close" in kept.get()
            assert kept.ended()
            assert app.draining.wait(10)
            app.drained.set()
            successor_app.drained.set()
            new.handle_exit(signal.SIGTERM, None)


def test_a_worker_stopped_alone_leaves_new_connections_to_its_siblings(listener: socket.socket) -> None:
    """Its siblings accept all new connections; it drains when its own connections are closed."""
    app, sibling_app = App("old"), App("new")
    leaving, sibling = (
        make_worker(listener, app=app, workers=2),
        make_worker(listener, app=sibling_app, workers=2, age=2),
    )
    with serving(leaving), Client(listener) as kept:
        assert kept.get().endswith(b"old")
        with serving(sibling):
            leaving.handle_exit(signal.SIGTERM, None)
            until(lambda: leaving._servers[0].closed)

            for _ in range(5):
                with Client(listener) as fresh:
                    assert fresh.get().endswith(b"new")
            assert b"Connection: close" in kept.get()
            assert app.draining.wait(10)
            app.drained.set()
            sibling_app.drained.set()
            sibling.handle_exit(signal.SIGTERM, None)


def test_a_draining_worker_serves_a_connection_it_promised_to_keep(listener: socket.socket) -> None:
    """A reply with keep-alive was sent just before the drain: the connection's next request is still served."""
    app = App("old")
    worker = make_worker(listener, app=app, workers=2)

    class Body(list[bytes]):
        def close(self) -> None:
            worker.cfg.set("keepalive", 0)

    def first(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        worker.wsgi = app
        return Body(app(environ, start_response))

    worker.wsgi = first
    with serving(worker), Client(listener) as client:
        assert b"keep-alive" in client.get()
        # Enough for a worker that would close the connection at once.
        gevent.sleep(0.05)

        assert b"Connection: close" in client.get()
        assert client.ended()
        worker.handle_exit(signal.SIGTERM, None)
        app.drained.set()


def test_workers_stopped_together_serve_until_the_end_of_the_drain(listener: socket.socket) -> None:
    """No other worker could answer the polls that arrive during the drain."""
    apps = App("old"), App("new")
    pair = [make_worker(listener, app=app, workers=2, age=age) for age, app in enumerate(apps, 1)]
    with serving(pair[0]), serving(pair[1]):
        for worker in pair:
            worker.handle_exit(signal.SIGTERM, None)
        for app in apps:
            assert app.draining.wait(10)

        with Client(listener) as fresh:
            assert fresh.get()
        for app in apps:
            app.drained.set()


def test_a_worker_stopped_while_it_loads_takes_no_connections_over(listener: socket.socket) -> None:
    """It stops without having served; a worker stopped at the same time serves until the end of its drain."""
    app, late_app = App("old"), App("new")
    serves, loads = make_worker(listener, app=app, workers=2), make_worker(listener, app=late_app, workers=2, age=2)
    late_app.drained.set()
    with serving(serves):
        for worker in (serves, loads):
            worker.handle_exit(signal.SIGTERM, None)
        with serving(loads):
            pass
        assert app.draining.wait(10)

        with Client(listener) as fresh:
            assert fresh.get().endswith(b"old")
        app.drained.set()


def test_a_killed_sibling_takes_no_connections_over(listener: socket.socket) -> None:
    """The arbiter's hook `child_exit` marks it as not accepting, so the remaining worker serves until its end."""
    app = App("old")
    worker, killed = make_worker(listener, app=app, workers=2), make_worker(listener, app=App("new"), workers=2, age=2)
    with serving(killed):
        killed.alive = False
    forget(killed)
    with serving(worker):
        worker.handle_exit(signal.SIGTERM, None)
        assert app.draining.wait(10)

        with Client(listener) as fresh:
            assert fresh.get().endswith(b"old")
        app.drained.set()


def test_a_draining_worker_serves_both_its_listeners(listener: socket.socket, ops_listener: socket.socket) -> None:
    """The metrics on the ops port can be read until the end of the drain."""
    app = App("old")
    worker = make_worker(listener, ops_listener, app=app, workers=2)
    with serving(worker):
        worker.handle_exit(signal.SIGTERM, None)
        assert app.draining.wait(10)

        for each in (listener, ops_listener):
            with Client(each) as fresh:
                assert fresh.get().endswith(b"old")
        app.drained.set()


def test_after_the_drain_both_listeners_stop_at_once(listener: socket.socket, ops_listener: socket.socket) -> None:
    """A running request of one does not keep the other accepting: the app is already closed."""
    app, successor_app = App("old"), App("new")
    worker = make_worker(listener, ops_listener, app=app)
    with serving(worker), Client(listener) as last:
        last.send_request(b"/slow")
        assert app.requested.wait(10)
        app.drained.set()
        worker.handle_exit(signal.SIGTERM, None)
        until(lambda: worker._servers[0].closed)
        late = Client(ops_listener)
        late.send_request()
        app.may_reply.set()
        assert last.read_reply().endswith(b"old")

    successor = make_worker(listener, ops_listener, app=successor_app)
    with serving(successor), late:
        assert late.read_reply().endswith(b"new")
        successor_app.drained.set()
        successor.handle_exit(signal.SIGTERM, None)
