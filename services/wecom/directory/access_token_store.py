"""The access token of WeCom's API in Redis, shared by all replicas and renewed by one at a time.

    dify_contact_token:<source>    string, the access token, sealed; expires with it

`<source>` is a fingerprint of the API's address, the company and the Secret, so a new Secret begins with a new token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from services.errors import ProviderError
from services.redis.lock_store import LockStore, delete_if
from services.redis.store import Call, ScriptRunner
from services.wecom.directory.api_service import BAD_TOKEN, ContactsApi, ContactsRefused
from utils.deadline import Deadline
from utils.keyring import Keyring, keys_of
from utils.sealed import seal, unseal_any

#: Seconds before its end from which a token is not used any more.
MARGIN = 60.0
#: Seconds for which a replica may renew the token alone: longer than one call takes. The lock of a killed replica
#: expires before the replicas that wait for it give up.
LOCK_SECONDS = 4.0

T = TypeVar("T")


class AccessToken(NamedTuple):
    """A token, and the value in Redis that it was read from; both "" for none."""

    token: str = ""
    sealed: str = ""

    def __repr__(self) -> str:
        return f"AccessToken({'***' if self.token else ''})"


class AccessTokenStore:
    """Owns the key above. Every method is one round trip and may raise `StoreUnavailable`."""

    def __init__(self, runner: ScriptRunner, *, source: str, keys: Keyring) -> None:
        self._runner = runner
        self._key = f"dify_contact_token:{source}"
        self._keys = keys

    def load(self) -> AccessToken:
        """Return the shared token; without values if there is none, or these keys do not open it."""
        sealed = self._runner.run([Call(None, ("GET", self._key))])[0] or ""
        try:
            return AccessToken(unseal_any(keys_of(self._keys), sealed), sealed)
        except ValueError:
            return AccessToken()

    def save(self, token: str, life: float) -> AccessToken:
        """Store a token that lives `life` seconds."""
        sealed = seal(keys_of(self._keys)[0], token)
        ttl = max(1000, int((life - min(MARGIN, life / 2)) * 1000))
        self._runner.run([Call(None, ("SET", self._key), (sealed, "PX", ttl))])
        return AccessToken(token, sealed)

    def drop(self, refused: AccessToken) -> None:
        """Delete a token that WeCom refused, unless another replica has stored a new one since."""
        self._runner.run([delete_if(self._key, refused.sealed)])


class TokenAccess:
    """Calls the API with a valid access token. Thread-safe."""

    def __init__(self, api: ContactsApi, tokens: AccessTokenStore, locks: LockStore, *, source: str) -> None:
        self._api = api
        self._tokens = tokens
        self._locks = locks
        self._lock = f"contact_token:{source}"

    def use(self, call: Callable[[str], T], deadline: Deadline) -> T:
        """Call with a token; once more with a new one if WeCom refused the token.

        Raises:
            ProviderError: no token came in time, or the call failed.
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
            ProviderError: WeCom returned none, or the deadline has passed.
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
