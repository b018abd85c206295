"""The production worker: on TERM and HUP it goes on serving while a greenlet drains it, and only then stops.

gunicorn's own gevent worker stops accepting at once, no hook of it fires in time to hand answers over, and one idle
connection holds it for the whole graceful timeout.
"""

from __future__ import annotations

import gc
import logging
import mmap
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import FrameType, MappingProxyType, SimpleNamespace
from typing import Any

import gevent
from gevent.pool import Pool
from gunicorn.arbiter import Arbiter
from gunicorn.sock import ssl_context
from gunicorn.workers.base import Worker
from gunicorn.workers.ggevent import GeventWorker

from server.connection import LanedConnection
from server.connection_slots import RESERVE, SHORT, ConnectionLimits, ConnectionSlots, is_exempt
from server.lane import CallbackLane
from server.requests import BoundedBody, count, refuse, turn_away
from server.sockets import PacedServer, allow_files
from services.errors import SettingsError

log = logging.getLogger(__name__)

#: Seconds for requests still in a handler after the drain.
LAST_SECONDS = 3
#: Seconds a successor may take to serve after a HUP.
SUCCESSOR_SECONDS = 20.0

#: Seconds between collections of everything but what was loaded.
COLLECT_SECONDS = 15.0

#: Objects made and not gone again before the young ones are looked through. With 700, which is Python's own, that takes
#: a sixth of what a delta takes while a thousand answers run: each flush makes several thousand for a moment.
YOUNG = 5000

#: Seconds in which workers that are told to leave together all hear of it.
TOGETHER_SECONDS = 0.3

#: One memory for the arbiter and its workers: how often it was told to reload, the newest generation that serves, and
#: of each worker, by its number among so many, whether it takes connections.
_WORKERS = 256
_shared = mmap.mmap(-1, 2 + _WORKERS)
_RELOADS, _SERVING, _TAKING = 0, 1, 2


def count_reload(arbiter: Arbiter) -> None:
    """Begin a new generation of workers: gunicorn's hook `on_reload`."""
    _shared[_RELOADS] = (_shared[_RELOADS] + 1) % 256


def forget(worker: Worker) -> None:
    """Take in that a worker is dead, whatever it died of: for gunicorn's hook `child_exit`."""
    _shared[_place(worker.age)] = 0


def _place(age: int) -> int:
    return _TAKING + age % _WORKERS


