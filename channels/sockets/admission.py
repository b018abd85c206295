"""Checks a WebSocket handshake before a socket opens: its origin, the rate of its address, and its credential."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from flask import Request, Response, request
from werkzeug.datastructures import Headers

from channels.web.next_replica import next_replica
from channels.web.rest import credential, envelope
from config.texts import Texts
from services.errors import AddressBlocked, AuthError, StoreUnavailable
from services.identity.callers import Caller
from services.identity.rate_limiter import RateLimiter
from utils.origins import may_open

#: Our subprotocol.
SUBPROTOCOL = "wechatlaibao"

_CLIENT_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: Maximum characters of a refused origin in the log.
_LOGGED_ORIGIN = 200


class AdmissionRefused(Exception):
    """A handshake failed a check; `check` is the check's name in logs and metrics."""

    def __init__(
        self, check: str, status: int, message: str, *, code: int = 0, origin: str = "", upgrade: bool = False
    ) -> None:
        super().__init__(check)
        self.check = check
        self.status = status
        self._message = message
        self._code = code
        self._headers = {"Upgrade": "websocket"} if upgrade else {}
        #: Further log fields.
        self.extra = {"origin": origin[:_LOGGED_ORIGIN]} if origin else {}

    def reply(self, texts: Texts) -> Response:
        message = texts.translated(self._message)
        # A leaving replica has not read a frame: nginx may open the socket at another one.
        elsewhere = next_replica(request) if self.check == "draining" else {}
        headers = {**self._headers, **elsewhere}
        return envelope(status=self.status, code=self._code, message=message, headers=headers)


class CredentialChecker(Protocol):
    """Checks credentials at sockets, as `services.identity.callers.Callers` does."""

    @property
    def open(self) -> bool: ...

    def anonymous(self) -> Caller: ...

    def check(self, secret: str) -> Caller: ...


class Admission:
    """Accepts or refuses handshakes; stateless."""

    def __init__(self, callers: CredentialChecker, limiter: RateLimiter, origins: Sequence[str]) -> None:
        self._callers = callers
        self._limiter = limiter
        self._origins = origins

    def check(self, request: Request, client_id: str) -> None:
        """Check everything but the credential.

        Raises:
            AdmissionRefused: it is no WebSocket handshake, its client id or origin is not allowed, or its address made
                too many requests.
        """
        if not _asks_for_socket(request.headers):
            raise AdmissionRefused("not_a_websocket", 426, "This address speaks WebSocket only.", upgrade=True)
        if not _CLIENT_ID.fullmatch(client_id):
            raise AdmissionRefused(
                "client_id", 400, "A client id has 1 to 64 letters, digits, '.', '_' and '-'.", code=10000
            )
        origin = request.headers.get("Origin")
        if origin is not None and not may_open(origin, request.headers.get("Host", ""), self._origins):
            raise AdmissionRefused("origin", 403, "Pages of this origin may not open sockets here.", origin=origin)
        if not self._limiter.address(request.remote_addr or ""):
            raise AdmissionRefused("rate_limit", 429, "Too many requests from this address.")

    def caller(self, request: Request) -> Caller | None:
        """Return the caller; None when the handshake has no credential and the first frame must carry it.

        Raises:
            AdmissionRefused: the credential is invalid, it cannot be checked while Redis is unavailable, or its address
                has shown too many wrong ones.
        """
        secret = credential(request.headers)
        if secret is None:
            return self._callers.anonymous() if self._callers.open else None
        try:
            return self._callers.check(secret)
        except AuthError as exc:
            raise AdmissionRefused("credential", 401, "The credential is not, or no longer, valid.") from exc
        except AddressBlocked as exc:
            raise AdmissionRefused(exc.code, 429, "Too many wrong credentials came from this address.") from exc
        except StoreUnavailable as exc:
            raise AdmissionRefused(exc.code, exc.status, "The credential cannot be checked now.", code=40000) from exc


def _asks_for_socket(headers: Headers | Mapping[str, str]) -> bool:
    connection = [part.strip().lower() for part in headers.get("Connection", "").split(",")]
    return "upgrade" in connection and headers.get("Upgrade", "").strip().lower() == "websocket"
