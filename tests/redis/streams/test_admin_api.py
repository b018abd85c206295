"""The administrators' API over streams: answers of every replica are listed, read and cancelled, by role."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from channels.admin.endpoints import Audit, admin_blueprint
from channels.web.errors import register_rest_errors
from channels.web.guarded import Administrators
from services.admin.sessions import LIFE_SECONDS, AdminSessions
from services.admin.sql_store import Act, Audited, AuditFilter
from services.admin.tokens import Administrator, AdminTokens, GivenToken, Role
from services.identity.guesses import Guesses
from services.streams.listing import PER_SHARD, RunningStreams
from services.streams.store import RUNNING_SHARDS
from tests.support.servers.processes import FakeClock, wait_until
from tests.support.streams.desk import Desk, SlowProvider

ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")
NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)


class Office:
    """Two replicas on one Redis; administrators of each role use the API of the second, and the first one answers."""

    def __init__(self, redis_url: str) -> None:
        self.provider = SlowProvider()
        self.owner, self.other = Desk(redis_url, self.provider), Desk(redis_url, self.provider)
        self.acts: list[Act] = []
        self.clock = FakeClock()
        self.client = self.serve(None)

    def serve(self, audit: Audit | None) -> FlaskClient:
        """Serve the API of the second replica."""
        tokens = AdminTokens(GivenToken(f"{role}-name", role, f"fake-token-of-{role}") for role in ROLES)
        container = self.other.container
        blueprint = admin_blueprint(
            Administrators(
                tokens, Guesses(most=4), None, self.acts.append, AdminSessions(tokens, b"k" * 32, clock=self.clock)
            ),
            running=RunningStreams(container.runner, lease=12.0),
            streams=container.streams,
            cancel=container.gateway.cancel_any,
            audit=audit,
            clock=self.clock,
        )
        app = Flask("admin")
        app.register_blueprint(blueprint)
        register_rest_errors(app, container.texts, {})
        self.client = app.test_client()
        return self.client

    def as_role(self, role: str, method: str, path: str) -> tuple[int, Any]:
        """Send a request as the administrator of a role; return the status and the data."""
        headers = {"Authorization": f"Bearer fake-token-of-{role}"} if role else {}
        reply = self.client.open(f"/api/admin/{path}", method=method, headers=headers)
        return reply.status_code, reply.get_json()["data"]

    def close(self) -> None:
        self.provider.go_on.set()
        self.owner.close()
        self.other.close()


@pytest.fixture
def office(redis_url: str) -> Iterator[Office]:
    office = Office(redis_url)
    yield office
    office.close()


def test_answers_of_every_replica_are_listed_without_words(office: Office) -> None:
    """An answer leaves the list when it ends."""
    streams = [office.owner.asks(f"机密{number}", msgid=f"m{number}").stream_id for number in range(3)]

    status, data = office.as_role("viewer", "GET", "live")

    assert (status, data["total"]) == (200, 3)
    assert {row["stream_id"] for row in data["streams"]} == set(streams)
    assert {(row["person"], row["channel"], row["bot"]) for row in data["streams"]} == {
        ("zhangsan", "wecom", "default")
    }
    assert "机密" not in str(data)
    assert len(office.as_role("viewer", "GET", "live?limit=2")[1]["streams"]) == 2

    office.provider.go_on.set()
    wait_until(lambda: office.as_role("viewer", "GET", "live")[1] == {"total": 0, "streams": []})


def test_an_operator_cancels_an_answer_of_another_replica(office: Office) -> None:
    """Its owner ends it; the audit has who did it, and an unknown stream is a 404."""
    stream_id = office.owner.asks().stream_id

    status, data = office.as_role("operator", "POST", f"live/{stream_id}/cancel")

    assert (status, data) == (200, {"stream_id": stream_id, "was": "processing"})
    assert office.owner.sees_end(stream_id).status == "cancelled"
    assert office.acts == [Act("operator-name", "operator", "127.0.0.1", "stream.cancel", stream_id)]
    assert office.as_role("operator", "POST", f"live/{stream_id}/cancel")[1]["was"] == "cancelled"
    assert office.as_role("operator", "POST", "live/unknown/cancel") == (404, {"reason": "stream_unknown"})


def test_each_look_at_words_is_in_the_audit(office: Office) -> None:
    """An admin sees question and text of a stream, which stays unread for its reader."""
    stream_id = office.owner.asks("年假?").stream_id
    office.provider.go_on.set()
    office.owner.sees_end(stream_id)

    status, data = office.as_role("admin", "GET", f"live/{stream_id}")

    assert (status, data["question"], data["status"]) == (200, "年假?", "completed")
    assert data["text"].startswith("答：年假?")
    assert [act.action for act in office.acts] == ["stream.read"]
    assert office.as_role("admin", "GET", "live/unknown")[0] == 404


def test_an_answer_that_is_watched_is_audited_once_an_hour(office: Office) -> None:
    """For each administrator and stream: a page that watches an answer looks every few seconds."""
    streams = [office.owner.asks(words, msgid=words).stream_id for words in ("年假?", "病假?")]
    office.provider.go_on.set()

    for stream_id in (streams[0], streams[0], streams[1], streams[0]):
        assert office.as_role("admin", "GET", f"live/{stream_id}")[0] == 200
    assert [act.object for act in office.acts] == streams

    office.clock.now += 3601.0
    assert office.as_role("admin", "GET", f"live/{streams[0]}")[0] == 200
    assert [act.object for act in office.acts] == [*streams, streams[0]]


@pytest.mark.parametrize(
    ("method", "path", "least"),
    [
        ("GET", "live", "viewer"),
        ("GET", "live/s1", "admin"),
        ("POST", "live/s1/cancel", "operator"),
        ("POST", "alerts/test", "operator"),
        ("GET", "audit", "admin"),
    ],
)
def test_the_server_refuses_what_a_role_may_not(office: Office, method: str, path: str, least: Role) -> None:
    """401 without a token, 403 below the role; nothing is done, and nothing comes into the audit."""
    below = ROLES[: ROLES.index(least)]

    assert office.as_role("", method, path)[0] == 401
    assert [office.as_role(role, method, path)[0] for role in below] == [403] * len(below)
    assert office.acts == []
    assert office.as_role(least, method, path)[0] in (200, 404)


class PagedAudit:
    """An audit of three rows."""

    def __init__(self) -> None:
        self.asked: list[AuditFilter] = []

    def audit_page(self, chosen: AuditFilter, last: int | None, most: int) -> list[Audited]:
        self.asked.append(chosen)
        ids = [number for number in (3, 2, 1) if last is None or number < last]
        return [
            Audited(number, NOW, Act("wang", "operator", "", "stream.cancel", f"s{number}")) for number in ids[:most]
        ]


def test_the_audit_is_read_in_pages(office: Office) -> None:
    """Newest first; `next` leads on, and is null at the end. A wrong parameter is named."""
    audit = PagedAudit()
    office.serve(audit)

    first = office.as_role("admin", "GET", "audit?limit=2&object=s1&since=2026-11-24T08:00:00%2B08:00")[1]
    last = office.as_role("admin", "GET", f"audit?limit=2&cursor={first['next']}")[1]

    assert [row["object"] for row in (*first["rows"], *last["rows"])] == ["s3", "s2", "s1"]
    assert (first["rows"][0]["time"], last["next"]) == ("2026-11-24T08:00:00.000Z", None)
    assert audit.asked[0] == AuditFilter(datetime(2026, 11, 24, tzinfo=UTC), object="s1")
    assert office.as_role("admin", "GET", "audit?since=yesterday")[0] == 422


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (f"cursor={2**63 - 1}", 200),
        (f"cursor={2**63}", 422),
        ("cursor=" + "9" * 300, 422),
        ("cursor=-1", 422),
        ("since=0001-01-01T00:00:00%2B00:00&until=9999-12-31T23:59:59%2B00:00", 200),
        ("since=0001-01-01T00:00:00%2B14:00", 422),
        ("until=9999-12-31T23:59:59-12:00", 422),
    ],
)
def test_values_that_sql_cannot_hold_are_refused(office: Office, asked: str, status: int) -> None:
    """They are the client's fault: with them a query fails, as if the database were away."""
    office.serve(PagedAudit())

    assert office.as_role("admin", "GET", f"audit?{asked}")[0] == status


