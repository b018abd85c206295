"""POST /api/chat and its streams, on a gateway that the test controls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from channels.http_chat.endpoints import MAX_BYTES, OPERATIONS, HttpChat, http_chat_blueprint
from channels.http_chat.models import ChatAnswered, ChatCancelled, ChatFailed
from channels.http_chat.replies import refusal
from channels.options import AskableBots
from channels.registry import HTTP
from channels.waiting.requests import WaitingQuestions, WaitingRequests
from channels.web.errors import register_rest_errors
from config.texts import ZH, Texts
from services.errors import StoreUnavailable, StreamUnknown
from services.identity.callers import Callers
from services.models import Status, Usage
from services.streams.long_text import FullAnswer, LongText, TextSlice
from tests.app.channels.test_chat import FakeGateway, FakeStream, ended, grown, rejected_count
from tests.support.sockets.chat_room import BOTS, NO_FILES, Limit
from tests.support.sockets.event_reader import Event, events
from utils.citations import typed_source

KEY = "not-a-real-key"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
EVENTS = {"Accept": "text/event-stream"}
USAGE = {"total_tokens": 7, "prompt_tokens": 3, "completion_tokens": 4, "total_price": "0.001", "currency": "USD"}
WHOLE = FullAnswer(
    "答案",
    "completed",
    sources=(typed_source({"title": "handbook.md"}),),
    usage=Usage(7, 3, 4, "0.001", "USD"),
    provider="dify",
    message_id="m1",
    conversation_id="c1",
)


class Endpoint:
    """An application with the three addresses of HTTP chat, its fake gateway and its limits."""

    def __init__(self, *, most: int = 2) -> None:
        self.gateway = FakeGateway()
        self.limit = Limit()
        self.ready = True
        self.waits = WaitingRequests(most=most)
        texts = Texts("zh")
        self.app = Flask(__name__)
        register_rest_errors(self.app, texts)
        questions = WaitingQuestions(
            gateway=self.gateway,
            limiter=self.limit,
            waits=self.waits,
            ready=lambda: self.ready,
            refusal=partial(refusal, texts=texts),
        )
        chat = HttpChat(questions, texts, NO_FILES)
        self.app.register_blueprint(http_chat_blueprint(chat, AskableBots(BOTS, texts), Callers("key", api_keys=[KEY])))
        self.client: FlaskClient = self.app.test_client()

    def will(self, full: FullAnswer, *texts: str, sentence: str = "", **end: Any) -> FakeStream:
        """Have the next stream send these texts, and end."""
        stream = self.has(f"s{len(self.gateway.streams) + 1}", full)
        for cursor, text in enumerate(texts, 1):
            stream.tells(grown(cursor, text))
        code = {"error_code": full.error_code, "sentence": sentence}
        stream.tells(ended(len(texts) + 1, full.status, **{**code, **end}))
        return stream

    def has(self, stream_id: str, full: FullAnswer = WHOLE) -> FakeStream:
        stream = self.gateway.streams.setdefault(stream_id, FakeStream())
        stream.answer = full
        return stream

    def asks(self, query: str = "年假？", *, headers: dict[str, str] | None = None, **fields: Any) -> TestResponse:
        body = {"query": query, **fields}
        return self.client.post("/api/chat", json=body, headers={**AUTHORIZED, **(headers or {})}, buffered=True)

    def gets(self, stream_id: str, query: str = "", **headers: str) -> TestResponse:
        return self.client.get(f"/api/chat/{stream_id}{query}", headers={**AUTHORIZED, **headers}, buffered=True)

    def opens(self, stream_id: str) -> TestResponse:
        """Begin to read a stream's events; the reply stays open."""
        return self.client.get(f"/api/chat/{stream_id}", headers={**AUTHORIZED, **EVENTS})

    def cancels(self, stream_id: str, query: str = "") -> TestResponse:
        return self.client.delete(f"/api/chat/{stream_id}{query}", headers=AUTHORIZED)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    assert endpoint.waits.count == 0, "a slot was not released"