class DrainingWorker(GeventWorker):  # type: ignore[misc]
    """A gevent worker that asks its app (`app.extensions["wechatlaibao"]`) to drain before it ends."""

    _leaving = False
    _generation = 0
    age = 0
    _servers: Sequence[PacedServer] = ()
    #: The connections of each listener, by the listener's name.
    _slots: Mapping[Any, ConnectionSlots] = MappingProxyType({})
    _patience: float = 0.0
    _lane: CallbackLane | None = None
    #: Whether a connection is kept for another request; while the worker leaves, each reply is the last.
    keeps = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Still in the arbiter: the fork comes after this.
        self._generation = _shared[_RELOADS]

    def load_wsgi(self) -> None:
        """Load the app; a wrong setting is one line and stops the arbiter, not a worker that starts for ever."""
        try:
            super().load_wsgi()
        except SettingsError as exc:
            self.log.error("wechatlaibao: %s", exc)
            sys.exit(Arbiter.APP_LOAD_ERROR)
        # What is there now stays: each full collection would look at its 120,000 objects, and for the 50 to 90 ms of
        # that nobody is answered.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG, 20, 10)

    def run(self) -> None:
        """Serve until the drain is over: as the parent does, with servers that can stop accepting before that."""
        self._patience = self.cfg.keepalive
        self._lane = self._callback_lane()
        self._slots = {listener.getsockname(): self._connection_slots() for listener in self.sockets}
        allow_files(len(self.sockets) * (self.worker_connections + RESERVE))
        self._servers = [self._server(listener) for listener in self.sockets]
        if self._leaving:
            # Told so while it loaded: it never was one to leave anything to.
            for server in self._servers:
                server.close()
            self.wsgi.extensions["wechatlaibao"].close()
            return
        for server in self._servers:
            server.start()
        _shared[_SERVING], _shared[_place(self.age)] = self._generation, not self._leaving
        collected = time.monotonic()
        while self.alive:
            self.notify()
            gevent.sleep(1.0)
            if time.monotonic() - collected > COLLECT_SECONDS:
                # What a crowd or an outage left would otherwise stay until as much is made again.
                gc.collect()
                collected = time.monotonic()
        # At the same time: what was given back must not be asked for by one listener while another is waited for.
        stops = [gevent.spawn(server.stop, timeout=self.cfg.graceful_timeout) for server in self._servers]
        gevent.joinall(stops)

    def _callback_lane(self) -> CallbackLane | None:
        """Return the lane of the app's callbacks, None where gunicorn has more to do for each request than it knows."""
        door = getattr(self.wsgi, "extensions", {}).get("wechatlaibao.callbacks")
        more = self.cfg.is_ssl or self.cfg.proxy_protocol != "off" or self.cfg.accesslog or not self.cfg.keepalive
        return CallbackLane(door.reply, door.path) if door and CallbackLane.possible() and not more else None

    def _connection_slots(self) -> ConnectionSlots:
        limits = getattr(self.wsgi, "extensions", {}).get("wechatlaibao.connections", ConnectionLimits())
        return ConnectionSlots(limits, slots=self.worker_connections)

    def _server(self, listener: Any) -> PacedServer:
        listener.setblocking(1)
        tls = {"ssl_context": ssl_context(self.cfg)} if self.cfg.is_ssl else {}
        pool = Pool(self.worker_connections + RESERVE)
        # A connection accepted in the last moment may begin when the listener is closed already.
        name = listener.getsockname()
        named = SimpleNamespace(getsockname=lambda: name, pool=pool)
        server = PacedServer(listener, handle=partial(self.handle, named), spawn=pool, **tls)
        if self.cfg.workers > 1:
            # The workers share the listener: who takes one connection at a time leaves the others theirs.
            server.max_accept = 1
        return server

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        name = listener.getsockname()
        slots = self._slots[name]
        if listener.pool.free_count() < SHORT:
            _make_room(slots)
        slots.wait(client)
        try:
            if self._lane:
                LanedConnection(self, self._lane, slots, client, addr).serve(name)
            else:
                super().handle(listener, client, addr)
        finally:
            slots.leave(client)

    def timeout_ctx(self) -> gevent.Timeout:
        """Wait for a connection's next request as long as ever: its last reply may have promised that."""
        return gevent.Timeout(self._patience, False)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        slots = self._slots[listener_name]
        if is_exempt(req.path):
            slots.exempt(sock)
        elif reason := slots.admit(sock, _peer(addr), _forwarded(req)):
            turn_away(sock, reason)
            raise StopIteration
        req.body = BoundedBody(req.body)
        super().handle_request(listener_name, req, sock, addr)
        slots.wait(sock)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer in our own words what could not be read, or was not answered."""
        refuse(client, exc)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at once, without the traceback that a SystemExit in a greenlet prints."""
        self.cfg.set("graceful_timeout", 0)
        self.alive = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._leaving:
            return
        self._leaving = True
        _shared[_place(self.age)] = 0
        if self._servers:
            gevent.spawn(self._leave)

    def _leave(self) -> None:
        try:
            if self._generation != _shared[_RELOADS]:
                _wait(lambda: _shared[_SERVING] == _shared[_RELOADS], SUCCESSOR_SECONDS)
                self._hand_over()
            elif self._leaves_alone():
                self._hand_over()
            # Replies say "Connection: close" from now on, so that clients come back to another replica.
            self._let_go()
            self.wsgi.extensions["wechatlaibao"].close()
        except Exception:
            log.exception("drain failed")
        finally:
            self.cfg.set("graceful_timeout", LAST_SECONDS)
            self._cut_idle()
            self.alive = False

    def _let_go(self) -> None:
        """Have each reply end its connection from now on."""
        self.keeps = False
        self.cfg.set("keepalive", 0)

    def _leaves_alone(self) -> bool:
        """Tell whether a sibling stays and takes connections, when all who leave together have heard of it."""
        gevent.sleep(TOGETHER_SECONDS)
        return any(_shared[_TAKING : _TAKING + _WORKERS])

    def _hand_over(self) -> None:
        """Leave new connections to others who serve, and end those there are: nobody is refused."""
        for server in self._servers:
            server.stop_accepting()
        # Who was accepted just now looks at the listener once more.
        gevent.sleep(0)
        for server in self._servers:
            server.close()
        self._let_go()
        self.wsgi.extensions["wechatlaibao"].leave()
        _wait(lambda: all(server.pool.free_count() == server.pool.size for server in self._servers), self._patience)

    def _cut_idle(self) -> None:
        """End connections that wait for a next request, as if their clients had closed them."""
        for slots in self._slots.values():
            for client in slots.waiting:
                _shut(client, socket.SHUT_RD)


def _make_room(slots: ConnectionSlots) -> None:
    """Close the connection that can best be missed."""
    client: Any = slots.make_room()
    if client is not None:
        count("idle")
        _shut(client, socket.SHUT_RDWR)


def _shut(client: Any, how: int) -> None:
    # On a twin, for gevent's own shutdown makes an error of the read that is to end.
    with suppress(OSError), socket.fromfd(client.fileno(), client.family, client.type) as twin:
        twin.shutdown(how)


def _peer(addr: Any) -> str:
    """Return a connection's other end; the clients of a Unix socket have no address."""
    return addr[0] if isinstance(addr, tuple) else ""


def _forwarded(req: Any) -> str:
    return ",".join(value for name, value in req.headers if name == "X-FORWARDED-FOR")


def _wait(predicate: Callable[[], bool], timeout: float) -> None:
    with gevent.Timeout(timeout, False):
        while not predicate():
            gevent.sleep(0.05)
