"""REST addresses for administrators: list the sockets of all replicas, and close those of a client."""

from __future__ import annotations

import logging
from typing import Any, Literal, Protocol

from flask import Blueprint, Response

from channels.web.guarded import Administrators, admin_errors
from channels.web.rest import Operation, RestModel, envelope

log = logging.getLogger(__name__)


class Connection(RestModel):
    """One open socket."""

    client_id: str
    channel: Literal["chat", "realtime"]
    connected_at: str
    #: Seconds since the client last sent anything.
    idle_time: float
    replica: str


class Connections(RestModel):
    """The open sockets of all replicas."""

    count: int
    connections: list[Connection]


class Disconnected(RestModel):
    """The number of a client's sockets that were closed."""

    client_id: str
    disconnected: int


OPERATIONS = (
    Operation(
        "GET",
        "/api/ws/connections",
        "List connections",
        "administration",
        answers={200: Connections},
        auth="viewer",
    ),
    Operation(
        "POST",
        "/api/ws/disconnect/{client_id}",
        "Close a client's connections",
        "administration",
        answers={200: Disconnected},
        auth="operator",
    ),
)


class Connected(Protocol):
    """This replica's sockets, as administrators use them."""

    def connections(self) -> list[dict[str, Any]]: ...

    def disconnect(self, client_id: str) -> int: ...


def connections_blueprint(sockets: Connected, administrators: Administrators) -> Blueprint:
    """Return GET /api/ws/connections and POST /api/ws/disconnect/<client_id>, for administrators only."""
    routes = Blueprint("connections", __name__)

    admin_errors(routes)

    @routes.get("/api/ws/connections")
    def connections() -> Response:
        administrators.check("viewer")
        found = sockets.connections()
        return envelope({"count": len(found), "connections": found})

    @routes.post("/api/ws/disconnect/<client_id>")
    def disconnect(client_id: str) -> Response:
        administrators.record(administrators.check("operator"), "socket.disconnect", client_id)
        count = sockets.disconnect(client_id)
        if not count:
            return envelope(status=404)
        log.info("sockets disconnected", extra={"client_id": client_id, "sockets": count})
        return envelope({"client_id": client_id, "disconnected": count})

    return routes
