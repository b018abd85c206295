"""The mock Dify: it rejects the requests that Dify rejects, has Dify's wire format, and a script for every case."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import requests

from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.scripts import CLOSINGS
from demo.mocks.dify.server import CHOICES, SCRIPTS, MockDify, expected_answer
from tests.support.servers.processes import wait_until

pytestmark = pytest.mark.full

HEADERS = {"Authorization": "Bearer app-fake"}
CONVERSATION = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def dify() -> Iterator[MockDify]:
    """A mock for one test."""
    with MockDify(ping_every=0.05, slow=0.01) as mock:
        yield mock


def body(query: str = "年假", **fields: Any) -> dict[str, Any]:
    return {"query": query, "inputs": {}, "user": "u1", "response_mode": "streaming"} | fields


def post(dify: MockDify, fields: Any, path: str = "/v1/chat-messages", **headers: str) -> requests.Response:
    return requests.post(dify.base_url + path, json=fields, headers=HEADERS | headers, timeout=20.0)


def received(dify: MockDify, query: str) -> bytes:
    """Return the bytes received until the stream ends, normally or not."""
    url = f"{dify.base_url}/v1/chat-messages"
    wire = b""
    with (
        suppress(requests.RequestException),
        requests.post(url, json=body(query), headers=HEADERS, stream=True, timeout=20.0) as reply,
    ):
        for chunk in reply.iter_content(None):
            wire += chunk
    return wire


def events(wire: bytes) -> list[dict[str, Any]]:
    """Parse a body: one JSON object per data line."""
    return [json.loads(line) for line in re.findall(rb"^data: (.*)$", wire, re.M)]


#: Every row of Dify's table of errors: HTTP status and code; "html" is the reply of a proxy in front.
ERROR_TABLE = {
    (400, "invalid_param"),
    (400, "bad_request"),
    (400, "not_chat_app"),
    (400, "app_unavailable"),
    (400, "agent_not_published"),
    (400, "provider_not_initialize"),
    (400, "provider_quota_exceeded"),
    (400, "model_currently_not_support"),
    (400, "completion_request_error"),
    (400, "conversation_completed"),
    (400, "no_file_uploaded"),
    (400, "too_many_files"),
    (400, "filename_not_exists_error"),
    (401, "unauthorized"),
    (403, "forbidden"),
    (403, "app_not_found"),
    (403, "app_abnormal_status"),
    (403, "app_api_disabled"),
    (403, "workspace_archived"),
    (403, "workflow_version_execution_not_allowed"),
    (404, "not_found"),
    (404, "html"),
    (413, "file_too_large"),
    (413, "audio_too_large"),
    (413, "html"),
    (415, "unsupported_file_type"),
    (415, "unsupported_audio_type"),
    (429, "too_many_requests"),
    (429, "rate_limit_error"),
    (429, "html"),
    (500, "internal_server_error"),
    (500, "unknown"),
    (502, "html"),
    (503, "html"),
    (504, "html"),
    (524, "html"),
}

#: The last events of every app type, failure and known defect of Dify.
CLOSING_TABLE = {
    "chat": ["message", "message_end"],
    "agent-chat": ["agent_message", "message_end"],
    "agent-thoughts": ["agent_message", "message_end"],
    "new-agent": ["agent_message", "message", "message_end"],
    "new-agent-differs": ["agent_message", "message", "message_end"],
    "chatflow": ["message", "message_end", "workflow_finished"],
    "chatflow-old-order": ["message", "workflow_finished", "message_end"],
    "chatflow-moderated": ["message", "message_replace", "message_end", "workflow_finished"],
    "chatflow-failed": ["workflow_started", "workflow_finished", "error"],
    "chatflow-failed-quietly": ["workflow_started", "workflow_finished"],
    "chatflow-failed-open": ["workflow_started", "workflow_finished"],
    "chatflow-paused": ["human_input_required", "workflow_paused"],
    "stopped": ["message", "workflow_finished", "message_end"],
    "stopped-message-end": ["message", "message_end"],
    "stopped-workflow": ["message", "workflow_finished"],
    "annotation": ["message", "message_end"],
    "no-message-end": ["message", "workflow_finished"],
    "no-message-end-open": ["message", "workflow_finished"],
    "outputs-only": ["workflow_started", "workflow_finished"],
    "no-workflow-finished": ["message", "message_end"],
    "open-after-end": ["message", "message_end"],
    "eof": ["message"],
    "eof-without-text": ["workflow_started"],
    "error-event": ["error"],
    "error-after-text": ["message", "error"],
    "error-without-code": ["error"],
}


def test_there_is_a_script_for_every_row_of_the_error_table(dify: MockDify) -> None:
    """Each script replies with its status and code, in Dify's envelope or a proxy's HTML."""
    replies = set()
    for name in ERROR_REPLIES:
        reply = post(dify, body(f"[[{name}]]"))
        is_json = reply.headers["Content-Type"] == "application/json"
        replies.add((reply.status_code, reply.json()["code"] if is_json else "html"))

    assert replies == ERROR_TABLE
    assert set(ERROR_REPLIES) <= set(SCRIPTS)


def test_there_is_a_script_for_every_closing_sequence() -> None:
    """The table and the scripts have the same names."""
    assert set(CLOSINGS) == set(CLOSING_TABLE)
    assert set(CLOSINGS) <= set(SCRIPTS)


@pytest.mark.parametrize("name", sorted(CLOSING_TABLE))
def test_a_closing_sequence_is_what_the_table_says(dify: MockDify, name: str) -> None:
    """The last events arrive in this order."""
    dify.limit = 0.3

    wire = received(dify, f"[[{name}]]")

    last = CLOSING_TABLE[name]
    assert [event["event"] for event in events(wire)][-len(last) :] == last


def test_every_choice_of_the_demo_page_is_a_script() -> None:
    """Every choice of the demo's page is a script of the mock."""
    assert set(CHOICES) <= set(SCRIPTS)