def test_a_list_of_thousands_is_a_bounded_sample(office: Office) -> None:
    """The number of commands does not grow with the number of answers."""
    for shard in range(RUNNING_SHARDS):
        members = {f"gone-{shard}-{number}": 1.0 for number in range(PER_SHARD + 10)}
        office.other.client.zadd(f"dify_streams:running:{shard}", members)
    running = RunningStreams(office.other.runner, lease=12.0)

    rows, total = running.rows(100)

    assert (rows, total) == ([], RUNNING_SHARDS * (PER_SHARD + 10))


def signs_in(office: Office, role: str) -> dict[str, Any]:
    reply = office.client.post("/api/admin/session", json={"token": f"fake-token-of-{role}"})
    assert reply.status_code == 200
    data: dict[str, Any] = reply.get_json()["data"]
    return data


def test_a_session_stands_for_its_token(office: Office) -> None:
    """The cookie is for the server alone, has no token in it, and ends after twelve hours."""
    reply = office.client.post("/api/admin/session", json={"token": "fake-token-of-viewer"})
    cookie = reply.headers["Set-Cookie"]

    assert reply.get_json()["data"]["name"] == "viewer-name"
    assert ("HttpOnly" in cookie, "SameSite=Strict" in cookie, "fake-token" in cookie) == (True, True, False)
    assert office.as_role("", "GET", "session")[1] == reply.get_json()["data"]
    assert [office.as_role("", "GET", path)[0] for path in ("live", "audit")] == [200, 403]

    office.clock.advance(LIFE_SECONDS)
    assert office.as_role("", "GET", "live")[0] == 401


