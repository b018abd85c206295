"""For administrators: who is connected, on all replicas, and how to close one."""

from __future__ import annotations

import hmac
import logging
from typing import Any, Protocol

from flask import Blueprint, Response, request

from channels.envelope import envelope
from services.errors import StoreUnavailable

log = logging.getLogger(__name__)

#: The code of the table for SQL and Redis.
STORE_CODE = 40000


class Connected(Protocol):
    """What is used of this replica's sockets."""

    def connections(self) -> list[dict[str, Any]]: ...

    def disconnect(self, client_id: str) -> int: ...


def connections_blueprint(sockets: Connected, admin_token: str | None) -> Blueprint:
    """Return GET /api/ws/connections and POST /api/ws/disconnect/<client_id>.

    `admin_token` comes as `Authorization: Bearer`; without one neither address is there.
    """
    routes = Blueprint("connections", __name__)

    @routes.before_request
    def check() -> Response | None:
        return _refusal(admin_token)

    @routes.errorhandler(StoreUnavailable)
    def away(error: StoreUnavailable) -> Response:
        log.warning("request failed", extra={"code": error.code, "cause": str(error)})
        return envelope(status=503, code=STORE_CODE)

    @routes.get("/api/ws/connections")
    def connections() -> Response:
        found = sockets.connections()
        return envelope({"count": len(found), "connections": found})

    @routes.post("/api/ws/disconnect/<client_id>")
    def disconnect(client_id: str) -> Response:
        count = sockets.disconnect(client_id)
        if not count:
            return envelope(status=404)
        log.info("sockets disconnected", extra={"client_id": client_id, "sockets": count})
        return envelope({"client_id": client_id, "disconnected": count})

    return routes


def _refusal(admin_token: str | None) -> Response | None:
    """Return what to answer to who is no administrator."""
    if not admin_token:
        return envelope(status=404)
    scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), admin_token.encode()):
        return None
    log.warning("administrator refused", extra={"path": request.path})
    return envelope(status=401, headers={"WWW-Authenticate": "Bearer"})
