"""The sockets of this process: which is the newest of its client, and what all replicas know of them by Redis."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from channels.sockets.session import SocketSession
from services.errors import StoreUnavailable
from services.identity.callers import Caller
from services.sockets.store import OpenSocket, SocketStore, Verdict

log = logging.getLogger(__name__)

#: Close codes: this replica restarts (the registry of RFC 6455), a newer socket of the same client, an administrator.
RESTARTING = 1012
REPLACED = 4409
DISCONNECTED = 4410

#: Seconds between two renewals in Redis.
RENEWAL = 2.0
#: Seconds between two looks for sockets that are not busy any more, while this replica leaves.
LOOK = 0.2
#: Seconds the last sockets have for their close, and the keeper for its end.
LAST_SECONDS = 3.0
#: What makes a socket the newer of two, in seconds.
STEP = 0.001


class SocketRegistry:
    """Knows every socket of this process until its end; a thread of its own keeps Redis up to date.

    While Redis is away nobody is closed for it: the next renewal brings what it lacks. `sentence` gives the text of a
    key.
    """

    def __init__(
        self,
        store: SocketStore,
        *,
        sentence: Callable[[str], str],
        renewal: float = RENEWAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._sentence = sentence
        self._renewal = renewal
        self._clock = clock
        self._changed = threading.Condition()
        self._visits: dict[str, SocketSession] = {}
        #: The newest of each door, principal and client id.
        self._newest: dict[tuple[str, str, str], SocketSession] = {}
        self._left: list[OpenSocket] = []
        self.leaving = False
        self._renewed_at = clock()
        self._stopped = False
        self._wake = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="socket-keeper", daemon=True)

    def add(self, visit: SocketSession) -> None:
        """Take in a socket that just opened."""
        with self._changed:
            self._visits[visit.socket.token] = visit
        if self.leaving:
            # `leave` may not have seen it.
            visit.socket.close(RESTARTING, "restarting")

    def enter(self, visit: SocketSession, caller: Caller) -> None:
        """Make a socket the newest of its client, here and on all replicas; the one before it is closed."""
        key = (visit.door, caller.principal, visit.client_id)
        visit.entry = self._registered(OpenSocket(visit.socket.token, *key, visit.socket.connected_at))
        older = self._place(visit, visit.entry)
        if older:
            older.close(REPLACED, "socket_replaced")

    def remove(self, visit: SocketSession) -> None:
        """Forget a socket that ended."""
        with self._changed:
            self._visits.pop(visit.socket.token, None)
            if visit.entry:
                if self._newest.get(visit.entry.key) is visit:
                    del self._newest[visit.entry.key]
                self._left.append(visit.entry)
            self._changed.notify_all()
        self._wake.set()

    def visits(self) -> list[SocketSession]:
        """Return every socket of this process."""
        with self._changed:
            return list(self._visits.values())

    def disconnect(self, client_id: str) -> int:
        """Close every socket with this client id, on all replicas, and return how many there were.

        Raises:
            StoreUnavailable: Redis did not answer; those of this process are closed all the same.
        """
        mine = [visit for visit in self.visits() if visit.client_id == client_id]
        try:
            tokens = set(self._store.dismiss(client_id))
        finally:
            for visit in mine:
                self._dismiss(visit)
        return len(tokens | {visit.socket.token for visit in mine})

    def start(self) -> None:
        """Begin to renew this process's sockets in Redis."""
        self._keeper.start()

    def leave(self) -> None:
        """Close the sockets that are not busy, now or when they no longer are."""
        self.leaving = True
        self._close_idle()
        self._wake.set()

    def close_all(self) -> None:
        """Close whoever is left, and see them end for a few seconds."""
        self.leaving = True
        for visit in self.visits():
            visit.socket.close(RESTARTING, "restarting")
        with self._changed:
            self._changed.wait_for(lambda: not self._visits, LAST_SECONDS)

    def stop(self) -> None:
        """End the keeper, and tell Redis of the last ones that left."""
        self._stopped = True
        self._wake.set()
        if self._keeper.ident:
            self._keeper.join(LAST_SECONDS)
        with suppress(StoreUnavailable):
            self._tell_of_left()

    def _registered(self, entry: OpenSocket) -> OpenSocket:
        """Return the entry with its place in the order, as Redis gave it, or as it will get it with a renewal."""
        with self._changed:
            before = self._newest.get(entry.key)
        after = before.entry.since if before and before.entry else 0.0
        try:
            return replace(entry, since=self._store.register(entry, after=after))
        except StoreUnavailable:
            return replace(entry, since=max(self._store.now(), after + STEP))

    def _place(self, visit: SocketSession, entry: OpenSocket) -> SocketSession | None:
        """Put a socket at its place in the order, and return the one that must give way: perhaps itself."""
        with self._changed:
            other = self._newest.get(entry.key)
            if other and other.entry and other.entry.since > entry.since:
                return visit
            self._newest[entry.key] = visit
            return other

    def _keep(self) -> None:
        while not self._stopped:
            self._wake.wait(LOOK if self.leaving else self._renewal)
            self._wake.clear()
            try:
                # An outage is logged once, by who speaks to Redis.
                with suppress(StoreUnavailable):
                    self._round()
            except Exception:
                log.exception("socket keeper failed")

    def _round(self) -> None:
        """Do what is due."""
        if self.leaving:
            self._close_idle()
        self._tell_of_left()
        if self._clock() - self._renewed_at >= self._renewal:
            self._renewed_at = self._clock()
            self._renew()

    def _tell_of_left(self) -> None:
        with self._changed:
            left, self._left = self._left, []
        # What cannot be said now ends by itself.
        self._store.leave(left)

    def _renew(self) -> None:
        now = self._clock()
        visits = {visit.socket.token: visit for visit in self.visits() if not visit.socket.closing}
        known = [(v.entry, max(0.0, now - v.socket.last_received)) for v in visits.values() if v.entry]
        for token, verdict in self._store.renew(known).items():
            self._obey(visits[token], verdict)

    def _obey(self, visit: SocketSession, verdict: Verdict) -> None:
        if verdict == "dismissed":
            self._dismiss(visit)
        else:
            visit.close(REPLACED, "socket_replaced")

    def _dismiss(self, visit: SocketSession) -> None:
        if visit.dismissed:
            return
        visit.dismissed = True
        # In a thread of its own: a client that reads slowly makes a sender wait.
        threading.Thread(target=self._say_goodbye, args=(visit,), name="socket-goodbye", daemon=True).start()

    def _say_goodbye(self, visit: SocketSession) -> None:
        if visit.door == "chat":
            # The originals' frame; the realtime door has none of that kind.
            ids = {"client_id": visit.client_id, "timestamp": iso(time.time())}
            visit.socket.send({"type": "system", "content": self._sentence("socket_disconnected"), **ids})
        visit.close(DISCONNECTED, "socket_disconnected")

    def _close_idle(self) -> None:
        for visit in self.visits():
            if not visit.busy:
                visit.socket.close(RESTARTING, "restarting")


def iso(seconds: float) -> str:
    """Return a time since 1970 as it is shown."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
