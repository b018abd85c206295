"""The mock Dify's look-ups of messages and runs, and its runs whose client has disconnected, as in Dify."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import pytest
import requests

from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.plays import MODERATED
from demo.mocks.dify.runs import AfterDisconnect, Runs
from demo.mocks.dify.server import MockDify
from demo.mocks.dify.wire import Run
from tests.support.servers.processes import wait_until

pytestmark = pytest.mark.full

HEADERS = {"Authorization": "Bearer app-fake"}
UNKNOWN_ID = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def dify() -> Iterator[MockDify]:
    """A mock for one test, whose answers take half a second."""
    with MockDify(ping_every=0.05, slow=0.02, delay=0.02) as mock:
        yield mock


def get(dify: MockDify, path: str, **query: Any) -> requests.Response:
    return requests.get(f"{dify.base_url}/v1/{path}", params=query, headers=HEADERS, timeout=20.0)


def history(dify: MockDify, run: Run, **query: Any) -> dict[str, Any]:
    reply: dict[str, Any] = get(dify, "messages", conversation_id=run.conversation_id, user="u1", **query).json()
    return reply


def result(dify: MockDify, run: Run) -> dict[str, Any]:
    reply: dict[str, Any] = get(dify, f"workflows/run/{run.run_id}").json()
    return reply


def events(dify: MockDify, run: Run) -> list[dict[str, Any]]:
    """Return the events of a run until its stream ends."""
    return _events(get(dify, f"workflow/{run.run_id}/events", user="u1").content)


def _events(wire: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in re.findall(rb"^data: (.*)$", wire, re.M)]


@contextmanager
def running(dify: MockDify, query: str, **fields: Any) -> Iterator[Run]:
    """Ask a question and yield its run once it has started; the client is connected inside the block."""
    body = {"query": query, "inputs": {}, "user": "u1", "response_mode": "streaming"} | fields
    url = f"{dify.base_url}/v1/chat-messages"
    with requests.post(url, json=body, headers=HEADERS, stream=True, timeout=20.0) as reply:
        # Kept until the end of the block: an iterator that is garbage collected closes the connection.
        lines = reply.iter_lines(chunk_size=1)
        run = dify.runs.find(next(json.loads(line[6:])["task_id"] for line in lines if line.startswith(b"data: ")))
        assert run is not None
        yield run


def saved_run(dify: MockDify, query: str, **fields: Any) -> Run:
    """Ask, disconnect at the first event, and return the run when its answer is saved."""
    with running(dify, query, **fields) as run:
        pass
    wait_until(lambda: run.is_saved)
    return run


def test_the_history_is_the_latest_rows_oldest_first(dify: MockDify) -> None:
    """As many rows as the limit, with usage and price of each turn, and whether there are more."""
    dify.delay = 0.0
    first = saved_run(dify, "一")
    for query in ("二", "三"):
        saved_run(dify, query, conversation_id=first.conversation_id)

    assert [row["query"] for row in history(dify, first)["data"]] == ["一", "二", "三"]
    latest = history(dify, first, limit=2)
    assert [row["query"] for row in latest["data"]] == ["二", "三"]
    assert (latest["limit"], latest["has_more"], history(dify, first)["has_more"]) == (2, True, False)
    assert latest["data"][0]["parent_message_id"] == first.message_id
    assert latest["data"][1]["answer"] == dify.expected_answer("三")
    assert (latest["data"][1]["answer_tokens"], latest["data"][1]["total_price"]) == (19, "0.00043")


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"conversation_id": UNKNOWN_ID, "user": "u1"}, 404, "not_found"),
        ({"conversation_id": "{own}", "user": "u2"}, 404, "not_found"),
        ({"conversation_id": "{own}"}, 400, "invalid_param"),
        ({"user": "u1"}, 400, "invalid_param"),
        ({"conversation_id": "{own}", "user": "u1", "limit": 0}, 400, "invalid_param"),
    ],
)
def test_a_history_belongs_to_its_user(dify: MockDify, query: dict[str, Any], status: int, code: str) -> None:
    """Another user's conversation and an unknown one are both not found."""
    run = saved_run(dify, "一")
    named = {name: run.conversation_id if value == "{own}" else value for name, value in query.items()}

    reply = get(dify, "messages", **named)

    assert (reply.status_code, reply.json()["code"]) == (status, code)


