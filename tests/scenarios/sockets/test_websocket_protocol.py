"""The sockets' protocol of docs/websocket.md, tested with the real product: gunicorn, Redis, a mock Dify."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode

from demo.mocks.dify.server import MockDify, expected_answer
from tests.support.replicas import Replica, dify_settings, replicas, settings_for
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.servers.relay import Relay
from tests.support.sockets.frames import SCHEMA, Example, examples, program
from tests.support.sockets.visitor import TIMEOUT, Visitor, visit

pytestmark = [pytest.mark.scenario, pytest.mark.full]

ROOT = Path(__file__).parents[3]
#: The key in the document's examples.
KEY = "not-a-real-key"
ADMIN = "not-a-real-admin-token"
BY_CLIENT = [example for example in examples() if example.by_client and not example.name.endswith(".auth")]
#: Error codes for frames that do not conform to the protocol.
REFUSALS = {
    *("INVALID_JSON", "INVALID_MESSAGE", "INVALID_FIELDS", "BOT_UNKNOWN", "UNSUPPORTED_TYPE", "UNKNOWN_ACTION"),
    *("SERVER_ERROR", "STREAM_UNKNOWN"),
}


def socket_settings(redis_url: str, dify: MockDify, **changes: str) -> dict[str, str]:
    """Return the environment of a replica with this API key and without rate limits."""
    own = {
        **dify_settings(dify.base_url, STREAM_LEASE="3"),
        "WEBSOCKET_AUTH": "key",
        "API_KEYS": KEY,
        "ADMIN_TOKEN": ADMIN,
        "RATE_LIMIT_USER": "off",
        "RATE_LIMIT_IP": "off",
        "LOCALE": "en",
    }
    return settings_for(redis_url, **{**own, **changes})


@pytest.fixture(scope="module")
def dify() -> Iterator[MockDify]:
    """A Dify whose answers take about a second, its slow ones three or four."""
    with MockDify(delay=0.04, slow=0.1) as dify:
        yield dify


@pytest.fixture(scope="module")
def url(dify: MockDify, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a replica with short heartbeats."""
    beats = {"WEBSOCKET_HEARTBEAT_INTERVAL": "1", "WEBSOCKET_HEARTBEAT_TIMEOUT": "8"}
    folder = tmp_path_factory.mktemp("replica")
    own = {**beats, "DATABASE_PATH": str(folder / "laibao.db")}
    with RedisServer() as redis, replicas(1, socket_settings(redis.url(), dify, **own), folder) as (replica,):
        yield replica.url


@pytest.fixture
def chat(url: str) -> Iterator[Visitor]:
    """A client of the chat endpoint."""
    with visit(url, "chat", key=KEY) as visitor:
        yield visitor


@pytest.fixture
def realtime(url: str) -> Iterator[Visitor]:
    """A client of the realtime endpoint."""
    with visit(url, "realtime", key=KEY) as visitor:
        yield visitor


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
    ("message", "code"),
    [
        ("{", "INVALID_JSON"),
        ("[1]", "INVALID_MESSAGE"),
        ('{"type": 7}', "INVALID_MESSAGE"),
        ('{"type": "chat"}', "INVALID_MESSAGE"),
        ('{"type": "chat", "content": {}}', "INVALID_MESSAGE"),
        ('{"type": "chat", "content": "x", "id": ""}', "INVALID_MESSAGE"),
        ('{"type": "chat", "content": "x", "render": "pdf"}', "INVALID_MESSAGE"),
        ('{"type": "resume", "stream_id": "x", "cursor": -1}', "INVALID_MESSAGE"),
        ('{"type": "chat", "content": "x", "temperature": 3}', "INVALID_FIELDS"),
        ('{"type": "chat", "content": "x", "model": "m2"}', "INVALID_FIELDS"),
        ('{"type": "chat", "content": "x", "bot": "sales"}', "BOT_UNKNOWN"),
        ('{"type": "chat", "content": " \\n "}', "MESSAGE_EMPTY"),
        (json.dumps({"type": "chat", "content": "x" * 10_001}), "MESSAGE_TOO_LONG"),
        ('{"type": "dance"}', "UNSUPPORTED_TYPE"),
        ('{"type": "resume", "stream_id": "0123456789abcdef"}', "STREAM_UNKNOWN"),
        ('{"type": "stop", "stream_id": "fedcba9876543210"}', "STREAM_UNKNOWN"),
    ],
    ids=lambda value: value[:50],
)
def test_the_chat_endpoint_answers_invalid_frames_with_codes(chat: Visitor, message: str, code: str) -> None:
    """An invalid frame gets its error code and a sentence, and the connection stays open."""
    chat.says(message)

    error = chat.until({"type": "error"})
    assert error["code"] == code
    assert "Traceback" not in error["content"]
    chat.until_done()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "INVALID_JSON"),
        ("[1]", "INVALID_MESSAGE"),
        ('{"type": "asr_chunk"}', "INVALID_MESSAGE"),
        ('{"type": "asr_chunk", "text": 7}', "INVALID_MESSAGE"),
        ('{"type": "asr_chunk", "text": "x", "is_final": "yes"}', "INVALID_MESSAGE"),
        ('{"type": "asr_chunk", "text": "x", "timestamp": "1"}', "INVALID_MESSAGE"),
        ('{"type": "control", "action": "dance"}', "UNKNOWN_ACTION"),
        ('{"type": "control"}', "UNKNOWN_ACTION"),
        ('{"type": "control", "action": "instant_query"}', "NO_FINAL_ASR"),
        ('{"type": "dance"}', "UNSUPPORTED_TYPE"),
        ('{"type": "resume", "stream_id": "0123456789abcdef"}', "STREAM_UNKNOWN"),
        (json.dumps({"type": "asr_chunk", "text": "x" * 10_001, "is_final": True}), "MESSAGE_TOO_LONG"),
    ],
    ids=lambda value: value[:50],
)
def test_the_realtime_endpoint_answers_invalid_frames_with_codes(realtime: Visitor, message: str, code: str) -> None:
    """An invalid frame gets its error code and a sentence, and the connection stays open."""
    realtime.says(message)

    error = realtime.until({"type": "error"})
    assert error["code"] == code
    realtime.until_done()


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
    assert (body["user"], body["inputs"]) == ("zhangsan", {"level": 3})


