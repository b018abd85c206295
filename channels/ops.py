"""What an operator and an orchestrator ask: alive, ready, how the parts are, and what was counted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, abort, request

from services.health import Health

Reply = tuple[dict[str, Any], int]

#: The text format that every Prometheus reads.
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def ops_blueprint(
    *,
    name: str,
    version: str,
    health: Health,
    ready: Callable[[], bool],
    metrics: Callable[[], bytes],
    ops_port: int | None,
) -> Blueprint:
    """Return /healthz, /readyz, /health and /metrics.

    `ready` is false while starting or draining, whatever Redis does. With an `ops_port`, the details of health and the
    metrics are for who came by it.
    """
    routes = Blueprint("ops", __name__)

    @routes.get("/healthz")
    def healthz() -> Reply:
        return {"status": "ok", "service": name, "timestamp": now()}, 200

    @routes.get("/readyz")
    def readyz() -> Reply:
        is_ready = ready()
        return {"status": "ready" if is_ready else "not ready", "timestamp": now()}, 200 if is_ready else 503

    @routes.get("/health")
    def report() -> Reply:
        details = {"version": version, "timestamp": now(), **health.report()}
        return details if is_for_operators(ops_port) else {"status": details["status"]}, 200

    @routes.get("/metrics")
    def scrape() -> Response:
        if not is_for_operators(ops_port):
            abort(404)
        return Response(metrics(), content_type=METRICS_TYPE)

    return routes


def is_for_operators(ops_port: int | None) -> bool:
    """Tell whether the request came by the operators' port, or there is none of their own.

    The accepted socket tells, for headers and what is derived from them are the client's word.
    """
    if ops_port is None:
        return True
    accepted = request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")
    try:
        return accepted is not None and accepted.getsockname()[1] == ops_port
    except OSError:
        return False


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
