"""The administrators' API of sockets: the list, closing a client, authentication, and the reply envelope."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from channels.sockets.connections import connections_blueprint
from channels.web.guarded import Administrators
from channels.web.rest import CODES, envelope
from services.admin.sql_store import Act
from services.admin.tokens import AdminTokens, GivenToken, Role
from services.errors import StoreUnavailable
from services.identity.guesses import Guesses
from tests.support.admins import one_admin
from tests.support.servers.processes import FakeClock

TOKEN = "obviously-fake-admin-token"
CONNECTION = {
    "client_id": "client-a",
    "channel": "chat",
    "connected_at": "2026-01-01T00:00:00.000Z",
    "idle_time": 1.5,
    "replica": "pod-1:7",
}


class FakeSockets:
    """Two sockets of client-a on this replica, or a Redis that is unreachable."""

    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.disconnected: list[str] = []

    def connections(self) -> list[dict[str, Any]]:
        if self.away:
            raise StoreUnavailable("redis: TimeoutError: 10.0.0.7:6379")
        return [CONNECTION, CONNECTION]

    def disconnect(self, client_id: str) -> int:
        if self.away:
            raise StoreUnavailable("redis: TimeoutError: 10.0.0.7:6379")
        self.disconnected.append(client_id)
        return 2 if client_id == "client-a" else 0


def client_of(
    sockets: FakeSockets,
    admin_token: str | None = TOKEN,
    *,
    ops_port: int | None = None,
    clock: FakeClock | None = None,
    tokens: AdminTokens | None = None,
    record: Callable[[Act], None] | None = None,
) -> FlaskClient:
    app = Flask(__name__)
    guesses = Guesses(most=3, clock=clock or FakeClock())
    administrators = Administrators(tokens or one_admin(admin_token), guesses, ops_port, record)
    app.register_blueprint(connections_blueprint(sockets, administrators))
    return app.test_client()


def get_connections(client: FlaskClient, **headers: str) -> TestResponse:
    return client.get("/api/ws/connections", headers=headers)


def disconnect_client(client: FlaskClient, client_id: str = "client-a", **headers: str) -> TestResponse:
    return client.post(f"/api/ws/disconnect/{client_id}", headers=headers)


def test_an_administrator_lists_the_connections() -> None:
    """The list has a count and every connection, in the REST envelope."""
    reply = get_connections(client_of(FakeSockets()), Authorization=f"Bearer {TOKEN}")

    data = {"count": 2, "connections": [CONNECTION, CONNECTION]}
    assert (reply.status_code, reply.json) == (200, {"code": 200, "message": "Success", "data": data})


def test_an_administrator_closes_a_client() -> None:
    """The reply has the number of closed sockets; an unknown client is a 404."""
    sockets = FakeSockets()
    client = client_of(sockets)

    closed = disconnect_client(client, Authorization=f"bearer {TOKEN}")
    unknown = disconnect_client(client, "client-b", Authorization=f"Bearer {TOKEN}")

    data = {"client_id": "client-a", "disconnected": 2}
    assert (closed.status_code, closed.json) == (200, {"code": 200, "message": "Success", "data": data})
    assert (unknown.status_code, unknown.json) == (404, {"code": 404, "message": "Not Found", "data": None})
    assert sockets.disconnected == ["client-a", "client-b"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer"},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "Bearer b\u00e9"},
        {"X-API-Key": TOKEN},
    ],
)
def test_a_missing_or_wrong_token_is_unauthorized(headers: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    """A missing or wrong token is 401 for both addresses, nothing is closed, and the token is not logged."""
    sockets = FakeSockets()
    client = client_of(sockets)

    for reply in (get_connections(client, **headers), disconnect_client(client, **headers)):
        assert (reply.status_code, reply.json) == (401, {"code": 401, "message": "Unauthorized", "data": None})
        assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert sockets.disconnected == []
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert TOKEN[:-1] not in repr([vars(record) for record in caplog.records])


def test_a_token_in_the_query_is_ignored() -> None:
    """URLs are logged by proxies, so a token in the query is ignored."""
    assert client_of(FakeSockets()).get(f"/api/ws/connections?token={TOKEN}").status_code == 401


def test_wrong_tokens_limit_their_own_address_only() -> None:
    """After three wrong tokens a client address gets 429 until its window ends, for the right token too."""
    clock = FakeClock()
    client = client_of(FakeSockets(), clock=clock)
    right = {"Authorization": f"Bearer {TOKEN}"}
    guessed = [get_connections(client, Authorization=f"Bearer guess-{n}").status_code for n in range(3)]

    refused, elsewhere = (
        get_connections(client, **right),
        client.get("/api/ws/connections", headers=right, environ_overrides={"REMOTE_ADDR": "203.0.113.7"}),
    )
    clock.advance(60)

    assert guessed == [401, 401, 401]
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")
    assert (elsewhere.status_code, get_connections(client, **right).status_code) == (200, 200)


class Accepted:
    """A connection accepted on port 15000."""

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 15000


@pytest.mark.parametrize(("ops_port", "status"), [(15000, 200), (15001, 404)])
def test_the_api_is_served_on_the_operations_port_only(ops_port: int, status: int) -> None:
    """With OPS_PORT set, the addresses are a 404 on the public port, even with the right token."""
    client = client_of(FakeSockets(), ops_port=ops_port)

    headers, accepted_on = {"Authorization": f"Bearer {TOKEN}"}, {"gunicorn.socket": Accepted()}
    reply = client.get("/api/ws/connections", headers=headers, environ_overrides=accepted_on)

    assert reply.status_code == status


@pytest.mark.parametrize("admin_token", [None, ""])
@pytest.mark.parametrize("header", ["Bearer ", "Bearer None", f"Bearer {TOKEN}", ""])
def test_without_an_admin_token_the_api_does_not_exist(admin_token: str | None, header: str) -> None:
    """Without ADMIN_TOKEN both addresses are a 404, whatever token is sent."""
    sockets = FakeSockets()
    client = client_of(sockets, admin_token)

    for reply in (get_connections(client, Authorization=header), disconnect_client(client, Authorization=header)):
        assert (reply.status_code, reply.json) == (404, {"code": 404, "message": "Not Found", "data": None})
    assert sockets.disconnected == []


def test_an_outage_of_redis_is_reported_without_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    """The reply is 503 without the exception's text; the log has the cause."""
    client = client_of(FakeSockets(away=True))
    headers = {"Authorization": f"Bearer {TOKEN}"}

    for reply in (get_connections(client, **headers), disconnect_client(client, **headers)):
        assert (reply.status_code, reply.json) == (503, {"code": 40000, "message": "Database Error", "data": None})
    assert ["10.0.0.7" in record.__dict__["cause"] for record in caplog.records] == [True, True]


