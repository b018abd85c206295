"""A lease that this replica holds: a thread renews it until it is given back or another replica has it."""

from __future__ import annotations

import threading

from services.errors import StoreUnavailable
from services.wecom.long_connection.lease_store import LeaseStore

#: Seconds between two renewals.
RENEWAL = 2.0


class HeldLease:
    """The lease of one bot, after this replica has taken it."""

    def __init__(self, store: LeaseStore, bot: str, token: str, fence: int, *, renewal: float = RENEWAL) -> None:
        """`renewal` is the number of seconds between two renewals."""
        self.bot = bot
        self.fence = fence
        #: Set once another replica has the lease.
        self.gone = threading.Event()
        self._store = store
        self._token = token
        self._renewal = renewal
        self._fields: dict[str, str] = {}
        self._wake = threading.Event()
        # Held during a call to Redis, so that no renewal follows `give_back`.
        self._calling = threading.Lock()
        self._over = False
        self._given_back = False

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"lease-{self.bot}", daemon=True).start()

    def note(self, **fields: str) -> None:
        """Write fields of the lease soon, and with every renewal from now on."""
        self._fields |= fields
        self._wake.set()

    def give_back(self, **fields: str) -> bool:
        """End the lease, and write these fields; return whether this replica still held it. A second call does nothing.

        Raises:
            StoreUnavailable: nothing may have been written; the lease is not renewed any more.
        """
        with self._calling:
            self._wake.set()
            self._over = True
            if self._given_back:
                return False
            kept = self._store.give_back(self.bot, self._token, self.fence, **fields)
            self._given_back = True
            return kept

    def confirm(self) -> bool:
        """Renew the lease now; return whether it is still this replica's.

        Raises:
            StoreUnavailable: Redis is away.
        """
        with self._calling:
            # A renewal writes a lease again that Redis has lost: only its holder may.
            if self._over or self.gone.is_set():
                return False
            kept = self._store.renew(self.bot, self._token, self.fence, **self._fields)
        if not kept:
            self.gone.set()
        return kept

    def _run(self) -> None:
        while self._renew():
            self._wake.wait(self._renewal)
            self._wake.clear()

    def _renew(self) -> bool:
        """Renew once; return whether to go on."""
        try:
            return self.confirm()
        except StoreUnavailable:
            # No other replica can take the lease either.
            return True
