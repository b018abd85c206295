"""The production worker: on TERM and HUP it keeps serving while a greenlet drains it, and stops after that.

gunicorn's own gevent worker is no alternative: it stops accepting at once, calls no hook early enough to hand answers
over, and waits for idle connections until the graceful timeout.
"""

from __future__ import annotations

import ctypes
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

from config.errors import SettingsError
from server.connection_slots import RESERVE, SHORT, ConnectionLimits, ConnectionSlots, is_exempt
from server.fast_path import FastConnection, FastPath
from server.requests import PIECE_BYTES, BoundedBody, count, refuse, turn_away
from server.sockets import PacedServer, allow_files

log = logging.getLogger(__name__)

#: Graceful timeout in seconds for requests that are still in a handler, or on their way, after the drain.
LAST_SECONDS = 3
#: Seconds to wait after a HUP until a worker of the new generation serves.
SUCCESSOR_SECONDS = 20.0

#: Seconds between full garbage collections; objects that existed after loading are frozen and not visited.
COLLECT_SECONDS = 15.0
#: Gives the memory that a traffic peak leaves free back to the system, a tenth of the worker's, in some milliseconds.
#: Only glibc has it.
trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

#: Allocations after which Python collects the youngest generation. With Python's default of 700, collections take a
#: sixth of the CPU time of a delta while a thousand answers run: each flush allocates several thousand short-lived
#: objects.
YOUNG = 5000

#: Seconds within which all workers that are stopped together have received their signal.
TOGETHER_SECONDS = 0.3

#: The arbiter looks at its workers every second; seconds between two looks after which it was stopped itself.
PAUSED_SECONDS = 5.0

#: Memory shared by the arbiter and its workers. Bytes: the number of reloads, the newest generation that serves, and
#: for each worker (by its age modulo _WORKERS) whether it accepts connections.
_WORKERS = 256
_shared = mmap.mmap(-1, 2 + _WORKERS)
_RELOADS, _SERVING, _TAKING = 0, 1, 2


def count_reload(arbiter: Arbiter) -> None:
    """Start a new generation of workers. For gunicorn's hook `on_reload`."""
    _shared[_RELOADS] = (_shared[_RELOADS] + 1) % 256


def forget(worker: Worker) -> None:
    """Mark a dead worker as not accepting connections. For gunicorn's hook `child_exit`."""
    _shared[_taking_index(worker.age)] = 0


def spare_paused(arbiter: Arbiter, *, clock: Callable[[], float] = time.monotonic) -> None:
    """Let an arbiter that was stopped itself look at its workers once more before it ends one that gave no sign.

    A host that was frozen for longer than gunicorn's `timeout` may wake the arbiter before the workers.
    """
    murder, looked = arbiter.murder_workers, clock()

    def murder_workers() -> None:
        nonlocal looked
        before, looked = looked, clock()
        if looked - before < PAUSED_SECONDS:
            murder()

    arbiter.murder_workers = murder_workers


def _taking_index(age: int) -> int:
    return _TAKING + age % _WORKERS


