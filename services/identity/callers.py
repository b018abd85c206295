"""Who may ask at a socket or at a REST address, and as whom their question is put to the provider."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from services.errors import AuthError, StoreUnavailable
from services.identity.token_store import Cached, TokenStore
from services.models import Identity, Question
from utils.keyring import Keyring, keys_of
from utils.sealed import seal, unseal_any

Mode = Literal["key", "token", "none"]

ANONYMOUS = "anonymous"
#: Characters of the longest credential that is looked at; a header holds no more.
MAX_SECRET = 8192
#: Seconds an outage of Redis is waited through, as every producer does, and between two tries.
OUTAGE_SECONDS = 20.0
PAUSE = 0.25

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who stands at a socket, as its credential says."""

    #: "key:<fingerprint>", "user:<user_code>" or "anonymous".
    principal: str
    #: A user's token, sealed.
    credential: str = field(default="", repr=False)


class Callers:
    """Check credentials in one of three modes; safe to use from many threads.

    Mode key takes one of `api_keys`, and nobody where there are none; mode token what `tokens` knows as a user's valid
    token; mode none everybody. `key` seals users' tokens, by keys of 32 bytes that all replicas have and Redis has not.
    """

    def __init__(
        self,
        mode: Mode,
        *,
        api_keys: Sequence[str] = (),
        tokens: TokenStore | None = None,
        key: Keyring = b"",
        outage: float = OUTAGE_SECONDS,
    ) -> None:
        self.mode = mode
        self._api_keys = {_key_principal(one): one.encode() for one in api_keys if one}
        self._tokens = tokens
        self._key = key
        self._outage = outage

    @property
    def open(self) -> bool:
        """Whether nobody needs to show anything."""
        return self.mode == "none"

    def anonymous(self) -> Caller:
        """Return who comes without a credential.

        Raises:
            AuthError: one is needed; code `auth_required`.
        """
        if not self.open:
            raise AuthError(code="auth_required")
        return Caller(ANONYMOUS)

    def check(self, secret: str) -> Caller:
        """Return who shows this key or token; where nothing is asked for, a key counts all the same.

        Raises:
            AuthError: it is not, or no longer, valid; code `auth_failed`.
            StoreUnavailable: Redis did not answer, so a token cannot be told from a wrong one.
        """
        if self.open:
            with suppress(AuthError):
                return self._of_key(secret)
            return self.anonymous()
        if not secret or len(secret) > MAX_SECRET or not _is_text(secret):
            raise AuthError(code="auth_failed")
        return self._of_key(secret) if self.mode == "key" else self._of_token(secret)

    def program(self, secret: str | None) -> Caller:
        """Return who asks at a REST address: there an API key counts in every mode, beside what the mode asks for.

        Raises:
            AuthError: `auth_required` where nothing is shown that must be, `auth_failed` where it does not count.
            StoreUnavailable: Redis did not answer, so a token cannot be told from a wrong one.
        """
        if secret is None:
            return self.anonymous()
        try:
            return self._of_key(secret)
        except AuthError:
            if self.mode == "key":
                raise
        return self.check(secret)

    def identity(self, question: Question, *, accepts_api_keys: bool = False) -> Identity:
        """Return as whom a question is asked; on any replica, and also long after its socket or request is gone.

        With `accepts_api_keys` an API key is valid in every mode that asks for a credential.

        Raises:
            AuthError: `auth_refused` when the credential no longer counts, `credential_lost` when it was sealed under
                a key that this process does not have, `auth_unavailable` while Redis is away.
        """
        match self.mode, question.principal.partition(":")[0]:
            case "none", "anonymous":
                return Identity("none")
            case _, "key" if question.principal in self._api_keys and (accepts_api_keys or self.mode == "key"):
                return Identity("none")
            case "token", "user":
                cached = self._still_valid(question)
                return Identity("cached", cached.user, cached.token)
        raise AuthError("the credential is none of this mode's, or was withdrawn", code="auth_refused")

    def _of_key(self, secret: str) -> Caller:
        if len(secret) > MAX_SECRET or not _is_text(secret):
            raise AuthError(code="auth_failed")
        shown = secret.encode()
        # Every key is compared, so that the time taken says nothing.
        matches = [principal for principal, key in self._api_keys.items() if hmac.compare_digest(key, shown)]
        if not matches:
            raise AuthError(code="auth_failed")
        return Caller(matches[0])

    def _of_token(self, secret: str) -> Caller:
        cached = self._user_of(secret)
        if cached is None:
            raise AuthError(code="auth_failed")
        return Caller(_user_principal(cached), seal(keys_of(self._key)[0], secret))

    def _user_of(self, token: str) -> Cached | None:
        return self._tokens.user_of(token) if self._tokens else None

    def _still_valid(self, question: Question) -> Cached:
        try:
            token = unseal_any(keys_of(self._key), question.credential)
            cached = self._patiently(lambda: self._user_of(token)) if token else None
        except ValueError as exc:
            raise AuthError("the token was sealed under another key", code="credential_lost") from exc
        except StoreUnavailable as exc:
            raise AuthError(str(exc), code="auth_unavailable") from exc
        if cached is None or _user_principal(cached) != question.principal:
            raise AuthError("the token is not valid any more", code="auth_refused")
        return cached

    def _patiently(self, call: Callable[[], T]) -> T:
        retrying = Retrying(
            retry=retry_if_exception_type(StoreUnavailable),
            stop=stop_after_delay(self._outage),
            wait=wait_fixed(PAUSE),
            reraise=True,
        )
        return retrying(call)


def _key_principal(key: str) -> str:
    return f"key:{_fingerprint(key)}"


def _user_principal(cached: Cached) -> str:
    """Name the user; by the token itself where the auth service keeps nothing about them that we can read."""
    return f"user:{cached.user.user_code if cached.user else _fingerprint(cached.token)}"


def _fingerprint(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:16]


def _is_text(secret: str) -> bool:
    """Tell whether it can be written at all: JSON lets halves of characters through."""
    return not any("\ud800" <= letter <= "\udfff" for letter in secret)
