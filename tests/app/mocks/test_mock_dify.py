"""The mock Dify: it rejects the requests that Dify rejects, has Dify's wire format, and a script for every case."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import requests

from demo.mocks.dify.answers import is_chinese
from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.plays import MODERATED, NODES
from demo.mocks.dify.scripts import CLOSINGS
from demo.mocks.dify.server import CHOICES, SCRIPTS, MockDify
from demo.mocks.dify.wire import Run
from tests.support.servers.processes import wait_until

pytestmark = pytest.mark.full

HEADERS = {"Authorization": "Bearer app-fake"}
UNKNOWN_ID = "11111111-2222-4333-8444-555555555555"
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


@contextmanager
def running(dify: MockDify, query: str, *, until: str = "workflow_started", **fields: Any) -> Iterator[Run]:
    """Ask a question and yield its run once this event has come; the client is connected inside the block."""
    with post(dify, body(query, **fields), stream=True) as reply:
        # Kept until the end of the block: an iterator that is garbage collected closes the connection.
        lines = reply.iter_lines(chunk_size=1)
        received = (json.loads(line[6:]) for line in lines if line.startswith(b"data: "))
        run = dify.runs.find(next(event["task_id"] for event in received if event["event"] == until))
        assert run is not None
        yield run


def saved_run(dify: MockDify, query: str, **fields: Any) -> Run:
    """Ask, disconnect at the first event, and return the run when its answer is saved."""
    with running(dify, query, **fields) as run:
        pass
    wait_until(lambda: run.is_saved and run.status != "running")
    return run


def history(dify: MockDify, run: Run, **query: Any) -> dict[str, Any]:
    page: dict[str, Any] = get(dify, "messages", conversation_id=run.conversation_id, user="u1", **query).json()
    return page


def result(dify: MockDify, run: Run) -> dict[str, Any]:
    reply: dict[str, Any] = get(dify, f"workflows/run/{run.run_id}").json()
    return reply


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


@pytest.mark.parametrize("name", ["silent", "no-headers", "ping-only", "drip-bytes", "drip-events"])
def test_every_script_ends_at_its_limit(dify: MockDify, name: str) -> None:
    """After `limit` seconds the mock ends the stream."""
    dify.limit = 0.3

    with suppress(requests.RequestException):
        received(post(dify, body(f"[[{name}]]"), stream=True))

    wait_until(lambda: dify.open_streams == 0)


def test_stop_ends_the_run_of_its_user_only(dify: MockDify) -> None:
    """The reply is always success; the stop by the run's user ends the stream in order, and its text is lost."""
    dify.delay = ENDLESS
    with post(dify, body(), stream=True) as stream:
        lines = stream.iter_lines(chunk_size=1)
        task = next(json.loads(line[6:])["task_id"] for line in lines if line.startswith(b"data: "))
        for user in ("u2", "u1"):
            assert post(dify, {"user": user}, f"chat-messages/{task}/stop").json() == {"result": "success"}
        rest = [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]

    run = dify.runs.find(task)
    assert run
    assert dify.stops == [(task, "u2"), (task, "u1")]
    assert [event["event"] for event in rest][-2:] == ["workflow_finished", "message_end"]
    assert rest[-2]["data"]["status"] == "stopped"
    assert history(dify, run)["data"][0]["answer"] == ""
    assert post(dify, {}, f"chat-messages/{task}/stop").status_code == 400


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        ("messages", {"conversation_id": UNKNOWN_ID, "user": "u1"}, 404, "not_found"),
        ("messages", {"conversation_id": "{conversation}", "user": "u2"}, 404, "not_found"),
        ("messages", {"conversation_id": "{conversation}"}, 400, "invalid_param"),
        ("messages", {"user": "u1"}, 400, "invalid_param"),
        ("messages", {"conversation_id": "{conversation}", "user": "u1", "limit": 0}, 400, "invalid_param"),
        ("conversations", {}, 400, "invalid_param"),
        ("conversations", {"user": "u1", "limit": 101}, 400, "invalid_param"),
        (f"workflows/run/{UNKNOWN_ID}", {}, 404, "not_found"),
        (f"workflow/{UNKNOWN_ID}/events", {"user": "u1"}, 404, "not_found"),
        ("workflow/{run}/events", {"user": "u2"}, 404, "not_found"),
        ("workflow/{run}/events", {}, 400, "invalid_param"),
    ],
)
def test_a_look_up_that_dify_rejects(dify: MockDify, path: str, query: dict[str, Any], status: int, code: str) -> None:
    """Another user's conversation or run and an unknown one are both not found."""
    run = saved_run(dify, "一")
    ids = {"conversation": run.conversation_id, "run": run.run_id}

    reply = get(dify, path.format(**ids), **{name: str(value).format(**ids) for name, value in query.items()})

    assert (reply.status_code, reply.json()["code"]) == (status, code)


