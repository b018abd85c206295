"""The way to a socket: the checks of its handshake, its place among so many, its door, and its one line in the log."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flask import Response, request

from channels.sockets.registry import RENEWAL, SocketRegistry, iso
from channels.sockets.session import AUTH_SECONDS, SocketSession
from channels.sockets.socket import Closed, HandshakeRefused, Peer, Socket, accept, converse, finish
from channels.web.admission import SUBPROTOCOL, AddressLimiter, Admission, AdmissionRefused, CredentialChecker
from services import metrics
from services.identity.callers import Caller
from services.sockets.store import SocketStore
from utils.limited_log import LimitedLog

log = logging.getLogger(__name__)

#: How a socket ended of which nobody said how.
LOST = 1006

#: A door: makes what stands behind a socket of this caller and client id.
Opens = Callable[[Socket, Caller, str], Peer]


class Sockets:
    """Opens the sockets of this process, and ends them all. Times are seconds.

    `sentence` gives the text of a key; `ready` is false while the process starts or drains. While Redis is away, a
    socket that shows a key is opened all the same, and one that shows a token is not.
    """

    def __init__(
        self,
        *,
        callers: CredentialChecker,
        limiter: AddressLimiter,
        store: SocketStore,
        sentence: Callable[[str], str],
        origins: Sequence[str] = (),
        max_sockets: int = 1000,
        heartbeat_interval: float = 30.0,
        heartbeat_timeout: float = 120.0,
        auth_seconds: float = AUTH_SECONDS,
        renewal: float = RENEWAL,
        ready: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._callers = callers
        self._admission = Admission(callers, limiter, origins)
        self._store = store
        self._roster = SocketRegistry(store, sentence=sentence, renewal=renewal, clock=clock)
        self._sentence = sentence
        self._max_sockets = max_sockets
        self._heartbeats = {"heartbeat_interval": heartbeat_interval, "heartbeat_timeout": heartbeat_timeout}
        self._auth_seconds = auth_seconds
        self._ready = ready
        self._clock = clock
        self._refusals = LimitedLog(log, "socket refused")
        self._lock = threading.Lock()
        self._places = 0

    @property
    def count(self) -> int:
        """How many handshakes and sockets are under way."""
        return self._places

    def serve(self, door: str, client_id: str, open: Opens) -> Response:
        """Answer a request for a socket: return when the socket is over, or why there is none.

        `client_id` is "" where the client chose none. `open` is called when it is known who is there.
        """
        try:
            return self._serve(door, client_id or uuid.uuid4().hex, open)
        except AdmissionRefused as refused:
            metrics.SOCKETS_REFUSED.labels(door, refused.check).inc()
            self._refusals.warning({"door": door, "check": refused.check, **refused.extra})
            return refused.reply()

    def connections(self) -> list[dict[str, Any]]:
        """Return who is connected on all replicas, the longest first; `idle_time` is in seconds.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return [
            {
                "client_id": one.client_id,
                "door": one.door,
                "connected_at": iso(one.connected_at),
                "idle_time": round(one.idle, 1),
                "replica": one.replica,
            }
            for one in self._store.connections()
        ]

    def disconnect(self, client_id: str) -> int:
        """Close every socket with this client id, on all replicas, and return how many there were.

        Raises:
            StoreUnavailable: Redis did not answer; those of this process are closed all the same.
        """
        return self._roster.disconnect(client_id)

    def start(self) -> None:
        """Begin to keep the registry of all replicas up to date."""
        metrics.SOCKETS_MAX.inc(self._max_sockets)
        self._roster.start()

    def leave(self) -> None:
        """Open no more sockets; close those that are not busy, now or when they no longer are."""
        self._roster.leave()

    def close_all(self) -> None:
        """Close whoever is left, and see them end for a few seconds."""
        self._roster.close_all()

    def stop(self) -> None:
        """End the upkeep of the registry, where this process's sockets are taken out."""
        self._roster.stop()

    def _serve(self, door: str, client_id: str, open: Opens) -> Response:
        if self._roster.leaving or not self._ready():
            raise AdmissionRefused("draining", 503, "This process is starting or leaving; another one answers.")
        self._admission.check(request, client_id)
        with self._place():
            caller = self._admission.caller(request)
            self._see_through(self._accepted(door, client_id, open, caller))
        return finish()

    @contextmanager
    def _place(self) -> Iterator[None]:
        with self._lock:
            if self._places >= self._max_sockets:
                raise AdmissionRefused("sockets_max", 503, "There are too many open sockets.")
            self._places += 1
        try:
            yield
        finally:
            with self._lock:
                self._places -= 1

    def _accepted(self, door: str, client_id: str, open: Opens, caller: Caller | None) -> SocketSession:
        """Shake hands, and return what the socket's visit will be."""

        def admit(visit: SocketSession, caller: Caller) -> Peer:
            self._roster.enter(visit, caller)
            return open(visit.socket, caller, client_id)

        try:
            socket = accept(request.environ, subprotocol=SUBPROTOCOL, **self._heartbeats)
        except HandshakeRefused as exc:
            raise AdmissionRefused("handshake", exc.status, str(exc)) from exc
        return SocketSession(
            socket,
            door,
            client_id,
            callers=self._callers,
            admit=admit,
            sentence=self._sentence,
            caller=caller,
            auth_seconds=self._auth_seconds,
        )

    def _see_through(self, visit: SocketSession) -> None:
        """Let the socket be used until its end. Nothing is raised: no answer of HTTP may follow on this connection."""
        began, closed = self._clock(), Closed(LOST)
        open_now = metrics.SOCKETS_OPEN.labels(visit.door)
        open_now.inc()
        try:
            self._roster.add(visit)
            closed = converse(visit.socket, visit)
        except Exception:
            log.exception("socket failed", extra={"door": visit.door, "client_id": visit.client_id})
        finally:
            self._roster.remove(visit)
            open_now.dec()
            self._tell(visit, closed, self._clock() - began)

    def _tell(self, visit: SocketSession, closed: Closed, seconds: float) -> None:
        metrics.SOCKETS_ENDED.labels(visit.door, metrics.close_label(closed.code)).inc()
        ids = {"door": visit.door, "client_id": visit.client_id, "socket": visit.socket.token}
        end = {"code": closed.code, "by_peer": closed.by_peer, "clean": closed.clean, "seconds": round(seconds, 1)}
        counts = {"received": visit.received_count, "sent": visit.socket.sent, "authenticated": visit.entry is not None}
        log.info("socket", extra={**ids, **end, **counts})