def prepared(endpoint: Endpoint, full: FullAnswer, *texts: str, id: str = "q1", **others: Any) -> dict[str, Any]:
    """Prepare a stream with these texts for the question's id; return the fields to ask it with."""
    endpoint.gateway.named[id] = f"s{len(endpoint.gateway.streams) + 1}"
    endpoint.will(full, *texts, **others)
    return {"id": id}


def shown(reply: TestResponse) -> list[Event]:
    assert (reply.status_code, reply.mimetype) == (200, "text/event-stream"), reply.text
    return list(events(reply.get_data(as_text=True).split("\n")))


def error_of(reply: TestResponse) -> tuple[int, int, str]:
    """Return an error's HTTP status, code and reason, after checking that it has a message."""
    body = reply.get_json()
    assert set(body) == {"code", "message", "data"}
    assert body["message"]
    return reply.status_code, body["code"], body["data"]["reason"]


# Answers


def test_an_answer_is_returned_as_json(endpoint: Endpoint) -> None:
    """Text, sources, usage and ids come in the REST envelope."""
    reply = endpoint.asks(**prepared(endpoint, WHOLE, "答", "案"))

    body = reply.get_json()
    assert (reply.status_code, body["code"], body["message"]) == (200, 200, "Success")
    assert body["data"] == {
        "stream_id": "s1",
        "content": "答案",
        "status": "completed",
        "sources": [{"title": "handbook.md", "url": "", "snippet": "", "score": None}],
        "files": [],
        "suggestions": [],
        "usage": USAGE,
        "metadata": {"provider": "dify", "message_id": "m1", "conversation_id": "c1"},
    }
    ChatAnswered.model_validate(body["data"])
    assert reply.headers["Cache-Control"] == "no-store"


def test_an_answer_of_the_mock_is_marked(endpoint: Endpoint) -> None:
    """With MOCK_FALLBACK, clients can tell the built-in mock's answer from the provider's."""
    reply = endpoint.asks(**prepared(endpoint, FullAnswer("mock", "completed", mock=True)))

    assert reply.get_json()["data"]["mock"] is True


def test_an_answer_is_sent_as_events(endpoint: Endpoint) -> None:
    """The stream's id first, then the deltas with their cursors, then an event with everything the JSON answer has."""
    reply = endpoint.asks(stream=True, **prepared(endpoint, WHOLE, "答", "案"))

    assert shown(reply) == [
        Event("start", "0", {"stream_id": "s1"}),
        Event("delta", "1", {"content": "答"}),
        Event("delta", "2", {"content": "案"}),
        Event("done", "end", reply_data(endpoint)),
    ]
    assert (reply.headers["Cache-Control"], reply.headers["X-Accel-Buffering"]) == ("no-store", "no")


def reply_data(endpoint: Endpoint) -> Any:
    """Return the data of the stream s1 as JSON."""
    endpoint.has("s1").tells(ended(3))
    return endpoint.gets("s1").get_json()["data"]


def test_a_replaced_text_is_sent_after_a_reset(endpoint: Endpoint) -> None:
    """The reset event has id 0, so a client that reconnects right after it gets the whole text."""
    endpoint.has("s1").tells(grown(2, "falsch"), grown(5, "答", "案", reset=True), ended(6))

    received = shown(endpoint.gets("s1", **EVENTS))

    assert [(event.name, event.id) for event in received] == [
        ("start", "0"),
        ("delta", "2"),
        ("reset", "0"),
        ("delta", "5"),
        ("done", "end"),
    ]
    assert received[3].data == {"content": "答案"}


def test_any_text_is_one_line_of_an_event(endpoint: Endpoint) -> None:
    """Line ends of every kind, and text that looks like an SSE field, arrive unchanged."""
    text = "a\nb\r\nc\rid: 9\u2028data: x\n\nevent: done\n\n\x00👍🏽"
    endpoint.has("s1", FullAnswer(text, "completed")).tells(grown(1, text), ended(2))

    received = shown(endpoint.gets("s1", **EVENTS))

    assert received[1].data == {"content": text}
    assert received[2].data["content"] == text