def test_an_answer_is_saved_at_the_end_only(dify: MockDify) -> None:
    """Until then the row has no text and price, and the run no outputs."""
    dify.delay = ENDLESS
    with running(dify, "一") as run:
        row, working = history(dify, run)["data"][0], result(dify, run)

    assert (row["id"], row["status"], row["answer"], row["answer_tokens"]) == (run.message_id, "normal", "", 0)
    assert (working["status"], working["outputs"], working["finished_at"]) == ("running", None, None)


def test_outputs_come_as_an_object_a_string_or_not_at_all(dify: MockDify) -> None:
    """`outputs` of the mock selects the form. Moderation replaces the message's text, not the outputs."""
    run = saved_run(dify, "[[chatflow-moderated]] 年假")

    whole = {"answer": dify.expected_answer("年假")}
    assert history(dify, run)["data"][0]["answer"] == MODERATED
    assert result(dify, run)["outputs"] == whole
    dify.outputs = "string"
    assert json.loads(result(dify, run)["outputs"]) == whole
    dify.outputs = "none"
    assert result(dify, run)["outputs"] is None


@pytest.mark.parametrize(("script", "status"), [("chatflow-failed", "error"), ("chatflow-paused", "paused")])
def test_a_row_has_the_status_of_its_run(dify: MockDify, script: str, status: str) -> None:
    """A failed or paused run has that status in the history too."""
    with running(dify, f"[[{script}]]") as run:
        wait_until(lambda: run.message_status != "normal")

        assert history(dify, run)["data"][0]["status"] == status


def test_a_listener_gets_pings_and_the_end_of_the_run(dify: MockDify) -> None:
    """Earlier events are not repeated. A finished run has one event; other apps and old versions have none."""
    dify.delay = ENDLESS
    with running(dify, "年假", until="message") as run:
        address = f"{dify.base_url}/v1/workflow/{run.run_id}/events"
        with requests.get(address, params={"user": "u1"}, headers=HEADERS, stream=True, timeout=20.0) as listener:
            wait_until(lambda: run.live.heard)
            dify.stop(run.task_id, "u1")
            wire = received(listener)
    wait_until(lambda: dify.open_listeners == 0)

    assert wire.startswith(b"event: ping\n\n")
    assert [event["event"] for event in events(wire)] == ["workflow_finished", "message_end"]
    finished = get(dify, f"workflow/{run.run_id}/events", user="u1").content
    assert b"ping" not in finished
    assert [event["data"]["status"] for event in events(finished)] == ["stopped"]
    dify.events, dify.mode = False, "chat"
    assert get(dify, f"workflow/{run.run_id}/events", user="u1").headers["Content-Type"] == "text/html"
    assert get(dify, f"workflows/run/{run.run_id}").json()["code"] == "not_workflow_app"


@pytest.mark.parametrize(
    ("after_disconnect", "delay", "query", "status", "is_saved"),
    [
        ("runs on", 0.01, "年假", "succeeded", True),
        ("dies", ENDLESS, "年假", "running", False),
        ("aborts", ENDLESS, "年假", "stopped", False),
        ("dies", 0.0, "[[no-message-end-open]] 年假", "succeeded", False),
        ("aborts", 0.0, "[[no-message-end-open]] 年假", "succeeded", False),
    ],
)
def test_a_run_whose_client_has_left(
    dify: MockDify, after_disconnect: Any, delay: float, query: str, status: str, is_saved: bool
) -> None:
    """Dify up to 1.12 reports it as `running` for ever, 1.16.0 stops it, others go on; a finished run stays so."""
    dify.after_disconnect, dify.delay = after_disconnect, delay
    with running(dify, query) as run:
        wait_until(lambda: delay or run.status == "succeeded")
    wait_until(lambda: dify.open_streams == 0 and run.status == status)

    wait_until(lambda: bool(history(dify, run)["data"][0]["answer"]) == is_saved)
    assert result(dify, run)["status"] == status


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
