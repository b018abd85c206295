"""POST /api/chat on a gateway that says what the test says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from channels.http_chat.endpoints import MAX_BYTES, OPERATIONS, HttpChat, http_chat_blueprint
from channels.http_chat.models import ChatAnswered, ChatCancelled, ChatFailed
from channels.http_chat.rules import HTTP
from channels.http_chat.waits import WaitingRequests
from channels.web.errors import register_rest_errors
from config.texts import ZH, Texts
from services.errors import StoreUnavailable, StreamUnknown
from services.identity.callers import Callers
from services.models import Status, Usage
from services.streams.long_text import LongText, TextSlice
from services.streams.records import Whole
from tests.app.channels.test_chat import FakeGateway, Told, ended, grown, refused
from tests.support.sockets.chat_room import Limit
from tests.support.sockets.event_reader import Event, events

KEY = "not-a-real-key"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
EVENTS = {"Accept": "text/event-stream"}
USAGE = {"total_tokens": 7, "prompt_tokens": 3, "completion_tokens": 4, "total_price": "0.001", "currency": "USD"}
WHOLE = Whole(
    "答案",
    "completed",
    sources=({"title": "handbook.md"},),
    usage=Usage(7, 3, 4, "0.001", "USD"),
    provider="dify",
    message_id="m1",
    conversation_id="c1",
)


class Endpoint:
    """The three addresses, and what is behind them."""

    def __init__(self, *, most: int = 2) -> None:
        self.gateway = FakeGateway()
        self.limit = Limit()
        self.ready = True
        self.waits = WaitingRequests(most=most)
        texts = Texts("zh")
        self.app = Flask(__name__)
        register_rest_errors(self.app, texts.known)
        chat = HttpChat(
            gateway=self.gateway, limiter=self.limit, waits=self.waits, texts=texts, ready=lambda: self.ready
        )
        self.app.register_blueprint(http_chat_blueprint(chat, Callers("key", api_keys=[KEY])))
        self.client: FlaskClient = self.app.test_client()

    def will(self, whole: Whole, *texts: str, sentence: str = "", **end: Any) -> Told:
        """Have the next stream say these texts, and end."""
        stream = self.has(f"s{len(self.gateway.streams) + 1}", whole)
        for cursor, text in enumerate(texts, 1):
            stream.tells(grown(cursor, text))
        code = {"error_code": whole.error_code, "sentence": sentence}
        stream.tells(ended(len(texts) + 1, whole.status, **{**code, **end}))
        return stream

    def has(self, stream_id: str, whole: Whole = WHOLE) -> Told:
        stream = self.gateway.streams.setdefault(stream_id, Told())
        stream.answer = whole
        return stream

    def asks(self, query: str = "年假？", *, headers: dict[str, str] | None = None, **fields: Any) -> TestResponse:
        body = {"query": query, **fields}
        return self.client.post("/api/chat", json=body, headers={**AUTHORIZED, **(headers or {})}, buffered=True)

    def gets(self, stream_id: str, query: str = "", **headers: str) -> TestResponse:
        return self.client.get(f"/api/chat/{stream_id}{query}", headers={**AUTHORIZED, **headers}, buffered=True)

    def opens(self, stream_id: str) -> TestResponse:
        """Begin to read a stream's events."""
        return self.client.get(f"/api/chat/{stream_id}", headers={**AUTHORIZED, **EVENTS})

    def cancels(self, stream_id: str) -> TestResponse:
        return self.client.delete(f"/api/chat/{stream_id}", headers=AUTHORIZED)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    assert endpoint.waits.count == 0, "a place was not given back"


def prepared(endpoint: Endpoint, whole: Whole, *texts: str, id: str = "q1", **others: Any) -> dict[str, Any]:
    """Have the question of an id get a stream that says these texts; return the fields to ask it with."""
    endpoint.gateway.named[id] = f"s{len(endpoint.gateway.streams) + 1}"
    endpoint.will(whole, *texts, **others)
    return {"id": id}


