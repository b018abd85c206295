"""Quotas over HTTP: refusals with their headers, named keys, the command /quota and the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from config.settings import Settings, load_settings
from config.texts import ZH
from demo.mocks.dify.server import MockDify
from services.identity.callers import Callers
from services.models import Question
from tests.support.openai_program import OpenAIProgram, user
from tests.support.replicas import AppServer, dify_settings, settings_for
from tests.support.rules import noon_zone, reread
from tests.support.servers.processes import wait_until
from tools import doctor, quota

KEY, REPORTS = "obviously-fake-api-key", "another-fake-api-key=="
RULES = """
- {questions: 3/day, tokens: 100000/month}
- {department: 研发部, questions: 5/hour}
- {chat: any, questions: 9/minute}
- {key: reports, questions: 1/day}
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "quotas.yaml"
    path.write_text(RULES, "utf-8")
    return path


@pytest.fixture
def values(redis_url: str, dify: MockDify, rules: Path) -> dict[str, str]:
    keys = f"{KEY},reports={REPORTS}"
    own = {"API_KEYS": keys, "QUOTAS_FILE": str(rules), "RATE_LIMIT_USER": "off", "DRAIN_SECONDS": "0"}
    own["REPORT_TZ"] = noon_zone()
    return {"redis_url": redis_url, **own, **dify_settings(dify.base_url)}


@pytest.fixture
def app_server(values: dict[str, str]) -> Iterator[AppServer]:
    with AppServer(**values) as app_server:
        yield app_server


def asks(app_server: AppServer, key: str, msgid: str, **members: object) -> requests.Response:
    body = {"query": "年假？", "id": msgid, **members}
    return requests.post(f"{app_server.url}/api/chat", json=body, headers={"X-API-Key": key}, timeout=30.0)


def test_rest_says_which_limit_is_reached_and_when_it_is_new(app_server: AppServer, dify: MockDify) -> None:
    """Keys without a name, and without a rule, are not limited."""
    first, second = asks(app_server, REPORTS, "m1"), asks(app_server, REPORTS, "m2", user="lisi")

    assert (first.status_code, second.status_code) == (200, 429)
    reply, seconds = second.json(), int(second.headers["Retry-After"])
    assert (reply["code"], reply["data"]["reason"], "每天 1 次提问" in reply["message"]) == (20000, "quota_used", True)
    assert 0 < seconds <= 86_400
    assert abs(reply["data"]["retry_after"] - seconds) <= 5
    limits = [second.headers[f"X-RateLimit-{name}"] for name in ("Limit", "Remaining", "Reset")]
    assert limits[:2] == ["1", "0"]
    assert abs(int(limits[2]) - time.time() - seconds) <= 60
    assert second.headers["RateLimit-Policy"] == '"questions-day";q=1;w=86400'
    assert second.headers["RateLimit"] == f'"questions-day";r=0;t={seconds}'
    assert [asks(app_server, KEY, f"k{number}").status_code for number in range(3)] == [200] * 3
    assert len(dify.requests) == 4


def test_an_openai_client_is_told_in_its_own_words(app_server: AppServer) -> None:
    """Also one that asked for a stream."""
    program = OpenAIProgram(app_server.url, REPORTS)
    assert program.asks(user("年假？")).status_code == 200

    for streams in (False, True):
        refused = program.asks(user("病假？"), stream=streams)
        assert (refused.status_code, refused.headers["X-RateLimit-Limit"]) == (429, "1")
        error = refused.json()["error"]
        assert (error["code"], error["type"]) == ("insufficient_quota", "rate_limit_error")


def test_a_person_sees_what_is_left(app_server: AppServer, dify: MockDify) -> None:
    """The department of a person is not known before the first question."""
    with app_server.user("lisi") as lisi:
        before = lisi.says("/quota").content
        answers = [lisi.sees_finish(lisi.says(f"年假{number}"), every=0.1) for number in range(4)]
        after = lisi.says("额度").content

    assert before == f"- {ZH['quota_later']}"
    assert [text.startswith("您的额度已用完（每天 3 次提问），") for text in answers] == [False, False, False, True]
    assert after.startswith("- 您的额度（每天 3 次提问）还剩 0，")
    assert "（每月 100000 个 token）还剩 " in after
    assert len(dify.requests) == 3


