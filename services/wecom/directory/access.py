"""The access token for a call: the one that all replicas share, renewed by one replica at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from services.errors import ProviderError
from services.redis.lock_store import LockStore
from services.wecom.directory.access_token_store import AccessToken, AccessTokenStore
from services.wecom.directory.api_service import BAD_TOKEN, ContactsApi, ContactsRefused
from utils.deadline import Deadline

T = TypeVar("T")

#: Seconds for which a replica may renew the token alone: longer than one call takes. The lock of a killed replica
#: expires before the replicas that wait for it give up.
LOCK_SECONDS = 4.0


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
        known = self._known() or self._locks.once(
            self._lock,
            load=self._known,
            make=lambda: self._tokens.save(*self._api.token(deadline)),
            ttl=LOCK_SECONDS,
            over=lambda: deadline.over,
        )
        if known is None:
            raise ProviderError("another replica's gettoken takes too long", code="provider_timeout")
        return known

    def _known(self) -> AccessToken | None:
        known = self._tokens.load()
        return known if known.token else None