def test_closing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The line has the client's id and the number of closed sockets."""
    with caplog.at_level(logging.INFO):
        disconnect_client(client_of(FakeSockets()), Authorization=f"Bearer {TOKEN}")

    (line,) = [record for record in caplog.records if record.message == "sockets disconnected"]
    assert (vars(line)["client_id"], vars(line)["sockets"]) == ("client-a", 2)


def test_what_an_administrator_does_is_audited_before_it_is_done() -> None:
    """The row names who, from where, what and which object; if it cannot be written, nothing is done."""
    written: list[Act] = []
    sockets = FakeSockets()
    client = client_of(sockets, record=written.append)

    disconnect_client(client, Authorization=f"Bearer {TOKEN}")

    assert written == [Act("ADMIN_TOKEN", "admin", "127.0.0.1", "socket.disconnect", "client-a")]

    def away(_act: Act) -> None:
        raise StoreUnavailable("SQL: 10.0.0.7:3306")

    refused = disconnect_client(client_of(sockets, record=away), "client-b", Authorization=f"Bearer {TOKEN}")
    assert (refused.status_code, sockets.disconnected) == (503, ["client-a"])


@pytest.mark.parametrize(("role", "closes"), [("viewer", False), ("operator", True), ("admin", True)])
def test_each_role_may_what_is_its_own(role: Role, closes: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A viewer lists the sockets, and only a higher role closes them."""
    sockets = FakeSockets()
    tokens = AdminTokens([GivenToken("wang", role, TOKEN)])
    client = client_of(sockets, tokens=tokens)

    replies = [get(client, Authorization=f"Bearer {TOKEN}") for get in (get_connections, disconnect_client)]

    assert [reply.status_code for reply in replies] == [200, 200 if closes else 403]
    assert sockets.disconnected == ["client-a"] * closes
    refusals = [vars(record) for record in caplog.records if record.message == "administrator refused"]
    assert [(one["admin"], one["role"]) for one in refusals] == [("wang", role)] * (not closes)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((200, 200), (400, 400), (404, 404), (409, 20000), (413, 10000), (418, 400), (422, 10000), (426, 400)),
        *((429, 20000), (500, 500), (502, 30000), (503, 503), (504, 30000), (507, 500)),
    ],
)
def test_an_envelope_has_a_code_of_the_table(status: int, code: int) -> None:
    """Every HTTP status maps to a documented code, with the code's name unless a message is given."""
    assert envelope(status=status).json == {"code": code, "message": CODES[code], "data": None}
    assert envelope(["来宝"], status=status, message="!").json == {"code": code, "message": "!", "data": ["来宝"]}


def test_the_table_has_the_documented_codes() -> None:
    """The table has exactly the fourteen documented codes."""
    documented = (200, 400, 401, 403, 404, 405, 500, 503, 504, 10000, 20000, 30000, 40000, 90000)

    assert tuple(CODES) == documented


class AwayTokens:
    """Stored tokens while the database is away."""

    def find(self, digest: str) -> None:
        raise StoreUnavailable("SQL: 10.0.0.7:3306")


def test_an_outage_of_the_database_does_not_free_guesses() -> None:
    """A token that only the database may know gets 503, and counts as a wrong one; so guesses end with 429."""
    tokens = AdminTokens([GivenToken("wang", "viewer", TOKEN)], AwayTokens())
    client = client_of(FakeSockets(), tokens=tokens)

    replies = [get_connections(client, Authorization=f"Bearer wrong-{number}") for number in range(4)]

    assert [reply.status_code for reply in replies] == [503, 503, 503, 429]