def shown(reply: TestResponse) -> list[Event]:
    assert (reply.status_code, reply.mimetype) == (200, "text/event-stream"), reply.text
    return list(events(reply.get_data(as_text=True).split("\n")))


def refusal(reply: TestResponse) -> tuple[int, int, str]:
    """Return an error's HTTP status, code and reason; its message is a sentence."""
    body = reply.get_json()
    assert set(body) == {"code", "message", "data"}
    assert body["message"]
    return reply.status_code, body["code"], body["data"]["reason"]


# Answers


def test_an_answer_comes_whole(endpoint: Endpoint) -> None:
    """Text, sources, cost and ids in the envelope of all REST answers."""
    reply = endpoint.asks(**prepared(endpoint, WHOLE, "答", "案"))

    body = reply.get_json()
    assert (reply.status_code, body["code"], body["message"]) == (200, 200, "Success")
    assert body["data"] == {
        "stream_id": "s1",
        "content": "答案",
        "status": "completed",
        "sources": [{"title": "handbook.md"}],
        "usage": USAGE,
        "metadata": {"provider": "dify", "message_id": "m1", "conversation_id": "c1"},
    }
    ChatAnswered.model_validate(body["data"])
    assert reply.headers["Cache-Control"] == "no-store"


def test_an_answer_of_the_mock_says_so(endpoint: Endpoint) -> None:
    """MOCK_FALLBACK: nobody takes the built-in mock's words for the provider's."""
    reply = endpoint.asks(**prepared(endpoint, Whole("mock", "completed", mock=True)))

    assert reply.get_json()["data"]["mock"] is True


def test_an_answer_comes_as_events(endpoint: Endpoint) -> None:
    """Its id first, then the deltas with their cursors, and at last all that the JSON answer has."""
    reply = endpoint.asks(stream=True, **prepared(endpoint, WHOLE, "答", "案"))

    assert shown(reply) == [
        Event("start", "0", {"stream_id": "s1"}),
        Event("delta", "1", {"content": "答"}),
        Event("delta", "2", {"content": "案"}),
        Event("done", "end", reply_data(endpoint)),
    ]
    assert (reply.headers["Cache-Control"], reply.headers["X-Accel-Buffering"]) == ("no-store", "no")


def reply_data(endpoint: Endpoint) -> Any:
    """Return the data that the stream s1 has as JSON."""
    endpoint.has("s1").tells(ended(3))
    return endpoint.gets("s1").get_json()["data"]


def test_a_text_that_is_taken_back_is_reset(endpoint: Endpoint) -> None:
    """The reader forgets it; cut off right then, it begins at the beginning."""
    endpoint.has("s1").tells(grown(2, "falsch"), grown(5, "答", "案", reset=True), ended(6))

    said = shown(endpoint.gets("s1", **EVENTS))

    assert [(event.name, event.id) for event in said] == [
        ("start", "0"),
        ("delta", "2"),
        ("reset", "0"),
        ("delta", "5"),
        ("done", "end"),
    ]
    assert said[3].data == {"content": "答案"}


def test_any_text_is_one_line_of_an_event(endpoint: Endpoint) -> None:
    """Line ends of every kind, and what looks like a field, are the answer's own."""
    text = "a\nb\r\nc\rid: 9\u2028data: x\n\nevent: done\n\n\x00👍🏽"
    endpoint.has("s1", Whole(text, "completed")).tells(grown(1, text), ended(2))

    said = shown(endpoint.gets("s1", **EVENTS))

    assert said[1].data == {"content": text}
    assert said[2].data["content"] == text


def long_answer(text: str, status: Status = "completed", code: str = "", *, most: int = 10**9) -> Whole:
    """Return an answer that is read from somewhere, slice by slice; it goes away after `most` characters."""

    def read(offset: int) -> TextSlice:
        if offset >= most:
            raise StreamUnknown("s1")
        return TextSlice(text[offset : offset + 1000], min(len(text), offset + 1000), len(text))

    return Whole("", status, code, long=LongText(read, len(text)))


