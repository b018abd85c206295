"""The log files of real replicas: the ids of an answer's lines, failed answers, logged content, refused callbacks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import CallbackFailed
from tests.scenarios.stage.people import ask, at_once
from tests.support.replicas import dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full]

IDS = ("stream_id", "bot", "replica", "person")
KEY = "not-a-real-key"


def lines_of(folder: Path, name: str = "info.log") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]


def settled(folder: Path, count: int) -> Callable[[], bool]:
    """Return a function that tells whether `count` streams are logged: the line comes shortly after the last poll."""
    return lambda: len([line for line in lines_of(folder) if line["message"] == "stream"]) >= count


def test_every_line_of_an_answer_has_its_ids(redis_url: str, tmp_path: Path) -> None:
    """Each line has stream, bot, replica and person; person is the same on both replicas, and no user id is logged."""
    logs = tmp_path / "logs"
    with MockDify() as dify:
        own = {"LOG_DIR": str(logs), "LOG_LEVEL": "DEBUG", "API_KEYS": KEY}
        with replicas(2, settings_for(redis_url, **dify_settings(dify.base_url), **own), tmp_path) as pair:
            urls = [replica.url for replica in pair]
            at_once(partial(ask, [url], "zhangsan-the-first", "年假") for url in urls)
            ask(urls, "lisi-the-second", "调休")
            ask(urls, "lisi-the-second", "[[502-once]]")
            ask(urls, "lisi-the-second", "[[error]]")
            requests.post(f"{urls[0]}/api/chat", json={"query": "年假"}, headers={"X-API-Key": KEY}, timeout=30)
            wait_until(settled(logs, 6))
    lines = lines_of(logs)

    # Lines logged while an answer is produced, and lines with their own stream id.
    loggers = (
        "services.streams.producer",
        "services.http.retries",
        "services.providers",
        "services.answers.answer",
        "services.auth",
    )
    about = [line for line in lines if "stream_id" in line or line["logger"].startswith(loggers)]
    assert {"callback", "stream", "http question", "answer error"} <= {line["message"] for line in about}
    assert any(line["message"].startswith("[Dify RAG] Tokens") for line in about)
    assert any("asking again" in line["message"] for line in about)
    assert [line for line in about if not all(line.get(name) for name in IDS)] == []
    assert "the-first" not in str(lines)
    assert "the-second" not in str(lines)

    ends = [line for line in lines if line["message"] == "stream" and line["channel"] == "wecom"]
    asked = {line["stream_id"]: line["person"] for line in lines if line["message"] == "callback"}
    assert len({line["person"] for line in ends}) == 2
    assert len({line["replica"] for line in ends}) == 2
    assert {line["stream_id"]: line["person"] for line in ends} == asked


def test_an_answer_that_fails_is_one_line_of_the_error_log(redis_url: str, tmp_path: Path) -> None:
    """The error log has the stream's line with its cause, and no line of successful streams."""
    logs = tmp_path / "logs"
    with MockDify() as dify:
        env = settings_for(redis_url, **dify_settings(dify.base_url), LOG_DIR=str(logs))
        with replicas(1, env, tmp_path) as (replica,):
            ask([replica.url], "lisi", "年假")
            failed = [ask([replica.url], "lisi", question) for question in ("[[error]]", "[[empty]]")]
            wait_until(settled(logs, 3))

    lines = lines_of(logs, "error.log")
    assert [(line["message"], line["stream_id"]) for line in lines] == [("stream", one.stream_id) for one in failed]
    assert [line["outcome"] for line in lines] == ["provider_error", "provider_empty"]
    assert all(line["cause"] and all(line[name] for name in IDS) for line in lines)


@pytest.mark.parametrize("log_format", ["json", "plain"])
def test_content_is_logged_with_log_content(redis_url: str, tmp_path: Path, log_format: str) -> None:
    """With LOG_CONTENT the user, the question and the answer are logged at DEBUG; a plain line has its pid too."""
    logs = tmp_path / "logs"
    own = {"LOG_DIR": str(logs), "LOG_LEVEL": "DEBUG", "LOG_CONTENT": "true", "LOG_FORMAT": log_format}
    with replicas(1, settings_for(redis_url, **own), tmp_path) as (replica,):
        (worker,) = replica.workers
        bubble = ask([replica.url], "zhangsan-the-first", "年假有几天")
        wait_until(lambda: "outcome" in (logs / "info.log").read_text("utf-8").split(" - stream ")[-1])
        printed = replica.log

    (line,) = [line for line in printed.splitlines() if "年假有几天" in line and bubble.stream_id in line]
    assert "zhangsan-the-first" in line
    assert f"pid={worker}" in line or json.loads(line)["pid"] == worker


def test_a_refused_callback_is_logged_with_peer_and_skew(redis_url: str, tmp_path: Path) -> None:
    """The line has the bot, the client's address (behind a proxy, too), and the difference of the clocks in seconds."""
    env = settings_for(redis_url, TRUSTED_PROXIES="1")
    with replicas(1, env, tmp_path) as (replica,):
        with wecom_user([replica.url]) as user:
            callback = user.seals({"msgtype": "text", "text": {"content": "年假"}})
            late = {**callback.params, "timestamp": str(int(time.time()) - 1200)}
            forwarded = {"X-Forwarded-For": "192.0.2.7"}
            address = f"{replica.url}/wechat/callback"
            assert (
                requests.post(address, params=late, data=callback.body, headers=forwarded, timeout=10).status_code
                == 400
            )
            assert requests.get(address, params=late, headers=forwarded, timeout=10).status_code == 400
            with pytest.raises(CallbackFailed):
                user.wire.post(type(callback)(late, callback.body))
        lines = [json.loads(line) for line in replica.log.splitlines() if "callback refused" in line]

    assert [(line["bot"], line["peer"]) for line in lines] == [
        ("default", "192.0.2.7"),
        ("default", "192.0.2.7"),
        ("default", "127.0.0.1"),
    ]
    assert all(1195 <= line["skew_seconds"] <= 1300 for line in lines)
