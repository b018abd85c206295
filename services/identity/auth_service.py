"""Authenticates WeCom users: by the cached token, else by the user's SQL record and a new token of the auth API.

`authenticate` fails closed: if any dependency is unreachable, slow or unreadable, it raises `AuthError`. Over all
replicas one lookup per user runs at a time; other callers wait for its result, those of this process at a lock by name.
Failures are cached for seconds. That a party is away is shared only with callers that waited for the same lookup, and
not at all if this process was stopped meanwhile: the next question tries again.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

from config.errors import LaibaoError, SettingsError
from services.errors import AuthError, StoreRefused, StoreUnavailable
from services.identity.auth_api_service import AuthApi, Method
from services.identity.token_store import Denied, TokenStore
from services.identity.user_store import SqlUserStore, UserRecord
from services.models import Identity, UserInfo
from services.redis.lock_store import LockStore
from utils.running_time import RunningClock, running_time, wait_running

log = logging.getLogger(__name__)

UserAuthMode = Literal["external", "allowlist", "none"]
#: Seconds a failure is cached: long enough to spare the auth API, short enough that a correction works soon.
DENIED_SECONDS = {"unknown_user": 30.0, "auth_refused": 30.0, "auth_unavailable": 2.0, "store_refused": 2.0}
#: Seconds between two attempts while Redis or SQL does not answer.
PAUSE = 0.25
#: Seconds: a call that began at least so long before the failure of a lookup has waited for it.
WAITED = 0.05
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
            if not wait_running(partial(lock.acquire, True), timeout):
                raise AuthError("another call for this user takes too long", code="auth_unavailable")
            try:
                yield
            finally:
                lock.release()
        finally:
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
        clock: RunningClock = running_time,
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


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of `authenticate`."""

    userid: str
    corp: str
    #: When it began, by the service's clock, and the pauses of this process until then.
    began: float
    paused: float
    #: The same in all attempts: Redis may have taken the lock in an attempt whose reply was lost.
    lock_token: str

    @property
    def lock_name(self) -> str:
        return f"auth:{self.corp}:{self.userid}"


class _External:
    """Mode external: reads the cache, serializes the lookups of a user, and gets new tokens."""

    def __init__(self, parts: ExternalAuth, clock: RunningClock) -> None:
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
        call = _Call(userid, corp, self._clock(), self._clock.paused, secrets.token_hex(16))
        while True:
            began = self._clock()
            try:
                return self._known(call) or self._shared(call)
            except StoreUnavailable as exc:
                now = self._clock()
                if failing_since is None:
                    # Time spent waiting for SQL counts; the API's time before Redis failed does not.
                    failing_since = began if isinstance(exc, _UsersAway) else now
                if now - failing_since >= self._timeout_of(exc):
                    raise self._unavailable(call, exc) from exc
            time.sleep(PAUSE)

    def _timeout_of(self, failure: LaibaoError) -> float:
        """Return for how many seconds attempts are repeated after this failure."""
        return self._timeouts.sql if isinstance(failure, _UsersAway) else self._timeouts.redis

    def _unavailable(self, call: _Call, cause: LaibaoError) -> AuthError:
        log.warning("authentication failed: auth_unavailable (%s)", cause)
        self._deny(call, "auth_unavailable")
        return AuthError(str(cause), code="auth_unavailable")

    def _known(self, call: _Call) -> Identity | None:
        """Return the cached identity, None if there is none. Raises a cached failure again, unless it may be over."""
        match self._tokens.load(call.userid, call.corp):
            case None:
                return None
            case Denied("auth_unavailable" as code, left) if (
                self._clock() - call.began < DENIED_SECONDS[code] - left + WAITED
            ):
                return None
            case Denied(code):
                raise AuthError("remembered", code=code)
            case cached:
                # The auth service may have written the value in a form of its own; SQL has the user then.
                user = cached.user or self._find(call).user
                return Identity("cached", user, cached.token)

    def _shared(self, call: _Call) -> Identity:
        """Renew the token under the user's lock, or return the result of the lock's last holder."""
        end = self._clock() + self._timeouts.turn
        with self._user_locks.hold(call.lock_name, self._timeouts.turn):
            identity = self._locks.once(
                call.lock_name,
                load=lambda: self._known(call),
                make=lambda: self._renew(call),
                ttl=self._lock_ttl,
                over=lambda: self._clock() >= end,
                token=call.lock_token,
            )
        if identity is None:
            raise AuthError("another replica's call takes too long", code="auth_unavailable")
        return identity

    def _renew(self, call: _Call) -> Identity:
        try:
            record = self._find(call)
            token, life = self.api.token(record)
        except AuthError as exc:
            log.warning("authentication failed: %s (%s)", exc.code, exc)
            self._deny(call, exc.code)
            raise
        self._save(call, token, record.user, min(life, self._token_ttl))
        return Identity("renewed", record.user, token)

    def _save(self, call: _Call, token: str, user: UserInfo, ttl: float) -> None:
        """Store a token, repeatedly during an outage of Redis: starting over would log the user in a second time."""
        end = self._clock() + self._timeouts.redis
        while True:
            try:
                self._tokens.save(call.userid, call.corp, token, user, ttl)
            except StoreUnavailable as exc:
                if self._clock() >= end:
                    raise self._unavailable(call, exc) from exc
                time.sleep(PAUSE)
            else:
                return

    def _find(self, call: _Call) -> UserRecord:
        try:
            record = self._users.find(call.userid, call.corp)
        except (StoreRefused, SettingsError) as exc:
            # The next attempt has the same answer, until an administrator acts.
            raise AuthError(str(exc), code="store_refused") from exc
        except StoreUnavailable as exc:
            raise _UsersAway(str(exc)) from exc
        if record is None:
            raise AuthError("not in the user database", code="unknown_user")
        return record

    def _deny(self, call: _Call, code: str) -> None:
        """Share a failure; not that a party is away if this process was stopped: the party may have replied."""
        if code == "auth_unavailable" and self._clock.paused > call.paused:
            return
        with suppress(StoreUnavailable):
            self._tokens.deny(call.userid, call.corp, code, DENIED_SECONDS[code])
