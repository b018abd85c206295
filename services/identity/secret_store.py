"""A random secret for data of no bot, used if `SECRET_KEY` is empty. All replicas share it through Redis.

    dify_secret:own    string, 64 hexadecimal characters; no expiry

It is used for names and never for sealing: readers of Redis can read it.
"""

from __future__ import annotations

import logging
import secrets
import threading
from contextlib import suppress

from services.errors import StoreUnavailable
from services.redis.store import Call, ScriptRunner

log = logging.getLogger(__name__)

KEY = "dify_secret:own"
#: Seconds between two checks that Redis still has the secret. After FLUSHALL or a lost write it is written again.
CHECK_SECONDS = 5.0


class SecretStore:
    """Own the key above. The secret is fetched once per process, when it is first needed. Thread-safe."""

    def __init__(self, runner: ScriptRunner, *, interval: float = CHECK_SECONDS) -> None:
        self._runner = runner
        self._interval = interval
        #: The value written if Redis has none. SET NX makes one of all processes win.
        self._offer = secrets.token_hex(32)
        #: The secret, then its earlier values in this process; empty until it is fetched.
        self._known: tuple[bytes, ...] = ()
        self._closed = threading.Event()

    def secrets(self) -> tuple[bytes, ...]:
        """Return the secret, followed by earlier values that Redis lost.

        Raises:
            StoreUnavailable: Redis is unreachable and this process has not fetched the secret yet.
        """
        return self._known or self.check()

    def check(self) -> tuple[bytes, ...]:
        """Write the secret if Redis has none, read the one Redis has, and return the same as `secrets`.

        Raises:
            StoreUnavailable: Redis is unreachable; the known secrets stay.
        """
        calls = [Call(None, ("SET", KEY), (self._offer, "NX")), Call(None, ("GET", KEY))]
        found = self._runner.run(calls)[1]
        if not found:
            raise StoreUnavailable(f"{KEY} was deleted in this moment")
        if self._known and found != self._offer:
            log.warning("redis lost the secret of what belongs to no bot, and another replica wrote a new one")
        # From now on this process offers the value that all replicas use.
        self._offer = found
        self._known = tuple(dict.fromkeys((found.encode(), *self._known)))
        return self._known

    def start(self) -> None:
        """Start the thread that checks the secret, once this process has fetched it."""
        threading.Thread(target=self._look_after, name="own-secret", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _look_after(self) -> None:
        while not self._closed.wait(self._interval):
            if self._known:
                with suppress(StoreUnavailable):
                    self.check()
