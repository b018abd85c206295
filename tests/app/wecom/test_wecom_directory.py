"""The asker, over real HTTP: name and departments of WeCom's directory reach the app, the commands and the group."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis

from config.texts import ZH
from demo.mocks.contacts import CORP_ID, SECRET, MockContacts, encrypted
from demo.mocks.dify.server import MockDify
from demo.mocks.group_robot import MockGroupRobot
from demo.wecom.simulator import WeComUser
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import wait_until

NAMES = ("userid", "name", "department", "chatid", "chattype", "bot", "msgid")
INPUTS = json.dumps({name: f"{{{name}}}" for name in NAMES})
QUESTION = "年假怎么申请"


@pytest.fixture
def wecom() -> Iterator[MockContacts]:
    with MockContacts() as mock:
        yield mock


@pytest.fixture
def values(redis_url: str, dify: MockDify, wecom: MockContacts) -> dict[str, str]:
    directory = {"WECOM_CORP_ID": CORP_ID, "WECOM_CONTACT_SECRET": SECRET, "WECOM_API_URL": wecom.url}
    more = {"DIFY_INPUTS": INPUTS, "DRAIN_SECONDS": "0", **directory}
    return {"redis_url": redis_url, **dify_settings(dify.base_url), **more}


def ask_until_known(user: WeComUser, dify: MockDify, name: str) -> None:
    """Ask until the app receives the name: on a busy machine the first look-up may outlast a question's wait."""

    def known() -> bool:
        user.sees_finish(user.says(QUESTION), every=0.05)
        return bool(dify.requests[-1].body["inputs"]["name"] == name)

    wait_until(known)


@pytest.mark.parametrize("userid", ["zhangsan", encrypted("zhangsan")])
def test_name_and_department_reach_the_app(
    userid: str, values: dict[str, str], dify: MockDify, wecom: MockContacts
) -> None:
    """Also for an encrypted userid, which the app gets in its plain form. Dify's end user stays the callback's."""
    with AppServer(**values) as server, server.user(userid, "wr1") as user:
        ask_until_known(user, dify, "张三")

    asked = dify.requests[-1].body
    assert (asked["query"], asked["user"]) == (QUESTION, userid)
    assert {name: asked["inputs"][name] for name in NAMES[:-1]} == {
        "userid": "zhangsan",
        "name": "张三",
        "department": "研发部",
        "chatid": "wr1",
        "chattype": "group",
        "bot": "default",
    }
    assert asked["inputs"]["msgid"]
    assert (wecom.asked["zhangsan"], wecom.calls["gettoken"]) == (1, 1)


def test_without_a_directory_the_question_is_asked(values: dict[str, str], dify: MockDify) -> None:
    """No settings: name and department are empty, nothing is called."""
    values |= {"WECOM_CORP_ID": "", "WECOM_CONTACT_SECRET": ""}
    with AppServer(**values) as server, server.user() as user:
        user.sees_finish(user.says(QUESTION), every=0.05)

    inputs = dify.requests[0].body["inputs"]
    assert (inputs["userid"], inputs["name"], inputs["department"], inputs["chattype"]) == (
        "zhangsan",
        "",
        "",
        "single",
    )


@pytest.mark.full
def test_the_first_frame_waits_for_no_directory(values: dict[str, str], wecom: MockContacts) -> None:
    """With a directory that never answers the callback is answered by the placeholder, and the answer comes."""
    wecom.faults["*"] = "hang"
    with AppServer(**values) as server, server.user() as user:
        bubble = user.says(QUESTION)
        answer = user.sees_finish(bubble, every=0.05)

    assert bubble.frames[0].content == ZH["thinking"]
    assert "年假申请" in answer
    assert wecom.calls["gettoken"] == 1


def test_whoami_and_human_know_the_directorys_name(values: dict[str, str], dify: MockDify) -> None:
    """Without a user table the name is known after a first question, and the group reads it."""
    with (
        MockGroupRobot() as robot,
        AppServer(**values, HANDOFF_WEBHOOK=robot.url) as server,
        server.user() as user,
    ):
        before = user.says("/whoami").content
        ask_until_known(user, dify, "张三")
        after = user.says("/whoami").content
        user.says("/human")
        wait_until(lambda: robot.messages)

    assert ZH["name_unknown"] in before
    assert "张三" in after
    assert "张三" in robot.messages[0]


def test_no_name_is_readable_in_redis_or_log(
    values: dict[str, str], dify: MockDify, stored: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Contacts of the directory are sealed; only the name for commands is stored as it is, as a user table's is."""
    caplog.set_level("DEBUG")
    with AppServer(**values) as server, server.user() as user:
        ask_until_known(user, dify, "张三")

    kept = {key: stored.get(key) for key in stored.scan_iter() if stored.type(key) == "string"}
    assert [key for key, value in kept.items() if "张三" in str(value)] == ["dify_user_name:default:zhangsan"]
    assert not [key for key, value in kept.items() if "研发部" in str(value) and "department" not in key]
    hidden = ("张三", "研发部", SECRET)
    assert not [record for record in caplog.records if any(words in str(vars(record)) for words in hidden)]
