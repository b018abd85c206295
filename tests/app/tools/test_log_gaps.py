"""`python -m tools.log gaps`: which questions count as unanswered, and how they are grouped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from services.feedback.records import RatedAnswer, Rating
from services.feedback.sql_store import SqlFeedbackStore
from services.usage.gaps import REFUSALS, found_gaps, groups
from services.usage.log_store import SaidOf
from services.usage.sql_store import SqlUsageStore
from tests.support.schema import migrated
from tests.support.settings_values import settings
from tests.support.usage import AT, entry
from tools import log

ANSWER = RatedAnswer(True, "completed", "tag", "default", "wecom", "x", "x", "dify", "m1", "c1")


def row(stream_id: str, question: str, *, after: float = 0.0, **changes: Any) -> tuple[dict[str, Any], SaidOf]:
    given = {"stream_id": stream_id, "time": AT + timedelta(seconds=after), "bot": "default", "person": "zhangsan"}
    answer = {"caller": "", "question": question, "answer": "五天。", "sources": 1, "asks": 1, "outcome": "completed"}
    return {**given, **answer, "has_words": 1, **changes}, SaidOf(changes.get("rating"))


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({}, {}),
        ({"sources": 0}, {"s2": {"no_sources"}}),
        ({"sources": 0, "bot": "without a knowledge base"}, {}),
        ({"sources": 0, "outcome": "provider_error"}, {}),
        ({"sources": 0, "asks": 0}, {}),
        ({"answer": "很抱歉，我 无法\n回答这个问题"}, {"s2": {"refused"}}),
        ({"answer": "I DON’T know"}, {"s2": {"refused"}}),
        ({"rating": "dislike"}, {"s2": {"disliked"}}),
        ({"rating": "like"}, {}),
        ({"question": "年假有几天"}, {"s1": {"asked_again"}}),
        ({"question": "年假有几天", "person": "lisi"}, {}),
        ({"question": "年假有几天", "after": 121.0}, {}),
        ({"question": "谢谢，那病假呢"}, {}),
    ],
)
def test_reasons(second: dict[str, Any], expected: dict[str, set[str]]) -> None:
    """A question that is followed by another one is not asked again."""
    given = {"question": "怎么报销出差的费用", "after": 60.0, **second}

    found = found_gaps([row("s1", "年假有几天？"), row("s2", **given)], REFUSALS)

    assert {gap.stream_id: gap.reasons for gap in found} == expected


def test_similar_words_are_one_group() -> None:
    """Punctuation, width and case do not count; the largest group comes first."""
    asked = ["年假有几天？", "年假有几天", "请问年假有几天呢", "ＶＰＮ 怎么连接", "vpn怎么连接?", "食堂今天吃什么"]
    rows = [row(f"s{n}", words, rating="dislike") for n, words in enumerate(asked)]

    found = groups(found_gaps(rows, REFUSALS))

    assert [[gap.stream_id for gap in group.gaps] for group in found] == [["s0", "s1", "s2"], ["s3", "s4"], ["s5"]]


def test_the_work_is_bounded() -> None:
    """Thousands of questions that differ, and are alike in half of their words, take seconds."""
    rows = (row(f"s{n}", f"{n * 7919:x} 的流程是什么 {n * 104729:x}", rating="dislike") for n in range(5000))

    before = time.process_time()
    found = groups(found_gaps(rows, REFUSALS))

    assert sum(len(group.gaps) for group in found) == 5000
    assert time.process_time() - before < 30.0


@pytest.fixture
def found(tmp_path: Path) -> Callable[[], Settings]:
    url, now = f"sqlite:///{tmp_path / 'log.db'}", datetime.now(UTC)
    migrated(url)
    with closing(SqlFeedbackStore(url)) as ratings, closing(SqlUsageStore(url)) as store:
        words = [("s1", "年假有几天？"), ("s2", "请问年假有几天"), ("s3", "怎么报销")]
        given = [entry(one, time=now, question=text, answer="五天", has_words=1) for one, text in words]
        store.save(given, log=True)
        for stream_id in ("s1", "s2"):
            ratings.save(stream_id, ANSWER, [("p1", 1, Rating("dislike", at=5))])
    return lambda: settings(DATABASE_PATH=str(tmp_path / "log.db"), QUESTION_LOG="full")


def test_groups_are_printed(found: Callable[[], Settings], capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object a line, with counts, examples and the streams."""
    assert log.main(["gaps", "--json"], load=found) == 0

    (group,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (group["count"], group["people"], group["reasons"]) == (2, 1, {"asked_again": 1, "disliked": 2})
    assert (group["examples"], group["stream_ids"]) == (["年假有几天？", "请问年假有几天"], ["s1", "s2"])


def test_phrases_of_ones_own(found: Callable[[], Settings], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """They replace the list."""
    (tmp_path / "phrases.txt").write_text("五天\n\n", "utf-8")

    log.main(["gaps", "--json", "--phrases", str(tmp_path / "phrases.txt")], load=found)

    reasons = [json.loads(line)["reasons"] for line in capsys.readouterr().out.splitlines()]
    assert reasons == [{"asked_again": 1, "disliked": 2, "refused": 2}, {"refused": 1}]


def test_gaps_need_words(found: Callable[[], Settings], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The line names the setting."""
    meta = settings(DATABASE_PATH=str(tmp_path / "log.db"))

    assert log.main(["gaps", "--since", "2030-01-01"], load=lambda: meta) == 1

    assert "QUESTION_LOG=full" in capsys.readouterr().err
