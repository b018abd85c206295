"""The running step and the suggested questions over two processes, one of which is killed while a step shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from config.texts import ZH
from demo.mocks.dify.plays import NODES
from demo.mocks.dify.server import MockDify
from demo.wecom.bubble import names_step
from demo.wecom.simulator import Bubble, WeComUser
from tests.scenarios.stage.people import stored
from tests.support.replicas import dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import RedisServer, wait_until
from utils.stream_utils import render_frame

pytestmark = [pytest.mark.scenario, pytest.mark.full]

QUESTION = "年假怎么申请 [[steps]]"
SUGGESTED = ("病假怎么申请", "**婚假**\n有几天", "报销", "第四个")
LISTED = f"\n\n{ZH['suggestions_heading']}\n\n- 病假怎么申请\n- 婚假 有几天\n- 报销"
STEPS = [ZH["step"].format(step=title) for kind, title in NODES if kind != "start"]
TIMEOUT = 60.0


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def wanted(redis: RedisServer, dify: MockDify) -> dict[str, str]:
    extras = {"WECHAT_PROGRESS": "true", "WECHAT_SUGGESTIONS": "true", "STREAM_LEASE": "2"}
    return settings_for(redis.url(), **dify_settings(dify.base_url), **extras)


def sees_step(user: WeComUser, bubble: Bubble) -> None:
    wait_until(lambda: names_step(user.polls(bubble).content), TIMEOUT, every=0.1)


def check(bubble: Bubble, answer: str) -> None:
    """Check that steps were shown before the text only, each of them in its order, and what the last frame shows."""
    contents = [frame.content for frame in bubble.frames if not frame.empty]
    first = next(number for number, content in enumerate(contents) if answer.startswith(content[:2]))
    before, after = dict.fromkeys(contents[:first]), contents[first:]
    named = [content for content in before if content != ZH["thinking"]]
    assert named == [step for step in STEPS if step in named] != []
    assert not [content for content in after if names_step(content) or ZH["thinking"] in content]
    assert bubble.content == answer + LISTED


def test_polls_on_another_replica_show_the_step_and_then_only_text(redis: RedisServer, tmp_path: Path) -> None:
    """The finished frame lists the suggestions, on each replica and after a redelivery; the stored text has neither."""
    with MockDify(slow=0.6, suggested=SUGGESTED) as dify:
        answer = dify.expected_answer(QUESTION)
        with (
            replicas(2, wanted(redis, dify), tmp_path) as (one, other),
            wecom_user([one.url]) as here,
            wecom_user([other.url]) as there,
        ):
            bubble = here.says(QUESTION, "steps-1")
            sees_step(there, bubble)
            there.sees_finish(bubble, TIMEOUT, every=0.1)
            last = [here.polls(bubble).content, there.says(QUESTION, "steps-1").content]

            check(bubble, render_frame(answer, growing=False))
            assert last == [bubble.content] * 2
        kept = stored(redis, bubble.stream_id)
        assert kept.text.decode() == kept.list_text.decode() == answer
        assert dify.looked_up()["suggested"] == 1


def test_a_replica_that_is_killed_while_a_step_shows_costs_nothing(redis: RedisServer, tmp_path: Path) -> None:
    """Another one goes on with the stored step, the answer and its suggestions; Dify is asked once."""
    with MockDify(slow=0.6, suggested=SUGGESTED) as dify:
        answer = dify.expected_answer(QUESTION)
        with (
            replicas(2, wanted(redis, dify), tmp_path) as (one, other),
            wecom_user([one.url]) as here,
            wecom_user([other.url]) as there,
        ):
            bubble = here.says(QUESTION)
            sees_step(there, bubble)
            one.kill()

            there.sees_finish(bubble, TIMEOUT, every=0.1)

            check(bubble, render_frame(answer, growing=False))
            assert there.polls(bubble).content == bubble.content
        fields = stored(redis, bubble.stream_id).fields
        assert (fields["status"], fields["epoch"]) == ("completed", "2")
        assert len(dify.asked(QUESTION)) == 1
