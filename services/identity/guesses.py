"""Counts wrong credentials per address and blocks an address that sends too many."""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Literal

from services import metrics
from services.errors import AddressBlocked
from utils.networks import network

log = logging.getLogger(__name__)

#: Wrong credentials an address may send within a window, and the window's seconds. The first one starts the window.
MOST = 30
WINDOW = 60.0
#: Addresses kept, and right credentials with their addresses. Beyond that, the oldest one is dropped.
ADDRESSES = 10_000

#: "admin" is an administrator's token, "alert" Alertmanager's, "caller" the credential of a REST or socket client.
CredentialKind = Literal["admin", "alert", "caller"]


class Guesses:
    """Count wrong credentials in this process alone, so that no request waits for Redis. Thread-safe.

    An address with `most` failures is blocked until its window ends, even with a right credential: otherwise the limit
    would not slow down guessing. A credential that was right from this address before passes, because it is no guess:
    one wrong program does not lock out the others behind the same address.
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
        #: Per address: when its window began, and its failures since. Oldest window first.
        self._windows: dict[str, tuple[float, int]] = {}
        #: Digests of right credentials with their addresses, the one that was shown longest ago first.
        self._right: dict[bytes, None] = {}
        self._salt = secrets.token_bytes(16)

    def check(self, ip: str, kind: CredentialKind, secret: str) -> None:
        """Check that an address is not blocked for this credential. "", an unknown address, never is.

        Raises:
            AddressBlocked: too many wrong credentials came from it, and this one was not right there before.
        """
        with self._lock:
            began, count = self._windows.get(network(ip), (0.0, 0))
        left = began + self._window - self._clock()
        if ip and count >= self._most and left > 0 and self._digest(ip, secret) not in self._right:
            metrics.CREDENTIALS_REFUSED.labels(kind, "blocked").inc()
            raise AddressBlocked(left)

    def succeeded(self, ip: str, secret: str) -> None:
        """Remember a right credential of an address."""
        digest = self._digest(ip, secret)
        with self._lock:
            self._right.pop(digest, None)
            self._right[digest] = None
            if len(self._right) > self._addresses:
                del self._right[next(iter(self._right))]

    def failed(self, ip: str, kind: CredentialKind, secret: str) -> None:
        """Count a wrong credential of an address; one that was revoked is not right any more."""
        metrics.CREDENTIALS_REFUSED.labels(kind, "wrong").inc()
        address, now = network(ip), self._clock()
        with self._lock:
            self._right.pop(self._digest(ip, secret), None)
            began, count = self._windows.get(address, (now, 0))
            if now - began >= self._window:
                del self._windows[address]
                began, count = now, 0
            self._windows[address] = (began, count + 1)
            if len(self._windows) > self._addresses:
                del self._windows[next(iter(self._windows))]
        if count + 1 == self._most:
            log.warning("address blocked", extra={"address": address, "kind": kind, "seconds": self._window})

    def _digest(self, ip: str, secret: str) -> bytes:
        shown = f"{network(ip)}\n{secret}".encode("utf-8", "replace")
        return hashlib.blake2b(shown, digest_size=16, key=self._salt).digest()
