"""The log files of real replicas: the ids of an answer's lines, failed answers, logged content, refused callbacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from demo.mocks.dify.server import MockDify
from tests.scenarios.stage.people import ask, at_once
from tests.support.replicas import dify_settings, replicas, settings_for
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
