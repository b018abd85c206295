"""Checks callers' credentials and administrators' tokens, and limits wrong ones per address."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from math import ceil

from flask import request

from channels.web.rest import is_for_operators
from services.admin.sql_store import Act
from services.admin.tokens import Administrator, AdminTokens, Role
from services.errors import AddressBlocked, AuthError, StoreUnavailable
from services.identity.callers import Caller, Callers
from services.identity.guesses import Guesses

log = logging.getLogger(__name__)


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

    def __init__(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers or {}


class Administrators:
    """Checks administrators' tokens in `Authorization: Bearer`, and keeps the audit of what they do.

    Without a token in the settings, and on other ports than `ops_port` where there is one, everybody gets 404.
    """

    def __init__(
        self, tokens: AdminTokens, guesses: Guesses, ops_port: int | None, record: Callable[[Act], None] | None = None
    ) -> None:
        """`record` stores a row of the audit; None without SQL, where only the log has it."""
        self._tokens = tokens
        self._guesses = guesses
        self._ops_port = ops_port
        self._record = record

    def check(self, role: Role) -> Administrator:
        """Return the administrator of the Flask request, who has at least this role.

        Raises:
            AdminRefused: 404, 401, 429 after too many wrong tokens, 403 for a lower role, or 503 while the database is
                away that would know the token.
        """
        if not self._tokens or not is_for_operators(self._ops_port):
            raise AdminRefused(404)
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise _unauthorized()
        found = self._of_token(request.remote_addr or "", shown.strip())
        if not found.may(role):
            log.warning("administrator refused", extra={"path": request.path, "admin": found.name, "role": found.role})
            raise AdminRefused(403)
        return found

    def record(self, who: Administrator, action: str, object: str, **change: str | None) -> None:
        """Write what an administrator is about to do into audit and log; `change` has `before` and `after`.

        Raises:
            StoreUnavailable: the database is away; nothing may be done then.
        """
        act = Act(who.name, who.role, request.remote_addr or "", action, object, **change)
        if self._record:
            self._record(act)
        about = {"admin": act.name, "role": act.role, "address": act.address, "action": action, "object": object}
        log.info("administration", extra=about)

    def _of_token(self, address: str, shown: str) -> Administrator:
        try:
            self._guesses.check(address, "admin", shown)
            found = self._tokens.find(shown)
        except AddressBlocked as blocked:
            raise AdminRefused(429, {"Retry-After": str(ceil(blocked.seconds))}) from blocked
        except StoreUnavailable as exc:
            raise AdminRefused(503, {"Retry-After": "5"}) from exc
        if found is None:
            self._guesses.failed(address, "admin", shown)
            raise _unauthorized()
        self._guesses.succeeded(address, shown)
        return found


def _unauthorized() -> AdminRefused:
    log.warning("administrator refused", extra={"path": request.path})
    return AdminRefused(401, {"WWW-Authenticate": "Bearer"})
