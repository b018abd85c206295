"""Who may hold a worker's connections: slots for ordinary requests, a bound for each address, and room for the rest.

A connection is in one of three states. It waits for a request; or it is at an exempt one (a callback, a probe); or at
an ordinary one, which has a slot. Ordinary requests have all slots and no more, so that beyond them there is always
room for connections whose request is not known yet, for callbacks and for probes. Where that room gets short, the
connection goes that has waited longest.
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
#: While fewer connections than this can be accepted, each new one has a waiting one closed.
SHORT = 100
#: Seconds that a connection has for its request before it is closed to make room, and that an exempt request has, body
#: and reply included. Both take milliseconds; where all are younger, the oldest of those that wait is closed.
WAIT_SECONDS = 1.0
EXEMPT_SECONDS = 5.0

#: Requests that need no slot and are counted for no address.
PROBES = ("/healthz", "/readyz")
CALLBACKS = "/wechat/callback"

Reason = Literal["address", "full"]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What settings say of connections; 0 for no bound."""

    per_address: int = 0
    trusted_proxies: int = 0

    def address(self, peer: str, forwarded: str) -> str:
        """Return what a request is counted by, "" where nothing is counted."""
        return network(client_of(peer, forwarded, self.trusted_proxies)) if self.per_address else ""


def is_exempt(path: str) -> bool:
    """Tell whether a path as it was sent is a callback's or a probe's."""
    return path in PROBES or path == CALLBACKS or path.startswith(CALLBACKS + "/")


class ConnectionSlots:
    """The connections of one listener, by their sockets. Its methods never yield; one thread uses it."""

    def __init__(self, limits: ConnectionLimits, *, slots: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._slots = slots
        self._clock = clock
        # In the order in which each began to wait, or its request began.
        self._waiting: dict[Hashable, float] = {}
        self._exempt: dict[Hashable, float] = {}
        self._ordinary: set[Hashable] = set()
        #: The address that a connection counts for.
        self._addresses: dict[Hashable, str] = {}
        self._counts: Counter[str] = Counter()

    @property
    def waiting(self) -> tuple[Hashable, ...]:
        """The connections that wait for a request."""
        return tuple(self._waiting)

    def wait(self, connection: Hashable) -> None:
        """Take note that a connection, new or not, waits for its next request."""
        self._exempt.pop(connection, None)
        self._ordinary.discard(connection)
        if self._limits.trusted_proxies:
            # The next request on it may be another client's. Without proxies the connection itself is counted.
            self._uncount(connection)
        self._waiting[connection] = self._clock()

    def exempt(self, connection: Hashable) -> None:
        """Take note that a connection has a callback or a probe to be answered."""
        self._waiting.pop(connection, None)
        self._exempt[connection] = self._clock()

    def admit(self, connection: Hashable, peer: str, forwarded: str) -> Reason | None:
        """Give an ordinary request its slot; return the reason why there is none."""
        self._waiting.pop(connection, None)
        if not self._count(connection, self._limits.address(peer, forwarded)):
            return "address"
        if len(self._ordinary) >= self._slots:
            return "full"
        self._ordinary.add(connection)
        return None

    def leave(self, connection: Hashable) -> None:
        """Forget a connection that is over."""
        self._waiting.pop(connection, None)
        self._exempt.pop(connection, None)
        self._ordinary.discard(connection)
        self._uncount(connection)

    def make_room(self) -> Hashable | None:
        """Return the connection to be closed for a new one, None where each is at a request that may take its time."""
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
