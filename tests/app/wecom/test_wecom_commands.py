"""WeCom's commands over real HTTP: which words are commands, what the bubble shows, and what leaves the gateway."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from config.texts import ZH
from demo.mocks.auth import DEMO_USER_QUERY, MockAuth, create_demo_users
from demo.mocks.dify.answers import answer_to
from demo.mocks.dify.server import MockDify
from demo.mocks.group_robot import KEY, MockGroupRobot
from tests.support.replicas import AES_KEY, TOKEN, AppServer, dify_settings
from tests.support.servers.processes import free_port, wait_until

QUESTION = "年假怎么申请"
PAUSES = f"{QUESTION} [[pings-after-text]]"


@pytest.fixture
def robot() -> Iterator[MockGroupRobot]:
    with MockGroupRobot() as robot:
        yield robot


@pytest.fixture
def values(redis_url: str, dify: MockDify) -> dict[str, str]:
    return {"redis_url": redis_url, "DRAIN_SECONDS": "0", **dify_settings(dify.base_url)}


@pytest.fixture
def app_server(values: dict[str, str], robot: MockGroupRobot) -> Iterator[AppServer]:
    with AppServer(**values, HANDOFF_WEBHOOK=robot.url) as app_server:
        yield app_server


@pytest.mark.parametrize("typed", ["/help", "帮助", " /HELP ", "／help"])
def test_help_lists_the_commands(typed: str, app_server: AppServer, dify: MockDify) -> None:
    """It is one finished frame, and the provider is not asked."""
    with app_server.user() as user:
        bubble = user.says(typed)

    assert bubble.finish
    assert re.search(rf"- /stop, 停止[:：] {ZH['help_stop']}", bubble.content)
    assert [word for word in ("/reset", "/retry", "/help", "/whoami", "/human") if word not in bubble.content] == []
    assert dify.requests == []


def test_help_lists_the_bots_own_words(values: dict[str, str]) -> None:
    """A command that is off is neither listed nor a command."""
    own = json.dumps({"stop": ["别说了"], "human": []})
    hr = {"hr": {"WECHAT_TOKEN": TOKEN, "WECHAT_ENCODING_AES_KEY": AES_KEY, "WECHAT_COMMANDS": {"help": ["？"]}}}
    with (
        AppServer(**values, WECHAT_COMMANDS=own, WECHAT_BOTS=json.dumps(hr)) as app_server,
        app_server.user() as user,
        app_server.user(bot="hr") as colleague,
    ):
        default, other = user.says("/help").content, colleague.says("？").content
        stopped, human = user.says("别说了"), user.says("/human")

    assert "- 别说了: " in default
    assert "/human" not in default
    assert "- ？: " in other
    assert "/human" in other
    assert stopped.content == ZH["stop_done"]
    assert (human.finish, human.content) == (False, ZH["thinking"])


def test_stop_ends_the_bubble_and_the_run_at_dify(app_server: AppServer, dify: MockDify) -> None:
    """The cancelled sentence follows the text so far; Dify gets one request to stop."""
    with app_server.user() as user:
        bubble = user.says(PAUSES)
        wait_until(lambda: user.polls(bubble).content not in (ZH["thinking"], ZH["queued"]), timeout=30.0)
        shown = bubble.content

        stopped = user.says("停止")
        ended = user.polls(bubble)

        assert (stopped.finish, stopped.content) == (True, ZH["stop_done"])
        assert (ended.finish, ended.content) == (True, f"{shown}\n\n{ZH['cancelled']}")
        wait_until(lambda: len(dify.stops) == 1, timeout=30.0)


def test_commands_in_a_group_follow_the_mention(app_server: AppServer, dify: MockDify) -> None:
    """A command stops the answers of its person in this group only."""
    with (
        app_server.user(chatid="wrGROUP") as here,
        app_server.user() as alone,
        app_server.user("lisi", chatid="wrGROUP") as colleague,
    ):
        bubbles = [(user, user.says(f"@来宝 {PAUSES}" if user.chatid else PAUSES)) for user in (here, alone, colleague)]

        stopped = here.says("@来宝 /stop")

        assert stopped.content == ZH["stop_done"]
        assert [user.polls(bubble).finish for user, bubble in bubbles] == [True, False, False]


def test_whoami_shows_the_person_and_the_bot(values: dict[str, str], tmp_path: object) -> None:
    """The name is known once the directory had to be asked for a question; the token is never shown."""
    database = f"{tmp_path}/users.db"
    create_demo_users(f"sqlite:///{database}")
    with MockAuth() as auth:
        company = {
            "AUTH_MODE": "external",
            "AUTH_SERVICE_URL": auth.url,
            "AUTH_USER_QUERY": DEMO_USER_QUERY,
            "DATABASE_PATH": database,
            "WECHAT_BOT_NAME": "小宝",
        }
        with AppServer(**{**values, **company}) as app_server, app_server.user() as user:
            before = user.says("/whoami").content
            user.sees_finish(user.says(QUESTION), every=0.05)
            after = user.says("/whoami").content

    assert before == ZH["whoami"].format(userid="zhangsan", name=ZH["name_unknown"], bot="小宝")
    assert after == ZH["whoami"].format(userid="zhangsan", name="张三", bot="小宝")
    assert auth.tokens
    assert not [token for token in auth.tokens if token in after]


def handoff_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the lines of posted messages; one of an earlier test's replica, whose robot failed, may come late."""
    records = [vars(record) for record in caplog.records if record.name == "services.wecom.handoff"]
    return [record for record in records if record["outcome"] == "posted"]