def test_conversations_of_a_user_are_listed_latest_first(dify: MockDify) -> None:
    """Each is named by its first question; the page has the limit, and whether there are more."""
    dify.delay = 0.0
    first, _, other = saved_run(dify, "一"), saved_run(dify, "二"), saved_run(dify, "三", user="u2")

    page = get(dify, "conversations", user="u1", limit=1).json()

    assert (page["limit"], page["has_more"], page["data"][0]["name"]) == (1, True, "二")
    rows = get(dify, "conversations", user="u1").json()["data"]
    assert [row["name"] for row in rows] == ["二", "一"]
    assert rows[1]["id"] == first.conversation_id != other.conversation_id
    assert get(dify, "conversations").status_code == get(dify, "conversations", user="u1", limit=101).status_code == 400


def test_an_answer_is_saved_at_the_end_only(dify: MockDify) -> None:
    """Until then the row has no text and price, and the run no outputs."""
    dify.delay = 0.1
    with running(dify, "一") as run:
        row = history(dify, run)["data"][0]
        working = result(dify, run)

    assert (row["id"], row["status"], row["answer"], row["answer_tokens"]) == (run.message_id, "normal", "", 0)
    assert (working["status"], working["outputs"], working["finished_at"]) == ("running", None, None)


@pytest.mark.parametrize(("script", "status"), [("chatflow-failed", "error"), ("chatflow-paused", "paused")])
def test_a_row_has_the_status_of_its_run(dify: MockDify, script: str, status: str) -> None:
    """A failed or paused run has that status in the history too."""
    with running(dify, f"[[{script}]]") as run:
        wait_until(lambda: run.message_status != "normal")

        assert history(dify, run)["data"][0]["status"] == status


def test_moderation_is_in_the_history_and_not_in_the_outputs(dify: MockDify) -> None:
    """Moderation replaces the message's text, not the workflow's outputs."""
    run = saved_run(dify, "[[chatflow-moderated]] 年假")
    wait_until(lambda: run.status == "succeeded")

    assert history(dify, run)["data"][0]["answer"] == MODERATED
    assert result(dify, run)["outputs"]["answer"] == dify.expected_answer("年假")


def test_outputs_come_as_an_object_a_string_or_not_at_all(dify: MockDify) -> None:
    """`outputs` of the mock selects the form."""
    run = saved_run(dify, "一")
    wait_until(lambda: run.status == "succeeded")

    whole = {"answer": dify.expected_answer("一")}
    assert result(dify, run)["outputs"] == whole
    dify.outputs = "string"
    assert json.loads(result(dify, run)["outputs"]) == whole
    dify.outputs = "none"
    assert result(dify, run)["outputs"] is None


def test_a_finished_run_has_one_event(dify: MockDify) -> None:
    """`workflow_finished`, with its outputs; no ping and no earlier events."""
    run = saved_run(dify, "一")
    wait_until(lambda: run.status == "succeeded")

    reply = get(dify, f"workflow/{run.run_id}/events", user="u1")

    assert b"ping" not in reply.content
    assert [event["event"] for event in _events(reply.content)] == ["workflow_finished"]
    assert _events(reply.content)[0]["data"]["outputs"] == {"answer": dify.expected_answer("一")}


def test_a_running_run_sends_its_new_events(dify: MockDify) -> None:
    """Earlier events are not repeated; the stream has pings and ends with the run."""
    dify.delay = 0.05
    with running(dify, "年假") as run:
        with run.live.listening() as queue:
            wait_until(lambda: b'"event":"message"' in (queue.get(timeout=10.0) or b""))
        wire = get(dify, f"workflow/{run.run_id}/events", user="u1").content

    text = "".join(event.get("answer", "") for event in _events(wire))
    assert wire.startswith(b"event: ping\n\n")
    assert dify.expected_answer("年假").endswith(text)
    assert 0 < len(text) < len(dify.expected_answer("年假"))
    assert [event["event"] for event in _events(wire)][-2:] == ["message_end", "workflow_finished"]
    wait_until(lambda: dify.open_listeners == 0)


def test_a_disconnected_listener_is_counted_no_longer(dify: MockDify) -> None:
    """A listener that disconnects does not affect the run."""
    dify.delay = 0.1
    with running(dify, "一") as run:
        url = f"{dify.base_url}/v1/workflow/{run.run_id}/events"
        with requests.get(url, params={"user": "u1"}, headers=HEADERS, stream=True, timeout=20.0):
            wait_until(lambda: dify.open_listeners == 1)
        wait_until(lambda: dify.open_listeners == 0)

        assert run.status == "running"


