"""`use` of `ACCESS_FILE` over two replicas: a question stays with its app when its owner is killed and rules change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble
from tests.scenarios.stage.people import TIMEOUT
from tests.support.replicas import Replica, dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import wait_until
from tests.support.usage import rows
from utils.markdown.wecom import render_markdown

pytestmark = [pytest.mark.scenario, pytest.mark.full]

TO_HR = "- {allow: true}\n- {department: 人事部, allow: true, use: hr-app}\n"
TO_OWN = "- {allow: true}\n"


class Company(NamedTuple):
    """The apps, the rules, the database of the log, and two replicas."""

    own: MockDify
    hr: MockDify
    rules: Path
    log: str
    one: Replica
    other: Replica

    def asks(self, question: str) -> str:
        """Ask the replica that is left as wangwu of 人事部; return the conversation that the app was asked in."""
        with wecom_user([self.other.url], "wangwu") as user:
            user.sees_finish(user.says(question), TIMEOUT, 0.1)
        (request,) = self.own.asked(question) + self.hr.asked(question)
        return str(request.body.get("conversation_id", ""))


@pytest.fixture
def company(redis_url: str, tmp_path: Path) -> Iterator[Company]:
    rules, people, database = tmp_path / "access.yaml", tmp_path / "people.csv", tmp_path / "log.db"
    rules.write_text(TO_HR, "utf-8")
    people.write_text("userid,department\nwangwu,人事部\n", "utf-8")
    with MockDify() as own, MockDify(after_disconnect="runs on", limit=120.0) as hr:
        files = {"ACCESS_FILE": str(rules), "DEPARTMENTS_FILE": str(people), "DATABASE_PATH": str(database)}
        apps = json.dumps({"hr-app": {"DIFY_BASE_URL": hr.base_url}})
        settings = dify_settings(own.base_url, APPS=apps, STREAM_LEASE="4", BATCH_ENABLED="false", **files)
        with replicas(2, settings_for(redis_url, **settings), tmp_path) as (one, other):
            yield Company(own, hr, rules, f"sqlite:///{database}", one, other)


def test_a_takeover_stays_with_the_app_and_a_move_begins_a_conversation(company: Company) -> None:
    """The killed owner's answer is whole and asked once, at the app of the former rules. The log names each app."""
    question = "年假怎么申请？ [[chatflow]]"
    company.hr.holds_at = 10
    bubble = _begun(company, question)
    company.rules.write_text(TO_OWN, "utf-8")
    wait_until(lambda: "rules read" in company.one.log and "rules read" in company.other.log, TIMEOUT)
    assert not bubble.frames[-1].finish
    company.one.kill()
    company.hr.holds_at = None
    with wecom_user([company.other.url], "wangwu") as user:
        answer = user.sees_finish(bubble, TIMEOUT, 0.1)

    assert answer == render_markdown(company.hr.expected_answer(question))
    assert (len(company.hr.asked(question)), company.own.requests) == (1, [])
    (conversation,) = company.hr.conversations
    assert company.asks("病假呢？") == ""
    company.rules.write_text(TO_HR, "utf-8")
    wait_until(lambda: company.other.log.count("rules read") == 2, TIMEOUT)
    assert company.asks("事假呢？") == conversation
    wait_until(lambda: len(rows(company.log)) == 3, TIMEOUT)
    assert [row["provider"] for row in rows(company.log)] == ["dify:hr-app", "dify", "dify:hr-app"]


def _begun(company: Company, question: str) -> Bubble:
    """Ask the replica that will be killed, and return the bubble once it shows text."""
    with wecom_user([company.one.url], "wangwu") as user:
        bubble = user.says(question)
        text = company.hr.expected_answer(question)
        wait_until(lambda: user.polls(bubble).content[:1] == text[:1], TIMEOUT)
    return bubble
