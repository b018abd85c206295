"""Rows and sums agree with the provider's own count over kills and an outage of SQL, and come in time."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import requests

from config.settings import load_settings
from demo.mocks.dify.server import MockDify
from services.usage.ended_store import QUEUE
from services.usage.tables import DAILY
from tests.support.replicas import dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import MariaServer, RedisServer, wait_until
from tests.support.usage import rows, total
from tools import log, usage

pytestmark = [pytest.mark.scenario, pytest.mark.full]

TIMEOUT = 90.0
PEOPLE = 8
#: How much later than promised a row may come here.
MARGIN = 2.5
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


def test_rows_of_ended_answers_come_in_time(redis_url: str, tmp_path: Path) -> None:
    """At most 5 s after an answer's end. Asserted with a wide margin, because the machine may be busy."""
    with MockDify(delay=0.1) as dify:
        database = tmp_path / "log.db"
        env = settings_for(redis_url, **dify_settings(dify.base_url), DATABASE_PATH=str(database))
        with replicas(2, env, tmp_path) as both:
            seconds = []
            for n in range(6):
                person = wecom_user([both[n % 2].url], f"user{n}")
                bubble = person.says("报销流程")
                person.sees_finish(bubble, TIMEOUT, every=0.05)
                ended = time.monotonic()
                wait_until(lambda n=n: len(rows(f"sqlite:///{database}")) == n + 1, TIMEOUT)  # type: ignore[misc]
                seconds.append(time.monotonic() - ended)

    assert max(seconds) < 5 * MARGIN, seconds


def test_what_a_killed_replica_had_claimed_comes_in_time(
    redis_server: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    """At most 15 s after the kill (-9), which comes while the replica waits for SQL with rows that it has claimed."""
    with MariaServer() as sql, MockDify() as dify:
        url = sql.fresh_database("questions")
        mysql = {"MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(sql.port), "MYSQL_DATABASE": "questions"}
        env = settings_for(redis_url, **dify_settings(dify.base_url), **mysql, MYSQL_USER="root")
        with replicas(2, env, tmp_path) as (killed, other), redis_server.client() as client:
            os.killpg(other.process.pid, signal.SIGSTOP)
            sql.pause()
            people = [wecom_user([killed.url], f"user{n}") for n in range(PEOPLE)]
            bubbles = [person.says("报销流程") for person in people]
            for person, bubble in zip(people, bubbles, strict=True):
                person.sees_finish(bubble, TIMEOUT, every=0.05)

            def claimed() -> bool:
                now = client.time()[0]
                entries = client.zrange(QUEUE, 0, -1, withscores=True)
                return len(entries) == PEOPLE and all(due > now + 2 for _, due in entries)

            wait_until(claimed, TIMEOUT)
            killed.kill()
            begun = time.monotonic()
            sql.resume()
            os.killpg(other.process.pid, signal.SIGCONT)
            wait_until(lambda: len(rows(url)) == PEOPLE, TIMEOUT)
            seconds = time.monotonic() - begun

        assert {row["stream_id"] for row in rows(url)} == {bubble.stream_id for bubble in bubbles}
        assert total(url, "questions") == (PEOPLE,)
    assert seconds < 15 * MARGIN