@pytest.mark.parametrize("size", [20_000, 200_000])
def test_a_long_answer_is_read_while_it_is_sent(endpoint: Endpoint, size: int) -> None:
    """As events and as JSON, whatever its end; a client sees no difference."""
    text = 'ab"\n' * (size // 4)
    endpoint.has("s1", long_answer(text)).tells(ended(1))
    endpoint.has("s2", long_answer(text)).tells(ended(1))
    endpoint.has("s3", long_answer(text, "error", "interrupted")).tells(ended(1, "error", error_code="interrupted"))
    endpoint.has("s4", long_answer(text, "error", "interrupted")).tells(ended(1, "error", error_code="interrupted"))

    done = shown(endpoint.gets("s1", **EVENTS))[-1]
    whole = endpoint.gets("s2")
    failed = shown(endpoint.gets("s3", **EVENTS))[-1]
    refused = endpoint.gets("s4")

    assert (done.name, done.data["content"]) == ("done", text)
    assert (whole.status_code, whole.get_json()["data"]["content"]) == (200, text)
    assert (failed.name, failed.data["data"]["content"], failed.data["data"]["reason"]) == (
        "error",
        text,
        "interrupted",
    )
    assert (refusal(refused), refused.get_json()["data"]["content"]) == ((502, 30000, "interrupted"), text)
    assert whole.headers["Cache-Control"] == refused.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
def test_an_answer_that_goes_away_is_broken_off(endpoint: Endpoint, accept: str) -> None:
    """Half of it must not look like all of it."""
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
def test_a_failed_answer_says_why_and_how_far_it_came(endpoint: Endpoint, reason: str, status: int, code: int) -> None:
    """A fitting status, the table's code, a stable reason, the person's sentence, and the part there is; for nobody's
    cache, as a whole answer is.
    """
    fields = prepared(endpoint, Whole("so far", "error", reason), "so far", sentence=f"<{reason}>")

    reply = endpoint.asks(**fields)

    assert refusal(reply) == (status, code, reason)
    assert reply.get_json()["message"] == f"<{reason}>"
    assert reply.get_json()["data"] == {"reason": reason, "stream_id": "s1", "content": "so far"}
    assert ("Retry-After" in reply.headers) == (status in (429, 503))
    assert reply.headers["Cache-Control"] == "no-store"


def test_a_partial_answer_says_what_it_cost(endpoint: Endpoint) -> None:
    """In JSON and among events; one whose provider counted nothing has no usage at all."""
    whole = Whole("so far", "error", "provider_filtered", usage=Usage(7, 3, 4, "0.001", "USD"))

    reply = endpoint.asks(**prepared(endpoint, whole, "so far"))
    last = shown(endpoint.asks(stream=True, **prepared(endpoint, whole, "so far")))[-1]

    assert reply.get_json()["data"]["content"] == "so far"
    assert reply.get_json()["data"]["usage"] == last.data["data"]["usage"] == USAGE
    ChatFailed.model_validate(reply.get_json()["data"])


@pytest.mark.parametrize(("reason", "status"), [("provider_busy", 429), ("provider_error", 502)])
def test_the_providers_wait_is_passed_on(endpoint: Endpoint, reason: str, status: int) -> None:
    """In the header, and in the data, which an event stream has too; a part of a second is a second."""
    fields = prepared(endpoint, Whole("", "error", reason, retry_after=29.2))

    reply = endpoint.asks(**fields)
    last = shown(endpoint.asks(stream=True, **prepared(endpoint, Whole("", "error", reason, retry_after=29.2))))[-1]

    assert (reply.status_code, reply.headers["Retry-After"]) == (status, "30")
    assert reply.get_json()["data"]["retry_after"] == 30
    assert last.data["data"]["retry_after"] == 30


def test_a_cancelled_answer_is_a_conflict(endpoint: Endpoint) -> None:
    """409, with what there was of it."""
    reply = endpoint.asks(**prepared(endpoint, Whole("so far", "cancelled", "cancelled"), "so far"))

    assert refusal(reply) == (409, 20000, "cancelled")
    assert reply.get_json()["data"]["content"] == "so far"


def test_a_failure_among_events_is_the_same_envelope(endpoint: Endpoint) -> None:
    """The error event has what the JSON reply would have, and nothing follows it."""
    fields = prepared(endpoint, Whole("so far", "error", "provider_timeout"), "so far", sentence="slow")

    last = shown(endpoint.asks(stream=True, **fields))[-1]

    endpoint.has("s1").tells(ended(2, "error", error_code="provider_timeout", sentence="slow"))
    endpoint.has("s1", Whole("so far", "error", "provider_timeout"))
    assert last == Event("error", "end", endpoint.gets("s1").get_json())


# Questions


def test_a_question_is_put_as_it_is_asked(endpoint: Endpoint) -> None:
    """Words, id, conversation and inputs, in the name of the key."""
    fields = prepared(endpoint, WHOLE)
    inputs = {"department": "HR", "level": 3, "share": 0.5, "vip": True}

    endpoint.asks("  年假？ ", conversation="desk-7", inputs=inputs, **fields)

    (question,) = endpoint.gateway.questions
    assert (question.text, question.channel, question.bot) == ("年假？", "http", "default")
    assert re.fullmatch("key:[0-9a-f]{16}", question.principal)
    assert (question.msgid, question.session, question.inputs) == ("q1", "desk-7", inputs)
    assert [type(value) for value in question.inputs.values()] == [str, int, float, bool]


def test_a_question_needs_nothing_but_its_words(endpoint: Endpoint) -> None:
    """No id: it is asked anew each time. No conversation: it stands for itself. `question` is `query`."""
    prepared(endpoint, WHOLE, id="")

    reply = endpoint.client.post("/api/chat", json={"question": "年假？"}, headers={"X-API-Key": KEY})

    assert reply.status_code == 200
    (question,) = endpoint.gateway.questions
    assert (question.text, question.msgid) == ("年假？", "")
    assert HTTP.is_independent(question)


@pytest.mark.parametrize("named", ["body", "header", "both"])
def test_an_id_comes_in_the_body_or_a_header(endpoint: Endpoint, named: str) -> None:
    """Or the same in both."""
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
    "unknown field": ({"query": "a", "user": "b"}, "user"),
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
    """422, and nobody is asked."""
    body, field = WRONG[what]

    reply = endpoint.client.post("/api/chat", json=body, headers=AUTHORIZED)

    assert refusal(reply) == (422, 10000, "invalid_fields")
    assert all(error["field"].startswith(field) for error in reply.get_json()["data"]["errors"])
    assert endpoint.gateway.questions == []


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b'{"query": "\\ud83d"}', 400), (b'{"query": "a", "inputs": {"b": NaN}}', 422), (b"\xff", 400)],
    ids=["cut", "half a character", "no number", "no UTF-8"],
)
def test_what_is_no_json_is_refused(endpoint: Endpoint, body: bytes, status: int) -> None:
    """Before anybody is asked."""
    reply = endpoint.client.post("/api/chat", data=body, headers={**AUTHORIZED, "Content-Type": "application/json"})

    assert (reply.status_code, reply.get_json()["code"]) == (status, 10000)
    assert endpoint.gateway.questions == []


