"""Authenticates WeCom users: by the cached token, else by the user's SQL record and a new token of the auth API.

`authenticate` fails closed: if any dependency is unreachable, slow or unreadable, it raises `AuthError`. Over all
replicas one lookup per user runs at a time; other callers wait for its result, those of this process at a lock by name.
Failures are cached for seconds.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from config.errors import LaibaoError, SettingsError
from services.errors import AuthError, StoreRefused, StoreUnavailable
from services.identity.auth_api_service import AuthApi, Method
from services.identity.token_store import Denied, TokenStore
from services.identity.user_store import SqlUserStore, UserRecord
from services.models import Identity, UserInfo
from services.redis.lock_store import LockStore

log = logging.getLogger(__name__)

UserAuthMode = Literal["external", "allowlist", "none"]
#: Seconds a failure is cached: long enough to spare the auth API, short enough that a correction works soon.
DENIED_SECONDS = {"unknown_user": 30.0, "auth_refused": 30.0, "auth_unavailable": 2.0, "store_refused": 2.0}
#: Seconds between two attempts while Redis or SQL does not answer.
PAUSE = 0.25
#: Seconds a user's lock lives beyond the API's timeout. A lookup that takes longer causes one more API call at most. A
#: dead replica's lock must expire before callers that wait for it time out.
LOCK_MARGIN = 3.0


class UserLocks:
    """One lock per name; a lock that no thread holds or waits for is removed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, name: str, timeout: float) -> Iterator[None]:
        """Hold the lock of `name` during the block, waiting up to `timeout` seconds for it.

        Raises:
            AuthError: `auth_unavailable`, another thread holds it for longer.
        """
        with self._lock:
            lock, wanted = self._locks.get(name, (threading.Lock(), 0))
            self._locks[name] = (lock, wanted + 1)
        try:
            if not lock.acquire(timeout=timeout):
                raise AuthError("another call for this user takes too long", code="auth_unavailable")
            try:
                yield
            finally:
                lock.release()
        finally:
            self._leave(name)

    def _leave(self, name: str) -> None:
        with self._lock:
            lock, wanted = self._locks.pop(name)
            if wanted > 1:
                self._locks[name] = (lock, wanted - 1)


@dataclass(frozen=True, slots=True)
class AuthTimeouts:
    """Seconds a lookup may wait for each dependency. A short outage of Redis or SQL costs no answer."""

    #: For one whole answer of the auth API.
    api: float = 10.0
    #: For the lookup of the same user by another thread or replica.
    turn: float = 15.0
    #: For a database that does not answer.
    sql: float = 5.0
    #: For Redis, as long as every producer waits.
    redis: float = 20.0


@dataclass(frozen=True, slots=True)
class ExternalAuth:
    """The stores and the auth API of mode external. `token_ttl` is in seconds, `pool_size` counts API connections."""

    tokens: TokenStore
    users: SqlUserStore
    locks: LockStore
    url: str
    method: Method = "post"
    token_ttl: float = 604_800.0
    timeouts: AuthTimeouts = AuthTimeouts()
    pool_size: int = 10