def test_runs_that_cannot_be_shown(dify: MockDify) -> None:
    """Unknown runs, events for another user, events before 1.13, and any run of an app that is no chatflow."""
    run = saved_run(dify, "一")

    assert get(dify, f"workflows/run/{UNKNOWN_ID}").json()["code"] == "not_found"
    assert get(dify, f"workflow/{UNKNOWN_ID}/events", user="u1").json()["code"] == "not_found"
    assert get(dify, f"workflow/{run.run_id}/events", user="u2").json()["code"] == "not_found"
    assert get(dify, f"workflow/{run.run_id}/events").json()["code"] == "invalid_param"
    dify.events, dify.mode = False, "chat"
    assert get(dify, f"workflow/{run.run_id}/events", user="u1").headers["Content-Type"] == "text/html"
    assert get(dify, f"workflows/run/{run.run_id}").json()["code"] == "not_workflow_app"


def test_a_blocking_answer_is_saved_too(dify: MockDify) -> None:
    """Its message is in the history."""
    body = {"query": "一", "inputs": {}, "user": "u1", "response_mode": "blocking"}
    reply = requests.post(f"{dify.base_url}/v1/chat-messages", json=body, headers=HEADERS, timeout=20.0).json()

    rows = get(dify, "messages", conversation_id=reply["conversation_id"], user="u1").json()["data"]

    assert [(row["id"], row["answer"]) for row in rows] == [(reply["message_id"], reply["answer"])]


def _leave(dify: MockDify) -> Run:
    with running(dify, "年假") as run:
        wait_until(lambda: dify.open_streams == 1)
    return run


