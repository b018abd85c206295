"""Limits hold over three replicas, of which one is killed, and nothing stays reserved."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
import requests

from config.settings import load_settings
from demo.mocks.dify.server import MockDify
from services.usage.tables import DAILY
from tests.support.replicas import dify_settings, replicas, settings_for, wecom_user
from tests.support.rules import noon_zone
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.usage import rows
from tools import quota

pytestmark = [pytest.mark.scenario, pytest.mark.full]

TIMEOUT = 120.0
KEY = "not-a-real-key-of-reports"
#: People who ask at once, each twice, and questions that there are for all of them.
PEOPLE, LIMIT = 18, 12
RULES = f"""
- {{questions: 2/day}}
- {{department: 研发部, questions: 100/day}}
- {{total: true, questions: {LIMIT}/day}}
- {{key: reports, questions: 3/day}}
"""


def held(client: redis.Redis) -> int:
    return sum(client.zcount(key, "(0", "+inf") for key in client.scan_iter("{dify_quota:*}:held"))


def test_limits_hold_and_nothing_stays_reserved(
    redis_server: RedisServer, redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """More is asked at once than there is, and one replica is killed in the middle of its answers.

    The log is off, which changes neither quotas nor usage: both agree with the streams.
    """
    rules, database = tmp_path / "quotas.yaml", tmp_path / "laibao.db"
    rules.write_text(RULES, "utf-8")
    with MockDify(delay=0.3, after_disconnect="runs on") as dify:
        own = {"API_KEYS": f"reports={KEY}", "STREAM_LEASE": "3", "QUESTION_LOG": "off", "RATE_LIMIT_USER": "off"}
        own |= {"QUOTAS_FILE": str(rules), "DATABASE_PATH": str(database), "REPORT_TZ": noon_zone()}
        env = settings_for(redis_url, **dify_settings(dify.base_url), **own)
        with replicas(3, env, tmp_path) as (killed, *others), redis_server.client() as client:
            places = (killed, *others)

            def asks(number: int) -> str:
                person = wecom_user([places[number % 3].url], f"user{number % PEOPLE}")
                return person.says(f"报销流程 {number} [[chatflow]]").stream_id

            with ThreadPoolExecutor(8) as pool:
                ids = list(pool.map(asks, range(2 * PEOPLE)))
            wait_until(lambda: dify.requests, TIMEOUT)
            killed.kill()
            keys = [f"dify_stream:{stream_id}" for stream_id in ids]
            wait_until(lambda: all(client.hget(key, "status") != "processing" for key in keys), TIMEOUT)
            wait_until(lambda: held(client) == 0, TIMEOUT)
            outcomes = Counter(client.hget(key, "error_code") for key in keys)
            assert outcomes["quota_used"] == 2 * PEOPLE - LIMIT
            asked = sum(client.hget(key, "asks") != "0" for key in keys)
            assert asked == LIMIT

            client.delete(*client.scan_iter("{dify_quota:*}:*"))
            body, headers = {"query": "年假"}, {"X-API-Key": KEY}
            replies = [
                requests.post(f"{others[0].url}/api/chat", json=body, headers=headers, timeout=TIMEOUT) for _ in "1234"
            ]
            assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
            wait_until(lambda: held(client) == 0, TIMEOUT)
            settings = load_settings(env, None)
            assert quota.main(["show", "--key", "reports", "--json"], load=lambda: settings) == 0
            shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            assert [(row["kind"], row["used"], row["running"]) for row in shown] == [("total", 3, 0), ("key", 3, 0)]
            url = f"sqlite:///{database}"
            wait_until(lambda: sum(row["questions"] for row in rows(url, DAILY)) == 2 * PEOPLE + 4, TIMEOUT)
            sums = Counter[str]()
            for row in rows(url, DAILY):
                sums[row["outcome"]] += row["questions"]
            assert sums["quota_used"] == 2 * PEOPLE - LIMIT + 1
            assert rows(url) == []
