"""The access token for a call: the one that all replicas share, renewed by one replica at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from services.errors import ProviderError, StoreUnavailable
from services.redis.lock_store import LockStore
from services.wecom.directory.access_token_store import AccessToken, AccessTokenStore
from services.wecom.directory.api_service import BAD_TOKEN, ContactsApi, ContactsRefused
from utils.deadline import Deadline

T = TypeVar("T")

#: Seconds for which a replica may renew the token alone: longer than one call takes. The lock of a killed replica
#: expires before the replicas that wait for it give up.
LOCK_SECONDS = 4.0
#: Seconds between two looks while another replica renews the token.
POLL = 0.1


class TokenAccess:
    """Gives calls a token. Thread-safe."""

    def __init__(self, api: ContactsApi, tokens: AccessTokenStore, locks: LockStore, *, source: str) -> None:
        self._api = api
        self._tokens = tokens
        self._locks = locks
        self._lock = f"contact_token:{source}"

    def use(self, call: Callable[[str], T], deadline: Deadline) -> T:
        """Call with a token; once more with a new one if WeCom refused the token.

        Raises:
            ProviderError: no token could be had in time, or the call failed.
            StoreUnavailable: Redis is away.
        """
        access = self.token(deadline)
        try:
            return call(access.token)
        except ContactsRefused as exc:
            if exc.errcode not in BAD_TOKEN:
                raise
        self._tokens.drop(access)
        return call(self.token(deadline).token)

    def token(self, deadline: Deadline) -> AccessToken:
        """Return the shared token; without one, renew it or wait until another replica has.

        Raises:
            ProviderError: WeCom gave none, or the time is over.
            StoreUnavailable: Redis is away.
        """
        while not (known := self._tokens.load()).token:
            if held := self._locks.acquire(self._lock, LOCK_SECONDS):
                return self._renewed(held, deadline)
            if deadline.over:
                raise ProviderError("another replica's gettoken takes too long", code="provider_timeout")
            time.sleep(POLL)
        return known

    def _renewed(self, held: str, deadline: Deadline) -> AccessToken:
        try:
            # Read again: the lock's last holder may have stored one just before it released the lock.
            known = self._tokens.load()
            return known if known.token else self._tokens.save(*self._api.token(deadline))
        finally:
            with suppress(StoreUnavailable):
                self._locks.release(self._lock, held)
