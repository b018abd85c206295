"""The addresses for operators and orchestrators: liveness, readiness, health report and metrics."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Literal

from flask import Blueprint, Response, jsonify
from pydantic import BaseModel

from channels.web.guarded import Administrators, AdminRefused
from channels.web.rest import Operation, RestModel, is_for_operators
from services.ops.health import Health

JsonReply = tuple[dict[str, Any], int]

#: The Prometheus text format.
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Alive(RestModel):
    """The process is alive."""

    status: Literal["ok"]
    service: str
    timestamp: str


class Readiness(RestModel):
    """Whether this replica accepts traffic."""

    status: Literal["ready", "not ready", "migrating"]
    timestamp: str


class Services(RestModel):
    """Whether each service is available."""

    rag: bool
    search: bool
    batch_processing: bool


class Part(RestModel):
    """The state of one provider."""

    name: str | None
    type: Literal["RAG", "Search"]
    status: Literal["ok", "unavailable", "not configured"]


class Parts(RestModel):
    """The state of the providers."""

    rag: Part
    search: Part


class Report(BaseModel):
    """The health report. With an operators' port, requests on other ports get only the status."""

    status: Literal["healthy", "degraded", "unhealthy"]
    version: str | None = None
    timestamp: str | None = None
    services: Services | None = None
    providers: Parts | None = None
    #: "ok", "unavailable", or the fault.
    dependencies: dict[str, str] | None = None


TAG = "operations"
OPERATIONS = (
    Operation("GET", "/healthz", "Liveness of the process", TAG, answers={200: Alive}, auth="none", bare=True),
    Operation(
        "GET",
        "/readyz",
        "Readiness of this replica for traffic",
        TAG,
        answers={200: Readiness, 503: Readiness},
        auth="none",
        bare=True,
    ),
    Operation("GET", "/health", "Health report", TAG, answers={200: Report}, auth="none", bare=True),
    Operation(
        "GET",
        "/metrics",
        "Metrics for Prometheus",
        TAG,
        answers={200: None},
        auth="viewer",
        media={200: "text/plain"},
        bare=True,
        description="On `OPS_PORT` no token is needed. With `OPS_PORT` set, `PORT` answers 404.",
    ),
)


def ops_blueprint(
    *,
    name: str,
    version: str,
    health: Health,
    readiness: Callable[[], str],
    metrics: Callable[[], bytes],
    administrators: Administrators,
    ops_port: int | None,
) -> Blueprint:
    """Return /healthz, /readyz, /health and /metrics.

    `readiness` is "ready"; "not ready" while starting or draining; "migrating" while the start waits for the SQL
    tables. It does not depend on Redis. With an `ops_port`, health details and metrics are served on that port only;
    without one, metrics require a viewer's token.
    """
    routes = Blueprint("ops", __name__)

    @routes.get("/healthz")
    def healthz() -> JsonReply:
        return {"status": "ok", "service": name, "timestamp": now()}, 200

    @routes.get("/readyz")
    def readyz() -> JsonReply:
        status = readiness()
        return {"status": status, "timestamp": now()}, 200 if status == "ready" else 503

    @routes.get("/health")
    def report() -> JsonReply:
        details = {"version": version, "timestamp": now(), **health.report()}
        return details if is_for_operators(ops_port) else {"status": details["status"]}, 200

    @routes.get("/metrics")
    def scrape() -> Response:
        if not (ops_port and is_for_operators(ops_port)):
            administrators.check("viewer")
        return Response(metrics(), content_type=METRICS_TYPE)

    @routes.errorhandler(AdminRefused)
    def refuse(refused: AdminRefused) -> Response:
        reply = jsonify({"code": HTTPStatus(refused.status).name.lower()})
        reply.status_code = refused.status
        reply.headers.update(refused.headers)
        return reply

    return routes


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
