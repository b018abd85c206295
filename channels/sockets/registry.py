"""The registry of this process's sockets: finds the newest socket of each client, and keeps Redis up to date."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from channels.asking import iso_now
from channels.sockets.session import SocketSession
from config.texts import Texts
from services.errors import StoreUnavailable
from services.identity.callers import Caller
from services.sockets.store import OpenSocket, SocketStore

log = logging.getLogger(__name__)

#: Close codes: this replica restarts (IANA's registry for RFC 6455), a newer socket of the same client replaced this
#: one, an administrator disconnected the client.
RESTARTING = 1012
REPLACED = 4409
DISCONNECTED = 4410

#: Seconds between two renewals in Redis.
RENEWAL = 2.0
#: Seconds between two checks for sockets that are no longer busy, while this replica drains.
LOOK = 0.2
#: Seconds of `LAST_SECONDS` in which the ends of answers are shown before the last sockets are closed.
SHOWN_SECONDS = 2.0
#: Seconds the last sockets have to close, and the registry's thread to end.
LAST_SECONDS = 3.0
#: Minimum seconds between the `since` of two sockets of one client, where this process sets it without Redis.
STEP = 0.001


class SocketRegistry:
    """Holds every open socket of this process; a thread renews their entries in Redis.

    While Redis is unavailable no socket is closed for it; the next renewal writes the missing entries.
    """

    def __init__(
        self,
        store: SocketStore,
        *,
        texts: Texts,
        renewal: float = RENEWAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._texts = texts
        self._renewal = renewal
        self._clock = clock
        self._changed = threading.Condition()
        self._sessions: dict[str, SocketSession] = {}
        #: The newest session by channel, principal and client id.
        self._newest: dict[tuple[str, str, str], SocketSession] = {}
        self._left: list[OpenSocket] = []
        self.leaving = False
        self._renewed_at = clock()
        self._stopped = False
        self._wake = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="socket-keeper", daemon=True)

    def add(self, session: SocketSession) -> None:
        """Add a socket that was just opened."""
        with self._changed:
            self._sessions[session.socket.token] = session
        if self.leaving:
            # `leave` may have run before it was added.
            session.socket.close(RESTARTING, "restarting")

    def enter(self, session: SocketSession, caller: Caller) -> None:
        """Make a socket the newest of its client on all replicas, and close the one before it."""
        key = (session.channel, caller.principal, session.client_id)
        session.entry = self._registered(OpenSocket(session.socket.token, *key, session.socket.connected_at))
        older = self._make_newest(session, session.entry)
        if older:
            older.close(REPLACED, "socket_replaced")

    def remove(self, session: SocketSession) -> None:
        """Remove a socket that has ended."""
        with self._changed:
            self._sessions.pop(session.socket.token, None)
            if session.entry:
                if self._newest.get(session.entry.key) is session:
                    del self._newest[session.entry.key]
                self._left.append(session.entry)
            self._changed.notify_all()
        self._wake.set()

    def sessions(self) -> list[SocketSession]:
        """Return every socket of this process."""
        with self._changed:
            return list(self._sessions.values())

    def disconnect(self, client_id: str) -> int:
        """Close every socket with this client id on all replicas, and return their number.

        Raises:
            StoreUnavailable: Redis did not answer; the sockets of this process are closed anyway.
        """
        mine = [session for session in self.sessions() if session.client_id == client_id]
        try:
            tokens = set(self._store.dismiss(client_id))
        finally:
            for session in mine:
                self._dismiss(session)
        return len(tokens | {session.socket.token for session in mine})

    def start(self) -> None:
        """Start the thread that renews this process's sockets in Redis."""
        self._keeper.start()

    def leave(self) -> None:
        """Close idle sockets now, and the others when they become idle."""
        self.leaving = True
        self._close_idle()
        self._wake.set()

    def close_all(self) -> None:
        """Close all sockets: idle ones now, busy ones when they become idle, after `SHOWN_SECONDS` at the latest.

        An answer that has just ended is still to be shown. Takes up to `LAST_SECONDS` in all.
        """
        self.leave()
        with self._changed:
            self._changed.wait_for(lambda: not self._sessions, SHOWN_SECONDS)
        for session in self.sessions():
            session.socket.close(RESTARTING, "restarting")
        with self._changed:
            self._changed.wait_for(lambda: not self._sessions, LAST_SECONDS - SHOWN_SECONDS)

    def stop(self) -> None:
        """Stop the thread and remove the last ended sockets from Redis."""
        self._stopped = True
        self._wake.set()
        if self._keeper.ident:
            self._keeper.join(LAST_SECONDS)
        with suppress(StoreUnavailable):
            self._remove_left()

    def _registered(self, entry: OpenSocket) -> OpenSocket:
        """Return the entry with its `since` from Redis; without Redis, with one that the next renewal writes."""
        with self._changed:
            before = self._newest.get(entry.key)
        after = before.entry.since if before and before.entry else 0.0
        try:
            return replace(entry, since=self._store.register(entry, after=after))
        except StoreUnavailable:
            return replace(entry, since=max(self._store.now(), after + STEP))

    def _make_newest(self, session: SocketSession, entry: OpenSocket) -> SocketSession | None:
        """Make a session the newest by its `since`, and return the older one to close, which may be itself."""
        with self._changed:
            other = self._newest.get(entry.key)
            if other and other.entry and other.entry.since > entry.since:
                return session
            self._newest[entry.key] = session
            return other

    def _keep(self) -> None:
        while not self._stopped:
            self._wake.wait(LOOK if self.leaving else self._renewal)
            self._wake.clear()
            try:
                # `services.redis` logs an outage once.
                with suppress(StoreUnavailable):
                    self._round()
            except Exception:
                log.exception("socket keeper failed")

    def _round(self) -> None:
        """Run one round of the thread: close idle sockets, remove ended ones, renew the others."""
        if self.leaving:
            self._close_idle()
        self._remove_left()
        if self._clock() - self._renewed_at >= self._renewal:
            self._renewed_at = self._clock()
            self._renew()

    def _remove_left(self) -> None:
        with self._changed:
            left, self._left = self._left, []
        # If this fails, the entries expire (`services.sockets.store.LIFE`).
        self._store.leave(left)

    def _renew(self) -> None:
        now = self._clock()
        sessions = {session.socket.token: session for session in self.sessions() if not session.socket.closing}
        known = [(v.entry, max(0.0, now - v.socket.last_received)) for v in sessions.values() if v.entry]
        for token, verdict in self._store.renew(known).items():
            if verdict == "dismissed":
                self._dismiss(sessions[token])
            else:
                sessions[token].close(REPLACED, "socket_replaced")

    def _dismiss(self, session: SocketSession) -> None:
        if session.dismissed:
            return
        session.dismissed = True
        # In a thread of its own, because `send` blocks on a client that reads slowly.
        threading.Thread(target=self._send_dismissal, args=(session,), name="socket-goodbye", daemon=True).start()

    def _send_dismissal(self, session: SocketSession) -> None:
        if session.channel == "chat":
            # The frame of the original product; the realtime channel has no such frame.
            ids = {"client_id": session.client_id, "timestamp": iso_now()}
            session.socket.send({"type": "system", "content": self._texts.get("socket_disconnected"), **ids})
        session.close(DISCONNECTED, "socket_disconnected")

    def _close_idle(self) -> None:
        for session in self.sessions():
            if not session.busy:
                session.socket.close(RESTARTING, "restarting")