def _hang_up(dify: MockDify) -> Run:
    """Ask from a process that is killed during the answer."""
    program = """
import json, sys, requests
body = {"query": "年假", "inputs": {}, "user": "u1", "response_mode": "streaming"}
reply = requests.post(sys.argv[1], json=body, headers={"Authorization": "Bearer app-fake"}, stream=True, timeout=20)
for line in reply.iter_lines(chunk_size=1):
    if line.startswith(b"data: "):
        print(json.loads(line[6:])["task_id"], flush=True)
"""
    command = [sys.executable, "-c", program, f"{dify.base_url}/v1/chat-messages"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        task = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
        process.wait(20.0)
    run = dify.runs.find(task)
    assert run is not None
    return run


@pytest.mark.parametrize("leave", [_leave, _hang_up], ids=["closed", "killed"])
def test_a_run_goes_on_without_its_client(dify: MockDify, leave: Callable[[MockDify], Run]) -> None:
    """The run keeps its pace to the end, then its answer is saved; the closed connection is not counted meanwhile."""
    dify.delay = 0.05
    run = leave(dify)
    wait_until(lambda: dify.open_streams == 0)
    assert history(dify, run)["data"][0]["answer"] == ""

    wait_until(lambda: run.status == "succeeded")

    assert history(dify, run)["data"][0]["answer"] == dify.expected_answer("年假")


@pytest.mark.parametrize(("after_disconnect", "status"), [("dies", "running"), ("aborts", "stopped")])
def test_a_run_is_lost_with_its_client(dify: MockDify, after_disconnect: Any, status: str) -> None:
    """Dify up to 1.12 reports such a run as `running` for ever, 1.16.0 stops it; nothing is saved."""
    dify.after_disconnect, dify.delay = after_disconnect, 0.05
    run = _leave(dify)
    wait_until(lambda: dify.open_streams == 0 and run.status == status)

    wait_until(lambda: all(thread.name != "mock-dify-run" for thread in threading.enumerate()))

    assert result(dify, run)["status"] == status
    assert history(dify, run)["data"][0]["answer"] == ""


def test_a_lost_run_sends_only_pings(dify: MockDify) -> None:
    """A listener gets pings and no events."""
    dify.after_disconnect, dify.limit = "dies", 0.5
    run = _leave(dify)
    wait_until(lambda: dify.open_streams == 0)

    assert events(dify, run) == []


def test_an_aborted_run_is_reported_as_stopped(dify: MockDify) -> None:
    """Current and later listeners get the status `stopped`."""
    dify.after_disconnect, dify.delay = "aborts", 0.05
    received: list[dict[str, Any]] = []
    with running(dify, "年假") as run:
        listener = threading.Thread(target=lambda: received.extend(events(dify, run)))
        listener.start()
        wait_until(lambda: dify.open_listeners == 1)
    listener.join(20.0)

    assert received[-1]["data"]["status"] == "stopped"
    assert [event["data"]["status"] for event in events(dify, run)] == ["stopped"]


@pytest.mark.parametrize("after_disconnect", get_args(AfterDisconnect))
def test_a_finished_run_ignores_a_disconnect(dify: MockDify, after_disconnect: Any) -> None:
    """Disconnecting after the end changes nothing."""
    dify.after_disconnect, dify.delay = after_disconnect, 0.0
    with running(dify, "[[no-message-end-open]] 年假") as run:
        wait_until(lambda: run.status == "succeeded")
    wait_until(lambda: dify.open_streams == 0)

    assert result(dify, run)["status"] == "succeeded"


def test_a_run_without_listeners_can_be_stopped(dify: MockDify) -> None:
    """The stop of its user ends it; its text so far is lost."""
    dify.delay = 0.1
    run = _leave(dify)
    wait_until(lambda: dify.open_streams == 0)

    requests.post(
        f"{dify.base_url}/v1/chat-messages/{run.task_id}/stop", json={"user": "u1"}, headers=HEADERS, timeout=20.0
    )
    wait_until(lambda: run.status == "stopped")

    assert history(dify, run)["data"][0]["answer"] == ""


def test_look_ups_are_counted_and_can_fail(dify: MockDify) -> None:
    """By kind and with their parameters; during an outage all of them fail."""
    run = saved_run(dify, "一")
    dify.outage = ERROR_REPLIES["502-html"]

    query = {"conversation_id": run.conversation_id, "user": "u1"}
    replies = [get(dify, "messages", **query), *(get(dify, f"workflows/run/{run.run_id}") for _ in range(2))]

    assert [reply.status_code for reply in replies] == [502, 502, 502]

    assert dify.looked_up() == {"messages": 1, "run": 2}
    assert dify.look_ups[0].query["conversation_id"] == run.conversation_id
    assert dify.look_ups[0].authorization == "Bearer app-fake"
    assert dify.requests[0].body["query"] == "一"


def test_messages_may_fail_to_be_saved(dify: MockDify) -> None:
    """The run succeeds, and its row stays empty."""
    dify.saves = False
    with running(dify, "一") as run:
        wait_until(lambda: run.status == "succeeded")

    assert history(dify, run)["data"][0]["answer"] == ""


def test_remembered_runs_are_limited() -> None:
    """The oldest runs are removed first, and a conversation with its last run."""
    runs = Runs(max_runs=3)
    made = [Run("答", user="u1", conversation_id=f"c{number // 2}") for number in range(5)]
    for run in made:
        runs.add(run)

    assert len(runs) == 3
    assert [runs.find(run.task_id) is run for run in made] == [False, False, True, True, True]
    assert [runs.find(run.run_id) is run for run in made] == [False, False, True, True, True]
    assert [len(runs.turns(name)) for name in ("c0", "c1", "c2")] == [0, 2, 1]


def test_runs_are_remembered_for_max_age() -> None:
    """Adding a run removes those older than `max_age`."""
    runs = Runs(max_age=0.0)
    first, second = (Run("答", user="u1", conversation_id="c") for _ in range(2))
    runs.add(first)

    runs.add(second)

    assert runs.turns("c") == [second]


def test_the_program_has_the_same_options() -> None:
    """`python -m demo.mock_dify` has options for the behaviour of old versions."""
    command = [sys.executable, "-m", "demo.mock_dify", "--port", "0", "--delay", "0.05"]
    command += ["--after-disconnect", "dies", "--no-events", "--outputs", "string"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[3].removesuffix(",")
            body = {"query": "年假", "inputs": {}, "user": "u1", "response_mode": "streaming"}
            with requests.post(
                f"{address}/chat-messages", json=body, headers=HEADERS, stream=True, timeout=20.0
            ) as reply:
                lines = reply.iter_lines(chunk_size=1)
                run = next(json.loads(line[6:]) for line in lines if line.startswith(b"data: "))["workflow_run_id"]
            found = requests.get(f"{address}/workflows/run/{run}", headers=HEADERS, timeout=20.0)
            reply = requests.get(f"{address}/workflow/{run}/events?user=u1", headers=HEADERS, timeout=20.0)
        finally:
            process.terminate()

    assert found.json()["status"] == "running"
    assert reply.status_code == 404