class DrainingWorker(GeventWorker):  # type: ignore[misc]
    """A gevent worker that drains its app (`app.extensions["wechatlaibao"]`) before it stops."""

    _leaving = False
    _generation = 0
    age = 0
    _servers: Sequence[PacedServer] = ()
    #: Listener name → its connections.
    _slots: Mapping[Any, ConnectionSlots] = MappingProxyType({})
    _idle_timeout: float = 0.0
    _fast_path: FastPath | None = None
    #: Seconds between two notifications of the arbiter; a worker that is to stop ends within them.
    notify_seconds = 1.0
    #: Whether connections stay open after a reply; False while the worker drains.
    keeps = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # gunicorn creates the worker in the arbiter, before the fork.
        self._generation = _shared[_RELOADS]

    def load_wsgi(self) -> None:
        """Load the app; a wrong setting logs one line and stops the arbiter, so that it starts no worker again."""
        try:
            super().load_wsgi()
        except SettingsError as exc:
            self.log.error("wechatlaibao: %s", exc)
            sys.exit(Arbiter.APP_LOAD_ERROR)
        # Freeze the 120,000 objects that exist now: a full collection would visit them for 50 to 90 ms, during which
        # the worker serves no request.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG, 20, 10)

    def run(self) -> None:
        """Serve until the drain is over, as the parent class does, with servers that can stop accepting earlier."""
        self._idle_timeout = self.cfg.keepalive
        self._fast_path = self._callback_fast_path()
        limits = getattr(self.wsgi, "extensions", {}).get("wechatlaibao.connections", ConnectionLimits())
        self._slots = {
            listener.getsockname(): ConnectionSlots(limits, slots=self.worker_connections) for listener in self.sockets
        }
        allow_files(len(self.sockets) * (self.worker_connections + RESERVE))
        self._servers = [self._server(listener) for listener in self.sockets]
        if self._leaving:
            # TERM arrived while the app was loading: the worker has accepted no connection, so the app closes at once.
            for server in self._servers:
                server.close()
            self.wsgi.extensions["wechatlaibao"].close()
            return
        for server in self._servers:
            server.start()
        _shared[_SERVING], _shared[_taking_index(self.age)] = self._generation, not self._leaving
        collected = time.monotonic()
        while self.alive:
            self.notify()
            gevent.sleep(self.notify_seconds)
            if time.monotonic() - collected > COLLECT_SECONDS:
                # Without this, the garbage of a traffic peak or an outage stays until as many objects are allocated.
                gc.collect()
                if trim:
                    trim(0)
                collected = time.monotonic()
        # Stop all listeners at once: otherwise one would still accept while another one waits for its connections.
        stops = [gevent.spawn(server.stop, timeout=self.cfg.graceful_timeout) for server in self._servers]
        gevent.joinall(stops)

    def _callback_fast_path(self) -> FastPath | None:
        """Return the callbacks' fast path; None if it is off or gunicorn's options need work that it does not do."""
        callbacks = getattr(self.wsgi, "extensions", {}).get("wechatlaibao.callbacks")
        more = self.cfg.is_ssl or self.cfg.proxy_protocol != "off" or self.cfg.accesslog or not self.cfg.keepalive
        if callbacks is None or more or not FastPath.possible():
            return None
        return FastPath(callbacks.reply, callbacks.path)

    def _server(self, listener: Any) -> PacedServer:
        listener.setblocking(1)
        tls = {"ssl_context": ssl_context(self.cfg)} if self.cfg.is_ssl else {}
        pool = Pool(self.worker_connections + RESERVE)
        # Keep the name: a connection accepted last may start after the listener is closed.
        name = listener.getsockname()
        named = SimpleNamespace(getsockname=lambda: name, pool=pool)
        server = PacedServer(listener, handle=partial(self.handle, named), spawn=pool, **tls)
        if self.cfg.workers > 1:
            # The workers share the listener: accepting one connection at a time spreads connections over them.
            server.max_accept = 1
        return server

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        name = listener.getsockname()
        slots = self._slots[name]
        if listener.pool.free_count() < SHORT:
            _make_room(slots)
        slots.wait(client)
        try:
            if self._fast_path:
                FastConnection(self, self._fast_path, slots, client, addr).serve(name)
            else:
                super().handle(listener, client, addr)
        finally:
            slots.leave(client)

    def timeout_ctx(self) -> gevent.Timeout:
        """Return gunicorn's timeout for the next request of a connection, with the keep-alive from before the drain.

        Replies sent before the drain have announced that keep-alive; `cfg.keepalive` is 0 during the drain.
        """
        return gevent.Timeout(self._idle_timeout, False)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        slots = self._slots[listener_name]
        if is_exempt(req.path):
            slots.exempt(sock)
        elif reason := slots.admit(sock, _peer(addr), _forwarded(req)):
            turn_away(sock, reason)
            raise StopIteration
        req.body = BoundedBody(req.body)
        # Otherwise gunicorn reads up to 1 MiB ahead, which no budget counts.
        req.unreader.max_body_chunk = PIECE_BYTES
        super().handle_request(listener_name, req, sock, addr)
        slots.wait(sock)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Reply with a REST error to a request that could not be read, or whose handler failed."""
        refuse(client, exc)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at once. Does not raise SystemExit as gunicorn does: in a greenlet it prints a traceback."""
        self.cfg.set("graceful_timeout", 0)
        self.alive = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._leaving:
            return
        self._leaving = True
        _shared[_taking_index(self.age)] = 0
        if self._servers:
            gevent.spawn(self._leave)

    def _leave(self) -> None:
        try:
            if self._generation != _shared[_RELOADS]:
                _wait(lambda: _shared[_SERVING] == _shared[_RELOADS], SUCCESSOR_SECONDS)
                self._hand_over()
            elif self._sibling_serves():
                self._hand_over()
            # Replies say "Connection: close" from now on, so that clients reconnect to another replica.
            self._end_keepalive()
            self.wsgi.extensions["wechatlaibao"].close()
        except Exception:
            log.exception("drain failed")
        finally:
            self.cfg.set("graceful_timeout", LAST_SECONDS)
            # Reads of idle connections end as if the client had closed them. New ones have `LAST_SECONDS` for their
            # request: other workers may be draining still, and their clients would take it for a crash.
            for slots in self._slots.values():
                for client in slots.idle:
                    _shut(client, socket.SHUT_RD)
            self.alive = False

    def _end_keepalive(self) -> None:
        """Close each connection after its next reply from now on."""
        self.keeps = False
        self.cfg.set("keepalive", 0)

    def _sibling_serves(self) -> bool:
        """Return whether another worker keeps accepting, after all workers stopped together have marked themselves."""
        gevent.sleep(TOGETHER_SECONDS)
        return any(_shared[_TAKING : _TAKING + _WORKERS])

    def _hand_over(self) -> None:
        """Stop accepting while other workers serve, and wait until this worker's connections are closed."""
        for server in self._servers:
            server.stop_accepting()
        # Let greenlets of connections accepted just now start: they still use the listener.
        gevent.sleep(0)
        for server in self._servers:
            server.close()
        self._end_keepalive()
        self.wsgi.extensions["wechatlaibao"].leave()
        _wait(lambda: all(server.pool.free_count() == server.pool.size for server in self._servers), self._idle_timeout)


def _make_room(slots: ConnectionSlots) -> None:
    """Close the connection that `ConnectionSlots.make_room` selects, if any."""
    client: Any = slots.make_room()
    if client is not None:
        count("idle")
        _shut(client, socket.SHUT_RDWR)


def _shut(client: Any, how: int) -> None:
    # On a duplicate of the descriptor: gevent's own shutdown raises an error in the greenlet that reads.
    with suppress(OSError), socket.fromfd(client.fileno(), client.family, client.type) as duplicate:
        duplicate.shutdown(how)


def _peer(addr: Any) -> str:
    """Return the client's IP address, or "" for a Unix socket."""
    return addr[0] if isinstance(addr, tuple) else ""


def _forwarded(req: Any) -> str:
    return ",".join(value for name, value in req.headers if name == "X-FORWARDED-FOR")


def _wait(predicate: Callable[[], bool], timeout: float) -> None:
    with gevent.Timeout(timeout, False):
        while not predicate():
            gevent.sleep(0.05)
