"""The mock Dify: it rejects the requests that Dify rejects, has Dify's wire format, and a script for every case."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import requests

from demo.mocks.dify.answers import is_chinese
from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.plays import NODES
from demo.mocks.dify.scripts import CLOSINGS
from demo.mocks.dify.server import CHOICES, SCRIPTS, MockDify

pytestmark = pytest.mark.full

HEADERS = {"Authorization": "Bearer app-fake"}
#: Seconds between two pieces of an answer that does not end before the test has looked at it.
ENDLESS = 20.0


@pytest.fixture
def dify() -> Iterator[MockDify]:
    """A mock for one test."""
    with MockDify(ping_every=0.05, slow=0.01) as mock:
        yield mock


def body(query: str = "年假", **fields: Any) -> dict[str, Any]:
    return {"query": query, "inputs": {}, "user": "u1", "response_mode": "streaming"} | fields


def post(dify: MockDify, fields: Any, path: str = "chat-messages", **options: Any) -> requests.Response:
    headers = HEADERS | options.pop("headers", {})
    return requests.post(f"{dify.base_url}/v1/{path}", json=fields, headers=headers, timeout=20.0, **options)


def get(dify: MockDify, path: str, **query: Any) -> requests.Response:
    return requests.get(f"{dify.base_url}/v1/{path}", params=query, headers=HEADERS, timeout=20.0)


def events(wire: bytes) -> list[dict[str, Any]]:
    """Parse a body: one JSON object per data line."""
    return [json.loads(line) for line in re.findall(rb"^data: (.*)$", wire, re.M)]


def received(reply: requests.Response, until: bytes = b"") -> bytes:
    """Return the bytes received until a text of the stream, or until the stream ends, normally or not."""
    wire = b""
    with reply, suppress(requests.RequestException):
        for chunk in reply.iter_content(None):
            wire += chunk
            if until and until in wire:
                break
    return wire


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


def test_an_english_question_is_answered_in_english(dify: MockDify) -> None:
    """Answer, steps, sources and suggestions have no Chinese; those of a Chinese question have no English."""
    dify.suggested, dify.suggested_in_english = ("年假怎么申请",), ("How do I ask for leave?",)
    for question, english in (("How do I ask for annual leave? [[steps]]", True), ("年假怎么申请 [[steps]]", False)):
        seen = events(received(post(dify, body(question))))
        [message] = {event["message_id"] for event in seen}
        [ending] = [event for event in seen if event["event"] == "message_end"]
        shown = ["".join(event["answer"] for event in seen if event["event"] == "message")]
        shown += [event["data"]["title"] for event in seen if event["event"] == "node_started"]
        shown += [ending["metadata"]["retriever_resources"][0]["content"]]
        shown += get(dify, f"messages/{message}/suggested", user="u1").json()["data"]

        assert len(shown) == 1 + len(NODES) + 2
        assert [is_chinese(text) for text in shown] == [not english] * len(shown)


# The error and the silence have no text.
@pytest.mark.parametrize("name", sorted({*CHOICES} - {"error", "silent"}))
def test_every_choice_of_the_demo_follows_the_questions_language(dify: MockDify, name: str) -> None:
    """No Chinese reaches the reader of an English question, whatever Dify is told to do; a marker is no language."""
    for question in (f"How do I ask for annual leave? [[{name}]]", f"年假怎么申请 [[{name}]]", f"[[{name}]]"):
        reply = post(dify, body(question), stream=True)
        shown = "".join(_words(event) for event in events(received(reply, until=b"workflow_paused")))

        assert bool(re.search("[一-龥]", shown)) == ("How" not in question), shown[:200]


def _words(event: dict[str, Any]) -> str:
    """Return the part of an event that a reader sees: text, the nodes' titles, a form and the sources."""
    data = event.get("data", {})
    form = [data.get("form_content"), data.get("actions")]
    words = [event.get("answer"), data.get("title"), data.get("node_title"), form, event.get("metadata")]
    return json.dumps(words, ensure_ascii=False)


def test_there_is_a_script_for_every_closing_choice_and_error(dify: MockDify) -> None:
    """An error's script is named by its status and code; its reply has them, in Dify's envelope or a proxy's HTML."""
    assert CLOSINGS.keys() == CLOSING_TABLE.keys()
    assert {*CLOSINGS, *CHOICES, *ERROR_REPLIES} <= SCRIPTS.keys()
    codes = {"conversation": "not_found", "conversation-suffix": "not_found"}
    for name in ERROR_REPLIES:
        reply = post(dify, body(f"[[{name}]]"))
        status, _, code = name.partition("-")
        is_html = code in ("html", "wrong-path")
        assert (str(reply.status_code), reply.headers["Content-Type"] == "text/html") == (status, is_html), name
        assert is_html or reply.json()["code"] == codes.get(code, code), name


@pytest.mark.parametrize("name", CLOSING_TABLE)
def test_a_closing_sequence_is_what_the_table_says(dify: MockDify, name: str) -> None:
    """The last events arrive in this order; a script may leave the connection open after them."""
    last = CLOSING_TABLE[name]

    wire = received(post(dify, body(f"[[{name}]]"), stream=True), f'"event":"{last[-1]}"'.encode() * ("open" in name))

    assert [event["event"] for event in events(wire)][-len(last) :] == last


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
        (body("[[agent-chat]]", response_mode="blocking"), "invalid_param"),
        (["no object"], "bad_request"),
        (None, "bad_request"),
    ],
)
def test_an_invalid_request_is_rejected_as_by_dify(dify: MockDify, fields: Any, code: str) -> None:
    """400, in Dify's envelope."""
    reply = post(dify, fields)

    assert (reply.status_code, reply.json()["code"]) == (400, code)


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "app-fake", "Basic app-fake", "Bearer other"])
def test_a_request_without_the_key_is_unauthorized(dify: MockDify, authorization: str) -> None:
    """401 with WWW-Authenticate."""
    dify.api_key = "app-fake"

    reply = post(dify, body(), headers={"Authorization": authorization})

    assert (reply.status_code, reply.json()["code"]) == (401, "unauthorized")
    assert reply.headers["WWW-Authenticate"] == 'Bearer realm="api"'


def test_the_mock_runs_as_a_program() -> None:
    """`python -m demo.mock_dify` prints its address and answers; it has options for the behaviour of old versions."""
    command = [sys.executable, "-m", "demo.mock_dify", "--port", "0", "--delay", str(ENDLESS)]
    command += ["--after-disconnect", "dies", "--no-events", "--outputs", "string"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[3].removesuffix(",")
            with requests.post(
                f"{address}/chat-messages", json=body(), headers=HEADERS, stream=True, timeout=20.0
            ) as reply:
                lines = reply.iter_lines(chunk_size=1)
                run = next(json.loads(line[6:]) for line in lines if line.startswith(b"data: "))["workflow_run_id"]
            found = requests.get(f"{address}/workflows/run/{run}", headers=HEADERS, timeout=20.0)
            reply = requests.get(f"{address}/workflow/{run}/events?user=u1", headers=HEADERS, timeout=20.0)
        finally:
            process.terminate()

    assert found.json()["status"] == "running"
    assert reply.status_code == 404
