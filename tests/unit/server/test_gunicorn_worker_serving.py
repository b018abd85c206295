"""The worker on a real socket in this process: what it serves, and how it lets go."""

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
    """A WSGI app that says its name, at /slow only when it may, and waits in its drain until that may end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = gevent.event.Event()
        self.may_answer = gevent.event.Event()
        self.drained = gevent.event.Event()
        self.draining = gevent.event.Event()
        self.extensions = {"wechatlaibao": SimpleNamespace(close=self._close, leave=lambda: None)}

    def _close(self) -> None:
        self.draining.set()
        self.drained.wait(20)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/slow":
            self.asked.set()
            self.may_answer.wait(20)
        start_response("200 OK", [("Content-Length", str(len(self.name)))])
        return [self.name.encode()]


def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


#: Listening sockets, shared by workers as the arbiter shares them.
listener = pytest.fixture(listening, name="listener")
ops_listener = pytest.fixture(listening, name="ops_listener")


def made(*listeners: socket.socket, app: App, workers: int = 1, age: int = 1) -> DrainingWorker:
    """Return a worker as the arbiter makes it, its app loaded; `age` is its number."""
    config = Config()
    config.set("keepalive", 15)
    config.set("workers", workers)
    own = [socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=os.dup(each.fileno())) for each in listeners]
    worker = DrainingWorker(age, os.getppid(), own, SimpleNamespace(), 30, config, Logger(config))
    worker.wsgi = app
    return worker


@contextmanager
def serving(worker: DrainingWorker) -> Iterator[gevent.Greenlet]:
    """Run a worker beside the block, and wait for its end after it."""
    greenlet = gevent.spawn(worker.run)
    gevent.sleep(0)
    yield greenlet
    greenlet.join(20)
    assert greenlet.successful()
    worker.tmp.close()


def until(predicate: Callable[[], bool]) -> None:
    """Wait as `wait_until` does, and let the greenlets run meanwhile."""
    with gevent.Timeout(20):
        while not predicate():
            gevent.sleep(0.01)


class Client:
    """One connection, kept."""

    def __init__(self, listener: socket.socket) -> None:
        self.socket = socket.create_connection(listener.getsockname(), timeout=10)

    def get(self) -> bytes:
        self.asks()
        return self.reads()

    def asks(self, path: bytes = b"/") -> None:
        self.socket.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: test\r\n\r\n")

    def reads(self) -> bytes:
        reply = b""
        while not reply.endswith((b"old", b"new")):
            more = self.socket.recv(4096)
            assert more, reply
            reply += more
        return reply

    def ended(self) -> bool:
        """Wait for the end of the connection."""
        return bool(self.socket.recv(1) == b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()


def test_a_draining_worker_serves_and_then_cuts_idle_connections(listener: socket.socket) -> None:
    """New connections are served once, kept ones until the drain is over; idle ones do not hold the worker."""
    app = App("old")
    worker = made(listener, app=app, workers=2)
    with serving(worker), Client(listener) as idle:
        assert b"keep-alive" in idle.get()
        worker.handle_exit(signal.SIGTERM, None)
        assert app.draining.wait(10)

        with Client(listener) as fresh:
            assert b"Connection: close" in fresh.get()
            assert fresh.ended()
        app.drained.set()
        assert idle.ended()


def test_a_reloaded_worker_leaves_what_is_new_to_its_successor(listener: socket.socket) -> None:
    """It refuses nobody: it serves until the successor does, and drains when its own connections are gone."""
    app, successor_app = App("old"), App("new")
    old = made(listener, app=app)
    with serving(old), Client(listener) as kept:
        assert kept.get().endswith(b"old")
        count_reload(None)
        old.handle_exit(signal.SIGTERM, None)
        gevent.sleep(0.1)
        with Client(listener) as early:
            assert early.get().endswith(b"old")

        new = made(listener, app=successor_app)
        with serving(new):
            gevent.sleep(0.2)
            with Client(listener) as fresh:
                assert fresh.get().endswith(b"new")
            assert not app.draining.is_set()
            assert b"Connection: close" in kept.get()
            assert kept.ended()
            assert app.draining.wait(10)
            app.drained.set()
            successor_app.drained.set()
            new.handle_exit(signal.SIGTERM, None)


def test_a_worker_that_leaves_alone_leaves_what_is_new_to_its_siblings(listener: socket.socket) -> None:
    """It refuses no question that another one would take, and drains when its own connections are gone."""
    app, sibling_app = App("old"), App("new")
    leaving, sibling = made(listener, app=app, workers=2), made(listener, app=sibling_app, workers=2, age=2)
    with serving(leaving):
        gevent.sleep(0.1)
        with Client(listener) as kept:
            assert kept.get().endswith(b"old")
            with serving(sibling):
                gevent.sleep(0.1)
                leaving.handle_exit(signal.SIGTERM, None)
                gevent.sleep(0.5)

                for _ in range(5):
                    with Client(listener) as fresh:
                        assert fresh.get().endswith(b"new")
                assert b"Connection: close" in kept.get()
                assert app.draining.wait(10)
                app.drained.set()
                sibling_app.drained.set()
                sibling.handle_exit(signal.SIGTERM, None)


def test_a_promise_to_keep_a_connection_is_kept_by_who_leaves(listener: socket.socket) -> None:
    """A reply that said keep-alive went out just before: the next request on it is served, not cut off."""
    app = App("old")
    worker = made(listener, app=app, workers=2)

    class Body(list[bytes]):
        def close(self) -> None:
            worker.cfg.set("keepalive", 0)

    def first(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        worker.wsgi = app
        return Body(app(environ, start_response))

    worker.wsgi = first
    with serving(worker), Client(listener) as client:
        assert b"keep-alive" in client.get()
        gevent.sleep(0.2)

        assert b"Connection: close" in client.get()
        assert client.ended()
        worker.handle_exit(signal.SIGTERM, None)
        app.drained.set()


def test_workers_that_leave_together_serve_to_the_end(listener: socket.socket) -> None:
    """There is nobody to leave what is new to: polls must be answered while they drain."""
    apps = App("old"), App("new")
    pair = [made(listener, app=app, workers=2, age=age) for age, app in enumerate(apps, 1)]
    with serving(pair[0]), serving(pair[1]):
        gevent.sleep(0.1)
        for worker in pair:
            worker.handle_exit(signal.SIGTERM, None)
        for app in apps:
            assert app.draining.wait(10)

        with Client(listener) as fresh:
            assert fresh.get()
        for app in apps:
            app.drained.set()


def test_a_worker_told_to_leave_while_it_loads_is_nobody_to_leave_anything_to(listener: socket.socket) -> None:
    """It ends without having served; whoever leaves with it serves to the end of its drain."""
    app, late_app = App("old"), App("new")
    serves, loads = made(listener, app=app, workers=2), made(listener, app=late_app, workers=2, age=2)
    late_app.drained.set()
    with serving(serves):
        gevent.sleep(0.1)
        for worker in (serves, loads):
            worker.handle_exit(signal.SIGTERM, None)
        with serving(loads):
            pass
        assert app.draining.wait(10)

        with Client(listener) as fresh:
            assert fresh.get().endswith(b"old")
        app.drained.set()


def test_a_killed_sibling_is_nobody_to_leave_anything_to(listener: socket.socket) -> None:
    """The arbiter's hook takes it off the list."""
    app = App("old")
    worker, killed = made(listener, app=app, workers=2), made(listener, app=App("new"), workers=2, age=2)
    with serving(killed):
        gevent.sleep(0.1)
        killed.alive = False
    forget(killed)
    with serving(worker):
        worker.handle_exit(signal.SIGTERM, None)
        assert app.draining.wait(10)

        with Client(listener) as fresh:
            assert fresh.get().endswith(b"old")
        app.drained.set()