def long_answer(text: str, status: Status = "completed", code: str = "", *, most: int = 10**9) -> FullAnswer:
    """Return an answer that is read in slices, and expires after `most` characters."""

    def read(offset: int) -> TextSlice:
        if offset >= most:
            raise StreamUnknown("s1")
        return TextSlice(text[offset : offset + 1000], min(len(text), offset + 1000), len(text))

    return FullAnswer("", status, code, long=LongText(read, len(text)))


@pytest.mark.parametrize("size", [20_000, 200_000])
def test_a_long_answer_is_read_while_it_is_sent(endpoint: Endpoint, size: int) -> None:
    """A long answer is sent as any other, as events and as JSON, completed or failed."""
    text = 'ab"\n' * (size // 4)
    endpoint.has("s1", long_answer(text)).tells(ended(1))
    endpoint.has("s2", long_answer(text)).tells(ended(1))
    endpoint.has("s3", long_answer(text, "error", "interrupted")).tells(ended(1, "error", error_code="interrupted"))
    endpoint.has("s4", long_answer(text, "error", "interrupted")).tells(ended(1, "error", error_code="interrupted"))

    done = shown(endpoint.gets("s1", **EVENTS))[-1]
    full = endpoint.gets("s2")
    failed = shown(endpoint.gets("s3", **EVENTS))[-1]
    failed_json = endpoint.gets("s4")

    assert (done.name, done.data["content"]) == ("done", text)
    assert (full.status_code, full.get_json()["data"]["content"]) == (200, text)
    assert (failed.name, failed.data["data"]["content"], failed.data["data"]["reason"]) == (
        "error",
        text,
        "interrupted",
    )
    assert (error_of(failed_json), failed_json.get_json()["data"]["content"]) == ((502, 30000, "interrupted"), text)
    assert full.headers["Cache-Control"] == failed_json.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
def test_an_answer_that_expires_breaks_the_connection(endpoint: Endpoint, accept: str) -> None:
    """A connection that breaks off tells the client that the answer is incomplete; a normal end would not."""
    endpoint.has("s1", long_answer("a" * 200_000, most=100_000)).tells(ended(1))

    with pytest.raises(BrokenPipeError):
        endpoint.gets("s1", Accept=accept)


ENDS = [
    ("provider_error", 502, 30000),
    ("provider_unreachable", 502, 30000),
    ("provider_truncated", 502, 30000),
    ("interrupted", 502, 30000),
    ("provider_timeout", 504, 30000),
    ("answer_timeout", 504, 30000),
    ("provider_busy", 429, 20000),
    ("turns_full", 429, 20000),
    ("auth_refused", 403, 403),
    ("auth_unavailable", 503, 503),
    ("store_unavailable", 503, 40000),
    ("empty_question", 422, 10000),
    ("question_too_large", 413, 10000),
    ("answer_failed", 500, 90000),
]


@pytest.mark.parametrize(("reason", "status", "code"), ENDS)
def test_a_failed_answer_has_its_reason_and_its_text_so_far(
    endpoint: Endpoint, reason: str, status: int, code: int
) -> None:
    """HTTP status, code, reason and sentence fit the error; the text so far is included and not cached."""
    fields = prepared(endpoint, FullAnswer("so far", "error", reason), "so far", sentence=f"<{reason}>")

    reply = endpoint.asks(**fields)

    assert error_of(reply) == (status, code, reason)
    assert reply.get_json()["message"] == f"<{reason}>"
    assert reply.get_json()["data"] == {"reason": reason, "stream_id": "s1", "content": "so far"}
    assert ("Retry-After" in reply.headers) == (status in (429, 503))
    assert reply.headers["Cache-Control"] == "no-store"


def test_a_partial_answer_has_its_usage(endpoint: Endpoint) -> None:
    """An incomplete answer's usage is in the JSON reply and in the error event."""
    full = FullAnswer("so far", "error", "provider_filtered", usage=Usage(7, 3, 4, "0.001", "USD"))

    reply = endpoint.asks(**prepared(endpoint, full, "so far"))
    last = shown(endpoint.asks(stream=True, **prepared(endpoint, full, "so far")))[-1]

    assert reply.get_json()["data"]["content"] == "so far"
    assert reply.get_json()["data"]["usage"] == last.data["data"]["usage"] == USAGE
    ChatFailed.model_validate(reply.get_json()["data"])


@pytest.mark.parametrize(("reason", "status"), [("provider_busy", 429), ("provider_error", 502)])
def test_the_providers_wait_is_passed_on(endpoint: Endpoint, reason: str, status: int) -> None:
    """`Retry-After` and `retry_after` have the provider's seconds, rounded up; an event stream has only the latter."""
    failed = FullAnswer("", "error", reason, retry_after=29.2)

    reply = endpoint.asks(**prepared(endpoint, failed))
    last = shown(endpoint.asks(stream=True, **prepared(endpoint, failed)))[-1]

    assert (reply.status_code, reply.headers["Retry-After"]) == (status, "30")
    assert reply.get_json()["data"]["retry_after"] == 30
    assert last.data["data"]["retry_after"] == 30


def test_a_cancelled_answer_is_a_conflict(endpoint: Endpoint) -> None:
    """409, with the text so far."""
    reply = endpoint.asks(**prepared(endpoint, FullAnswer("so far", "cancelled", "cancelled"), "so far"))

    assert error_of(reply) == (409, 20000, "cancelled")
    assert reply.get_json()["data"]["content"] == "so far"


def test_a_failure_among_events_is_the_same_envelope(endpoint: Endpoint) -> None:
    """The error event has the envelope of the JSON reply, and is the last event."""
    fields = prepared(endpoint, FullAnswer("so far", "error", "provider_timeout"), "so far", sentence="slow")

    last = shown(endpoint.asks(stream=True, **fields))[-1]

    endpoint.has("s1").tells(ended(2, "error", error_code="provider_timeout", sentence="slow"))
    endpoint.has("s1", FullAnswer("so far", "error", "provider_timeout"))
    assert last == Event("error", "end", endpoint.gets("s1").get_json())


# Questions


def test_a_question_has_the_fields_of_the_request(endpoint: Endpoint) -> None:
    """The question has text, id, conversation and inputs of the request, and the API key's principal."""
    fields = prepared(endpoint, WHOLE)
    inputs = {"department": "HR", "level": 3, "share": 0.5, "vip": True}

    endpoint.asks("  年假？ ", conversation="desk-7", inputs=inputs, **fields)

    (question,) = endpoint.gateway.questions
    assert (question.text, question.channel, question.bot) == ("年假？", "http", "default")
    assert re.fullmatch("key:[0-9a-f]{16}", question.principal)
    assert (question.msgid, question.session, question.inputs) == ("q1", "desk-7", inputs)
    assert [type(value) for value in question.inputs.values()] == [str, int, float, bool]


def test_a_question_needs_nothing_but_its_text(endpoint: Endpoint) -> None:
    """Without an id it is asked again each time; without a conversation it is independent. `question` means `query`."""
    prepared(endpoint, WHOLE, id="")

    reply = endpoint.client.post("/api/chat", json={"question": "年假？"}, headers={"X-API-Key": KEY})

    assert reply.status_code == 200
    (question,) = endpoint.gateway.questions
    assert (question.text, question.msgid) == ("年假？", "")
    assert HTTP.is_independent(question)


@pytest.mark.parametrize("named", ["body", "header", "both"])
def test_an_id_comes_in_the_body_or_a_header(endpoint: Endpoint, named: str) -> None:
    """The `id` field, the Idempotency-Key header, or the same value in both."""
    prepared(endpoint, WHOLE)
    fields = {} if named == "header" else {"id": "q1"}
    headers = {} if named == "body" else {"Idempotency-Key": "q1"}

    endpoint.asks(headers=headers, **fields)

    assert [question.msgid for question in endpoint.gateway.questions] == ["q1"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no words": ({}, "query"),
    "blank": ({"query": " \n\t"}, "query"),
    "no text": ({"query": 7}, "query"),
    "two questions": ({"query": "a", "question": "b"}, "question"),
    "unknown field": ({"query": "a", "person": "b"}, "person"),
    "empty id": ({"query": "a", "id": ""}, "id"),
    "long id": ({"query": "a", "id": "x" * 65}, "id"),
    "odd conversation": ({"query": "a", "conversation": "a/b"}, "conversation"),
    "no flag": ({"query": "a", "stream": "perhaps"}, "stream"),
    "no object": ({"query": "a", "inputs": ["b"]}, "inputs"),
    "an object within": ({"query": "a", "inputs": {"b": {"c": 1}}}, "inputs.b"),
    "a huge number": ({"query": "a", "inputs": {"b": 2**53}}, "inputs.b"),
    "many inputs": ({"query": "a", "inputs": {f"n{number}": 1 for number in range(51)}}, "inputs"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_fields_are_named(endpoint: Endpoint, what: str) -> None:
    """422 names the field, and nothing is asked."""
    body, field = WRONG[what]

    reply = endpoint.client.post("/api/chat", json=body, headers=AUTHORIZED)

    assert error_of(reply) == (422, 10000, "invalid_fields")
    assert all(error["field"].startswith(field) for error in reply.get_json()["data"]["errors"])
    assert endpoint.gateway.questions == []


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b'{"query": "\\ud83d"}', 400), (b'{"query": "a", "inputs": {"b": NaN}}', 422), (b"\xff", 400)],
    ids=["cut", "half a character", "no number", "no UTF-8"],
)
def test_invalid_json_is_rejected(endpoint: Endpoint, body: bytes, status: int) -> None:
    """400 or 422, and nothing is asked."""
    reply = endpoint.client.post("/api/chat", data=body, headers={**AUTHORIZED, "Content-Type": "application/json"})

    assert (reply.status_code, reply.get_json()["code"]) == (status, 10000)
    assert endpoint.gateway.questions == []