def test_the_wire_is_dify_to_the_byte(dify: MockDify) -> None:
    """Pings are named events without data; an event is one line of compact JSON in raw UTF-8."""
    reply = post(dify, body("[[chatflow]] 营业时间？"))

    blocks = reply.content.split(b"\n\n")
    assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["Transfer-Encoding"] == "chunked"
    assert blocks[0] == b"event: ping"
    assert blocks[1].startswith(b'data: {"event":"workflow_started","conversation_id":"')
    assert blocks[-1] == b""
    assert "🙂".encode() in reply.content
    assert {"event", "conversation_id", "message_id", "created_at", "task_id"} <= set(events(reply.content)[0])


def test_an_answer_is_the_expected_one(dify: MockDify) -> None:
    """The pieces add up to the expected answer, and there are enough of them to see it grow."""
    pieces = [event["answer"] for event in events(post(dify, body("年假怎么申请？")).content) if "answer" in event]

    assert "".join(pieces) == dify.expected_answer("年假怎么申请？") == expected_answer("年假怎么申请？")
    assert 20 <= len(pieces) <= 40
    assert "1. " in "".join(pieces)


def test_the_default_is_what_ordinary_questions_get(dify: MockDify) -> None:
    """The default can be changed while the mock runs; a marker in the question overrides it."""
    dify.default = "error"

    assert b'"event":"error"' in post(dify, body("年假")).content
    assert dify.expected_answer("年假") == ""
    assert b"message_end" in post(dify, body("[[chat]] 年假")).content


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"query": "q", "inputs": {}}, "invalid_param"),
        (body(user=""), "invalid_param"),
        (body(user=7), "invalid_param"),
        ({"query": "q", "user": "u"}, "invalid_param"),
        ({"inputs": {}, "user": "u"}, "invalid_param"),
        (body(conversation_id=""), "invalid_param"),
        (body(conversation_id="not-a-uuid"), "invalid_param"),
        (body(conversation_id=7), "invalid_param"),
        (body("[[no-such-script]]"), "invalid_param"),
        (["no object"], "bad_request"),
    ],
)
def test_an_invalid_request_is_rejected_as_by_dify(dify: MockDify, fields: Any, code: str) -> None:
    """400, in Dify's envelope."""
    reply = post(dify, fields)

    assert (reply.status_code, reply.json()["code"]) == (400, code)


def test_a_body_that_is_not_json_is_refused(dify: MockDify) -> None:
    """400 bad_request."""
    reply = requests.post(f"{dify.base_url}/v1/chat-messages", data=b"{", headers=HEADERS, timeout=20.0)

    assert (reply.status_code, reply.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "app-fake", "Basic app-fake", "Bearer other"])
def test_a_request_without_the_key_is_unauthorized(dify: MockDify, authorization: str) -> None:
    """401 with WWW-Authenticate, on every address."""
    dify.api_key = "app-fake"

    for reply in (
        post(dify, body(), Authorization=authorization),
        requests.get(f"{dify.base_url}/v1/info", headers={"Authorization": authorization}, timeout=20.0),
    ):
        assert (reply.status_code, reply.json()["code"]) == (401, "unauthorized")
        assert reply.headers["WWW-Authenticate"] == 'Bearer realm="api"'


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_wrong_path_gets_html(dify: MockDify, method: str) -> None:
    """The reply is a 404 in HTML, without Dify's envelope."""
    reply = requests.request(method, f"{dify.base_url}/chat-messages", json={}, headers=HEADERS, timeout=20.0)

    assert reply.status_code == 404
    assert reply.headers["Content-Type"] == "text/html"


def test_a_conversation_belongs_to_its_user(dify: MockDify) -> None:
    """Only its user can continue it; for other users, and after it is forgotten, it does not exist."""
    first = events(post(dify, body()).content)[0]["conversation_id"]

    assert events(post(dify, body(conversation_id=first)).content)[0]["conversation_id"] == first
    for stranger in (body(conversation_id=first, user="u2"), body(conversation_id=CONVERSATION)):
        reply = post(dify, stranger)
        assert (reply.status_code, reply.json()["message"]) == (404, "Conversation Not Exists.")
    dify.forget_conversations()
    assert post(dify, body(conversation_id=first)).status_code == 404