def test_a_draining_worker_serves_both_its_listeners(listener: socket.socket, ops_listener: socket.socket) -> None:
    """Who looks at the metrics sees the drain to its end."""
    app = App("old")
    worker = made(listener, ops_listener, app=app, workers=2)
    with serving(worker):
        worker.handle_exit(signal.SIGTERM, None)
        assert app.draining.wait(10)

        for each in (listener, ops_listener):
            with Client(each) as fresh:
                assert fresh.get().endswith(b"old")
        app.drained.set()


def test_after_the_drain_no_listener_waits_for_the_other(listener: socket.socket, ops_listener: socket.socket) -> None:
    """A last request of the one does not keep the other open: what that one needs was given back in the drain."""
    app, successor_app = App("old"), App("new")
    worker = made(listener, ops_listener, app=app)
    with serving(worker), Client(listener) as last:
        last.asks(b"/slow")
        assert app.asked.wait(10)
        app.drained.set()
        worker.handle_exit(signal.SIGTERM, None)
        until(lambda: worker._servers[0].closed)
        late = Client(ops_listener)
        late.asks()
        app.may_answer.set()
        assert last.reads().endswith(b"old")

    successor = made(listener, ops_listener, app=successor_app)
    with serving(successor), late:
        assert late.reads().endswith(b"new")
        successor_app.drained.set()
        successor.handle_exit(signal.SIGTERM, None)