def test_a_body_that_is_too_large_is_rejected(endpoint: Endpoint) -> None:
    """A body over MAX_BYTES is a 413."""
    body = json.dumps({"query": "a", "inputs": {"b": "x" * MAX_BYTES}})

    reply = endpoint.client.post("/api/chat", data=body, headers={**AUTHORIZED, "Content-Type": "application/json"})

    assert error_of(reply) == (413, 10000, "too_large")


def test_two_different_ids_are_rejected(endpoint: Endpoint) -> None:
    """422 if body and header differ, or if the header is no valid id."""
    for header in ("q2", "x" * 65):
        assert error_of(endpoint.asks(id="q1", headers={"Idempotency-Key": header})) == (422, 10000, "invalid_fields")

    assert endpoint.gateway.questions == []


@pytest.mark.parametrize("method", ["post", "get", "delete"])
@pytest.mark.parametrize(("key", "reason"), [(None, "auth_required"), ("wrong", "auth_failed")], ids=["none", "wrong"])
def test_without_a_key_nothing_is_done(endpoint: Endpoint, method: str, key: str | None, reason: str) -> None:
    """401 for every method."""
    address = "/api/chat" if method == "post" else "/api/chat/s1"
    headers = {"X-API-Key": key} if key else {}

    reply = endpoint.client.open(address, method=method.upper(), json={"query": "a"}, headers=headers)

    assert error_of(reply) == (401, 401, reason)
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert (endpoint.gateway.questions, endpoint.gateway.followed) == ([], [])


