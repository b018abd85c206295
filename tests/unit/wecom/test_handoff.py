"""Messages to a group's robot: what they say, how long they are, and that each is posted at most once."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace

import pytest

from config.texts import Texts
from services import metrics
from services.errors import ProviderError, StoreUnavailable
from services.streams.records import Snapshot
from services.wecom.handoff import MOST_BYTES, MOST_WAITING, Handoff, HandoffManager, message
from services.wecom.markdown_service import MarkdownRefused
from tests.support.servers.processes import wait_until

HANDOFF = Handoff("default", "zhangsan", "", "m1", "张三", "年假怎么申请", "s1")
ANSWER = Snapshot("s1", "completed", text="<think>秘</think>五天。")


def counted(outcome: str) -> float:
    return metrics.REGISTRY.get_sample_value("wechatlaibao_handoffs_total", {"outcome": outcome}) or 0.0


def test_a_message_has_person_question_and_answer() -> None:
    """Words are quoted, and the model's thinking is left out."""
    shown = message(Texts(), replace(HANDOFF, chatid="wrGROUP", question="一\n二"), ANSWER.text)

    assert "人员：zhangsan (张三) · wrGROUP\n机器人：default\n" in shown
    assert "\n> 一\n> 二\n" in shown
    assert "\n> 五天。\n" in shown
    assert "秘" not in shown


def test_without_a_question_the_message_says_so() -> None:
    """A person may want a human before anything was asked."""
    shown = message(Texts("en"), replace(HANDOFF, question="", name=""), "")

    assert shown.count("(none)") == 2
    assert "Person: zhangsan\n" in shown


@pytest.mark.parametrize("texts", [Texts(), Texts("en"), Texts(overrides={"handoff_message": "{answer}" * 3})])
def test_a_message_fits_the_robots_limit(texts: Texts) -> None:
    """Question, name and answer are cut between characters."""
    long = replace(HANDOFF, userid="u" * 5000, name="名" * 900, question="问\n" * 9000, chatid="c" * 5000)

    shown = message(texts, long, "答😀\n" * 9000)

    assert MOST_BYTES - 20 < len(shown.encode()) <= MOST_BYTES
    assert "…" in shown
    assert "> 答😀" in shown


def test_words_mention_nobody() -> None:
    """`<@userid>` in a question would call somebody in the group."""
    shown = message(Texts(), replace(HANDOFF, question="<@all> 快", name="<@lisi>"), "<@wangwu>")

    assert "<@" not in shown
    assert "<\u200b@all> 快" in shown


class Robot:
    """A robot that waits for the test."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.posted: list[str] = []
        self.tried = threading.Event()
        self.go_on = threading.Event()

    def post(self, url: str, content: str) -> None:
        self.tried.set()
        assert self.go_on.wait(30.0)
        if self.error:
            raise self.error
        self.posted.append(content)


def manager(robot: Robot, error: Exception | None = None) -> HandoffManager:
    def read(stream_id: str) -> Snapshot | None:
        if error:
            raise error
        return ANSWER if stream_id == "s1" else None

    return HandoffManager({"default": "https://robot"}, post=robot.post, read=read, texts=Texts())


@pytest.mark.parametrize(
    ("error", "outcome", "level"),
    [
        (None, "posted", logging.INFO),
        (MarkdownRefused("errcode 93000"), "refused", logging.WARNING),
        (ProviderError("no connection", code="provider_unreachable"), "failed", logging.WARNING),
        (LookupError("a bug"), "failed", logging.ERROR),
    ],
)
def test_each_outcome_is_counted_and_logged_without_words(
    error: Exception | None, outcome: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread goes on with the next message."""
    robot, before = Robot(error), counted(outcome)
    robot.go_on.set()
    handoffs = manager(robot)
    handoffs.start()

    with caplog.at_level(logging.INFO):
        handoffs.add(HANDOFF)
        handoffs.add(HANDOFF)
        wait_until(lambda: counted(outcome) == before + 2)
        handoffs.stop()

    lines = [record for record in caplog.records if record.name == "services.wecom.handoff"]
    assert {record.levelno for record in lines} == {level}
    logged = json.dumps([record.__dict__ for record in lines], default=str, ensure_ascii=False)
    assert not [word for word in ("年假", "五天", "张三") if word in logged]


def test_a_message_is_posted_also_without_its_answer() -> None:
    """Redis may be away, or the answer expired."""
    robots = [Robot(), Robot()]
    for robot, handoffs in zip(robots, (manager(robots[0], StoreUnavailable()), manager(robots[1])), strict=True):
        robot.go_on.set()
        handoffs.start()
        handoffs.add(replace(HANDOFF, stream_id="gone"))
        wait_until(lambda robot=robot: len(robot.posted) == 1)  # type: ignore[misc]
        handoffs.stop()

    assert ["（无）" in robot.posted[0] for robot in robots] == [True, True]


def test_messages_beyond_the_queue_are_dropped_and_counted() -> None:
    """A callback never waits for the robot."""
    robot, before = Robot(), counted("full")
    handoffs = manager(robot)
    handoffs.start()
    handoffs.add(HANDOFF)
    assert robot.tried.wait(30.0)

    for _ in range(MOST_WAITING + 3):
        handoffs.add(HANDOFF)

    assert counted("full") == before + 3
    robot.go_on.set()
    wait_until(lambda: len(robot.posted) == MOST_WAITING + 1)
    handoffs.stop()


def test_a_leaving_replica_logs_what_it_did_not_post(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It waits for a moment only."""
    monkeypatch.setattr("services.wecom.handoff.STOP_SECONDS", 0.1)
    robot = Robot()
    handoffs = manager(robot)
    handoffs.start()
    handoffs.add(HANDOFF)
    assert robot.tried.wait(30.0)
    handoffs.add(HANDOFF)

    handoffs.stop()

    assert "handoffs lost" in caplog.text
    # Otherwise the thread fails within a later test, after its own timeout.
    robot.go_on.set()
    handoffs.stop()


def test_without_a_robot_nothing_runs() -> None:
    """A bot without one is not served."""
    handoffs = HandoffManager({}, post=Robot().post, read=lambda stream_id: None, texts=Texts())
    handoffs.start()

    assert not handoffs.serves("default")
    handoffs.leave()
    handoffs.close_all()
    handoffs.stop()


def test_a_handoff_shows_no_words() -> None:
    """Its repr may get into a log."""
    assert not [word for word in ("年假", "张三") if word in repr(HANDOFF)]
