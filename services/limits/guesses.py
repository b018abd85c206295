"""Wrong credentials, counted by address: who guesses is stopped, and nobody at another address notices."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Literal

from services import metrics
from services.errors import AddressBlocked
from utils.networks import network

log = logging.getLogger(__name__)

#: Wrong credentials that an address may show in a window, and the window's seconds, which begin with the first.
MOST = 30
WINDOW = 60.0
#: Addresses remembered; beyond that the one whose window began first is forgotten.
ADDRESSES = 10_000

#: Whose credential it is: an administrator's, or that of a caller of REST and sockets.
Kind = Literal["admin", "caller"]


class Guesses:
    """Counts of this process alone, so that no request waits for them; safe to use from many threads.

    Only failures count. An address that reached `most` of them may show no credential until its window ends, not even
    a right one: a guesser who gets in with it has lost nothing by the limit.
    """

    def __init__(
        self,
        *,
        most: int = MOST,
        window: float = WINDOW,
        addresses: int = ADDRESSES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._window = window
        self._addresses = addresses
        self._clock = clock
        self._lock = threading.Lock()
        #: When the window of an address began, and its failures since; in the order of the beginnings.
        self._windows: dict[str, tuple[float, int]] = {}

    def check(self, ip: str, kind: Kind) -> None:
        """Pass an address that may show a credential; "" is nobody's, and may.

        Raises:
            AddressBlocked: it showed too many wrong ones.
        """
        with self._lock:
            began, count = self._windows.get(network(ip), (0.0, 0))
        left = began + self._window - self._clock()
        if ip and count >= self._most and left > 0:
            metrics.CREDENTIALS_REFUSED.labels(kind, "blocked").inc()
            raise AddressBlocked(left)

    def failed(self, ip: str, kind: Kind) -> None:
        """Count a wrong credential of an address."""
        metrics.CREDENTIALS_REFUSED.labels(kind, "wrong").inc()
        address, now = network(ip), self._clock()
        with self._lock:
            began, count = self._windows.get(address, (now, 0))
            if now - began >= self._window:
                del self._windows[address]
                began, count = now, 0
            self._windows[address] = (began, count + 1)
            if len(self._windows) > self._addresses:
                del self._windows[next(iter(self._windows))]
        if count + 1 == self._most:
            log.warning("address blocked", extra={"address": address, "kind": kind, "seconds": self._window})