# JSON or events


@pytest.mark.parametrize(
    ("accept", "stream", "is_events"),
    [
        ("*/*", None, False),
        ("application/json", None, False),
        ("text/event-stream", None, True),
        ("text/event-stream, */*;q=0.1", None, True),
        ("application/json, text/event-stream", None, False),
        ("text/html", None, False),
        ("application/json", True, True),
        ("text/event-stream", False, False),
    ],
)
def test_the_client_says_whether_it_wants_events(
    endpoint: Endpoint, accept: str, stream: bool | None, is_events: bool
) -> None:
    """The `stream` field decides, or else the Accept header, as caches are told; JSON if both are accepted."""
    fields = prepared(endpoint, WHOLE)

    reply = endpoint.asks(headers={"Accept": accept}, stream=stream, **fields)

    assert (reply.mimetype == "text/event-stream") is is_events
    assert "Accept" in reply.vary


# Resuming


def test_a_reader_resumes_at_its_cursor(endpoint: Endpoint) -> None:
    """`Last-Event-ID` overrides `cursor`: a browser that reconnects repeats the URL and adds the header."""
    for number, (query, headers, cursor) in enumerate(
        [("", {}, 0), ("?cursor=3", {}, 3), ("?cursor=3", {"Last-Event-ID": "5"}, 5)], 1
    ):
        endpoint.has(f"s{number}").tells(ended(6))
        received = shown(endpoint.gets(f"s{number}", query, **EVENTS, **headers))

        assert received[0] == Event("start", str(cursor), {"stream_id": f"s{number}"})
        assert endpoint.gateway.followed[-1] == (f"s{number}", cursor)


