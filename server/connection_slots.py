"""Limit a worker's connections: slots for ordinary requests, a limit per client address, and a reserve.

A connection is in one of three states: it waits for a request, it serves an exempt request (a callback or a probe), or
it serves an ordinary request, which holds a slot. Ordinary requests never use more than the slots, so the reserve is
always left for callbacks, probes and connections whose request is not known yet. When the reserve runs short, the
connection that has waited longest is closed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal

from utils.networks import client_of, network

#: Connections beyond the slots of ordinary requests.
RESERVE = 500
#: While fewer connections than this can still be accepted, each new connection closes a waiting one.
SHORT = 100
#: Age in seconds from which a waiting connection, and an exempt request including body and reply, may be closed to make
#: room. Both normally take milliseconds. If all are younger, the oldest waiting connection is closed.
WAIT_SECONDS = 1.0
EXEMPT_SECONDS = 5.0

#: Paths of requests that need no slot and do not count towards the limit per address.
PROBES = ("/healthz", "/readyz")
CALLBACKS = "/wechat/callback"

Reason = Literal["address", "full"]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits from the settings: connections per client address (0: unlimited), and the number of trusted proxies."""

    per_address: int = 0
    trusted_proxies: int = 0

    def address(self, peer: str, forwarded: str) -> str:
        """Return the network that a request counts for, or "" if connections are not limited."""
        return network(client_of(peer, forwarded, self.trusted_proxies)) if self.per_address else ""


def is_exempt(path: str) -> bool:
    """Return whether an undecoded path belongs to a callback or a probe."""
    return path in PROBES or path == CALLBACKS or path.startswith(CALLBACKS + "/")


class ConnectionSlots:
    """Tracks the connections of one listener by socket. For one thread; no method switches greenlets."""

    def __init__(self, limits: ConnectionLimits, *, slots: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._slots = slots
        self._clock = clock
        # Start times, in insertion order: when the connection began to wait, or when its request began.
        self._waiting: dict[Hashable, float] = {}
        self._exempt: dict[Hashable, float] = {}
        self._ordinary: set[Hashable] = set()
        #: The connections that have sent a request.
        self._asked: set[Hashable] = set()
        #: Connection → the network it counts for.
        self._addresses: dict[Hashable, str] = {}
        self._counts: Counter[str] = Counter()

    @property
    def idle(self) -> tuple[Hashable, ...]:
        """The connections that wait for a further request; the first one of a new connection is on its way."""
        return tuple(connection for connection in self._waiting if connection in self._asked)

    def wait(self, connection: Hashable) -> None:
        """Mark a new or known connection as waiting for its next request."""
        self._exempt.pop(connection, None)
        self._ordinary.discard(connection)
        if self._limits.trusted_proxies:
            # A proxy may send another client's request next. Without proxies the connection stays counted.
            self._uncount(connection)
        self._waiting[connection] = self._clock()

    def exempt(self, connection: Hashable) -> None:
        """Mark a connection as serving a callback or a probe."""
        self._waiting.pop(connection, None)
        self._asked.add(connection)
        self._exempt[connection] = self._clock()

    def admit(self, connection: Hashable, peer: str, forwarded: str) -> Reason | None:
        """Give an ordinary request a slot; return None, or the reason why there is none."""
        self._waiting.pop(connection, None)
        self._asked.add(connection)
        if not self._count(connection, self._limits.address(peer, forwarded)):
            return "address"
        if len(self._ordinary) >= self._slots:
            return "full"
        self._ordinary.add(connection)
        return None

    def leave(self, connection: Hashable) -> None:
        """Forget a connection that is closed."""
        self._waiting.pop(connection, None)
        self._exempt.pop(connection, None)
        self._ordinary.discard(connection)
        self._asked.discard(connection)
        self._uncount(connection)

    def make_room(self) -> Hashable | None:
        """Return a connection to close for a new one, or None if none may be closed."""
        now = self._clock()
        for held, seconds in ((self._waiting, WAIT_SECONDS), (self._exempt, EXEMPT_SECONDS), (self._waiting, 0.0)):
            oldest = next(iter(held), None)
            if oldest is not None and now - held[oldest] >= seconds:
                del held[oldest]
                return oldest
        return None

    def _count(self, connection: Hashable, address: str) -> bool:
        if not address or connection in self._addresses:
            return True
        if self._counts[address] >= self._limits.per_address:
            return False
        self._counts[address] += 1
        self._addresses[connection] = address
        return True

    def _uncount(self, connection: Hashable) -> None:
        address = self._addresses.pop(connection, None)
        if address is None:
            return
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]
