"""Checks callers' credentials and administrators' tokens, and limits wrong ones per address."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Mapping
from math import ceil

from flask import Blueprint, Response, request

from channels.web.rest import STORE_CODE, envelope, is_for_operators
from services.admin.sessions import AdminSessions, Session
from services.admin.sql_store import Act
from services.admin.tokens import Administrator, AdminTokens, Role
from services.errors import AddressBlocked, AuthError, StoreUnavailable
from services.identity.callers import Caller, Callers
from services.identity.guesses import Guesses

log = logging.getLogger(__name__)

#: The cookie of an administrator's session.
COOKIE = "laibao_admin"


class GuardedCallers:
    """Wraps `Callers` for the Flask request.

    `check` and `program` raise `AddressBlocked` without checking when the address has shown too many wrong credentials,
    unless this one was right from there before.
    """

    def __init__(self, callers: Callers, guesses: Guesses) -> None:
        self._callers = callers
        self._guesses = guesses

    @property
    def open(self) -> bool:
        return self._callers.open

    def anonymous(self) -> Caller:
        return self._callers.anonymous()

    def check(self, secret: str) -> Caller:
        return self._guarded(self._callers.check, secret)

    def program(self, secret: str | None) -> Caller:
        return self._callers.program(None) if secret is None else self._guarded(self._callers.program, secret)

    def _guarded(self, check: Callable[[str], Caller], secret: str) -> Caller:
        address = request.remote_addr or ""
        self._guesses.check(address, "caller", secret)
        try:
            caller = check(secret)
        except AuthError:
            self._guesses.failed(address, "caller", secret)
            raise
        self._guesses.succeeded(address, secret)
        return caller


class AdminRefused(Exception):
    """The reply to a request that is not an administrator's, or of one whose role is too low (403)."""

    def __init__(self, status: int, reason: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers or {}
        #: A stable word for `data.reason`, "" where the status says it.
        self.reason = reason


class Administrators:
    """Checks administrators, by a token in `Authorization: Bearer` or a session, and keeps the audit of what they do.

    Without a token in the settings, and on other ports than `ops_port` where there is one, everybody gets 404.
    """

    def __init__(
        self,
        tokens: AdminTokens,
        guesses: Guesses,
        ops_port: int | None,
        record: Callable[[Act], None] | None = None,
        sessions: AdminSessions | None = None,
    ) -> None:
        """`record` stores a row of the audit; None without SQL, where only the log has it."""
        self._tokens = tokens
        self._guesses = guesses
        self._ops_port = ops_port
        self._record = record
        self._sessions = sessions

    def check(self, role: Role) -> Administrator:
        """Return the administrator of the Flask request, who has at least this role.

        Raises:
            AdminRefused: 404, 401, 429 after too many wrong tokens, 403 for a lower role or a request of a session
                that changes something without its `X-CSRF-Token`, or 503 while the database is away that would know
                the token.
        """
        found = self._of_session() if "Authorization" not in request.headers else self._of_bearer()
        if not found.may(role):
            log.warning("administrator refused", extra={"path": request.path, "admin": found.name, "role": found.role})
            raise AdminRefused(403)
        return found

    def open_session(self, token: str) -> Session:
        """Open a session for a token that was sent in the Flask request. Raises as `check` does."""
        who = self._of_token(token.strip())
        if self._sessions is None:
            raise AdminRefused(404)
        log.info("administrator session", extra={"admin": who.name, "role": who.role, "address": _address()})
        return self._sessions.open(who, token.strip())

    def session(self) -> Session:
        """Return the session of the Flask request. Raises as `check` does."""
        self._exist()
        try:
            found = self._sessions.find(request.cookies.get(COOKIE, "")) if self._sessions else None
        except StoreUnavailable as exc:
            raise _later() from exc
        if found is None:
            raise _unauthorized()
        return found

    def has_session(self) -> bool:
        """Return whether the Flask request has a session, as far as is known while the database is away.

        Raises:
            AdminRefused: 404 where there are no administrators.
        """
        self._exist()
        cookie = request.cookies.get(COOKIE, "")
        try:
            return bool(cookie and self._sessions and self._sessions.find(cookie))
        except StoreUnavailable:
            return True

    def record(self, who: Administrator, action: str, object: str, **change: str | None) -> None:
        """Write what an administrator is about to do into audit and log.

        `change` has `before` and `after`, which may have people's words: only the audit gets them.

        Raises:
            StoreUnavailable: the database is away; nothing may be done then.
        """
        act = self.act(who, action, object, **change)
        if self._record:
            self._record(act)
        self.note(act)

    def act(self, who: Administrator, action: str, object: str, **change: str | None) -> Act:
        """Return what is to become a row of the audit, for a store that adds it with the change; `note` it then."""
        return Act(who.name, who.role, _address(), action, object, **change)

    def note(self, act: Act) -> None:
        """Write an act into the log."""
        about = {name: getattr(act, name) for name in ("role", "address", "action", "object")}
        log.info("administration", extra={"admin": act.name, **about})

    def _exist(self) -> None:
        """Refuse every request where there are no administrators, and on other ports than theirs."""
        if not self._tokens or not is_for_operators(self._ops_port):
            raise AdminRefused(404)

    def _of_session(self) -> Administrator:
        session = self.session()
        shown = request.headers.get("X-CSRF-Token", "")
        if request.method not in ("GET", "HEAD") and not hmac.compare_digest(shown.encode(), session.csrf.encode()):
            raise AdminRefused(403, "csrf_token")
        return session.who

    def _of_bearer(self) -> Administrator:
        self._exist()
        scheme, _, shown = request.headers["Authorization"].partition(" ")
        if scheme.lower() != "bearer":
            raise _unauthorized()
        return self._of_token(shown.strip())

    def _of_token(self, shown: str) -> Administrator:
        self._exist()
        address = _address()
        try:
            self._guesses.check(address, "admin", shown)
            found = self._tokens.find(shown)
        except AddressBlocked as blocked:
            raise AdminRefused(429, blocked.code, {"Retry-After": str(ceil(blocked.seconds))}) from blocked
        except StoreUnavailable as exc:
            # It is none of the settings' tokens: an outage must not let anybody guess those without a limit.
            self._guesses.failed(address, "admin", shown)
            raise _later() from exc
        if found is None:
            self._guesses.failed(address, "admin", shown)
            raise _unauthorized()
        self._guesses.succeeded(address, shown)
        return found


def _address() -> str:
    return request.remote_addr or ""


def _later() -> AdminRefused:
    return AdminRefused(503, "store_unavailable", {"Retry-After": "5"})


def _unauthorized() -> AdminRefused:
    log.warning("administrator refused", extra={"path": request.path})
    return AdminRefused(401, headers={"WWW-Authenticate": "Bearer"})


def admin_errors(routes: Blueprint) -> None:
    """Answer refused administrators, and outages of Redis and the database."""

    @routes.errorhandler(AdminRefused)
    def refuse(refused: AdminRefused) -> Response:
        data = {"reason": refused.reason} if refused.reason else None
        return envelope(data, status=refused.status, headers=refused.headers)

    @routes.errorhandler(StoreUnavailable)
    def away(error: StoreUnavailable) -> Response:
        log.warning("request failed", extra={"code": error.code, "cause": str(error)})
        return envelope(status=503, code=STORE_CODE, headers={"Retry-After": "5"})
