"""Sessions of administrators' browsers: a sealed cookie that stands for a token, without any state on the server."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from services.admin.tokens import Administrator, AdminTokens, digest_of
from utils.keyring import Keyring, keys_of
from utils.sealed import seal, unseal_any

#: Seconds after which a session ends, whether it is used or not.
LIFE_SECONDS = 12 * 3600.0
#: Characters of the longest cookie that is looked at.
MOST_CHARACTERS = 1_000


class Session(NamedTuple):
    """A session, as its browser needs it."""

    who: Administrator
    cookie: str
    #: What requests that change something send as `X-CSRF-Token`: another site's page cannot read it.
    csrf: str
    #: Seconds since 1970.
    expires: float


class AdminSessions:
    """Opens and finds sessions. One ends with its token, so revoking that ends all of its sessions."""

    def __init__(self, tokens: AdminTokens, keys: Keyring, *, clock: Callable[[], float] = time.time) -> None:
        self._tokens = tokens
        self._keys = keys
        self._clock = clock

    def open(self, who: Administrator, token: str) -> Session:
        """Open a session for the administrator of a token."""
        expires = self._clock() + LIFE_SECONDS
        kept = {"digest": digest_of(token), "expires": expires, "nonce": secrets.token_hex(8)}
        cookie = seal(keys_of(self._keys)[0], json.dumps(kept))
        return Session(who, cookie, self._csrf(keys_of(self._keys)[0], cookie), expires)

    def find(self, cookie: str) -> Session | None:
        """Return the session of a cookie; None for a wrong or expired one, or if its token is not valid any more.

        Raises:
            StoreUnavailable: the database is away that would know the token.
        """
        if len(cookie) > MOST_CHARACTERS:
            return None
        for key in keys_of(self._keys):
            try:
                kept = json.loads(unseal_any([key], cookie))
            except ValueError:
                continue
            who = self._tokens.of_digest(kept["digest"]) if kept["expires"] > self._clock() else None
            return Session(who, cookie, self._csrf(key, cookie), kept["expires"]) if who else None
        return None

    @staticmethod
    def _csrf(key: bytes, cookie: str) -> str:
        return hmac.new(key, cookie.encode(), hashlib.sha256).hexdigest()
