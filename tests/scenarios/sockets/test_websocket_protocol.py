"""The sockets' protocol of docs/websocket.md, tested with the real product: gunicorn, Redis, a mock Dify."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from websockets.exceptions import InvalidStatus

from demo.mocks.dify.server import MockDify, expected_answer
from tests.support.replicas import dify_settings, replicas, settings_for
from tests.support.servers.processes import RedisServer
from tests.support.sockets.frames import SCHEMA, Example, examples
from tests.support.sockets.visitor import TIMEOUT, Visitor, visit

pytestmark = [pytest.mark.scenario, pytest.mark.full]

#: The key in the document's examples.
KEY = "not-a-real-key"
BY_CLIENT = [example for example in examples() if example.by_client and not example.name.endswith(".auth")]
#: Error codes for frames that do not conform to the protocol.
REFUSALS = {
    *("INVALID_JSON", "INVALID_MESSAGE", "INVALID_FIELDS", "BOT_UNKNOWN", "UNSUPPORTED_TYPE", "UNKNOWN_ACTION"),
    *("SERVER_ERROR", "STREAM_UNKNOWN"),
}


@pytest.fixture(scope="module")
def dify() -> Iterator[MockDify]:
    """A Dify whose answers take about a second, its slow ones three or four."""
    with MockDify(delay=0.04, slow=0.1) as dify:
        yield dify


@pytest.fixture(scope="module")
def url(dify: MockDify, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a replica with short heartbeats."""
    folder = tmp_path_factory.mktemp("replica")
    own = {"WEBSOCKET_HEARTBEAT_INTERVAL": "1", "WEBSOCKET_HEARTBEAT_TIMEOUT": "15", "LOCALE": "en"}
    own |= {"API_KEYS": KEY, "RATE_LIMIT_USER": "off", "RATE_LIMIT_IP": "off"}
    own |= dify_settings(dify.base_url, STREAM_LEASE="3", DATABASE_PATH=str(folder / "laibao.db"))
    with RedisServer() as redis, replicas(1, settings_for(redis.url(), **own), folder) as (replica,):
        yield replica.url


def asked(visitor: Visitor, question: str = "[[slow]] 年假") -> str:
    """Ask a question, wait for its first piece, and return its stream's id."""
    if visitor.endpoint == "chat":
        visitor.says({"type": "chat", "content": question})
    else:
        visitor.says({"type": "asr_chunk", "text": question + "怎么申请？", "is_final": True})
    begun = visitor.until(lambda frame: frame["type"] in ("chat_delta", "answer"))
    return str(begun["stream_id"])


def submitted(url: str) -> str:
    """Submit a batch with the clients' key, and return its task's id."""
    body, headers = {"name": "批量", "texts": ["营业时间"]}, {"X-API-Key": KEY}
    reply = requests.post(f"{url}/api/batch/tasks", json=body, headers=headers, timeout=TIMEOUT)
    return str(reply.json()["data"]["task_id"])


# Frames of clients


@pytest.mark.parametrize("example", BY_CLIENT, ids=str)
def test_every_client_frame_of_the_document_is_accepted(url: str, example: Example) -> None:
    """Each example of a client frame in the document is accepted.

    Where the example names a stream, a stream of this connection is put in its place.
    """
    with visit(url, example.endpoint, key=KEY) as visitor:
        named = {"stream_id": asked(visitor)} if "stream_id" in example.frame else {}
        visitor.says({**example.frame, **named})
        if example.frame.get("close"):
            assert visitor.until_closed() == 1000
        else:
            visitor.until_done()

    assert {frame["code"] for frame in visitor.frames if frame["type"] == "error"} & REFUSALS == set()