def test_every_question_is_recorded(dify: MockDify) -> None:
    """Rejected questions are recorded too, because tests count calls by them."""
    post(dify, body("[[400-invalid_param]]"))
    post(dify, body("一"))

    assert [request.body["query"] for request in dify.requests] == ["[[400-invalid_param]]", "一"]
    assert len(dify.asked("一")) == 1
    assert dify.requests[0].authorization == "Bearer app-fake"


def test_a_blocking_reply_is_whole(dify: MockDify) -> None:
    """Chat apps answer in one piece in blocking mode; agents reject it."""
    reply = post(dify, body("年假") | {"response_mode": "blocking"}).json()

    assert reply["answer"] == expected_answer("年假")
    assert reply["metadata"]["usage"]["total_tokens"] == 431
    assert post(dify, body("[[agent-chat]]") | {"response_mode": "blocking"}).status_code == 400


def test_stop_ends_the_run_of_its_user_only(dify: MockDify) -> None:
    """The reply is always success; only the stop of the run's user has an effect, and the stream ends in order."""
    dify.slow = 0.1
    with requests.post(
        f"{dify.base_url}/v1/chat-messages", json=body("[[slow]]"), headers=HEADERS, stream=True, timeout=20.0
    ) as stream:
        lines = stream.iter_lines(chunk_size=1)
        task = next(json.loads(line[6:])["task_id"] for line in lines if line.startswith(b"data: "))
        for user in ("u2", "u1"):
            reply = post(dify, {"user": user}, f"/v1/chat-messages/{task}/stop")
            assert reply.json() == {"result": "success"}
        rest = [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]

    assert dify.stops == [(task, "u2"), (task, "u1")]
    assert [event["event"] for event in rest][-2:] == ["workflow_finished", "message_end"]
    assert rest[-2]["data"]["status"] == "stopped"
    assert post(dify, {}, f"/v1/chat-messages/{task}/stop").status_code == 400


def test_info_and_parameters_are_settable(dify: MockDify) -> None:
    """A test can set mode and input form of the app."""
    dify.mode, dify.user_input_form = "agent", [{"text-input": {"variable": "city", "required": True}}]

    info = requests.get(f"{dify.base_url}/v1/info", headers=HEADERS, timeout=20.0).json()
    parameters = requests.get(f"{dify.base_url}/v1/parameters", headers=HEADERS, timeout=20.0).json()

    assert info["mode"] == "agent"
    assert parameters["user_input_form"] == dify.user_input_form


@pytest.mark.parametrize("name", ["silent", "no-headers", "ping-only", "drip-bytes", "drip-events"])
def test_every_script_ends_at_its_limit(dify: MockDify, name: str) -> None:
    """After `limit` seconds the mock ends the stream."""
    dify.limit, started = 0.3, time.monotonic()

    received(dify, f"[[{name}]]")

    assert time.monotonic() - started < 10.0
    wait_until(lambda: dify.open_streams == 0)


def test_a_client_that_leaves_ends_its_stream(dify: MockDify) -> None:
    """The mock detects a closed connection, as Dify does, and no longer counts its stream."""
    response = requests.post(
        f"{dify.base_url}/v1/chat-messages", json=body("[[silent]]"), headers=HEADERS, stream=True, timeout=20.0
    )
    assert dify.open_streams == 1

    response.close()

    wait_until(lambda: (dify.open_streams, dify.open_connections) == (0, 0))
    assert dify.peak_connections == dify.accepted_connections == 1


def test_closing_the_mock_cuts_its_streams() -> None:
    """Streams are cut and the port is released."""
    dify = MockDify().start()
    with requests.post(
        f"{dify.base_url}/v1/chat-messages", json=body("[[silent]]"), headers=HEADERS, stream=True, timeout=20.0
    ) as response:
        dify.close()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            _ = response.content

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(dify.base_url.rsplit(":")[-1])), timeout=5.0)


def test_the_mock_runs_as_a_program() -> None:
    """`python -m demo.mock_dify` prints its address and answers."""
    command = [sys.executable, "-m", "demo.mock_dify", "--port", "0", "--delay", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[3].removesuffix(",")
            reply = requests.get(f"{address}/info", headers=HEADERS, timeout=20.0)
        finally:
            process.terminate()

    assert reply.json()["name"] == "mock"


def test_the_app_shows_who_asks(dify: MockDify) -> None:
    """The question 我是谁 is answered with the request's inputs, in the stream and in the history."""
    reply = post(dify, body("我是谁", inputs={"name": "张三", "department": ""}, response_mode="blocking")).json()

    assert "- name：张三\n- department：" in reply["answer"]
