"""What orchestrators and operators ask over HTTP, on an app of the operations' routes alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from channels.ops import ops_blueprint
from services.health import Health


class Replica:
    """The routes before a replica whose state the test sets."""

    def __init__(self) -> None:
        self.ready, self.redis, self.rag = True, True, True
        app = Flask("ops")
        app.register_blueprint(
            ops_blueprint(name="来宝", version="1.2.3", health=self.health, ready=lambda: self.ready)
        )
        self.client: FlaskClient = app.test_client()

    @property
    def health(self) -> Health:
        return Health(rag=("mock", lambda: self.rag), dependencies={"redis": lambda: self.redis}, wait_seconds=30.0)

    def says(self, path: str) -> tuple[int, dict[str, Any]]:
        reply = self.client.get(path)
        return reply.status_code, reply.get_json()


@pytest.fixture
def replica() -> Replica:
    return Replica()


def is_now(timestamp: str) -> bool:
    return abs(datetime.fromisoformat(timestamp) - datetime.now(UTC)) < timedelta(minutes=5)


def test_a_process_that_answers_is_alive(replica: Replica) -> None:
    """Liveness says nothing about anybody else."""
    replica.ready = replica.redis = False

    status, body = replica.says("/healthz")

    assert status == 200
    assert is_now(body.pop("timestamp"))
    assert body == {"status": "ok", "service": "来宝"}


@pytest.mark.parametrize(("ready", "answer"), [(True, (200, "ready")), (False, (503, "not ready"))])
def test_only_a_ready_replica_gets_traffic(replica: Replica, ready: bool, answer: tuple[int, str]) -> None:
    """It is asked each time, for draining begins at any moment."""
    replica.ready = ready

    status, body = replica.says("/readyz")

    assert (status, body["status"]) == answer
    assert is_now(body["timestamp"])


@pytest.mark.parametrize(
    ("away", "status"),
    [("", "healthy"), ("rag", "degraded"), ("redis", "unhealthy")],
    ids=lambda value: value or "none",
)
def test_the_report_is_always_200(replica: Replica, away: str, status: str) -> None:
    """A monitor reads the words; a balancer that looks at the code must not take the replica away."""
    if away:
        setattr(replica, away, False)

    code, body = replica.says("/health")

    assert (code, body["status"], body["version"]) == (200, status, "1.2.3")
    assert is_now(body["timestamp"])
    assert {"services", "providers", "dependencies"} <= body.keys()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/health"])
@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_nothing_can_be_changed_here(replica: Replica, path: str, method: str) -> None:
    """The three are for reading."""
    send: Callable[[str], Any] = getattr(replica.client, method)

    assert send(path).status_code == 405
