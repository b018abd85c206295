"""The random secret of what belongs to no bot, where `SECRET_KEY` is empty: all replicas share it by Redis.

    dify_secret:own    string, 64 hexadecimal characters; no expiry

It names things and seals nothing: whoever reads Redis reads it too.
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
#: Seconds between two looks whether Redis still has the secret: after FLUSHALL or a lost write it is written again.
CHECK_SECONDS = 5.0


class SecretStore:
    """Owns the key above; it is fetched when it is first needed, and once per process. Safe in many threads."""

    def __init__(self, runner: ScriptRunner, *, interval: float = CHECK_SECONDS) -> None:
        self._runner = runner
        self._interval = interval
        #: What Redis gets where it has none: SET NX lets one of all processes win.
        self._offer = secrets.token_hex(32)
        #: The secret, and those that it was before in this process; empty until it was fetched.
        self._known: tuple[bytes, ...] = ()
        self._closed = threading.Event()

    def secrets(self) -> tuple[bytes, ...]:
        """Return the secret, and after it those it was before Redis lost them.

        Raises:
            StoreUnavailable: Redis is away, and this process has not fetched the secret yet.
        """
        return self._known or self.check()

    def check(self) -> tuple[bytes, ...]:
        """Write the secret where Redis has none, take the one Redis has, and return what `secrets` does.

        Raises:
            StoreUnavailable: Redis is away; what is known stays.
        """
        calls = [Call(None, ("SET", KEY), (self._offer, "NX")), Call(None, ("GET", KEY))]
        found = self._runner.run(calls)[1]
        if not found:
            raise StoreUnavailable(f"{KEY} was deleted in this moment")
        if self._known and found != self._offer:
            log.warning("redis lost the secret of what belongs to no bot, and another replica wrote a new one")
        # From now on this process offers what all have agreed on.
        self._offer = found
        self._known = tuple(dict.fromkeys((found.encode(), *self._known)))
        return self._known

    def start(self) -> None:
        """Look after the secret in a thread, once this process has fetched it."""
        threading.Thread(target=self._look_after, name="own-secret", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _look_after(self) -> None:
        while not self._closed.wait(self._interval):
            if self._known:
                with suppress(StoreUnavailable):
                    self.check()
