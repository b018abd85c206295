"""Opens sockets: checks the handshake, limits their number, runs the session, and logs one line per socket."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint, Response, request

from channels.asking import iso
from channels.sockets.admission import SUBPROTOCOL, Admission, AdmissionRefused, CredentialChecker
from channels.sockets.registry import RENEWAL, SocketRegistry
from channels.sockets.session import AUTH_SECONDS, SocketSession
from channels.sockets.socket import Closed, HandshakeRefused, Peer, Socket, SocketTimes, accept, converse, finish
from config.texts import Texts
from services import metrics
from services.identity.callers import Caller
from services.identity.rate_limiter import RateLimiter
from services.metrics import close_label
from services.sockets.store import SocketStore
from utils.limited_log import LimitedLog

log = logging.getLogger(__name__)

#: The close code of a socket that ended without a close frame.
LOST = 1006

#: Creates a channel's peer for a socket of this caller and client id.
OpenPeer = Callable[[Socket, Caller, str], Peer]


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """The number of sockets of a process, and their times in seconds."""

    max_sockets: int = 1000
    times: SocketTimes = field(default_factory=SocketTimes)
    #: Time to send the credential in the first frame.
    auth_seconds: float = AUTH_SECONDS
    #: Time between two renewals in Redis.
    renewal: float = RENEWAL


def add_socket_rule(
    routes: Blueprint,
    rule: str,
    view: Callable[..., Response],
    *,
    suffix: str = "",
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Route both handshakes and plain requests to a view: werkzeug matches them by separate rules."""
    for name, websocket in ((f"socket{suffix}", True), (f"plain{suffix}", False)):
        routes.add_url_rule(rule, name, view, methods=["GET"], defaults=defaults or {}, websocket=websocket)


class Sockets:
    """Opens and closes the sockets of this process.

    `ready` is false while the process starts or drains. While Redis is unavailable, clients with an API key may still
    open sockets; clients with a token may not.
    """

    def __init__(
        self,
        *,
        callers: CredentialChecker,
        limiter: RateLimiter,
        store: SocketStore,
        texts: Texts,
        origins: Sequence[str],
        limits: SocketLimits,
        ready: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._callers = callers
        self._admission = Admission(callers, limiter, origins)
        self._store = store
        self._registry = SocketRegistry(store, texts=texts, renewal=limits.renewal, clock=clock)
        self._texts = texts
        self._limits = limits
        self._ready = ready
        self._clock = clock
        self._refusals = LimitedLog(log, "socket refused")
        self._lock = threading.Lock()
        self._slots = 0

    @property
    def count(self) -> int:
        """The number of handshakes and sockets under way."""
        return self._slots

    def serve(self, channel: str, client_id: str, open: OpenPeer) -> Response:
        """Serve a WebSocket request: return after the socket has ended, or the reply that refuses it.

        `client_id` is "" when the client chose none. `open` is called when the client is authenticated.
        """
        try:
            return self._serve(channel, client_id or uuid.uuid4().hex, open)
        except AdmissionRefused as refused:
            metrics.SOCKETS_REFUSED.labels(channel, refused.check).inc()
            self._refusals.warning({"channel": channel, "check": refused.check, **refused.extra})
            return refused.reply(self._texts)

    def connections(self) -> list[dict[str, Any]]:
        """Return the sockets of all replicas, the oldest first; `idle_time` is in seconds.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return [
            {
                "client_id": one.client_id,
                "channel": one.channel,
                "connected_at": iso(one.connected_at),
                "idle_time": round(one.idle, 1),
                "replica": one.replica,
            }
            for one in self._store.connections()
        ]

    def disconnect(self, client_id: str) -> int:
        """Close every socket with this client id on all replicas, and return their number.

        Raises:
            StoreUnavailable: Redis did not answer; the sockets of this process are closed anyway.
        """
        return self._registry.disconnect(client_id)

    def start(self) -> None:
        """Start to renew this process's sockets in Redis."""
        metrics.SOCKETS_MAX.inc(self._limits.max_sockets)
        self._registry.start()

    def leave(self) -> None:
        """Open no more sockets; close idle ones now and the others when they become idle."""
        self._registry.leave()

    def close_all(self) -> None:
        """Close all sockets and wait a few seconds for their end."""
        self._registry.close_all()

    def stop(self) -> None:
        """Stop the registry and remove this process's sockets from Redis."""
        self._registry.stop()

    def _serve(self, channel: str, client_id: str, open: OpenPeer) -> Response:
        if self._registry.leaving or not self._ready():
            raise AdmissionRefused("draining", 503, "This process is starting or leaving; another one answers.")
        self._admission.check(request, client_id)
        with self._slot():
            caller = self._admission.caller(request)
            self._run(self._accepted(channel, client_id, open, caller))
        return finish()

    @contextmanager
    def _slot(self) -> Iterator[None]:
        with self._lock:
            if self._slots >= self._limits.max_sockets:
                raise AdmissionRefused("sockets_max", 503, "There are too many open sockets.")
            self._slots += 1
        try:
            yield
        finally:
            with self._lock:
                self._slots -= 1

    def _accepted(self, channel: str, client_id: str, open: OpenPeer, caller: Caller | None) -> SocketSession:
        """Accept the handshake and return the socket's session."""

        def admit(session: SocketSession, caller: Caller) -> Peer:
            self._registry.enter(session, caller)
            return open(session.socket, caller, client_id)

        try:
            socket = accept(request.environ, subprotocol=SUBPROTOCOL, times=self._limits.times)
        except HandshakeRefused as exc:
            raise AdmissionRefused("handshake", exc.status, str(exc)) from exc
        return SocketSession(
            socket,
            channel,
            client_id,
            callers=self._callers,
            admit=admit,
            texts=self._texts,
            caller=caller,
            auth_seconds=self._limits.auth_seconds,
        )

    def _run(self, session: SocketSession) -> None:
        """Run the session until its end. Never raises: no HTTP response may follow on this connection."""
        began, closed = self._clock(), Closed(LOST)
        open_now = metrics.SOCKETS_OPEN.labels(session.channel)
        open_now.inc()
        try:
            self._registry.add(session)
            closed = converse(session.socket, session)
        except Exception:
            log.exception("socket failed", extra={"channel": session.channel, "client_id": session.client_id})
        finally:
            self._registry.remove(session)
            open_now.dec()
            self._log_end(session, closed, self._clock() - began)

    def _log_end(self, session: SocketSession, closed: Closed, seconds: float) -> None:
        metrics.SOCKETS_ENDED.labels(session.channel, close_label(closed.code)).inc()
        ids = {"channel": session.channel, "client_id": session.client_id, "socket": session.socket.token}
        end = {"code": closed.code, "by_peer": closed.by_peer, "clean": closed.clean, "seconds": round(seconds, 1)}
        counts = {
            "received": session.received_count,
            "sent": session.socket.sent,
            "authenticated": session.entry is not None,
        }
        log.info("socket", extra={**ids, **end, **counts})
