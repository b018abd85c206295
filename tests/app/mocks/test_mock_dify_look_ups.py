"""What the mock Dify tells of a question afterwards, and what becomes of a run whose client is gone: as in Dify."""

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
STRANGER = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def dify() -> Iterator[MockDify]:
    """A mock of its own, whose answers take half a second."""
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
    """Listen to a run until the stream ends."""
    return _events(get(dify, f"workflow/{run.run_id}/events", user="u1").content)


def _events(wire: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in re.findall(rb"^data: (.*)$", wire, re.M)]


@contextmanager
def asking(dify: MockDify, query: str, **fields: Any) -> Iterator[Run]:
    """Ask; the client stays for the block. Gives the run once the mock has begun it."""
    body = {"query": query, "inputs": {}, "user": "u1", "response_mode": "streaming"} | fields
    url = f"{dify.base_url}/v1/chat-messages"
    with requests.post(url, json=body, headers=HEADERS, stream=True, timeout=20.0) as reply:
        # Kept for the block: an iterator that is dropped closes the connection.
        lines = reply.iter_lines(chunk_size=1)
        run = dify.runs.find(next(json.loads(line[6:])["task_id"] for line in lines if line.startswith(b"data: ")))
        assert run is not None
        yield run


def asked(dify: MockDify, query: str, **fields: Any) -> Run:
    """Ask, leave at the first event, and return the run when its answer is saved."""
    with asking(dify, query, **fields) as run:
        pass
    wait_until(lambda: run.is_saved)
    return run


def test_the_history_is_the_latest_rows_oldest_first(dify: MockDify) -> None:
    """As many as asked for, with what each turn cost, and whether there are more."""
    dify.delay = 0.0
    first = asked(dify, "一")
    for query in ("二", "三"):
        asked(dify, query, conversation_id=first.conversation_id)

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
        ({"conversation_id": STRANGER, "user": "u1"}, 404, "not_found"),
        ({"conversation_id": "{own}", "user": "u2"}, 404, "not_found"),
        ({"conversation_id": "{own}"}, 400, "invalid_param"),
        ({"user": "u1"}, 400, "invalid_param"),
        ({"conversation_id": "{own}", "user": "u1", "limit": 0}, 400, "invalid_param"),
    ],
)
def test_a_history_is_its_users_own(dify: MockDify, query: dict[str, Any], status: int, code: str) -> None:
    """Others' and unknown conversations do not exist."""
    run = asked(dify, "一")
    named = {name: run.conversation_id if value == "{own}" else value for name, value in query.items()}

    reply = get(dify, "messages", **named)

    assert (reply.status_code, reply.json()["code"]) == (status, code)


def test_conversations_are_a_users_own_the_latest_first(dify: MockDify) -> None:
    """Each with its first question for a name, as many as asked for, and whether there are more."""
    dify.delay = 0.0
    first, _, other = asked(dify, "一"), asked(dify, "二"), asked(dify, "三", user="u2")

    page = get(dify, "conversations", user="u1", limit=1).json()

    assert (page["limit"], page["has_more"], page["data"][0]["name"]) == (1, True, "二")
    rows = get(dify, "conversations", user="u1").json()["data"]
    assert [row["name"] for row in rows] == ["二", "一"]
    assert rows[1]["id"] == first.conversation_id != other.conversation_id
    assert get(dify, "conversations").status_code == get(dify, "conversations", user="u1", limit=101).status_code == 400


def test_an_answer_is_saved_at_the_end_only(dify: MockDify) -> None:
    """Until then there is a row without text or price, and a run without outputs."""
    dify.delay = 0.1
    with asking(dify, "一") as run:
        row = history(dify, run)["data"][0]
        working = result(dify, run)

    assert (row["id"], row["status"], row["answer"], row["answer_tokens"]) == (run.message_id, "normal", "", 0)
    assert (working["status"], working["outputs"], working["finished_at"]) == ("running", None, None)


@pytest.mark.parametrize(("script", "status"), [("chatflow-failed", "error"), ("chatflow-paused", "paused")])
def test_a_row_tells_how_its_run_went(dify: MockDify, script: str, status: str) -> None:
    """A failed or waiting run is one in the history too."""
    with asking(dify, f"[[{script}]]") as run:
        wait_until(lambda: run.message_status != "normal")

        assert history(dify, run)["data"][0]["status"] == status