def test_a_body_has_a_bound(endpoint: Endpoint) -> None:
    """1 MiB is read at the most."""
    body = json.dumps({"query": "a", "inputs": {"b": "x" * MAX_BYTES}})

    reply = endpoint.client.post("/api/chat", data=body, headers={**AUTHORIZED, "Content-Type": "application/json"})

    assert refusal(reply) == (413, 10000, "too_large")


def test_two_ids_are_one_too_many(endpoint: Endpoint) -> None:
    """A body and a header that differ, and a header that is no id."""
    for header in ("q2", "x" * 65):
        assert refusal(endpoint.asks(id="q1", headers={"Idempotency-Key": header})) == (422, 10000, "invalid_fields")

    assert endpoint.gateway.questions == []


@pytest.mark.parametrize("method", ["post", "get", "delete"])
@pytest.mark.parametrize(("key", "reason"), [(None, "auth_required"), ("wrong", "auth_failed")], ids=["none", "wrong"])
def test_without_a_key_nothing_is_done(endpoint: Endpoint, method: str, key: str | None, reason: str) -> None:
    """401, whatever is asked for."""
    address = "/api/chat" if method == "post" else "/api/chat/s1"
    headers = {"X-API-Key": key} if key else {}

    reply = endpoint.client.open(address, method=method.upper(), json={"query": "a"}, headers=headers)

    assert refusal(reply) == (401, 401, reason)
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
    """In the body, or else by what it accepts; JSON where both would do."""
    fields = prepared(endpoint, WHOLE)

    reply = endpoint.asks(headers={"Accept": accept}, stream=stream, **fields)

    assert (reply.mimetype == "text/event-stream") is is_events