def test_a_question_sent_again_resumes_at_its_cursor(endpoint: Endpoint) -> None:
    """A question with an id is resumed; one without is a new question and starts at 0."""
    endpoint.asks(stream=True, headers={"Last-Event-ID": "5"}, **prepared(endpoint, WHOLE))
    prepared(endpoint, WHOLE, id="")
    endpoint.asks(stream=True, headers={"Last-Event-ID": "5"})

    assert endpoint.gateway.followed == [("s1", 5), ("s2", 0)]


def test_a_client_with_the_whole_answer_gets_no_content(endpoint: Endpoint) -> None:
    """204 ends a browser's EventSource; it takes no slot and asks nothing."""
    assert endpoint.gets("s1", **EVENTS, **{"Last-Event-ID": "end"}).status_code == 204
    assert endpoint.asks(stream=True, id="q1", headers={"Last-Event-ID": "end"}).status_code == 204
    assert (endpoint.gateway.questions, endpoint.gateway.followed) == ([], [])


@pytest.mark.parametrize("last", ["", "x", "-1", "1.5", "1234567890", "２"])
def test_an_invalid_cursor_is_rejected(endpoint: Endpoint, last: str) -> None:
    """422, also where the value would not be used."""
    header = {"Last-Event-ID": last.encode().decode("latin-1")}
    assert error_of(endpoint.gets("s1", **EVENTS, **header))[0] == 422
    assert error_of(endpoint.asks(headers=header))[0] == 422
    assert error_of(endpoint.gets("s1", "?cursor=-1"))[0] == 422
    assert error_of(endpoint.gets("s1", "?corsor=1"))[0] == 422


@pytest.mark.parametrize("stream_id", ["unknown", "a}b", "x" * 65, "a%20b"])
@pytest.mark.parametrize("headers", [{}, EVENTS], ids=["JSON", "events"])
def test_a_missing_stream_is_unknown(endpoint: Endpoint, stream_id: str, headers: dict[str, str]) -> None:
    """404 for a stream that has expired, belongs to another caller, or never existed."""
    reply = endpoint.gets(stream_id, **headers)

    assert error_of(reply)[::2] == (404, "stream_unknown")
    # An invalid id is rejected before Redis is asked.
    assert [asked for asked, _ in endpoint.gateway.followed] == ["unknown"] * (stream_id == "unknown")


def test_a_stream_that_expires_under_its_reader_ends_with_an_error(endpoint: Endpoint) -> None:
    """Its events have begun, so the error comes as an event."""
    endpoint.has("s1").tells(grown(1, "答"), StreamUnknown("s1"))

    last = shown(endpoint.gets("s1", **EVENTS))[-1]

    assert (last.name, last.data["code"], last.data["data"]["reason"]) == ("error", 404, "stream_unknown")


