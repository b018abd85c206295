"""Checks the credentials of socket and REST clients, and decides as which user their questions are asked."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from config.fields import named_key
from services.errors import AuthError, StoreUnavailable
from services.identity.token_store import Cached, TokenStore
from services.models import Identity, Question
from utils.keyring import Keyring, keys_of
from utils.sealed import seal, unseal_any

CallerMode = Literal["key", "token", "none"]

ANONYMOUS = "anonymous"
#: The beginning of a user's principal. The rest may have any character.
USER = "user:"
#: The beginning of an API key's principal.
KEY = "key:"
#: The beginning of an administrator's principal: the owner of batches that are made on the administrators' page.
ADMIN = "admin:"
#: Characters of the longest credential that is checked; a header holds no more.
MAX_SECRET = 8192
#: Seconds attempts are repeated during an outage of Redis, as in every producer, and seconds between two of them.
OUTAGE_SECONDS = 20.0
PAUSE = 0.25

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of a credential."""

    #: "key:<fingerprint>", "user:<user_code>" or "anonymous"; the first and the last also with "/<end user>". Of
    #: batches, an anonymous browser is "anonymous/visitor-<fingerprint>".
    principal: str
    #: The user's token, sealed.
    credential: str = field(default="", repr=False)

    def on_behalf_of(self, end_user: str) -> Caller:
        """Return the caller for one of its own users; "" is the caller itself.

        A user's token names a person already, who cannot ask for another one.
        """
        if not end_user or self.principal.startswith(USER):
            return self
        return replace(self, principal=f"{self.principal}/{end_user}")


class Callers:
    """Check credentials in one of three modes. Thread-safe.

    Mode key accepts one of `api_keys`, and no caller if there are none; mode token accepts users' tokens that are valid
    in `tokens`; mode none accepts everybody. An API key may have a name before it, `name=KEY`. `key` seals users'
    tokens with 32-byte keys that are shared by all replicas and not stored in Redis.
    """

    def __init__(
        self,
        mode: CallerMode,
        *,
        api_keys: Sequence[str] = (),
        tokens: TokenStore | None = None,
        key: Keyring = b"",
        outage: float = OUTAGE_SECONDS,
    ) -> None:
        self.mode = mode
        named = [named_key(one) for one in api_keys if one]
        self._api_keys = {_key_principal(one): one.encode() for _, one in named}
        self._key_names = {_key_principal(one): name for name, one in named if name}
        self._tokens = tokens
        self._key = key
        self._outage = outage

    @property
    def open(self) -> bool:
        """Whether no credential is required."""
        return self.mode == "none"

    def key_name(self, principal: str) -> str:
        """Return the name of the principal's API key, its fingerprint where it has none; "" for other principals."""
        owner = owner_of(principal)
        return self._key_names.get(owner) or (owner.removeprefix(KEY) if owner.startswith(KEY) else "")

    def anonymous(self) -> Caller:
        """Return the caller of a request without a credential.

        Raises:
            AuthError: `auth_required`, a credential is required.
        """
        if not self.open:
            raise AuthError(code="auth_required")
        return Caller(ANONYMOUS)

    def check(self, secret: str) -> Caller:
        """Return the owner of this key or token. In mode none a valid key still names its owner.

        Raises:
            AuthError: `auth_failed`, it is not valid or no longer valid.
            StoreUnavailable: Redis did not answer, so a token could not be checked.
        """
        if self.open:
            with suppress(AuthError):
                return self._of_key(secret)
            return self.anonymous()
        if not secret or len(secret) > MAX_SECRET or not _is_text(secret):
            raise AuthError(code="auth_failed")
        return self._of_key(secret) if self.mode == "key" else self._of_token(secret)

    def program(self, secret: str | None) -> Caller:
        """Return the caller of a REST request. REST accepts API keys in every mode; None is no credential.

        Raises:
            AuthError: `auth_required` if a required credential is missing, `auth_failed` if it is not valid.
            StoreUnavailable: Redis did not answer, so a token could not be checked.
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
        """Return the identity a question is asked with. Works on any replica, long after its socket or request ended.

        With `accepts_api_keys` an API key is valid in every mode that asks for a credential.

        Raises:
            AuthError: `auth_refused` if the credential is no longer valid, `credential_lost` if it was sealed with a
                key that this process does not have, `auth_unavailable` while Redis is unreachable.
        """
        owner = owner_of(question.principal)
        match self.mode, owner.partition(":")[0]:
            case "none", "anonymous":
                return Identity("none")
            case _, "key" if owner in self._api_keys and (accepts_api_keys or self.mode == "key"):
                return Identity("none")
            case _, "admin" if accepts_api_keys:
                # No credential of a caller names one: an administrator's role was checked when the batch was made.
                return Identity("none")
            case "token", "user":
                cached = self._still_valid(question)
                return Identity("cached", cached.user, cached.token)
        raise AuthError("the credential is none of this mode's, or was withdrawn", code="auth_refused")

    def _of_key(self, secret: str) -> Caller:
        if len(secret) > MAX_SECRET or not _is_text(secret):
            raise AuthError(code="auth_failed")
        shown = secret.encode()
        # Compare with every key, so that the time reveals nothing.
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
            cached = self._through_outage(lambda: self._user_of(token)) if token else None
        except ValueError as exc:
            raise AuthError("the token was sealed under another key", code="credential_lost") from exc
        except StoreUnavailable as exc:
            raise AuthError(str(exc), code="auth_unavailable") from exc
        if cached is None or _user_principal(cached) != question.principal:
            raise AuthError("the token is not valid any more", code="auth_refused")
        return cached

    def _through_outage(self, call: Callable[[], T]) -> T:
        retrying = Retrying(
            retry=retry_if_exception_type(StoreUnavailable),
            stop=stop_after_delay(self._outage),
            wait=wait_fixed(PAUSE),
            reraise=True,
        )
        return retrying(call)


def owner_of(principal: str) -> str:
    """Return a principal without its end user: the owner of the credential, for all of whose users it is one."""
    return principal if principal.startswith(USER) else principal.partition("/")[0]


def end_user_of(question: Question) -> str:
    """Return the end user that the principal of a `Caller.on_behalf_of` names, "" for none."""
    return "" if question.principal.startswith(USER) else question.principal.partition("/")[2]


def _key_principal(key: str) -> str:
    return f"{KEY}{fingerprint(key)}"


def _user_principal(cached: Cached) -> str:
    """Return the user's principal: by user_code, or by the token if the auth service stored no readable user."""
    return f"{USER}{cached.user.user_code if cached.user else fingerprint(cached.token)}"


def fingerprint(secret: str) -> str:
    """Return 16 hexadecimal digits that name a secret and do not reveal it."""
    return hashlib.sha256(secret.encode()).hexdigest()[:16]


def _is_text(secret: str) -> bool:
    """Return whether the string can be encoded: JSON allows half surrogate pairs."""
    return not any("\ud800" <= letter <= "\udfff" for letter in secret)
