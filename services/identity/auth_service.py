"""Who a user is: the cached token, else the user's record in SQL and a new token of the external auth API.

`authenticate` fails closed: whatever is away, slow or unreadable, the answer is an `AuthError`. Over all replicas one
call is made at a time per user; the others wait for what it brings. A failure is remembered for seconds.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from services.errors import AuthError, LaibaoError, SettingsError, StoreUnavailable
from services.identity.auth_api_service import AuthApi, Method
from services.identity.token_store import Denied, TokenStore
from services.identity.user_store import SqlUserStore, UserRecord
from services.models import Identity, UserInfo
from services.redis.lock_store import LockStore

log = logging.getLogger(__name__)

Mode = Literal["external", "allowlist", "none"]

#: Seconds a failure is remembered: long enough to spare the auth API, short enough that nobody waits for a correction.
DENIED_SECONDS = {"unknown_user": 30.0, "auth_refused": 30.0, "auth_unavailable": 2.0}
#: Seconds between two looks at what another replica brings.
POLL = 0.05
#: Seconds between two tries while Redis or SQL does not answer.
PAUSE = 0.25
#: Seconds a user's lock lives beyond the API's timeout. A lookup that takes longer costs a second call, no more; a
#: dead replica's lock must end before those who wait for it lose their patience.
LOCK_MARGIN = 3.0


class AuthService:
    """Authenticate users in one of three modes; safe to use from many threads.

    `token_ttl`, `timeout` (the API's whole answer), `wait` (for another's call), `patience` with a database that does
    not answer (a hiccup costs nobody the answer) and `outage`, the patience with Redis, are seconds. The stores and
    `url` are needed in mode external only. The allowlist has userids, and `<corp>:<userid>` for bots of another corp.
    """

    def __init__(
        self,
        mode: Mode,
        *,
        token_store: TokenStore | None = None,
        user_store: SqlUserStore | None = None,
        lock_store: LockStore | None = None,
        url: str = "",
        method: Method = "post",
        token_ttl: float = 604_800.0,
        allowlist: Collection[str] = (),
        timeout: float = 10.0,
        wait: float = 15.0,
        patience: float = 5.0,
        outage: float = 20.0,
        pool_size: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.mode = mode
        self._allowlist = frozenset(allowlist)
        self._external: _External | None = None
        if mode == "external":
            if not url or token_store is None or user_store is None or lock_store is None:
                raise SettingsError("AUTH_MODE=external needs AUTH_SERVICE_URL, Redis and the user database")
            api = AuthApi(url, method=method, timeout=timeout, pool_size=pool_size, clock=clock)
            life = timeout + LOCK_MARGIN
            patiences = (patience, outage)
            self._external = _External(
                api, token_store, user_store, lock_store, token_ttl, wait, patiences, life, clock
            )

    def authenticate(self, userid: str, corp: str = "") -> Identity:
        """Return who the user is, with a valid token in mode external; state cached, renewed or none.

        Raises:
            AuthError: `unknown_user`, `auth_refused`, `auth_unavailable` or `not_allowed`; nothing may be asked.
        """
        if self._external is not None:
            return self._external.authenticate(userid, corp)
        if self.mode == "allowlist" and (f"{corp}:{userid}" if corp else userid) not in self._allowlist:
            raise AuthError(code="not_allowed")
        return Identity("none", UserInfo(user_code=userid) if userid else None)

    def check(self) -> None:
        """See that the auth API works, without a real person's password. Nothing to do in the other modes.

        Raises:
            AuthError: `auth_unavailable`.
        """
        if self._external is not None:
            self._external.api.check()

    def refuses_strangers(self) -> bool:
        """Return whether a person who does not exist is refused; as the auth API answers now, in mode external.

        Raises:
            AuthError: `auth_unavailable`.
        """
        return self.mode != "none" if self._external is None else self._external.api.refuses_strangers()

    def close(self) -> None:
        """Close the pooled connections to the auth API."""
        if self._external is not None:
            self._external.api.close()


class _UsersAway(StoreUnavailable):
    """The user database does not answer; any other `StoreUnavailable` here is Redis."""


class _External:
    """Mode external: the cache, the order in which callers get their turn, and the way to a new token."""

    def __init__(
        self,
        api: AuthApi,
        tokens: TokenStore,
        users: SqlUserStore,
        locks: LockStore,
        token_ttl: float,
        wait: float,
        patiences: tuple[float, float],
        lock_life: float,
        clock: Callable[[], float],
    ) -> None:
        self.api = api
        self._tokens = tokens
        self._users = users
        self._locks = locks
        self._token_ttl = token_ttl
        self._wait = wait
        self._patience, self._outage = patiences
        self._lock_life = lock_life
        self._clock = clock
        self._turns = _Turns()

    def authenticate(self, userid: str, corp: str) -> Identity:
        if not userid:
            raise AuthError(code="unknown_user")
        failing_since: float | None = None
        # One for all tries: what Redis kept of a try it did not answer is ours to go on with.
        lock_token = secrets.token_hex(16)
        while True:
            began = self._clock()
            try:
                return self._known(userid, corp) or self._in_turn(userid, corp, lock_token)
            except (StoreUnavailable, SettingsError) as exc:
                now = self._clock()
                if failing_since is None:
                    # What a lookup waited for SQL counts; what the API took before Redis failed does not.
                    failing_since = began if isinstance(exc, _UsersAway) else now
                if now - failing_since >= self._patience_with(exc):
                    raise self._unavailable(userid, corp, exc) from exc
            time.sleep(PAUSE)

    def _patience_with(self, failure: LaibaoError) -> float:
        """Return the seconds a failure is waited through: an outage of Redis as long as every producer does."""
        if isinstance(failure, SettingsError):
            return 0.0
        return self._patience if isinstance(failure, _UsersAway) else self._outage

    def _unavailable(self, userid: str, corp: str, cause: LaibaoError) -> AuthError:
        log.warning("authentication failed: auth_unavailable (%s)", cause)
        self._deny(userid, corp, "auth_unavailable")
        return AuthError(str(cause), code="auth_unavailable")

    def _known(self, userid: str, corp: str) -> Identity | None:
        """Return what the cache knows; a remembered failure is raised again."""
        match self._tokens.load(userid, corp):
            case None:
                return None
            case Denied(code):
                raise AuthError("remembered", code=code)
            case cached:
                # The auth service may have written the key, in a form of its own: then SQL knows the user.
                user = cached.user or self._find(userid, corp).user
                return Identity("cached", user, cached.token)

    def _in_turn(self, userid: str, corp: str, lock_token: str) -> Identity:
        """Renew when this user's turn is ours, or take what whoever had it brought."""
        name = f"auth:{corp}:{userid}"
        end = self._clock() + self._wait
        with self._turns.of(name, self._wait):
            while True:
                held = self._locks.acquire(name, self._lock_life, lock_token)
                try:
                    # Looked at under the lock: a winner writes the cache before it lets go.
                    if identity := self._known(userid, corp):
                        return identity
                    if held:
                        return self._renew(userid, corp)
                finally:
                    self._release(name, held)
                if self._clock() >= end:
                    raise AuthError("another replica's call takes too long", code="auth_unavailable")
                time.sleep(POLL)

    def _release(self, name: str, held: str | None) -> None:
        # Without Redis the lock ends by itself; what we hold in our hands counts all the same.
        with suppress(StoreUnavailable):
            if held:
                self._locks.release(name, held)

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
        """Store a token, waiting through an outage: to begin anew would have the API log the person in once more."""
        end = self._clock() + self._outage
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
        except StoreUnavailable as exc:
            raise _UsersAway(str(exc)) from exc
        if record is None:
            raise AuthError("not in the user database", code="unknown_user")
        return record

    def _deny(self, userid: str, corp: str, code: str) -> None:
        with suppress(StoreUnavailable):
            self._tokens.deny(userid, corp, code, DENIED_SECONDS[code])


class _Turns:
    """One thread at a time per name, in this process; names that nobody wants are not kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def of(self, name: str, timeout: float) -> Iterator[None]:
        with self._lock:
            turn, wanted = self._turns.get(name, (threading.Lock(), 0))
            self._turns[name] = (turn, wanted + 1)
        try:
            if not turn.acquire(timeout=timeout):
                raise AuthError("another call for this user takes too long", code="auth_unavailable")
            try:
                yield
            finally:
                turn.release()
        finally:
            self._leave(name)

    def _leave(self, name: str) -> None:
        with self._lock:
            turn, wanted = self._turns.pop(name)
            if wanted > 1:
                self._turns[name] = (turn, wanted - 1)