@pytest.mark.parametrize(
    ("endpoint", "message", "code"),
    [
        *((endpoint, *pair) for endpoint in ("chat", "realtime") for pair in [
            ("{", "INVALID_JSON"),
            ("[1]", "INVALID_MESSAGE"),
            ('{"type": "dance"}', "UNSUPPORTED_TYPE"),
            ('{"type": "resume", "stream_id": "0123456789abcdef"}', "STREAM_UNKNOWN"),
        ]),
        ("chat", '{"type": 7}', "INVALID_MESSAGE"),
        ("chat", '{"type": "chat"}', "INVALID_MESSAGE"),
        ("chat", '{"type": "chat", "content": {}}', "INVALID_MESSAGE"),
        ("chat", '{"type": "chat", "content": "x", "id": ""}', "INVALID_MESSAGE"),
        ("chat", '{"type": "chat", "content": "x", "render": "pdf"}', "INVALID_MESSAGE"),
        ("chat", '{"type": "resume", "stream_id": "x", "cursor": -1}', "INVALID_MESSAGE"),
        ("chat", '{"type": "chat", "content": "x", "temperature": 3}', "INVALID_FIELDS"),
        ("chat", '{"type": "chat", "content": "x", "model": "m2"}', "INVALID_FIELDS"),
        ("chat", '{"type": "chat", "content": "x", "bot": "sales"}', "BOT_UNKNOWN"),
        ("chat", '{"type": "chat", "content": " \\n "}', "MESSAGE_EMPTY"),
        ("chat", json.dumps({"type": "chat", "content": "x" * 10_001}), "MESSAGE_TOO_LONG"),
        ("chat", '{"type": "stop", "stream_id": "fedcba9876543210"}', "STREAM_UNKNOWN"),
        ("realtime", '{"type": "asr_chunk"}', "INVALID_MESSAGE"),
        ("realtime", '{"type": "asr_chunk", "text": 7}', "INVALID_MESSAGE"),
        ("realtime", '{"type": "asr_chunk", "text": "x", "is_final": "yes"}', "INVALID_MESSAGE"),
        ("realtime", '{"type": "asr_chunk", "text": "x", "timestamp": "1"}', "INVALID_MESSAGE"),
        ("realtime", '{"type": "control", "action": "dance"}', "UNKNOWN_ACTION"),
        ("realtime", '{"type": "control"}', "UNKNOWN_ACTION"),
        ("realtime", '{"type": "control", "action": "instant_query"}', "NO_FINAL_ASR"),
        ("realtime", json.dumps({"type": "asr_chunk", "text": "x" * 10_001, "is_final": True}), "MESSAGE_TOO_LONG"),
    ],
    ids=lambda value: value[:50],
)  # fmt: skip
def test_invalid_frames_are_answered_with_codes(url: str, endpoint: str, message: str, code: str) -> None:
    """An invalid frame gets its error code and a sentence, and the connection stays open."""
    with visit(url, endpoint, key=KEY) as visitor:
        visitor.says(message)

        error = visitor.until({"type": "error"})
        assert error["code"] == code
        assert "Traceback" not in str(error)
        visitor.until_done()


# Whole sessions with every frame


def test_a_whole_session_of_the_chat_endpoint(url: str) -> None:
    """Each server frame of the schema arrives at least once, and all frames match the schema."""
    with visit(url, "chat", client_id="whole-session", lively=False) as chat:
        assert chat.hears() == {"type": "auth_required"}
        chat.says({"type": "auth", "token": KEY})
        assert chat.until({"type": "system"})["client_id"] == "whole-session"
        chat.says({"type": "chat", "content": "年假", "id": "q-1", "render": "html", "conversation": True})
        chat.says({"type": "chat", "content": "[[new-agent-differs]] 营业时间", "id": "q-2"})
        chat.says({"type": "chat", "content": "[[error-after-text]]"})
        came = chat.until_done()
        chat.says({"type": "feedback", "stream_id": came[0]["stream_id"], "rating": "like"})
        assert chat.until({"type": "feedback"})["rating"] == "like"
        again = {"type": "resume", "stream_id": came[0]["stream_id"], "cursor": 3, "render": "html"}
        chat.says(again)
        chat.until({"type": "reset"})
        chat.until_done()
        stopped = asked(chat)
        chat.says({"type": "stop"})
        assert chat.until({"type": "chat", "stream_id": stopped})["status"] == "cancelled"
        chat.until_done()
        chat.until({"type": "heartbeat"})

    answers = [frame for frame in came if frame.get("role") == "assistant"]
    assert [frame["status"] for frame in answers] == ["completed", "completed", "error"]
    assert answers[1]["content"] == expected_answer("[[new-agent-differs]] 营业时间")
    assert answers[0]["html"].count("<li>") >= 4
    assert answers[0]["sources"]
    assert chat.seen == {name for name in SCHEMA["$defs"] if name.startswith("chat.server.")}


