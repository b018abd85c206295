"""The access token of WeCom's API in Redis, shared by all replicas.

    dify_contact_token:<source>    string, the access token, sealed; expires with it

`<source>` is a fingerprint of the API's address, the company and the Secret, so a new Secret begins with a new token.
"""

from __future__ import annotations

from typing import NamedTuple

from services.redis.lock_store import delete_if
from services.redis.store import Call, ScriptRunner
from utils.keyring import Keyring, keys_of
from utils.sealed import seal, unseal_any

#: Seconds before its end from which a token is not used any more.
MARGIN = 60.0


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
        """Return the shared token; without values if there is none, or none that these keys open."""
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
