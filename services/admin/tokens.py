"""Administrators: their roles, and the tokens that show them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, Protocol

from config.checks import HASHED
from services.errors import StoreUnavailable

#: What each role may, the least first: figures without words; cancel, retry and resume; rules, export and words.
Role = Literal["viewer", "operator", "admin"]
ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")
#: Seconds for which a stored token is valid without another look: a revoked one ends within them.
KNOWN_SECONDS = 5.0
#: Seconds for which it stays valid while the database is away.
OUTAGE_SECONDS = 3600.0
#: Stored tokens that a replica knows at most; the oldest one is dropped.
MOST_KNOWN = 1_000
#: The beginning of a token that is made here; the rest has 256 random bits.
PREFIX = "laibao-"


class Administrator(NamedTuple):
    """Somebody with a token."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Return whether this role includes another one."""
        return ROLES.index(self.role) >= ROLES.index(role)


class GivenToken(NamedTuple):
    """A token of the settings: itself, or its digest as `HASHED` and 64 hexadecimal digits."""

    name: str
    role: Role
    token: str


class StoredTokens(Protocol):
    """The tokens of the database, as `AdminStore` has them."""

    def find(self, digest: str) -> Administrator | None: ...


class AdminTokens:
    """Finds the administrator of a token. Thread-safe."""

    def __init__(
        self,
        given: Iterable[GivenToken],
        stored: StoredTokens | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`given` are the settings' tokens, which need no database; `stored` has the others, None without SQL."""
        self._given = {_digest_of(one.token): Administrator(one.name, one.role) for one in given}
        self._stored = stored
        self._clock = clock
        #: By digest: the administrator of a stored token, and when the database said so.
        self._known: dict[str, tuple[Administrator, float]] = {}

    def __bool__(self) -> bool:
        """Whether there can be an administrator. Stored tokens count only beside one of the settings."""
        return bool(self._given)

    def find(self, shown: str) -> Administrator | None:
        """Return the administrator of a token, None for a wrong one.

        Raises:
            StoreUnavailable: it is none of the settings', and the database is away.
        """
        return self.of_digest(digest_of(shown))

    def of_digest(self, digest: str) -> Administrator | None:
        """Return the administrator of the token with this digest. Raises as `find` does."""
        # Compare with every one, so that the time reveals nothing.
        found = [who for known, who in self._given.items() if hmac.compare_digest(known, digest)]
        if found or self._stored is None:
            return found[0] if found else None
        return self._of_store(self._stored, digest)

    def _of_store(self, stored: StoredTokens, digest: str) -> Administrator | None:
        known, since = self._known.get(digest, (None, 0.0))
        age = self._clock() - since
        if known and age < KNOWN_SECONDS:
            return known
        try:
            found = stored.find(digest)
        except StoreUnavailable:
            if known and age < OUTAGE_SECONDS:
                return known
            raise
        self._known.pop(digest, None)
        if found:
            self._known[digest] = found, self._clock()
            if len(self._known) > MOST_KNOWN:
                self._known.pop(next(iter(self._known)), None)
        return found


def new_token() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(token: str) -> str:
    """Return the digest by which a token is stored: one that `new_token` made cannot be guessed from it."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _digest_of(given: str) -> str:
    return given.removeprefix(HASHED) if given.startswith(HASHED) else digest_of(given)
