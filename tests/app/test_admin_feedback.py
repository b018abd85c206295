"""The administrators' API of ratings and of questions without a good answer: pages, roles, files for a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from channels.admin.feedback import ratings_blueprint
from services.feedback.records import RatedAnswer, Rating
from services.feedback.sql_store import SqlFeedbackStore
from services.usage.log_store import SqlLogStore
from services.usage.sql_store import SqlUsageStore
from tests.support.admins import AdminApi
from tests.support.schema import migrated
from tests.support.usage import AT, entry

QUESTIONS = ("年假几天？", "班车几点？", "班车几点开？", "年假几天？")


class Company(AdminApi):
    """Four questions in an SQLite file, three of them rated by two persons, and administrators of each role."""

    def __init__(self, folder: Path, closes: ExitStack, *, sql: bool = True) -> None:
        log = None
        if sql:
            url = migrated(f"sqlite:///{folder}/feedback.db")
            store, ratings, log = SqlUsageStore(url), SqlFeedbackStore(url), SqlLogStore(url)
            for each in (store, ratings, log):
                closes.callback(each.close)
            asked = [
                entry(f"s{n}", time=AT + timedelta(hours=n), question=words, answer="抱歉，找不到。", has_words=1)
                for n, words in enumerate(QUESTIONS)
            ]
            store.save(asked, log=True)
            for stream_id, who, kind in (("s0", "p", "dislike"), ("s1", "p", "dislike"), ("s3", "p", "dislike")):
                self._rate(ratings, stream_id, who, kind)
            self._rate(ratings, "s1", "q", "like")
            # Of a question that the log does not have any more.
            self._rate(ratings, "s9", "p", "like")
        zone, clock = ZoneInfo("Asia/Shanghai"), lambda: AT + timedelta(days=1)
        super().__init__(lambda administrators: ratings_blueprint(administrators, log, zone, clock=clock))

    @staticmethod
    def _rate(store: SqlFeedbackStore, stream_id: str, person: str, kind: Any) -> None:
        answer = RatedAnswer(asked=True, status="completed", access="", bot="default", channel="wecom")
        # All in one second, so that a page's end has to tell them apart.
        reasons, comment = ((3,), "不对") if kind == "dislike" else ((), "")
        store.save(stream_id, answer, [(person, 1, Rating(kind, comment, reasons, int(AT.timestamp())))])


@pytest.fixture
def closes() -> Iterator[ExitStack]:
    with ExitStack() as closes:
        yield closes


@pytest.fixture
def company(tmp_path: Path, closes: ExitStack) -> Company:
    return Company(tmp_path, closes)


def test_ratings_come_in_pages_with_their_questions(company: Company) -> None:
    """Several of one second are neither lost nor repeated; that of a deleted question is there without it."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        status, data = company.gets(f"feedback?limit=2&cursor={cursor}")
        assert status == 200
        found += data["ratings"]
        if not (cursor := data["next"]):
            break

    assert [(one["stream_id"], one["rating"]) for one in found] == [
        ("s9", "like"),
        ("s3", "dislike"),
        ("s1", "like"),
        ("s1", "dislike"),
        ("s0", "dislike"),
    ]
    assert [one["person"] for one in found] == [None, *["zhangsan"] * 4]
    assert (found[1]["reasons"], found[1]["rated_at"]) == ([3], "2026-01-31T23:59:00+08:00")
    assert {one[name] for one in found for name in ("question", "answer", "comment")} == {None}
    assert company.acts == []


def test_words_of_ratings_are_for_the_role_admin_and_audited(company: Company) -> None:
    """Question, answer and comment together; the audit has the filter."""
    query = "feedback?rating=dislike&with_words=true"
    assert [company.gets(query, role)[0] for role in ("viewer", "operator")] == [403, 403]
    assert company.acts == []

    ratings = company.gets(query, "admin")[1]["ratings"]

    assert [(one["question"], one["comment"]) for one in ratings] == [
        ("年假几天？", "不对"),
        ("班车几点？", "不对"),
        ("年假几天？", "不对"),
    ]
    assert [(act.action, act.after) for act in company.acts] == [
        ("feedback.read", "rating=dislike&with_words=true"),
    ]


def test_rated_questions_are_a_file_for_a_batch(company: Company) -> None:
    """Each question once, with the answer beside it; a rating without a question is left out."""
    assert company.asks("GET", "feedback/export", "operator").status_code == 403

    lines = company.asks("GET", "feedback/export", "admin").get_data(as_text=True).splitlines()

    assert lines[0].startswith('\ufeff"question","answer","rating","reasons","comment","rated_at"')
    assert [line.split(",")[0] for line in lines[1:]] == ['"年假几天？"', '"班车几点？"']
    assert [act.action for act in company.acts] == ["feedback.export"]


def test_unanswered_questions_are_grouped_for_the_role_admin(company: Company) -> None:
    """As the tool groups them, of the last days; the file has an example of each group."""
    assert company.gets("unanswered", "operator")[0] == 403

    data = company.gets("unanswered", "admin")[1]

    assert (data["read"], len(data["groups"])) == (4, 2)
    assert {group["count"] for group in data["groups"]} == {2}
    assert data["groups"][0]["reasons"]["refused"] == 2
    lines = company.asks("GET", "unanswered/export", "admin").get_data(as_text=True).splitlines()
    assert [line.split(",")[0] for line in lines] == ['\ufeff"question"', '"年假几天？"', '"班车几点？"']
    assert [act.action for act in company.acts] == ["questions.read", "questions.export"]
    since = (AT + timedelta(hours=2)).isoformat().replace("+", "%2B")
    assert company.gets(f"unanswered?since={since}", "admin")[1]["read"] == 2
    assert datetime.fromisoformat(data["since"]) == AT - timedelta(days=6)
    # The end of what a time can be would be over in Shanghai.
    assert company.gets("unanswered?since=9999-12-31T23:00:00Z", "admin")[1]["read"] == 0


def test_a_wrong_cursor_is_named(company: Company) -> None:
    """The error has the parameter's name."""
    status, data = company.gets("feedback?cursor=x")

    assert (status, data["errors"][0]["field"]) == (422, "cursor")


def test_without_a_database_there_are_none(tmp_path: Path, closes: ExitStack) -> None:
    """404, as for addresses that do not exist, and no row of the audit."""
    company = Company(tmp_path, closes, sql=False)

    paths = ("feedback", "feedback?with_words=true", "feedback/export", "unanswered", "unanswered/export")
    assert [company.gets(path, "admin")[0] for path in paths] == [404] * len(paths)
    assert company.acts == []
