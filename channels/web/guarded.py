"""Credentials of REST and sockets, and the administrators' token, with wrong ones limited by address."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from math import ceil
from typing import NamedTuple, Protocol

from flask import request

from channels.web.admission import CredentialChecker
from channels.web.ports import is_for_operators
from channels.web.rest import ProgramChecker
from services.errors import AddressBlocked, AuthError
from services.identity.callers import Caller
from services.limits.guesses import Guesses


class Both(CredentialChecker, ProgramChecker, Protocol):
    """What is used of `services.identity.callers.Callers`, for sockets and for REST."""


class GuardedCallers:
    """`Callers` for the Flask request: a credential is not looked at where its address showed too many wrong ones.

    `check` and `program` then raise `AddressBlocked`.
    """

    def __init__(self, callers: Both, guesses: Guesses) -> None:
        self._callers = callers
        self._guesses = guesses

    @property
    def open(self) -> bool:
        return self._callers.open

    def anonymous(self) -> Caller:
        return self._callers.anonymous()

    def check(self, secret: str) -> Caller:
        return self._guarded(lambda: self._callers.check(secret))

    def program(self, secret: str | None) -> Caller:
        return self._callers.program(None) if secret is None else self._guarded(lambda: self._callers.program(secret))

    def _guarded(self, check: Callable[[], Caller]) -> Caller:
        address = request.remote_addr or ""
        self._guesses.check(address, "caller")
        try:
            return check()
        except AuthError:
            self._guesses.failed(address, "caller")
            raise


class AdminRefusal(NamedTuple):
    """How to answer a request that is no administrator's."""

    status: int
    headers: dict[str, str]


class Administrators:
    """Who shows `ADMIN_TOKEN` as `Authorization: Bearer`; with an `ops_port`, on that port only."""

    def __init__(self, token: str | None, guesses: Guesses, ops_port: int | None) -> None:
        self._token = (token or "").encode()
        self._guesses = guesses
        self._ops_port = ops_port

    def refusal(self) -> AdminRefusal | None:
        """Return what the Flask request is refused with; None for an administrator's."""
        if not self._token or not is_for_operators(self._ops_port):
            return AdminRefusal(404, {})
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return _UNAUTHORIZED
        address = request.remote_addr or ""
        try:
            self._guesses.check(address, "admin")
        except AddressBlocked as blocked:
            return AdminRefusal(429, {"Retry-After": str(ceil(blocked.seconds))})
        if hmac.compare_digest(shown.strip().encode("utf-8", "replace"), self._token):
            return None
        self._guesses.failed(address, "admin")
        return _UNAUTHORIZED


_UNAUTHORIZED = AdminRefusal(401, {"WWW-Authenticate": "Bearer"})
