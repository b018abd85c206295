"""What administrators see of sockets, who counts as one, and the shape of what they are answered."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from channels.sockets.connections import connections_blueprint
from channels.web.envelope import CODES, envelope
from channels.web.guarded import Administrators
from services.errors import StoreUnavailable
from services.limits.guesses import Guesses
from tests.support.servers.processes import FakeClock

TOKEN = "obviously-fake-admin-token"
CONNECTION = {
    "client_id": "client-a",
    "door": "chat",
    "connected_at": "2026-01-01T00:00:00.000Z",
    "idle_time": 1.5,
    "replica": "pod-1:7",
}


class FakeSockets:
    """Two sockets of client-a on this replica, or a Redis that is away."""

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
) -> FlaskClient:
    app = Flask(__name__)
    guesses = Guesses(most=3, clock=clock or FakeClock())
    app.register_blueprint(connections_blueprint(sockets, Administrators(admin_token, guesses, ops_port)))
    return app.test_client()


def lists(client: FlaskClient, **headers: str) -> TestResponse:
    return client.get("/api/ws/connections", headers=headers)


def closes(client: FlaskClient, client_id: str = "client-a", **headers: str) -> TestResponse:
    return client.post(f"/api/ws/disconnect/{client_id}", headers=headers)


def test_an_administrator_sees_who_is_connected() -> None:
    """How many and each of them, in the one envelope."""
    reply = lists(client_of(FakeSockets()), Authorization=f"Bearer {TOKEN}")

    data = {"count": 2, "connections": [CONNECTION, CONNECTION]}
    assert (reply.status_code, reply.json) == (200, {"code": 200, "message": "Success", "data": data})


def test_an_administrator_closes_a_client() -> None:
    """The reply says how many sockets that were; nobody of that name is a 404."""
    sockets = FakeSockets()
    client = client_of(sockets)

    closed = closes(client, Authorization=f"bearer {TOKEN}")
    nobody = closes(client, "client-b", Authorization=f"Bearer {TOKEN}")

    data = {"client_id": "client-a", "disconnected": 2}
    assert (closed.status_code, closed.json) == (200, {"code": 200, "message": "Success", "data": data})
    assert (nobody.status_code, nobody.json) == (404, {"code": 404, "message": "Not Found", "data": None})
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
def test_nobody_else_does(headers: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    """Missing or wrong: 401 for both addresses, nothing is done, and what was shown is not logged."""
    sockets = FakeSockets()
    client = client_of(sockets)

    for reply in (lists(client, **headers), closes(client, **headers)):
        assert (reply.status_code, reply.json) == (401, {"code": 401, "message": "Unauthorized", "data": None})
        assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert sockets.disconnected == []
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert TOKEN[:-1] not in repr([vars(record) for record in caplog.records])


def test_a_token_in_the_address_is_none() -> None:
    """Addresses are logged by everybody on the way."""
    assert client_of(FakeSockets()).get(f"/api/ws/connections?token={TOKEN}").status_code == 401


def test_a_guesser_is_stopped_and_an_administrator_elsewhere_is_not() -> None:
    """After three wrong tokens an address gets 429 until its window ends, for the right token too."""
    clock = FakeClock()
    client = client_of(FakeSockets(), clock=clock)
    right = {"Authorization": f"Bearer {TOKEN}"}
    guessed = [lists(client, Authorization=f"Bearer guess-{n}").status_code for n in range(3)]

    refused, elsewhere = (
        lists(client, **right),
        client.get("/api/ws/connections", headers=right, environ_overrides={"REMOTE_ADDR": "203.0.113.7"}),
    )
    clock.advance(60)

    assert guessed == [401, 401, 401]
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")
    assert (elsewhere.status_code, lists(client, **right).status_code) == (200, 200)


class Accepted:
    """A connection that came by port 15000."""

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 15000


@pytest.mark.parametrize(("ops_port", "status"), [(15000, 200), (15001, 404)])
def test_with_an_operators_port_administrators_come_by_it_only(ops_port: int, status: int) -> None:
    """On the port for everybody the addresses are not there, whatever is shown."""
    client = client_of(FakeSockets(), ops_port=ops_port)

    headers, came_by = {"Authorization": f"Bearer {TOKEN}"}, {"gunicorn.socket": Accepted()}
    reply = client.get("/api/ws/connections", headers=headers, environ_overrides=came_by)

    assert reply.status_code == status


@pytest.mark.parametrize("admin_token", [None, ""])
@pytest.mark.parametrize("header", ["Bearer ", "Bearer None", f"Bearer {TOKEN}", ""])
def test_without_a_token_there_are_no_administrators(admin_token: str | None, header: str) -> None:
    """Neither address is there, whatever is shown."""
    sockets = FakeSockets()
    client = client_of(sockets, admin_token)

    for reply in (lists(client, Authorization=header), closes(client, Authorization=header)):
        assert (reply.status_code, reply.json) == (404, {"code": 404, "message": "Not Found", "data": None})
    assert sockets.disconnected == []


def test_redis_away_is_said_without_a_word_of_it(caplog: pytest.LogCaptureFixture) -> None:
    """The cause is in the log, not in the reply."""
    client = client_of(FakeSockets(away=True))
    headers = {"Authorization": f"Bearer {TOKEN}"}

    for reply in (lists(client, **headers), closes(client, **headers)):
        assert (reply.status_code, reply.json) == (503, {"code": 40000, "message": "Database Error", "data": None})
    assert ["10.0.0.7" in record.__dict__["cause"] for record in caplog.records] == [True, True]


def test_closing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Which client an administrator closed, and how many sockets."""
    with caplog.at_level(logging.INFO):
        closes(client_of(FakeSockets()), Authorization=f"Bearer {TOKEN}")

    (line,) = [record for record in caplog.records if record.levelname == "INFO"]
    assert (vars(line)["client_id"], vars(line)["sockets"]) == ("client-a", 2)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((200, 200), (400, 400), (404, 404), (409, 20000), (413, 10000), (418, 400), (422, 10000), (426, 400)),
        *((429, 20000), (500, 500), (502, 30000), (503, 503), (504, 30000), (507, 500)),
    ],
)
def test_an_envelope_has_a_code_of_the_table(status: int, code: int) -> None:
    """Every HTTP status has one of the documented codes, and its name unless something better is said."""
    assert envelope(status=status).json == {"code": code, "message": CODES[code], "data": None}
    assert envelope(["来宝"], status=status, message="!").json == {"code": code, "message": "!", "data": ["来宝"]}


def test_the_table_has_the_documented_codes() -> None:
    """The fourteen of the originals' protocol."""
    documented = (200, 400, 401, 403, 404, 405, 500, 503, 504, 10000, 20000, 30000, 40000, 90000)

    assert tuple(CODES) == documented
