"""What an operator and an orchestrator ask: alive, ready, and how the parts are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint

from services.health import Health

Reply = tuple[dict[str, Any], int]


def ops_blueprint(*, name: str, version: str, health: Health, ready: Callable[[], bool]) -> Blueprint:
    """Return /healthz, /readyz and /health. `ready` is false while starting or draining, whatever Redis does."""
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
        return {"version": version, "timestamp": now(), **health.report()}, 200

    return routes


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
