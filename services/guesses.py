"""Wrong credentials, counted per address: a guesser is stopped, and nobody at another address notices."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from services import metrics
from services.rate_limiter import network_of

#: Wrong credentials an address may show in a window, and seconds of the window, which begins with the first.
MOST = 10
WINDOW = 60.0
#: Addresses remembered; beyond that the one whose window began first is forgotten.
ADDRESSES = 10_000


class Guesses:
    """Counts of this process alone, so that no request waits for them; safe to use from many threads.

    Only failures count. An address that reached `most` shows no credential, right or wrong, until its window ends:
    were a right one let through, a guesser would learn it all the same.
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
        #: When each address' window began and how many failures it has; the oldest window first.
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def blocked(self, ip: str, kind: str) -> float:
        """Return the seconds until this address may show a credential again, 0.0 for now; "" is nobody's address.

        `kind` of credential is for the metric: "admin" or "caller".
        """
        with self._lock:
            began, count = self._failures.get(network_of(ip), (0.0, 0))
        left = began + self._window - self._clock()
        if not ip or count < self._most or left <= 0:
            return 0.0
        metrics.CREDENTIALS_REFUSED.labels(kind, "blocked").inc()
        return left

    def failed(self, ip: str, kind: str) -> None:
        """Count a wrong credential of this address."""
        metrics.CREDENTIALS_REFUSED.labels(kind, "wrong").inc()
        name, now = network_of(ip), self._clock()
        with self._lock:
            began, count = self._failures.pop(name, (now, 0))
            if now - began >= self._window:
                began, count = now, 0
            self._failures[name] = (began, count + 1)
            if count:
                # The order is that of the windows' beginnings.
                self._failures.move_to_end(name, last=False)
            if len(self._failures) > self._addresses:
                self._failures.popitem(last=False)
