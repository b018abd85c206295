"""The addresses for orchestrators and operators, on an application with these routes alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from channels.web.guarded import Administrators
from channels.web.ops import ops_blueprint
from services.identity.guesses import Guesses
from services.ops.health import Health
from tests.support.admins import one_admin
from tests.support.servers.processes import free_port


class Replica:
    """The operations' routes of a replica whose state the test sets."""

    def __init__(self, ops_port: int | None = None, admin_token: str | None = None) -> None:
        self.readiness, self.redis, self.rag = "ready", True, True
        self.app = Flask("ops")
        self.app.register_blueprint(
            ops_blueprint(
                name="来宝",
                version="1.2.3",
                health=self.health,
                readiness=lambda: self.readiness,
                metrics=lambda: b"counted 1\n",
                administrators=Administrators(one_admin(admin_token), Guesses(most=2), ops_port),
                ops_port=ops_port,
            )
        )
        self.client: FlaskClient = self.app.test_client()

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


def test_healthz_is_ok_while_the_process_replies(replica: Replica) -> None:
    """Liveness does not depend on Redis or on readiness."""
    replica.readiness, replica.redis = "not ready", False

    status, body = replica.says("/healthz")

    assert status == 200
    assert is_now(body.pop("timestamp"))
    assert body == {"status": "ok", "service": "来宝"}


@pytest.mark.parametrize(("readiness", "status"), [("ready", 200), ("not ready", 503), ("migrating", 503)])
def test_only_a_ready_replica_gets_traffic(replica: Replica, readiness: str, status: int) -> None:
    """The state is read at each request, because draining may begin at any time."""
    replica.readiness = readiness

    code, body = replica.says("/readyz")

    assert (code, body["status"]) == (status, readiness)
    assert is_now(body["timestamp"])


@pytest.mark.parametrize(
    ("down", "status"),
    [("", "healthy"), ("rag", "degraded"), ("redis", "unhealthy")],
    ids=lambda value: value or "none",
)
def test_the_report_is_always_200(replica: Replica, down: str, status: str) -> None:
    """Monitors read `status`; a load balancer that checks only the code must not remove the replica."""
    if down:
        setattr(replica, down, False)

    code, body = replica.says("/health")

    assert (code, body["status"], body["version"]) == (200, status, "1.2.3")
    assert is_now(body["timestamp"])
    assert {"services", "providers", "dependencies"} <= body.keys()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/health", "/metrics"])
@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_the_addresses_are_read_only(replica: Replica, path: str, method: str) -> None:
    """All four are read-only."""
    send: Callable[[str], Any] = getattr(replica.client, method)

    assert send(path).status_code == 405


def test_without_an_ops_port_metrics_need_the_admin_token() -> None:
    """In Prometheus's text format; wrong tokens get 401, and their number is limited."""
    client = Replica(admin_token="obviously-fake-admin-token").client
    shown = [{}, *({"Authorization": f"Bearer {word}"} for word in ("obviously-fake-admin-token", "a", "b", "c"))]

    replies = [client.get("/metrics", headers=headers) for headers in shown]

    assert [reply.status_code for reply in replies] == [401, 200, 401, 401, 429]
    assert replies[1].text == "counted 1\n"
    assert replies[1].content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert (replies[0].json, replies[4].json) == ({"code": "unauthorized"}, {"code": "too_many_requests"})
    assert int(replies[4].headers["Retry-After"]) in range(1, 61)


def test_without_an_ops_port_and_a_token_there_are_no_metrics(replica: Replica) -> None:
    """Without an ADMIN_TOKEN no request can be authorized."""
    reply = replica.client.get("/metrics", headers={"Authorization": "Bearer "})

    assert (reply.status_code, reply.json) == (404, {"code": "not_found"})


@pytest.fixture(scope="module")
def two_ports() -> Iterator[tuple[str, str]]:
    """Serve one application on two ports; give the addresses, the operators' port last."""
    ops_port = free_port()
    app = Replica(ops_port).app
    with ExitStack() as stack:
        addresses = []
        for port in (0, ops_port):
            server = stack.enter_context(make_server("127.0.0.1", port, app))
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            stack.callback(server.shutdown)
            addresses.append(f"http://127.0.0.1:{server.server_port}")
        yield addresses[0], addresses[1]


def test_the_ops_port_shows_metrics_and_health_details(two_ports: tuple[str, str]) -> None:
    """Liveness and readiness are on both ports."""
    assert requests.get(f"{two_ports[1]}/metrics", timeout=30).text == "counted 1\n"
    assert requests.get(f"{two_ports[1]}/health", timeout=30).json()["dependencies"] == {"redis": "ok"}
    for address in two_ports:
        assert requests.get(f"{address}/healthz", timeout=30).json()["status"] == "ok"
        assert requests.get(f"{address}/readyz", timeout=30).json()["status"] == "ready"


@pytest.mark.parametrize("forged", [False, True])
def test_the_public_port_has_no_metrics_and_one_word_of_health(two_ports: tuple[str, str], forged: bool) -> None:
    """The socket decides by its local port; headers of clients and proxies do not."""
    public, host = two_ports[0], two_ports[1].removeprefix("http://")
    port = host.partition(":")[2]
    headers = {"Host": host, "X-Forwarded-Host": host, "X-Forwarded-Port": port} if forged else {}

    assert requests.get(f"{public}/metrics", headers=headers, timeout=30).status_code == 404
    assert requests.get(f"{public}/health", headers=headers, timeout=30).json() == {"status": "healthy"}


def test_without_a_known_socket_there_are_no_metrics() -> None:
    """A server that does not pass its socket on is not recognised as the operators' port."""
    replica = Replica(ops_port=5001)

    reply = replica.client.get("/metrics", environ_overrides={"SERVER_PORT": "5001"})

    assert reply.status_code == 404
