"""POST /api/chat/<stream_id>/feedback: a caller rates its own answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from demo.mocks.dify.server import MockDify
from services.feedback.rating_store import QUEUE, RatingStore
from services.models import Question
from services.streams.store import stream_keys
from tests.app.wecom.test_wecom_feedback import Office
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import wait_until

KEYS = ("not-a-real-key", "another-key-not-real")


class Client:
    """A program with an API key."""

    def __init__(self, office: Office, key: str = KEYS[0]) -> None:
        self.office = office
        self._headers = {"Authorization": f"Bearer {key}"}

    def asks(self, query: str = "年假怎么申请") -> str:
        """Return the stream id of a whole answer."""
        reply = self._post("/api/chat", {"query": query})
        wait_until(lambda: self.office.app.container.manager.running == 0)
        return str(reply.json()["data"]["stream_id"])

    def begins(self, query: str) -> str:
        """Ask, and return the stream id when the first event has come."""
        url = f"{self.office.app.url}/api/chat"
        body = {"query": query, "stream": True}
        with requests.post(url, json=body, headers=self._headers, stream=True, timeout=30) as reply:
            data = next(line[6:] for line in reply.iter_lines() if line.startswith(b"data: "))
            return str(json.loads(data)["stream_id"])

    def rates(self, stream_id: str, body: Any) -> requests.Response:
        return self._post(f"/api/chat/{stream_id}/feedback", body)

    def _post(self, path: str, body: Any) -> requests.Response:
        return requests.post(self.office.app.url + path, json=body, headers=self._headers, timeout=30)


@pytest.fixture
def office(any_redis_url: str, tmp_path: Path) -> Iterator[Office]:
    path = tmp_path / "laibao.db"
    with MockDify() as dify:
        values = {"DATABASE_PATH": str(path), "BATCH_ENABLED": "false", "API_KEYS": ",".join(KEYS)}
        values |= {"DIFY_USER": "programs"}
        with AppServer(any_redis_url, **dify_settings(dify.base_url), **values) as app:
            yield Office(app, dify, f"sqlite:///{path}")


def reason_of(reply: requests.Response) -> tuple[int, int, str]:
    body = reply.json()
    assert body["message"]
    return reply.status_code, body["code"], body["data"]["reason"]


def test_a_rating_reaches_sql_and_dify(office: Office) -> None:
    """The last one counts; null withdraws. Dify gets the user of the question."""
    client = Client(office)
    stream_id = client.asks()

    bodies: list[dict[str, Any]] = [{"rating": "like"}, {"rating": "dislike", "content": "不对"}]
    replies = [client.rates(stream_id, body).json() for body in bodies]
    office.delivers()
    assert [(row["rating"], row["content"], row["channel"]) for row in office.rows()] == [("dislike", "不对", "http")]
    assert office.states()[-1] == ("dislike", "不对")
    gone = client.rates(stream_id, {"rating": None, "content": "ignored"}).json()
    office.delivers()

    assert [reply["data"] for reply in replies] == [{"stream_id": stream_id, "rating": b["rating"]} for b in bodies]
    assert gone["data"] == {"stream_id": stream_id, "rating": None}
    assert [(row["rating"], row["content"]) for row in office.rows()] == [(None, None)]
    assert office.states()[-1] == (None, "")


def test_an_answer_over_a_socket_is_rated_too(office: Office) -> None:
    """The caller's credential decides, not the channel."""
    caller = office.app.container.callers.program(KEYS[0])
    asked = office.app.container.gateway.ask(Question("年假怎么申请", "chat", "default", caller.principal))
    wait_until(lambda: office.app.container.manager.running == 0, timeout=30.0)

    assert Client(office).rates(asked.stream_id, {"rating": "like"}).status_code == 200
    office.delivers()
    assert [(row["channel"], row["rating"]) for row in office.rows()] == [("chat", "like")]


def test_an_unknown_answer_and_that_of_another_caller_are_404(office: Office) -> None:
    """Callers do not learn which; a malformed id is the same."""
    stream_id = Client(office).asks()

    replies = [Client(office, KEYS[1]).rates(one, {"rating": "like"}) for one in (stream_id, "0" * 32, "x")]

    assert [reason_of(reply) for reply in replies] == [(404, 404, "stream_unknown")] * 3
    assert office.app.container.redis.exists(QUEUE) == 0


def test_an_answer_that_goes_on_is_409(office: Office) -> None:
    """It can be rated once it has ended."""
    office.dify.delay = 0.2
    client = Client(office)
    stream_id = client.begins("年假怎么申请")
    wait_until(lambda: office.dify.conversations, timeout=30.0)

    assert reason_of(client.rates(stream_id, {"rating": "like"})) == (409, 20000, "answer_running")
    office.dify.hurry()
    wait_until(lambda: office.app.container.manager.running == 0, timeout=30.0)
    assert client.rates(stream_id, {"rating": "like"}).status_code == 200


def test_a_sentence_of_the_gateway_is_409(office: Office) -> None:
    """No provider gave it."""
    client = Client(office)
    stream_id = client.asks()
    redis = office.app.container.redis
    redis.delete(f"{{dify_stream:{stream_id}}}:answer")
    redis.hset(stream_keys(stream_id).hash, "asks", "0")

    assert reason_of(client.rates(stream_id, {"rating": "like"})) == (409, 20000, "not_rateable")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"rating": "good"},
        {"rating": 1},
        {"rating": "like", "content": 5},
        {"rating": "like", "content": "x" * 2001},
        {"rating": "like", "more": 1},
    ],
)
def test_wrong_fields_are_422(office: Office, body: dict[str, Any]) -> None:
    """Whatever the stream is."""
    assert reason_of(Client(office).rates("0" * 32, body)) == (422, 10000, "invalid_fields")


def test_a_full_queue_is_503(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client may try again later; the rating is not taken."""
    client = Client(office)
    stream_id = client.asks()
    container = office.app.container
    full = RatingStore(container.runner, most_waiting=0)
    monkeypatch.setattr(container.feedback_inbox, "_ratings", full)

    reply = client.rates(stream_id, {"rating": "like"})

    assert reason_of(reply) == (503, 503, "feedback_full")
    assert reply.headers["Retry-After"]


def test_without_a_key_it_is_401(office: Office) -> None:
    """As every address for programs."""
    assert Client(office, "wrong").rates("0" * 32, {"rating": "like"}).status_code == 401
