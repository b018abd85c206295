"""Streams from Dify that break although Dify finishes the answer: the whole product over HTTP, with the mock Dify."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from config.texts import ZH
from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.server import SCRIPTS, MockDify
from demo.wecom.simulator import WeComUser
from services.streams.store import stream_keys
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import wait_until
from tests.support.sockets.event_reader import events
from utils.stream_utils import render_frame

KEY = "obviously-fake-api-key"
#: One script per way to break and per position; `make test-all` runs every script.
QUICK = ("chat-silence-middle", "chatflow-end-whole", "chatflow-reset-start")
BROKEN = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.full)
    for name in sorted(name for name, script in SCRIPTS.items() if script.breaks)
]


@pytest.fixture
def app_server(redis_url: str, dify: MockDify, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[AppServer]:
    """A replica that gives up on a silent Dify after a second where a script is silent."""
    dify.delay = 0.005
    settings = {
        **dify_settings(dify.base_url),
        "DIFY_TIMEOUT": "1" if "silent" in request.node.name or "silence" in request.node.name else "60",
        "DRAIN_SECONDS": "0",
        "DATABASE_PATH": str(tmp_path / "laibao.db"),
        "BATCH_STORAGE_PATH": str(tmp_path / "batches"),
        "WEBSOCKET_AUTH": "key",
        "API_KEYS": KEY,
    }
    with AppServer(redis_url, **settings) as app_server:
        yield app_server


@pytest.fixture
def user(app_server: AppServer) -> Iterator[WeComUser]:
    with app_server.user() as person:
        yield person


def recovered(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the fields of the log lines about the recovery of a broken stream."""
    messages = ("answer recovered", "answer not recovered")
    return [vars(record) for record in caplog.records if record.getMessage() in messages]


