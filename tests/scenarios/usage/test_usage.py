"""Rows and sums agree with the provider's own count, over a replica that is killed while SQL is away."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import requests

from config.settings import load_settings
from demo.mocks.dify.server import MockDify
from services.usage.tables import DAILY
from tests.support.replicas import dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import MariaServer, RedisServer, wait_until
from tests.support.usage import rows, total
from tools import log, usage

pytestmark = [pytest.mark.scenario, pytest.mark.full]

TIMEOUT = 90.0
PEOPLE = 8
KEY = "not-a-real-key-of-programs"


def test_counts_agree_over_a_kill_and_an_outage_of_sql(
    redis_server: RedisServer, redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight people and a program ask, a replica is killed in the middle of its answers, and SQL does not answer.

    No answer waits for SQL, and once it is back each question has one row and is counted once.
    """
    with MariaServer() as sql, MockDify(delay=0.4, after_disconnect="runs on") as dify:
        url = sql.fresh_database("questions")
        mysql = {"MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(sql.port), "MYSQL_DATABASE": "questions"}
        own = {"MYSQL_USER": "root", "API_KEYS": KEY, "STREAM_LEASE": "3", "QUESTION_LOG": "full"}
        env = settings_for(redis_url, **dify_settings(dify.base_url), **mysql, **own)
        with replicas(2, env, tmp_path) as (killed, other), redis_server.client() as client:
            asked = [wecom_user([one.url], f"user{n}") for n in range(PEOPLE) for one in [(killed, other)[n % 2]]]
            sql.pause()
            bubbles = [person.says(f"报销流程 {person.userid} [[chatflow]]").stream_id for person in asked]
            wait_until(lambda: len(dify.requests) == PEOPLE, TIMEOUT)
            killed.kill()
            headers, body = {"Authorization": f"Bearer {KEY}"}, {"query": "年假", "user": "user0"}
            chat = requests.post(f"{other.url}/api/chat", json=body, headers=headers, timeout=TIMEOUT)
            ended = [f"dify_stream:{stream_id}" for stream_id in bubbles]
            wait_until(lambda: all(client.hget(key, "status") != "processing" for key in ended), TIMEOUT)
            answered = Counter(client.hget(key, "status") for key in ended)
            sql.resume()
            wait_until(lambda: len(rows(url)) == PEOPLE + 1, TIMEOUT)

        found = {row["stream_id"]: row for row in rows(url)}
        assert chat.ok
        assert {found[stream_id]["person"] for stream_id in bubbles} == {person.userid for person in asked}
        assert Counter(row["outcome"] for row in found.values()) == answered + Counter({"completed": 1})
        assert sum(row["takeovers"] for row in found.values()) >= 1
        assert total(url, "questions") == (PEOPLE + 1,)
        assert total(url, "tokens")[0] == sum(row["tokens"] for row in found.values())
        settings = load_settings(env, None)
        assert log.main(["list", "--json", "--person", "user0"], load=lambda: settings) == 0
        (row,) = map(json.loads, capsys.readouterr().out.splitlines())
        assert (row["question"], row["channel"]) == ("报销流程 user0 [[chatflow]]", "wecom")
        assert usage.main(["--by", "channel", "--json"], load=lambda: settings) == 0
        sums = {row["channel"]: row["questions"] for row in map(json.loads, capsys.readouterr().out.splitlines())}
        assert sums == {"wecom": PEOPLE, "http": 1}
        assert {row["channel"] for row in rows(url, DAILY)} == {"wecom", "http"}