def test_an_unexpected_exception_is_an_error_without_its_cause(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the traceback, the client a sentence."""
    endpoint.has("s1").tells(grown(1, "答"), RuntimeError("secret"))

    last = shown(endpoint.gets("s1", **EVENTS))[-1]

    assert last.data == {
        "code": 90000,
        "message": ZH["server_error"],
        "data": {"reason": "server_error", "stream_id": "s1"},
    }
    assert "secret" in caplog.text


def test_a_head_does_not_wait(endpoint: Endpoint) -> None:
    """HEAD replies 200 without waiting for the answer, and 404 for an unknown stream."""
    endpoint.has("s1").tells(grown(1, "答"))

    codes = [
        endpoint.client.head(f"/api/chat/{id}", headers=AUTHORIZED, buffered=True).status_code for id in ("s1", "s2")
    ]

    assert codes == [200, 404]


# Cancelling


def test_an_answer_is_cancelled(endpoint: Endpoint) -> None:
    """The first DELETE cancels; on an ended stream it returns the status, on an unknown one 404."""
    endpoint.asks(**prepared(endpoint, WHOLE))
    endpoint.gateway.running.add("s1")

    replies = [endpoint.cancels("s1"), endpoint.cancels("s1")]

    assert [ChatCancelled.model_validate(reply.get_json()["data"]).status for reply in replies] == [
        "cancelled",
        "completed",
    ]
    assert error_of(endpoint.cancels("unknown"))[::2] == (404, "stream_unknown")
    assert error_of(endpoint.cancels("a}b"))[::2] == (404, "stream_unknown")


def test_cancelling_needs_redis(endpoint: Endpoint) -> None:
    """503 with the code for stores."""
    endpoint.gateway.fails = StoreUnavailable()

    assert error_of(endpoint.cancels("s1")) == (503, 40000, "store_unavailable")


# Limits


def test_a_question_over_the_rate_limit_gets_retry_after(endpoint: Endpoint) -> None:
    """429 and Retry-After; the limiter gets the client's address, and the rejection is counted."""
    endpoint.limit.allows = False
    before = rejected_count("rate_limited")

    reply = endpoint.asks(id="q1")

    assert error_of(reply) == (429, 20000, "rate_limited")
    assert reply.headers["Retry-After"] == "60"
    assert endpoint.limit.asked[0][1] == "127.0.0.1"
    assert rejected_count("rate_limited") == before + 1
    assert endpoint.gateway.questions == []


@pytest.mark.parametrize("hindrance", ["rate", "drain"])
def test_a_question_sent_again_passes_rate_limit_and_drain(endpoint: Endpoint, hindrance: str) -> None:
    """Sent again with its id, it gets its answer in spite of the rate limit or a drain."""
    fields = prepared(endpoint, WHOLE)
    endpoint.limit.allows, endpoint.ready = hindrance != "rate", hindrance != "drain"

    assert endpoint.asks(**fields).status_code == 200
    assert endpoint.gateway.questions == []


@pytest.mark.parametrize("hindrance", ["", "rate", "drain"])
@pytest.mark.parametrize("stream", [False, True])
def test_another_text_under_a_used_id_is_rejected(endpoint: Endpoint, stream: bool, hindrance: str) -> None:
    """409 as JSON, also if events were wanted; nothing is asked, and no answer is shown."""
    fields = prepared(endpoint, WHOLE)
    assert endpoint.asks(**fields).status_code == 200
    endpoint.limit.allows, endpoint.ready = hindrance != "rate", hindrance != "drain"

    reply = endpoint.asks("病假？", stream=stream, **fields)

    assert error_of(reply) == (409, 20000, "id_conflict")
    assert (reply.mimetype, reply.get_json()["message"]) == ("application/json", ZH["id_conflict"])
    assert reply.get_json()["data"] == {"reason": "id_conflict"}
    assert endpoint.gateway.followed == [("s1", 0)]


def test_a_draining_replica_takes_no_question_and_shows_answers(endpoint: Endpoint) -> None:
    """503 with a short Retry-After; answers can still be read."""
    endpoint.ready = False
    endpoint.has("s1").tells(ended(1))

    reply = endpoint.asks(id="q1")

    assert error_of(reply) == (503, 503, "draining")
    assert int(reply.headers["Retry-After"]) <= 5
    assert endpoint.gets("s1").status_code == 200


@pytest.mark.parametrize(
    ("outcome", "status", "code"), [("store_unavailable", 503, 40000), ("replica_full", 429, 20000)]
)
def test_an_id_whose_question_was_not_asked_can_be_used_again(
    endpoint: Endpoint, outcome: str, status: int, code: int
) -> None:
    """The error names no stream, because none exists; also if events were wanted."""
    fields = prepared(endpoint, WHOLE)
    endpoint.gateway.outcome = outcome

    for stream in (False, True):
        reply = endpoint.asks(stream=stream, **fields)
        assert error_of(reply) == (status, code, outcome)
        assert reply.get_json()["data"] == {"reason": outcome}
        ChatFailed.model_validate(reply.get_json()["data"])
    endpoint.gateway.outcome = ""

    assert endpoint.asks(**fields).status_code == 200


def test_a_stored_rejection_is_the_answer(endpoint: Endpoint) -> None:
    """A stream that was created finished is shown as any other failed one."""
    fields = prepared(endpoint, FullAnswer("", "error", "replica_full"), sentence=ZH["replica_full"])
    endpoint.gateway.outcome, endpoint.gateway.kept = "replica_full", 1

    reply = endpoint.asks(**fields)

    assert error_of(reply) == (429, 20000, "replica_full")
    assert reply.get_json()["data"]["stream_id"] == "s1"


def test_waiting_requests_are_limited(endpoint: Endpoint) -> None:
    """Beyond the limit 503, counted and before anything is asked; every request releases its slot."""
    before = rejected_count("http_full")
    for stream_id in ("s1", "s2"):
        endpoint.has(stream_id).tells(grown(1, "答"))
    open_now = [endpoint.opens(stream_id) for stream_id in ("s1", "s2")]

    replies = [endpoint.asks(id="q1"), endpoint.gets("s1"), endpoint.gets("s1", **EVENTS)]

    assert [error_of(reply)[::2] for reply in replies] == [(503, "http_full")] * 3
    assert rejected_count("http_full") == before + 3
    assert endpoint.gateway.questions == []
    open_now[0].close()
    assert endpoint.asks(**prepared(endpoint, WHOLE)).status_code == 200
    open_now[1].close()


def test_a_replica_that_ends_lets_its_readers_reconnect(endpoint: Endpoint) -> None:
    """Events end without a last event; a client that waits for JSON gets 503 and the stream's id."""
    endpoint.waits.close_all()
    endpoint.has("s1").tells(grown(1, "答"))

    received = shown(endpoint.gets("s1", **EVENTS))
    reply = endpoint.gets("s1")

    assert [event.name for event in received] == ["start"]
    assert error_of(reply) == (503, 503, "draining")
    assert reply.get_json()["data"]["stream_id"] == "s1"


# Documentation


def test_the_operations_are_the_addresses(endpoint: Endpoint) -> None:
    """Every address of the blueprint is documented; the module's other operations are of blueprints of their own."""
    rules = [rule for rule in endpoint.app.url_map.iter_rules() if rule.endpoint.startswith("http_chat.")]
    served = {(method, rule.rule) for rule in rules for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}

    documented = {(one.method, one.path.replace("{", "<").replace("}", ">")) for one in OPERATIONS}
    others = {("GET", "/api/chat/opening"), ("POST", "/api/chat/<stream_id>/feedback"), ("POST", "/api/files")}
    assert documented - served == others
    assert not served - documented
