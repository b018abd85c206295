"""`WORDS_FILE` over two replicas: no owner shows a masked word, and a change of the file is in force on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from config.texts import ZH
from demo.mocks.dify.server import MockDify
from services.rules.words import STAR
from tests.scenarios.stage.people import TIMEOUT
from tests.support.replicas import Replica, dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import wait_until
from utils.markdown.wecom import render_markdown

pytestmark = [pytest.mark.scenario, pytest.mark.full]

QUESTION, MASKED = "年假怎么申请？ [[chatflow]]", "年假"


@pytest.fixture
def dify() -> Iterator[MockDify]:
    with MockDify(after_disconnect="runs on", limit=120.0) as dify:
        yield dify


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text(f"mask {MASKED}\nrefuse 机密项目\n", "utf-8")
    return path


@pytest.fixture
def pair(redis_url: str, dify: MockDify, words: Path, tmp_path: Path) -> Iterator[tuple[Replica, Replica]]:
    env = settings_for(redis_url, **dify_settings(dify.base_url, WORDS_FILE=str(words), STREAM_LEASE="4"))
    with replicas(2, env, tmp_path) as (one, other):
        yield one, other


def kept(stored: redis.Redis) -> str:
    """Return all that Redis has of streams, the questions excepted."""
    asked = ("content", "question")
    fields = [stored.hgetall(key).items() for key in stored.scan_iter("dify_stream:*")]
    hashes = [[value for name, value in items if name not in asked] for items in fields]
    lists = [stored.lrange(key, 0, -1) for key in stored.scan_iter("{dify_stream:*}:messages")]
    texts = [stored.get(key) for key in stored.scan_iter("{dify_stream:*}:text")]
    return str((hashes, lists, texts))


def test_a_masked_word_is_shown_by_no_owner(pair: tuple[Replica, Replica], dify: MockDify, stored: redis.Redis) -> None:
    """The owner is killed between two deltas; the other one goes on without beginning anew, and masks the same."""
    one, other = pair
    wanted = render_markdown(dify.expected_answer(QUESTION).replace(MASKED, STAR * len(MASKED)))
    assert STAR in wanted
    dify.holds_at = 10
    with wecom_user([one.url]) as user:
        bubble = user.says(QUESTION)
        wait_until(lambda: STAR in user.polls(bubble).content, TIMEOUT)
    assert not bubble.frames[-1].finish
    one.kill()
    dify.holds_at = None
    with wecom_user([other.url]) as user:
        assert user.sees_finish(bubble, TIMEOUT, 0.1) == wanted
    assert not [frame for frame in bubble.frames if MASKED in frame.content]
    assert MASKED not in kept(stored)
    assert len(dify.asked(QUESTION)) == 1


def test_a_forbidden_question_gets_a_sentence(pair: tuple[Replica, Replica], dify: MockDify, words: Path) -> None:
    """Nothing is asked; the log has the rule's line and no word. A change of the file is in force on both replicas."""
    one, other = pair
    with wecom_user([one.url, other.url]) as user:
        assert user.sees_finish(user.says("请介绍机 密项目"), TIMEOUT, 0.1) == ZH["forbidden_words"]
        assert not dify.requests
        assert '"line": 2' in one.log + other.log
        assert "机密" not in one.log + other.log

        words.write_text("# none\n", "utf-8")
        wait_until(lambda: "rules read" in one.log and "rules read" in other.log, TIMEOUT)
        assert MASKED in user.sees_finish(user.says("机密项目的年假 [[chatflow]]"), TIMEOUT, 0.1)