@pytest.mark.parametrize("script", BROKEN)
def test_an_answer_that_dify_finishes_is_whole(
    user: WeComUser, dify: MockDify, script: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After a reset, an early end or silence, at any position in the text, the same bubble gets the whole answer."""
    caplog.set_level(logging.INFO, "services")
    question = f"[[{script}]] 年假怎么申请？"
    bubble = user.says(question)

    end = user.sees_finish(bubble, every=0.05)

    assert end == render_frame(dify.expected_answer(question), growing=False)
    assert len(dify.asked(question)) == 1
    assert dify.stops == []
    outcome = "unchanged" if script.endswith("whole") else "extended"
    assert [(line["outcome"], line["reason"]) for line in recovered(caplog)] == [(outcome, "stream_broken")]


def test_http_chat_and_batches_get_the_recovered_answer(app_server: AppServer, dify: MockDify) -> None:
    """All channels share the code that recovers an answer."""
    headers = {"Authorization": f"Bearer {KEY}"}
    question = "[[chatflow-reset-middle]] 年假"

    body = {"query": question}
    answered = requests.post(f"{app_server.url}/api/chat", json=body, headers=headers, timeout=30).json()["data"]
    items = {"name": "FAQ", "texts": [f"{question} {number}" for number in range(2)]}
    task = requests.post(f"{app_server.url}/api/batch/tasks", json=items, headers=headers, timeout=30).json()["data"]
    path = f"{app_server.url}/api/batch/tasks/{task['task_id']}"

    def finished() -> bool:
        found = requests.get(path, headers=headers, timeout=30).json()["data"]
        return bool(found["status"] == "completed")

    wait_until(finished, timeout=60)
    results = requests.get(f"{path}/results", headers=headers, timeout=30).json()["data"]["results"]

    assert answered["content"] == dify.expected_answer(question)
    assert [result["content"] for result in results] == [dify.expected_answer(result["text"]) for result in results]
    assert len(dify.requests) == 3


def test_an_answer_that_cannot_be_recovered_ends_with_the_sentence(
    user: WeComUser, dify: MockDify, caplog: pytest.LogCaptureFixture
) -> None:
    """The text so far stays, the question is not sent again, and the abandoned run is stopped."""
    dify.outage = ERROR_REPLIES["403-forbidden"]
    question = "[[chatflow-end-middle]] 年假"
    bubble = user.says(question)

    end = user.sees_finish(bubble, every=0.05)

    assert end.endswith(ZH["provider_truncated"])
    text = end.removesuffix(ZH["provider_truncated"]).rstrip()
    assert text
    assert render_frame(dify.expected_answer(question), growing=False).startswith(text[:20])
    assert len(dify.asked(question)) == 1
    wait_until(lambda: len(dify.stops) == 1)
    assert [(line["reason"]) for line in recovered(caplog)] == ["stream_broken"]


def test_a_silent_stream_without_an_answer_is_a_timeout(user: WeComUser, dify: MockDify) -> None:
    """The sentence is that of the first failure, the timeout."""
    dify.outage = ERROR_REPLIES["403-forbidden"]
    question = "[[chat-silence-middle]] 年假"

    assert user.sees_finish(user.says(question), every=0.05).endswith(ZH["provider_timeout"])
    assert len(dify.asked(question)) == 1


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("error-after-text", "provider_error"),
        ("chatflow-failed", "provider_error"),
        ("chatflow-failed-quietly", "provider_error"),
        ("chatflow-paused", "provider_paused"),
    ],
)
def test_errors_that_dify_reports_are_not_looked_up(user: WeComUser, dify: MockDify, script: str, code: str) -> None:
    """A run that Dify reports as failed or paused is not looked up."""
    assert user.sees_finish(user.says(f"[[{script}]]"), every=0.05).endswith(ZH[code])
    assert dify.looked_up().total() == 0


@pytest.mark.parametrize(("status", "code"), [("failed", "provider_error"), ("paused", "provider_paused")])
def test_a_run_that_fails_after_the_break_has_its_own_sentence(
    user: WeComUser, dify: MockDify, status: str, code: str
) -> None:
    """The stream breaks, and the look-up returns the run's final status, which selects the sentence."""
    dify.after_disconnect = "dies"
    bubble = user.says("[[chatflow-reset-middle]] 年假")
    wait_until(lambda: dify.looked_up()["events"] > 0)
    run = dify.runs.turns(next(iter(dify.conversations)))[0]

    run.live.say(run.workflow_finished(status))

    assert user.sees_finish(bubble, every=0.05).endswith(ZH[code])
    assert len(dify.requests) == 1


def test_a_cancel_during_the_look_up_stops_the_run(app_server: AppServer, dify: MockDify) -> None:
    """After a cancel the look-ups end, and the run is stopped at Dify."""
    dify.after_disconnect = "dies"
    headers = {"Authorization": f"Bearer {KEY}"}
    body = {"query": "[[chat-reset-middle]] 年假", "stream": True}
    with requests.post(f"{app_server.url}/api/chat", json=body, headers=headers, stream=True, timeout=30) as began:
        stream_id = next(events(line.decode() for line in began.iter_lines())).data["stream_id"]
        wait_until(lambda: dify.looked_up()["messages"] > 0)

        requests.delete(f"{app_server.url}/api/chat/{stream_id}", headers=headers, timeout=30)

        wait_until(lambda: len(dify.stops) == 1)
    wait_until(lambda: app_server.container.manager.running == 0)
    assert len(dify.requests) == 1


def test_the_streams_total_time_bounds_the_look_up(redis_url: str, dify: MockDify) -> None:
    """STREAM_MAX_SECONDS ends the look-ups, however long Dify might still be asked."""
    bounds = {"STREAM_MAX_SECONDS": "2", "STREAM_LEASE": "2"}
    dify.after_disconnect = "dies"
    with AppServer(redis_url, **dify_settings(dify.base_url), **bounds) as app_server, app_server.user() as user:
        bubble = user.says("[[chat-reset-middle]] 年假")
        assert user.sees_finish(bubble, timeout=20.0, every=0.05).endswith(ZH["answer_timeout"])
    wait_until(lambda: len(dify.stops) == 1)


def test_a_recovered_answer_continues_its_conversation(user: WeComUser, dify: MockDify, stored: redis.Redis) -> None:
    """The next question does; the usage of the recovered answer comes from Dify's history."""
    bubble = user.says("[[chat-reset-middle]] 一")
    user.sees_finish(bubble, every=0.05)
    usage = json.loads(str(stored.hget(stream_keys(bubble.stream_id).hash, "usage")))
    user.sees_finish(user.says("[[chatflow]] 二"), every=0.05)

    first, second = dify.requests
    assert "conversation_id" not in first.body
    assert second.body["conversation_id"] in dify.conversations
    assert usage["total_tokens"] == 431


def test_the_length_of_a_complete_text_is_stored(user: WeComUser, stored: redis.Redis) -> None:
    """`whole` has the length of the text and `asked_at` the time of the question, for a replica that takes over."""
    bubble = user.says("[[chatflow]] 年假")
    user.sees_finish(bubble, every=0.05)
    keys = stream_keys(bubble.stream_id)

    whole, asked_at = stored.hmget(keys.hash, "whole", "asked_at")

    assert whole == str(stored.strlen(keys.text))
    assert abs(float(str(asked_at)) - time.time()) < 60.0