class AuthService:
    """Authenticate users in one of three modes. Thread-safe.

    `external` is needed in mode external only. The allowlist contains userids, and `<corp>:<userid>` for bots of
    another corp.
    """

    def __init__(
        self,
        mode: UserAuthMode,
        *,
        external: ExternalAuth | None = None,
        allowlist: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.mode = mode
        self._allowlist = frozenset(allowlist)
        self._external: _External | None = None
        if mode == "external":
            if external is None:
                raise ValueError("mode external needs the auth API and its stores")
            self._external = _External(external, clock)

    def authenticate(self, userid: str, corp: str = "") -> Identity:
        """Return the user's identity, with a valid token in mode external. Its state is cached, renewed or none.

        Raises:
            AuthError: the user may not ask: `unknown_user`, `auth_refused`, `auth_unavailable`, `store_refused` or
                `not_allowed`.
        """
        if self._external is not None:
            return self._external.authenticate(userid, corp)
        if self.mode == "allowlist" and (f"{corp}:{userid}" if corp else userid) not in self._allowlist:
            raise AuthError(code="not_allowed")
        return Identity("none", UserInfo(user_code=userid) if userid else None)

    def check(self) -> None:
        """Check that the auth API works, without a real user's password. Does nothing in the other modes.

        Raises:
            AuthError: `auth_unavailable`.
        """
        if self._external is not None:
            self._external.api.check()

    def refuses_strangers(self) -> bool:
        """Return whether a user who does not exist is refused. In mode external this calls the auth API.

        Raises:
            AuthError: `auth_unavailable`.
        """
        return self.mode != "none" if self._external is None else self._external.api.refuses_strangers()

    def close(self) -> None:
        """Close the pooled connections to the auth API."""
        if self._external is not None:
            self._external.api.close()


class _UsersAway(StoreUnavailable):
    """The user database does not answer. Any other `StoreUnavailable` in this module comes from Redis."""


class _External:
    """Mode external: reads the cache, serializes the lookups of a user, and gets new tokens."""

    def __init__(self, parts: ExternalAuth, clock: Callable[[], float]) -> None:
        timeout = parts.timeouts.api
        self.api = AuthApi(parts.url, method=parts.method, timeout=timeout, pool_size=parts.pool_size, clock=clock)
        self._tokens = parts.tokens
        self._users = parts.users
        self._locks = parts.locks
        self._token_ttl = parts.token_ttl
        self._timeouts = parts.timeouts
        self._lock_ttl = timeout + LOCK_MARGIN
        self._clock = clock
        self._user_locks = UserLocks()

    def authenticate(self, userid: str, corp: str) -> Identity:
        if not userid:
            raise AuthError(code="unknown_user")
        failing_since: float | None = None
        # The same in all attempts: Redis may have taken the lock in an attempt whose reply was lost.
        lock_token = secrets.token_hex(16)
        while True:
            began = self._clock()
            try:
                return self._known(userid, corp) or self._shared(userid, corp, lock_token)
            except StoreUnavailable as exc:
                now = self._clock()
                if failing_since is None:
                    # Time spent waiting for SQL counts; the API's time before Redis failed does not.
                    failing_since = began if isinstance(exc, _UsersAway) else now
                if now - failing_since >= self._timeout_of(exc):
                    raise self._unavailable(userid, corp, exc) from exc
            time.sleep(PAUSE)

    def _timeout_of(self, failure: LaibaoError) -> float:
        """Return for how many seconds attempts are repeated after this failure."""
        return self._timeouts.sql if isinstance(failure, _UsersAway) else self._timeouts.redis

    def _unavailable(self, userid: str, corp: str, cause: LaibaoError) -> AuthError:
        log.warning("authentication failed: auth_unavailable (%s)", cause)
        self._deny(userid, corp, "auth_unavailable")
        return AuthError(str(cause), code="auth_unavailable")

    def _known(self, userid: str, corp: str) -> Identity | None:
        """Return the cached identity, None if there is none. Raises a cached failure again."""
        match self._tokens.load(userid, corp):
            case None:
                return None
            case Denied(code):
                raise AuthError("remembered", code=code)
            case cached:
                # The auth service may have written the value in a form of its own; SQL has the user then.
                user = cached.user or self._find(userid, corp).user
                return Identity("cached", user, cached.token)

    def _shared(self, userid: str, corp: str, lock_token: str) -> Identity:
        """Renew the token under the user's lock, or return the result of the lock's last holder."""
        name = f"auth:{corp}:{userid}"
        end = self._clock() + self._timeouts.turn
        with self._user_locks.hold(name, self._timeouts.turn):
            identity = self._locks.once(
                name,
                load=lambda: self._known(userid, corp),
                make=lambda: self._renew(userid, corp),
                ttl=self._lock_ttl,
                over=lambda: self._clock() >= end,
                token=lock_token,
            )
        if identity is None:
            raise AuthError("another replica's call takes too long", code="auth_unavailable")
        return identity

    def _renew(self, userid: str, corp: str) -> Identity:
        try:
            record = self._find(userid, corp)
            token, life = self.api.token(record)
        except AuthError as exc:
            log.warning("authentication failed: %s (%s)", exc.code, exc)
            self._deny(userid, corp, exc.code)
            raise
        self._save(userid, corp, token, record.user, min(life, self._token_ttl))
        return Identity("renewed", record.user, token)

    def _save(self, userid: str, corp: str, token: str, user: UserInfo, ttl: float) -> None:
        """Store a token, repeatedly during an outage of Redis: starting over would log the user in a second time."""
        end = self._clock() + self._timeouts.redis
        while True:
            try:
                self._tokens.save(userid, corp, token, user, ttl)
            except StoreUnavailable as exc:
                if self._clock() >= end:
                    raise self._unavailable(userid, corp, exc) from exc
                time.sleep(PAUSE)
            else:
                return

    def _find(self, userid: str, corp: str) -> UserRecord:
        try:
            record = self._users.find(userid, corp)
        except (StoreRefused, SettingsError) as exc:
            # The next attempt has the same answer, until an administrator acts.
            raise AuthError(str(exc), code="store_refused") from exc
        except StoreUnavailable as exc:
            raise _UsersAway(str(exc)) from exc
        if record is None:
            raise AuthError("not in the user database", code="unknown_user")
        return record

    def _deny(self, userid: str, corp: str, code: str) -> None:
        with suppress(StoreUnavailable):
            self._tokens.deny(userid, corp, code, DENIED_SECONDS[code])