def test_an_item_of_a_batch_fails_with_the_limit(values: dict[str, str], tmp_path: Path) -> None:
    """It is not asked again by itself: a day may be long."""
    with AppServer(**values, DATABASE_PATH=str(tmp_path / "laibao.db")) as app_server:
        address, headers = f"{app_server.url}/api/batch/tasks", {"X-API-Key": REPORTS}
        body = {"name": "FAQ", "texts": ["年假？", "病假？"]}
        submitted = requests.post(address, json=body, headers=headers, timeout=30.0).json()["data"]
        task = f"{address}/{submitted['task_id']}"

        def results() -> list[dict[str, Any]]:
            found = requests.get(f"{task}/results", headers=headers, timeout=30.0).json()["data"]["results"]
            return found if len(found) == 2 and {one["status"] for one in found} <= {"completed", "failed"} else []

        found = wait_until(results, 60.0)

    assert sorted(one["error"]["code"] if one["error"] else "" for one in found) == ["", "quota_used"]


def test_a_chat_client_reads_the_sentence(app_server: AppServer) -> None:
    """As every channel that follows the stream of its question."""
    asks(app_server, REPORTS, "m1")
    principal = Callers("key", api_keys=[REPORTS]).check(REPORTS).principal
    asked = app_server.container.gateway.ask(Question("病假？", "chat", "default", principal, msgid="m2"))
    following = app_server.container.gateway.follow(asked.stream_id, bot="default", principal=principal)

    update = wait_until(lambda: following.next(1.0))

    assert update
    assert (update.ended, update.sentence.startswith("此密钥的额度已用完（每天 1 次提问）")) == (True, True)


def test_a_broken_file_is_reported(app_server: AppServer, rules: Path, load: Callable[[], Settings]) -> None:
    """By /health while the last good rules stay in force, and by the doctor."""
    rules.write_text("- {questions: 5}", "utf-8")
    reread(app_server.container.rules)

    health = requests.get(f"{app_server.url}/health", timeout=30.0).json()
    assert "QUOTAS_FILE: expected in rule 1 questions" in health["dependencies"]["rules"]
    *_, finding = doctor.diagnose(doctor._options([]), load)
    assert (finding.outcome, "QUOTAS_FILE" in finding.text) == ("failed", True)


def test_nobody_without_a_file_has_quotas(redis_url: str) -> None:
    with AppServer(redis_url) as app_server, app_server.user() as user:
        assert user.says("额度").content == "您的提问没有额度限制。"


@pytest.fixture
def load(values: dict[str, str]) -> Callable[[], Settings]:
    given = {name: value for name, value in values.items() if name != "redis_url"}
    return lambda: load_settings(settings_for(values["redis_url"], **given), None)


def test_the_tool_shows_what_is_used(
    app_server: AppServer, load: Callable[[], Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a key, and of a person whose department an option names."""
    asks(app_server, REPORTS, "m1")

    assert quota.main(["show", "--key", "reports", "--json"], load=load) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {name: row[name] for name in ("kind", "counts", "limit", "period", "used", "left")} == {
        **{"kind": "key", "counts": "questions", "limit": 1, "period": "day", "used": 1, "left": 0},
    }
    assert "T00:00:00" in row["new"]
    wait_until(lambda: app_server.container.manager.running == 0)
    assert quota.main(["show", "lisi", "--department", "研发部", "--chat", "wr1"], load=load) == 0
    table = capsys.readouterr().out
    assert ["person", "questions", "5", "hour", "0", "5", "0"] in [line.split()[:7] for line in table.splitlines()]


def test_the_tool_checks_a_file(rules: Path, load: Callable[[], Settings], capsys: pytest.CaptureFixture[str]) -> None:
    assert quota.main(["check", str(rules)], load=load) == 0
    assert capsys.readouterr().out == f"{rules}: 4 rules\n"

    rules.write_text("- {questions: 5}", "utf-8")
    assert quota.main(["check", str(rules)], load=load) == 2
    assert "in rule 1 questions" in capsys.readouterr().err