def test_human_tells_the_group_once(
    app_server: AppServer, robot: MockGroupRobot, caplog: pytest.LogCaptureFixture
) -> None:
    """The message has question, answer and person; logs have neither words nor the robot's key."""
    with caplog.at_level(logging.DEBUG), app_server.user() as user:
        user.sees_finish(user.says(QUESTION), every=0.05)
        sentences = [user.says("转人工", "human-1").content for _ in range(3)]
        user.says("/human", "human-2")
        # A line is logged after its message was posted.
        wait_until(lambda: len(handoff_lines(caplog)) == 2, timeout=30.0)
        app_server.container.leave()

    assert set(sentences) == {ZH["human_notified"]}
    assert robot.requests == 2
    first, second = robot.messages
    assert first == second
    assert f"> {QUESTION}" in first
    assert "zhangsan" in first
    assert answer_to(QUESTION)[:20] in first
    assert not [word for word in (KEY, QUESTION) if word in json.dumps(handoff_lines(caplog), default=str)]


def test_human_without_a_robot_names_the_administrator(values: dict[str, str]) -> None:
    """The sentence does not claim that anybody was notified; TEXTS_FILE has the operator's sentence."""
    with AppServer(**values) as app_server, app_server.user() as user:
        bubble = user.says("/human")

    assert (bubble.finish, bubble.content) == (True, ZH["human"])


def test_a_robot_that_hangs_delays_no_callback(values: dict[str, str]) -> None:
    """The callback is answered while the message waits for a connection."""
    address = f"http://127.0.0.1:{free_port()}/send?key={KEY}"
    with AppServer(**values, HANDOFF_WEBHOOK=address) as app_server, app_server.user() as user:
        assert user.says("/human").content == ZH["human_notified"]


def test_a_bot_without_such_commands_notes_no_questions(values: dict[str, str], redis_url: str) -> None:
    """A question then costs what it did without them."""
    with AppServer(**values, WECHAT_COMMANDS="{}") as app_server, app_server.user() as user:
        user.sees_finish(user.says(QUESTION), every=0.05)
        shown = user.says("/help")

    with redis.Redis.from_url(redis_url) as client:
        assert list(client.scan_iter("*dify_asked:*")) == []
    assert shown.content == ZH["thinking"]