def test_moderation_is_in_the_history_and_not_in_the_outputs(dify: MockDify) -> None:
    """The workflow does not know of it."""
    run = asked(dify, "[[chatflow-moderated]] 年假")
    wait_until(lambda: run.status == "succeeded")

    assert history(dify, run)["data"][0]["answer"] == MODERATED
    assert result(dify, run)["outputs"]["answer"] == dify.expected_answer("年假")


def test_outputs_come_as_an_object_a_string_or_not_at_all(dify: MockDify) -> None:
    """As the mock is told."""
    run = asked(dify, "一")
    wait_until(lambda: run.status == "succeeded")

    whole = {"answer": dify.expected_answer("一")}
    assert result(dify, run)["outputs"] == whole
    dify.outputs = "string"
    assert json.loads(result(dify, run)["outputs"]) == whole
    dify.outputs = "none"
    assert result(dify, run)["outputs"] is None


def test_a_run_that_ended_is_one_event(dify: MockDify) -> None:
    """`workflow_finished`, with its outputs; no ping, nothing of what was said."""
    run = asked(dify, "一")
    wait_until(lambda: run.status == "succeeded")

    reply = get(dify, f"workflow/{run.run_id}/events", user="u1")

    assert b"ping" not in reply.content
    assert [event["event"] for event in _events(reply.content)] == ["workflow_finished"]
    assert _events(reply.content)[0]["data"]["outputs"] == {"answer": dify.expected_answer("一")}


def test_a_running_run_is_heard_from_now_on(dify: MockDify) -> None:
    """What was said before does not come again; it ends when the run does, with pings in between."""
    dify.delay = 0.05
    with asking(dify, "年假") as run:
        with run.live.listening() as heard:
            wait_until(lambda: b'"event":"message"' in (heard.get(timeout=10.0) or b""))
        wire = get(dify, f"workflow/{run.run_id}/events", user="u1").content

    said = "".join(event.get("answer", "") for event in _events(wire))
    assert wire.startswith(b"event: ping\n\n")
    assert dify.expected_answer("年假").endswith(said)
    assert 0 < len(said) < len(dify.expected_answer("年假"))
    assert [event["event"] for event in _events(wire)][-2:] == ["message_end", "workflow_finished"]
    wait_until(lambda: dify.open_listeners == 0)


def test_a_listener_that_leaves_is_counted_no_longer(dify: MockDify) -> None:
    """The run does not mind."""
    dify.delay = 0.1
    with asking(dify, "一") as run:
        url = f"{dify.base_url}/v1/workflow/{run.run_id}/events"
        with requests.get(url, params={"user": "u1"}, headers=HEADERS, stream=True, timeout=20.0):
            wait_until(lambda: dify.open_listeners == 1)
        wait_until(lambda: dify.open_listeners == 0)

        assert run.status == "running"


def test_runs_that_cannot_be_shown(dify: MockDify) -> None:
    """Unknown ones, events for another user, events before 1.13, and any run of an app that is no chatflow."""
    run = asked(dify, "一")

    assert get(dify, f"workflows/run/{STRANGER}").json()["code"] == "not_found"
    assert get(dify, f"workflow/{STRANGER}/events", user="u1").json()["code"] == "not_found"
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
    with asking(dify, "年假") as run:
        wait_until(lambda: dify.open_streams == 1)
    return run


def _hang_up(dify: MockDify) -> Run:
    """Ask from a process that is killed in mid-answer."""
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
    """At the same pace, to its end; then the answer is saved, and the connection is long counted as gone."""
    dify.delay = 0.05
    run = leave(dify)
    wait_until(lambda: dify.open_streams == 0)
    assert history(dify, run)["data"][0]["answer"] == ""

    wait_until(lambda: run.status == "succeeded")

    assert history(dify, run)["data"][0]["answer"] == dify.expected_answer("年假")