# Authentication, and how connections end


@pytest.mark.parametrize("way", ["Authorization", "X-API-Key", "subprotocol"])
def test_a_key_is_accepted_in_each_documented_way(url: str, way: str) -> None:
    """A key is accepted in either header and, as pages send it, in a subprotocol."""
    headers = {"Authorization": f"Bearer {KEY}", "X-API-Key": KEY}
    options: dict[str, Any] = {"key": KEY, "by_page": True}
    if way in headers:
        options = {"additional_headers": {way: headers[way]}}

    with visit(url, "chat", **options) as visitor:
        assert visitor.hears()["type"] == "system"
        assert visitor.connection.subprotocol == ("wechatlaibao" if way == "subprotocol" else None)


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


def test_a_key_in_the_query_string_is_ignored(url: str) -> None:
    """A key in the query string is ignored: the server asks for one."""
    with visit(url, "chat", client_id=f"c?token={KEY}&key={KEY}") as visitor:
        assert visitor.hears() == {"type": "auth_required"}


def test_a_plain_request_is_told_to_upgrade(url: str) -> None:
    """Both endpoints answer 426 to a request without a WebSocket upgrade."""
    replies = [requests.get(url + path, timeout=10) for path in ("/ws/chat", "/ws/chat/me", "/ws/realtime-asr")]

    assert [reply.status_code for reply in replies] == [426, 426, 426]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (Frame(Opcode.BINARY, b"x").serialize(mask=True), 1003),
        (Frame(Opcode.TEXT, b"\xff").serialize(mask=True), 1007),
        (Frame(Opcode.TEXT, b"x" * (64 * 1024 + 1)).serialize(mask=True), 1009),
    ],
    ids=["binary", "no UTF-8", "too large"],
)
def test_a_message_beyond_the_protocol_closes_with_its_code(chat: Visitor, raw: bytes, code: int) -> None:
    """The server closes with the code that RFC 6455 defines for the error."""
    chat.connection.socket.sendall(raw)

    assert chat.until_closed() == code


def test_a_wrong_token_closes_with_4401(url: str) -> None:
    """An auth frame with an invalid token closes the connection with 4401."""
    with visit(url, "chat") as visitor:
        visitor.says({"type": "auth", "token": "wrong"})

        assert visitor.until_closed() == 4401


def test_a_silent_client_gets_heartbeats_then_4408(url: str) -> None:
    """The server sends heartbeats, which do not count as activity, and then closes with 4408."""
    with visit(url, "chat", key=KEY, lively=False) as visitor:
        assert visitor.until_closed() == 4408

    assert "chat.server.heartbeat" in visitor.seen


def test_a_second_socket_closes_the_older_with_4409(url: str) -> None:
    """A second connection with the same client id closes the older one with 4409."""
    with (
        visit(url, "chat", key=KEY, client_id="twice") as older,
        visit(url, "chat", key=KEY, client_id="twice") as newer,
    ):
        assert older.until_closed() == 4409
        assert newer.until_done()


