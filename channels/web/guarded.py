"""Checks callers' credentials and the administrators' token, and limits wrong ones per address."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from math import ceil
from typing import NamedTuple

from flask import request

from channels.web.rest import is_for_operators
from services.errors import AddressBlocked, AuthError
from services.identity.callers import Caller, Callers
from services.identity.guesses import Guesses


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


class AdminRefusal(NamedTuple):
    """The status and headers of the reply to a request that is not an administrator's."""

    status: int
    headers: dict[str, str]


class Administrators:
    """Checks `ADMIN_TOKEN` in `Authorization: Bearer`; with an `ops_port`, requests on other ports get 404."""

    def __init__(self, token: str | None, guesses: Guesses, ops_port: int | None) -> None:
        self._token = (token or "").encode()
        self._guesses = guesses
        self._ops_port = ops_port

    def refusal(self) -> AdminRefusal | None:
        """Check the Flask request; return None if it is an administrator's, else how to refuse it."""
        if not self._token or not is_for_operators(self._ops_port):
            return AdminRefusal(404, {})
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return _UNAUTHORIZED
        address, shown = request.remote_addr or "", shown.strip()
        try:
            self._guesses.check(address, "admin", shown)
        except AddressBlocked as blocked:
            return AdminRefusal(429, {"Retry-After": str(ceil(blocked.seconds))})
        if hmac.compare_digest(shown.encode("utf-8", "replace"), self._token):
            self._guesses.succeeded(address, shown)
            return None
        self._guesses.failed(address, "admin", shown)
        return _UNAUTHORIZED


_UNAUTHORIZED = AdminRefusal(401, {"WWW-Authenticate": "Bearer"})