# Coming back


def test_a_reader_comes_back_where_it_was(endpoint: Endpoint) -> None:
    """What the header says goes before what the address says: a browser repeats the address, and adds the header."""
    for number, (query, headers, cursor) in enumerate(
        [("", {}, 0), ("?cursor=3", {}, 3), ("?cursor=3", {"Last-Event-ID": "5"}, 5)], 1
    ):
        endpoint.has(f"s{number}").tells(ended(6))
        said = shown(endpoint.gets(f"s{number}", query, **EVENTS, **headers))

        assert said[0] == Event("start", str(cursor), {"stream_id": f"s{number}"})
        assert endpoint.gateway.followed[-1] == (f"s{number}", cursor)


def test_a_question_sent_again_goes_on_where_it_was(endpoint: Endpoint) -> None:
    """With its id; a question without one is a new one, whatever was read before."""
    endpoint.asks(stream=True, headers={"Last-Event-ID": "5"}, **prepared(endpoint, WHOLE))
    prepared(endpoint, WHOLE, id="")
    endpoint.asks(stream=True, headers={"Last-Event-ID": "5"})

    assert endpoint.gateway.followed == [("s1", 5), ("s2", 0)]


def test_who_has_it_all_is_told_to_stay_away(endpoint: Endpoint) -> None:
    """204 ends a browser's EventSource; no place is needed for it, and no question asked."""
    assert endpoint.gets("s1", **EVENTS, **{"Last-Event-ID": "end"}).status_code == 204
    assert endpoint.asks(stream=True, id="q1", headers={"Last-Event-ID": "end"}).status_code == 204
    assert (endpoint.gateway.questions, endpoint.gateway.followed) == ([], [])


@pytest.mark.parametrize("last", ["", "x", "-1", "1.5", "1234567890", "２"])
def test_what_is_no_id_of_ours_is_refused(endpoint: Endpoint, last: str) -> None:
    """422, as everything that a client made up; also where it does not matter."""
    header = {"Last-Event-ID": last.encode().decode("latin-1")}
    assert refusal(endpoint.gets("s1", **EVENTS, **header))[0] == 422
    assert refusal(endpoint.asks(headers=header))[0] == 422
    assert refusal(endpoint.gets("s1", "?cursor=-1"))[0] == 422
    assert refusal(endpoint.gets("s1", "?corsor=1"))[0] == 422


