"""What an operator and an orchestrator ask: alive, ready, how the parts are, and what was counted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Literal

from flask import Blueprint, Response, jsonify
from pydantic import BaseModel

from channels.web.guarded import Administrators
from channels.web.ports import is_for_operators
from channels.web.rest import Operation, RestModel
from services.ops.health import Health

JsonReply = tuple[dict[str, Any], int]

#: The text format that every Prometheus reads.
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Alive(RestModel):
    """The process answers."""

    status: Literal["ok"]
    service: str
    timestamp: str


class Readiness(RestModel):
    """Whether this replica may get traffic."""

    status: Literal["ready", "not ready"]
    timestamp: str


class Services(RestModel):
    """Whether each service can be used."""

    rag: bool
    search: bool
    batch_processing: bool


class Part(RestModel):
    """A provider."""

    name: str | None
    type: Literal["RAG", "Search"]
    status: Literal["ok", "unavailable", "not configured"]


class Parts(RestModel):
    """The providers."""

    rag: Part
    search: Part


class Report(BaseModel):
    """How the parts are; with a port of the operators' own, others see the status alone."""

    status: Literal["healthy", "degraded", "unhealthy"]
    version: str | None = None
    timestamp: str | None = None
    services: Services | None = None
    providers: Parts | None = None
    dependencies: dict[str, Literal["ok", "unavailable"]] | None = None


TAG = "operations"
OPERATIONS = (
    Operation("GET", "/healthz", "is the process alive", TAG, answers={200: Alive}, auth="none", bare=True),
    Operation(
        "GET",
        "/readyz",
        "may this replica get traffic",
        TAG,
        answers={200: Readiness, 503: Readiness},
        auth="none",
        bare=True,
    ),
    Operation("GET", "/health", "how its parts are", TAG, answers={200: Report}, auth="none", bare=True),
    Operation(
        "GET",
        "/metrics",
        "what was counted, for Prometheus",
        TAG,
        answers={200: None, 401: None, 404: None, 429: None},
        auth="admin",
        media={200: "text/plain"},
        bare=True,
        description="On `OPS_PORT` no token is needed; on `PORT` it is there only without an `OPS_PORT`.",
    ),
)


def ops_blueprint(
    *,
    name: str,
    version: str,
    health: Health,
    ready: Callable[[], bool],
    metrics: Callable[[], bytes],
    administrators: Administrators,
    ops_port: int | None,
) -> Blueprint:
    """Return /healthz, /readyz, /health and /metrics.

    `ready` is false while starting or draining, whatever Redis does. With an `ops_port`, the details of health and the
    metrics are for requests that came by it; without one the metrics are for `administrators`.
    """
    routes = Blueprint("ops", __name__)

    @routes.get("/healthz")
    def healthz() -> JsonReply:
        return {"status": "ok", "service": name, "timestamp": now()}, 200

    @routes.get("/readyz")
    def readyz() -> JsonReply:
        is_ready = ready()
        return {"status": "ready" if is_ready else "not ready", "timestamp": now()}, 200 if is_ready else 503

    @routes.get("/health")
    def report() -> JsonReply:
        details = {"version": version, "timestamp": now(), **health.report()}
        return details if is_for_operators(ops_port) else {"status": details["status"]}, 200

    @routes.get("/metrics")
    def scrape() -> Response:
        refused = None if ops_port and is_for_operators(ops_port) else administrators.refusal()
        if refused:
            reply = jsonify({"code": HTTPStatus(refused.status).name.lower()})
            reply.status_code = refused.status
            reply.headers.update(refused.headers)
            return reply
        return Response(metrics(), content_type=METRICS_TYPE)

    return routes


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