@pytest.mark.parametrize(("fate", "status"), [("dies", "running"), ("aborts", "stopped")])
def test_a_run_is_lost_with_its_client(dify: MockDify, fate: Any, status: str) -> None:
    """Up to 1.12 it says `running` for ever, 1.16.0 stops it; nothing is saved."""
    dify.after_disconnect, dify.delay = fate, 0.05
    run = _leave(dify)
    wait_until(lambda: dify.open_streams == 0 and run.status == status)

    wait_until(lambda: all(thread.name != "mock-dify-run" for thread in threading.enumerate()))

    assert result(dify, run)["status"] == status
    assert history(dify, run)["data"][0]["answer"] == ""


def test_a_lost_run_has_nothing_but_pings_to_say(dify: MockDify) -> None:
    """Whoever listens hears that the address lives."""
    dify.after_disconnect, dify.limit = "dies", 0.5
    run = _leave(dify)
    wait_until(lambda: dify.open_streams == 0)

    assert events(dify, run) == []


def test_an_aborted_run_says_so(dify: MockDify) -> None:
    """To those who listened, and to those who ask later."""
    dify.after_disconnect, dify.delay = "aborts", 0.05
    heard: list[dict[str, Any]] = []
    with asking(dify, "年假") as run:
        listener = threading.Thread(target=lambda: heard.extend(events(dify, run)))
        listener.start()
        wait_until(lambda: dify.open_listeners == 1)
    listener.join(20.0)

    assert heard[-1]["data"]["status"] == "stopped"
    assert [event["data"]["status"] for event in events(dify, run)] == ["stopped"]


@pytest.mark.parametrize("fate", get_args(AfterDisconnect))
def test_a_run_that_has_ended_does_not_mind(dify: MockDify, fate: Any) -> None:
    """A client that leaves after the end changes nothing."""
    dify.after_disconnect, dify.delay = fate, 0.0
    with asking(dify, "[[no-message-end-open]] 年假") as run:
        wait_until(lambda: run.status == "succeeded")
    wait_until(lambda: dify.open_streams == 0)

    assert result(dify, run)["status"] == "succeeded"


def test_a_run_that_nobody_listens_to_can_be_stopped(dify: MockDify) -> None:
    """The stop of its user reaches it; what it had said is lost."""
    dify.delay = 0.1
    run = _leave(dify)
    wait_until(lambda: dify.open_streams == 0)

    requests.post(
        f"{dify.base_url}/v1/chat-messages/{run.task_id}/stop", json={"user": "u1"}, headers=HEADERS, timeout=20.0
    )
    wait_until(lambda: run.status == "stopped")

    assert history(dify, run)["data"][0]["answer"] == ""


def test_look_ups_are_counted_and_can_fail(dify: MockDify) -> None:
    """By kind, with what they asked; while there is an outage all of them get it."""
    run = asked(dify, "一")
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
    with asking(dify, "一") as run:
        wait_until(lambda: run.status == "succeeded")

    assert history(dify, run)["data"][0]["answer"] == ""


def test_only_so_many_runs_are_remembered() -> None:
    """The oldest are forgotten first, and a conversation with its last run."""
    runs = Runs(max_runs=3)
    made = [Run("答", user="u1", conversation_id=f"c{number // 2}") for number in range(5)]
    for run in made:
        runs.add(run)

    assert len(runs) == 3
    assert [runs.find(run.task_id) is run for run in made] == [False, False, True, True, True]
    assert [runs.find(run.run_id) is run for run in made] == [False, False, True, True, True]
    assert [len(runs.turns(name)) for name in ("c0", "c1", "c2")] == [0, 2, 1]


def test_runs_are_remembered_for_a_while_only() -> None:
    """An old one is forgotten when a new one comes."""
    runs = Runs(max_age=0.0)
    first, second = (Run("答", user="u1", conversation_id="c") for _ in range(2))
    runs.add(first)

    runs.add(second)

    assert runs.turns("c") == [second]


def test_by_itself_it_takes_the_same_switches() -> None:
    """`python -m demo.mock_dify` can be an old Dify too."""
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
            heard = requests.get(f"{address}/workflow/{run}/events?user=u1", headers=HEADERS, timeout=20.0)
        finally:
            process.terminate()

    assert found.json()["status"] == "running"
    assert heard.status_code == 404