def test_an_administrator_closes_with_4410(url: str) -> None:
    """The client gets the reason in a frame before its connection ends."""
    headers = {"Authorization": f"Bearer {ADMIN}"}
    with visit(url, "chat", key=KEY, client_id="unwanted") as visitor:
        visitor.until_done()
        assert requests.post(f"{url}/api/ws/disconnect/unwanted", headers=headers, timeout=10).ok

        assert visitor.until_closed() == 4410
        assert visitor.frames[-1]["content"] == "You have been disconnected by the server."


def test_too_many_messages_close_with_4429(url: str) -> None:
    """A client that sends more messages than the limit is closed with 4429."""
    with visit(url, "chat", key=KEY) as visitor:
        visitor.until({"type": "system"})
        pings = Frame(Opcode.TEXT, b'{"type":"pong"}').serialize(mask=True) * 2000
        visitor.connection.socket.sendall(pings)

        assert visitor.until_closed() == 4429


# The documented clients


@contextmanager
def two_replicas(redis_url: str, dify: MockDify, folder: Path) -> Iterator[tuple[list[Replica], Relay]]:
    """Run two replicas, and a proxy to the first."""
    with replicas(2, socket_settings(redis_url, dify), folder) as both, Relay(both[0].port) as board:
        yield both, board


def test_the_python_client_resumes_after_a_kill(redis_url: str, dify: MockDify, tmp_path: Path) -> None:
    """The document's program, cut off by a killed replica, prints the whole answer, which was asked for once."""
    question = "[[slow]] Python 年假怎么申请"
    client = tmp_path / "client.py"
    client.write_text(program("python"), "utf-8")
    with two_replicas(redis_url, dify, tmp_path) as (both, board):
        command = [sys.executable, "-W", "error", str(client), f"ws://127.0.0.1:{board.port}/ws/chat", question]
        env = {**os.environ, "LAIBAO_WS_KEY": KEY, "PYTHONIOENCODING": "utf-8"}
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            first = os.read(process.stdout.fileno(), 4096)
            both[0].kill()
            board.target = both[1].port
            rest, complaint = process.communicate(timeout=4 * TIMEOUT)

    assert (process.returncode, complaint) == (0, b"")
    assert (first + rest).decode().removesuffix("\n") == dify.expected_answer(question)
    assert len(dify.asked(question)) == 1


def test_the_python_client_does_not_retry_a_wrong_key(url: str, tmp_path: Path) -> None:
    """A wrong key ends the program with one error line."""
    client = tmp_path / "client.py"
    client.write_text(program("python"), "utf-8")

    command = [sys.executable, str(client), url.replace("http", "ws") + "/ws/chat", "hello"]
    done = subprocess.run(command, env={**os.environ, "LAIBAO_WS_KEY": "wrong"}, capture_output=True, timeout=60)

    assert (done.returncode, done.stderr.decode().strip()) == (1, "refused: 401")


def test_the_tool_talks_to_both_endpoints(url: str) -> None:
    """`python -m tools.ws` prints the answer and exits with 0; with a wrong key it prints why, and exits with 3."""
    address = ["--url", url.replace("http", "ws")]

    def tool(*argv: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "LAIBAO_WS_KEY": key}
        command = [sys.executable, "-m", "tools.ws", *argv, *address]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=90)

    chat = tool("--send", "年假", "--expect", '{"role": "assistant", "status": "completed"}')
    realtime = tool(
        "realtime", "--send", "年假怎么申请？", "--expect", '{"final": true}', "--expect", '{"stage": "idle"}'
    )
    refused = tool("--send", "hello", key="not-the-key")

    assert (chat.returncode, chat.stderr) == (0, "")
    assert (realtime.returncode, realtime.stderr) == (0, "")
    assert refused.returncode == 3
    assert refused.stderr.startswith("refused: HTTP 401")
    assert "not-the-key" not in refused.stderr + refused.stdout


def test_a_terminated_replica_closes_idle_sockets_with_1012(redis_url: str, dify: MockDify, tmp_path: Path) -> None:
    """A replica that shuts down closes a connection without a running answer with 1012 at once."""
    with replicas(1, socket_settings(redis_url, dify), tmp_path) as (replica,):
        with visit(replica.url, "chat", key=KEY) as visitor:
            visitor.until_done()
            replica.signal(signal.SIGTERM)
            assert visitor.until_closed() == 1012
        wait_until(lambda: replica.process.poll() is not None, TIMEOUT)