def test_a_change_by_cookie_needs_the_csrf_token(office: Office) -> None:
    """Another site's page may make a browser send the cookie, but cannot read the token."""
    stream_id = office.owner.asks().stream_id
    shown = signs_in(office, "operator")["csrf_token"]
    path = f"/api/admin/live/{stream_id}/cancel"

    refused = [office.client.post(path, headers=headers) for headers in ({}, {"X-CSRF-Token": shown[:-1] + "x"})]
    assert [(reply.status_code, reply.get_json()["data"]) for reply in refused] == [(403, {"reason": "csrf_token"})] * 2
    assert office.acts == []

    assert office.client.post(path, headers={"X-CSRF-Token": shown}).status_code == 200
    assert [(act.name, act.action) for act in office.acts] == [("operator-name", "stream.cancel")]


def test_a_session_ends_by_signing_out_or_with_its_token(office: Office) -> None:
    """A changed cookie is none, and a wrong token opens none; too many of them are refused."""
    signs_in(office, "viewer")
    assert office.client.delete("/api/admin/session").status_code == 204
    assert office.as_role("", "GET", "live")[0] == 401

    signs_in(office, "viewer")
    cookie = office.client.get_cookie("laibao_admin")
    assert cookie
    for wrong in (cookie.value[:-4] + "AAAA", "x", "é", "A" * 2_000, ""):
        office.client.set_cookie("laibao_admin", wrong)
        assert office.as_role("", "GET", "live")[0] == 401

    wrong_tokens = [office.client.post("/api/admin/session", json={"token": f"wrong-{n}"}) for n in range(5)]
    assert [reply.status_code for reply in wrong_tokens] == [401] * 4 + [429]


def test_a_revoked_token_ends_its_sessions() -> None:
    """A session is looked up by its token's digest at each request."""
    given = [GivenToken("wang", "admin", "fake-token-of-wang")]
    before, after = (AdminSessions(AdminTokens(tokens), b"k" * 32) for tokens in (given, []))

    session = before.open(Administrator("wang", "admin"), "fake-token-of-wang")

    assert before.find(session.cookie) == session
    assert after.find(session.cookie) is None
