"""The worker on a real socket in this process: what it serves, and how it lets go."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent import socket
from gunicorn.config import Config
from gunicorn.glogging import Logger

from config.gunicorn_worker import DrainingWorker, count_reload


class App:
    """A WSGI app that says its name, and waits in its drain until it may end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.drained = gevent.event.Event()
        self.draining = gevent.event.Event()
        self.extensions = {"wechatlaibao": SimpleNamespace(close=self._close)}

    def _close(self) -> None:
        self.draining.set()
        self.drained.wait(20)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", str(len(self._name)))])
        return [self._name.encode()]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket, shared by workers as the arbiter shares it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def made(listener: socket.socket, app: App, *, workers: int = 1) -> DrainingWorker:
    """Return a worker as the arbiter makes it, its app loaded."""
    config = Config()
    config.set("keepalive", 15)
    config.set("workers", workers)
    own = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=os.dup(listener.fileno()))
    worker = DrainingWorker(1, os.getppid(), [own], SimpleNamespace(), 30, config, Logger(config))
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


class Client:
    """One connection, kept."""

    def __init__(self, listener: socket.socket) -> None:
        self.socket = socket.create_connection(listener.getsockname(), timeout=10)

    def get(self) -> bytes:
        self.socket.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        reply = b""
        while not reply.endswith((b"old", b"new")):
            more = self.socket.recv(4096)
            assert more, reply
            reply += more
        return reply

    def ended(self) -> bool:
        """Wait for the end of the connection."""
        return bool(self.socket.recv(1) == b"")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()


def test_a_draining_worker_serves_and_then_cuts_idle_connections(listener: socket.socket) -> None:
    """New connections are served once, kept ones until the drain is over; idle ones do not hold the worker."""
    app = App("old")
    worker = made(listener, app, workers=2)
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
    old = made(listener, app)
    with serving(old), Client(listener) as kept:
        assert kept.get().endswith(b"old")
        count_reload(None)
        old.handle_exit(signal.SIGTERM, None)
        gevent.sleep(0.1)
        with Client(listener) as early:
            assert early.get().endswith(b"old")

        new = made(listener, successor_app)
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