@pytest.mark.parametrize("stream_id", ["unknown", "a}b", "x" * 65, "a%20b"])
@pytest.mark.parametrize("headers", [{}, EVENTS], ids=["JSON", "events"])
def test_what_is_not_there_is_unknown(endpoint: Endpoint, stream_id: str, headers: dict[str, str]) -> None:
    """A stream that has expired, is somebody else's, or never was: 404, and no word of which."""
    reply = endpoint.gets(stream_id, **headers)

    assert refusal(reply)[::2] == (404, "stream_unknown")
    # What is no id of ours does not get as far as Redis.
    assert [asked for asked, _ in endpoint.gateway.followed] == ["unknown"] * (stream_id == "unknown")


def test_a_stream_that_expires_under_its_reader_ends_with_an_error(endpoint: Endpoint) -> None:
    """It had begun, so its end is an event."""
    endpoint.has("s1").tells(grown(1, "答"), StreamUnknown("s1"))

    last = shown(endpoint.gets("s1", **EVENTS))[-1]

    assert (last.name, last.data["code"], last.data["data"]["reason"]) == ("error", 404, "stream_unknown")


def test_a_mistake_of_ours_is_an_error_without_its_cause(endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
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
    """Nobody would see the answer; but a stream that is not there is not there."""
    endpoint.has("s1").tells(grown(1, "答"))

    codes = [
        endpoint.client.head(f"/api/chat/{id}", headers=AUTHORIZED, buffered=True).status_code for id in ("s1", "s2")
    ]

    assert codes == [200, 404]


# Cancelling


def test_an_answer_is_cancelled(endpoint: Endpoint) -> None:
    """Once; one that has ended says how, and one that is not there is unknown."""
    endpoint.asks(**prepared(endpoint, WHOLE))
    endpoint.gateway.running.add("s1")

    replies = [endpoint.cancels("s1"), endpoint.cancels("s1")]

    assert [ChatCancelled.model_validate(reply.get_json()["data"]).status for reply in replies] == [
        "cancelled",
        "completed",
    ]
    assert refusal(endpoint.cancels("unknown"))[::2] == (404, "stream_unknown")
    assert refusal(endpoint.cancels("a}b"))[::2] == (404, "stream_unknown")


def test_cancelling_needs_redis(endpoint: Endpoint) -> None:
    """503, of the kind for stores."""
    endpoint.gateway.fails = StoreUnavailable()

    assert refusal(endpoint.cancels("s1")) == (503, 40000, "store_unavailable")


# Limits


def test_who_asks_too_much_is_told_when_to_come_back(endpoint: Endpoint) -> None:
    """429 and Retry-After; counted by key and address, and in the metrics."""
    endpoint.limit.allows = False
    before = refused("rate_limited")

    reply = endpoint.asks(id="q1")

    assert refusal(reply) == (429, 20000, "rate_limited")
    assert reply.headers["Retry-After"] == "60"
    assert endpoint.limit.asked[0][1] == "127.0.0.1"
    assert refused("rate_limited") == before + 1
    assert endpoint.gateway.questions == []


@pytest.mark.parametrize("hindrance", ["rate", "drain"])
def test_a_question_that_was_taken_is_not_one_too_many(endpoint: Endpoint, hindrance: str) -> None:
    """Sent again by its id, it gets its answer, whoever asks too much and whatever leaves."""
    fields = prepared(endpoint, WHOLE)
    endpoint.limit.allows, endpoint.ready = hindrance != "rate", hindrance != "drain"

    assert endpoint.asks(**fields).status_code == 200
    assert endpoint.gateway.questions == []


@pytest.mark.parametrize("hindrance", ["", "rate", "drain"])
@pytest.mark.parametrize("stream", [False, True])
def test_other_words_under_a_used_id_are_refused(endpoint: Endpoint, stream: bool, hindrance: str) -> None:
    """Nobody is asked, and no answer is shown: 409, also where events were wanted."""
    fields = prepared(endpoint, WHOLE)
    assert endpoint.asks(**fields).status_code == 200
    endpoint.limit.allows, endpoint.ready = hindrance != "rate", hindrance != "drain"

    reply = endpoint.asks("病假？", stream=stream, **fields)

    assert refusal(reply) == (409, 20000, "id_conflict")
    assert (reply.mimetype, reply.get_json()["message"]) == ("application/json", ZH["id_conflict"])
    assert reply.get_json()["data"] == {"reason": "id_conflict"}
    assert endpoint.gateway.followed == [("s1", 0)]


def test_a_leaving_replica_takes_no_question_and_shows_answers(endpoint: Endpoint) -> None:
    """Another one does, in a moment."""
    endpoint.ready = False
    endpoint.has("s1").tells(ended(1))

    reply = endpoint.asks(id="q1")

    assert refusal(reply) == (503, 503, "draining")
    assert int(reply.headers["Retry-After"]) <= 5
    assert endpoint.gets("s1").status_code == 200


@pytest.mark.parametrize(
    ("outcome", "status", "code"), [("store_unavailable", 503, 40000), ("replica_full", 429, 20000)]
)
def test_where_nobody_was_asked_the_same_id_asks_again(
    endpoint: Endpoint, outcome: str, status: int, code: int
) -> None:
    """The refusal names no stream, for there is none; also where events were wanted."""
    fields = prepared(endpoint, WHOLE)
    endpoint.gateway.outcome = outcome

    for stream in (False, True):
        reply = endpoint.asks(stream=stream, **fields)
        assert refusal(reply) == (status, code, outcome)
        assert reply.get_json()["data"] == {"reason": outcome}
        ChatFailed.model_validate(reply.get_json()["data"])
    endpoint.gateway.outcome = ""

    assert endpoint.asks(**fields).status_code == 200


def test_a_refusal_that_was_kept_is_the_answer(endpoint: Endpoint) -> None:
    """A stream born finished with a sentence is shown as every other failed one."""
    fields = prepared(endpoint, Whole("", "error", "replica_full"), sentence=ZH["replica_full"])
    endpoint.gateway.outcome, endpoint.gateway.kept = "replica_full", 1

    reply = endpoint.asks(**fields)

    assert refusal(reply) == (429, 20000, "replica_full")
    assert reply.get_json()["data"]["stream_id"] == "s1"


def test_so_many_may_wait(endpoint: Endpoint) -> None:
    """Beyond that 503 and a number in the metrics, before anybody is asked; a place is given back in every case."""
    before = refused("http_full")
    for stream_id in ("s1", "s2"):
        endpoint.has(stream_id).tells(grown(1, "答"))
    open_now = [endpoint.opens(stream_id) for stream_id in ("s1", "s2")]

    replies = [endpoint.asks(id="q1"), endpoint.gets("s1"), endpoint.gets("s1", **EVENTS)]

    assert [refusal(reply)[::2] for reply in replies] == [(503, "http_full")] * 3
    assert refused("http_full") == before + 3
    assert endpoint.gateway.questions == []
    open_now[0].close()
    assert endpoint.asks(**prepared(endpoint, WHOLE)).status_code == 200
    open_now[1].close()


def test_when_the_replica_ends_its_readers_go_on_elsewhere(endpoint: Endpoint) -> None:
    """Events just end, without a last one; who waits for JSON is told the stream's id."""
    endpoint.waits.close_all()
    endpoint.has("s1").tells(grown(1, "答"))

    said = shown(endpoint.gets("s1", **EVENTS))
    reply = endpoint.gets("s1")

    assert [event.name for event in said] == ["start"]
    assert refusal(reply) == (503, 503, "draining")
    assert reply.get_json()["data"]["stream_id"] == "s1"


# The documents


def test_the_operations_are_the_addresses(endpoint: Endpoint) -> None:
    """Each is documented, and none beside them."""
    rules = [rule for rule in endpoint.app.url_map.iter_rules() if rule.endpoint.startswith("http_chat.")]
    served = {(method, rule.rule) for rule in rules for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}

    documented = {(one.method, one.path.replace("{", "<").replace("}", ">")) for one in OPERATIONS}
    assert served == documented
