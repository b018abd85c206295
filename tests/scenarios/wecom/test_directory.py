"""WeCom's directory on two real replicas: shared look-ups, a directory that is away, a replica killed while it asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from demo.mocks.contacts import CORP_ID, SECRET, Member, MockContacts
from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import WeComUser
from tests.scenarios.stage.people import TIMEOUT, ask, at_once
from tests.support.replicas import dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import RedisServer, wait_until
from utils.stream_utils import render_frame

pytestmark = pytest.mark.scenario

QUESTION = "年假怎么申请"
INPUTS = json.dumps({"name": "{name}", "department": "{department}"})
PEOPLE = tuple(Member(f"user{n:02}", f"员工{n:02}", (2,)) for n in range(12))


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def wecom() -> Iterator[MockContacts]:
    with MockContacts(PEOPLE) as mock:
        yield mock


@pytest.fixture
def dify() -> Iterator[MockDify]:
    with MockDify() as mock:
        yield mock


@pytest.fixture
def env(redis: RedisServer, wecom: MockContacts, dify: MockDify) -> dict[str, str]:
    directory = {"WECOM_CORP_ID": CORP_ID, "WECOM_CONTACT_SECRET": SECRET, "WECOM_API_URL": wecom.url}
    return settings_for(redis.url(), **dify_settings(dify.base_url), **directory, DIFY_INPUTS=INPUTS, STREAM_LEASE="3")


def answer(dify: MockDify) -> str:
    return render_frame(dify.expected_answer(QUESTION), growing=False)


def received_inputs(dify: MockDify, userid: str) -> dict[str, str]:
    """Return the inputs of a person's last question."""
    inputs: dict[str, str] = [one.body for one in dify.requests if one.body["user"] == userid][-1]["inputs"]
    return inputs


def known_by(person: WeComUser, dify: MockDify, name: str) -> bool:
    """Ask, and return whether the app received the name."""
    person.sees_finish(person.says(QUESTION), TIMEOUT, every=0.2)
    return received_inputs(dify, person.userid)["name"] == name


def test_two_replicas_fetch_one_token_and_look_each_person_up_once(
    env: dict[str, str], wecom: MockContacts, dify: MockDify, tmp_path: Path
) -> None:
    """Twelve people ask both replicas at the same moment, and again: one token, one look-up each, every name right."""
    with replicas(2, env, tmp_path) as pair:
        urls = [replica.url for replica in pair]
        first = at_once([partial(ask, [urls[n % 2]], PEOPLE[n].userid, QUESTION) for n in range(12)])
        wait_until(lambda: sum(wecom.asked.values()) == len(PEOPLE))
        people = [wecom_user([urls[(n + 1) % 2]], member.userid) for n, member in enumerate(PEOPLE)]
        at_once([partial(wait_until, partial(known_by, one, dify, f"员工{one.userid[4:]}")) for one in people])
        for person in people:
            person.close()

    assert {bubble.content for bubble in first} == {answer(dify)}
    assert [received_inputs(dify, member.userid)["department"] for member in PEOPLE] == ["研发部"] * 12
    assert wecom.asked == {member.userid: 1 for member in PEOPLE}
    assert (wecom.calls["gettoken"], wecom.calls["user/get"]) == (1, 12)


@pytest.mark.full
@pytest.mark.timeout(180)
def test_a_replica_killed_while_it_renews_the_token_costs_no_name(
    env: dict[str, str], wecom: MockContacts, dify: MockDify, tmp_path: Path
) -> None:
    """Another replica answers the question, renews the token, and looks the person up, once."""
    wecom.faults["gettoken"] = "hang"
    with replicas(2, env, tmp_path) as (one, other), wecom_user([other.url], "user00") as there:
        with wecom_user([one.url], "user00") as here:
            bubble = here.says(QUESTION)
            wait_until(lambda: wecom.calls["gettoken"] == 1)
            one.kill()
        wecom.faults.clear()

        shown = there.sees_finish(bubble, TIMEOUT, every=0.2)
        wait_until(lambda: known_by(there, dify, "员工00"), timeout=90.0)
        with wecom_user([other.url], "user01") as colleague:
            wait_until(lambda: known_by(colleague, dify, "员工01"), timeout=90.0)

    assert shown == answer(dify)
    assert wecom.calls["gettoken"] == 2
    assert wecom.asked == {"user00": 1, "user01": 1}