def test_a_whole_session_of_the_realtime_endpoint(url: str) -> None:
    """Each server frame and each stage of the schema arrives at least once, and all frames match the schema."""
    with visit(url, "realtime", lively=False) as visitor:
        assert visitor.hears() == {"type": "auth_required"}
        visitor.says({"type": "auth", "token": KEY})
        visitor.until({"type": "status", "stage": "listening"})
        visitor.says({"type": "asr_chunk", "text": "年假", "timestamp": 7})
        visitor.says({"type": "asr_chunk", "text": "今天天气不错", "is_final": True})
        visitor.until({"stage": "waiting_for_question"})
        visitor.says({"type": "control", "action": "pause"})
        visitor.says({"type": "asr_chunk", "text": "没有人听见", "is_final": True})
        visitor.until({"message": "paused"})
        visitor.says({"type": "control", "action": "resume"})
        visitor.says({"type": "asr_chunk", "text": "[[new-agent-differs]] 年假怎么申请？", "is_final": True})
        visitor.until({"type": "status", "stage": "idle"})
        visitor.says({"type": "asr_chunk", "text": "[[error]] 报销需要什么材料？", "is_final": True})
        visitor.until({"type": "status", "stage": "idle"})
        asked(visitor)
        visitor.says({"type": "asr_chunk", "text": "报销需要什么材料？", "is_final": True})
        visitor.until({"type": "queued"})
        visitor.says({"type": "control", "action": "instant_query"})
        visitor.until({"type": "status", "mode": "instant", "stage": "querying_rag"})
        visitor.says({"type": "keepalive"})
        visitor.until({"received_type": "keepalive"})
        visitor.says({"type": "subscribe", "task_id": submitted(url)})
        visitor.until({"type": "batch_progress", "status": "completed", "progress": 100.0})
        visitor.until({"type": "heartbeat"})
        visitor.says({"type": "ping", "timestamp": 1})
        visitor.says({"type": "control", "action": "stop", "close": True})
        assert visitor.until_closed() == 1000

    stages = {frame["stage"] for frame in visitor.frames if frame["type"] == "status"}
    assert stages == set(SCHEMA["$defs"]["realtime.server.status"]["properties"]["stage"]["enum"])
    assert visitor.seen == {name for name in SCHEMA["$defs"] if name.startswith("realtime.server.")}
    finals = [frame for frame in visitor.frames if frame["type"] == "answer" and frame["final"]]
    assert len({frame["stream_id"] for frame in finals}) == len(finals)


def test_the_options_of_a_question_reach_the_provider(url: str, dify: MockDify) -> None:
    """Dify gets the end user and the inputs; the answer is resumed and rated for this user alone."""
    question, names = "[[think]] 出差可以坐高铁吗？", {"user": "zhangsan"}
    with visit(url, "chat", key=KEY) as chat:
        chat.says({"content": question, "inputs": {"level": 3}, "thinking": "separate", **names})
        answer = next(frame for frame in chat.until_done() if frame.get("role") == "assistant")
        again = {"type": "resume", "stream_id": answer["stream_id"]}
        chat.says({**again, "thinking": "hide", **names})
        resumed = chat.until({"type": "chat", "role": "assistant"})
        chat.until({"type": "typing", "status": False})
        chat.says({**again, "user": "lisi"})
        chat.until({"type": "error", "code": "STREAM_UNKNOWN"})
        rating = {"type": "feedback", "stream_id": answer["stream_id"], "rating": "like"}
        chat.says(rating)
        chat.until({"type": "error", "code": "STREAM_UNKNOWN"})
        chat.says({**rating, **names})
        chat.until({"type": "feedback", "rating": "like"})

    assert answer["reasoning"] == "先想想"
    assert "think" not in answer["content"]
    assert resumed["content"] == answer["content"]
    assert "reasoning" not in resumed
    (body,) = [request.body for request in dify.asked(question)]
    assert (body["user"], body["inputs"]) == ("chat:zhangsan", {"level": 3})


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"client_id": "no%20spaces"}, 400),
        ({"client_id": "x" * 65}, 400),
        ({"key": "wrong"}, 401),
        ({"origin": "https://elsewhere.example"}, 403),
    ],
    ids=str,
)
def test_a_rejected_handshake_has_status_and_reason(url: str, options: dict[str, Any], status: int) -> None:
    """The status is as documented, and the body is an envelope without data."""
    with pytest.raises(InvalidStatus) as refused, visit(url, "chat", **{"key": KEY, **options}):
        pass

    body = json.loads(refused.value.response.body or b"")
    assert refused.value.response.status_code == status
    assert body.keys() == {"code", "message", "data"}
