"""The administrators' API of ratings and of questions without a good answer: pages, roles, files for a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from channels.admin.comparison import comparison_blueprint
from channels.admin.feedback import Again, ratings_blueprint
from services.batches.records import Given
from services.batches.store import SqlBatchStore
from services.feedback.records import RatedAnswer, Rating
from services.feedback.sql_store import SqlFeedbackStore
from services.usage.log_store import SqlLogStore
from services.usage.sql_store import SqlUsageStore
from tests.support.admins import AdminApi
from tests.support.schema import migrated
from tests.support.usage import AT, entry

QUESTIONS = ("年假几天？", "班车几点？", "班车几点开？", "年假几天？")


class StoreSubmitter:
    """Stores tasks, without workers."""

    def __init__(self, store: SqlBatchStore) -> None:
        self.submit = store.create


class Company(AdminApi):
    """Four questions in an SQLite file, three of them rated by two persons, and administrators of each role."""

    def __init__(self, folder: Path, closes: ExitStack, *, sql: bool = True) -> None:
        log = batches = None
        if sql:
            url = migrated(f"sqlite:///{folder}/feedback.db")
            store, ratings, log = SqlUsageStore(url), SqlFeedbackStore(url), SqlLogStore(url)
            self.batches = batches = SqlBatchStore(url)
            for each in (store, ratings, log, batches):
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
        tasks = StoreSubmitter(batches) if batches else None
        super().__init__(
            lambda administrators: ratings_blueprint(
                administrators, log, zone, Again(administrators, tasks), clock=clock
            ),
            lambda administrators: comparison_blueprint(administrators, batches),
        )

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


def test_rated_questions_are_asked_again_as_a_batch(company: Company) -> None:
    """Each question once, as the administrator's task, which the audit has; a rating without a question is left out."""
    for role in ("viewer", "operator"):
        assert company.sends("POST", "feedback/batch", role)[0] == 403
    assert company.acts == []

    status, made = company.sends("POST", "feedback/batch?bot=default", "admin")

    assert (status, made["questions"], made["left_out"]) == (201, 2, 1)
    task = company.batches.get(made["task_id"])
    assert (task.owner, task.total) == ("admin:admin", 2)
    assert [item.text for item in company.batches.all_rows(task.task_id)] == ["年假几天？", "班车几点？"]
    assert [(act.action, act.object, act.after) for act in company.acts] == [
        ("feedback.batch", task.task_id, "bot=default")
    ]


def test_questions_that_a_batch_cannot_ask_are_left_out(company: Company) -> None:
    """Those of other bots; where none is left, no task is made."""
    status, data = company.sends("POST", "feedback/batch?bot=sales", "admin")

    assert (status, data["reason"]) == (409, "no_questions")
    assert company.batches.list(None)[1] == 0


def test_unanswered_questions_are_asked_again_as_a_batch(company: Company) -> None:
    """An example of each group, the newest."""
    assert company.sends("POST", "unanswered/batch", "operator")[0] == 403

    status, made = company.sends("POST", "unanswered/batch", "admin")

    assert (status, made["questions"]) == (201, 2)
    asked = [item.text for item in company.batches.all_rows(made["task_id"])]
    assert asked == ["年假几天？", "班车几点开？"]
    assert [(act.action, act.object) for act in company.acts] == [("questions.batch", made["task_id"])]


def test_former_and_new_answers_are_compared(company: Company) -> None:
    """Counts for a viewer; the words for an admin, by outcome and page by page, with a row of the audit."""
    task_id = company.sends("POST", "feedback/batch", "admin")[1]["task_id"]
    company.acts.clear()
    first, second = company.batches.claim(0), company.batches.claim(1)
    assert first
    assert second
    company.batches.complete(first, content="抱歉， 找不到。")
    path = f"batches/{task_id}/comparison"
    counts = {"same": 1, "changed": 0, "failed": 0, "waiting": 1}
    running = {"task_id": task_id, "status": "running", "counts": counts, "rows": None, "next": None}
    assert company.gets(path) == (200, running)
    company.batches.complete(second, content="八点。")

    assert company.gets(path)[1]["counts"] == {"same": 1, "changed": 1, "failed": 0, "waiting": 0}
    assert company.gets(f"{path}?with_words=true", "operator")[0] == 403
    assert company.acts == []
    status, data = company.gets(f"{path}?with_words=true&limit=1", "admin")
    assert (status, data["status"], data["next"]) == (200, "completed", 1)
    (changed,) = company.gets(f"{path}?with_words=true&cursor=1", "admin")[1]["rows"]
    assert [changed] == company.gets(f"{path}?with_words=true&outcome=changed", "admin")[1]["rows"]
    assert changed == {
        "question": "班车几点？",
        "outcome": "changed",
        "former_answer": "抱歉，找不到。",
        "new_answer": "八点。",
        "error": "",
        "stream_id": "s1",
    }
    assert [(act.action, act.object) for act in company.acts] == [("batch.read", task_id)] * 3


def test_a_failed_question_has_its_code_and_the_comparison_is_a_file(company: Company) -> None:
    """A question whose answer failed is neither same nor changed."""
    task_id = company.sends("POST", "feedback/batch", "admin")[1]["task_id"]
    claimed = company.batches.claim(0)
    assert claimed
    company.batches.fail(claimed, "provider_timeout", "出错了", content="抱歉")
    company.batches.cancel(task_id)
    path = f"batches/{task_id}/comparison"
    assert company.gets(path)[1]["counts"] == {"same": 0, "changed": 0, "failed": 2, "waiting": 0}
    assert company.asks("GET", f"{path}/export", "operator").status_code == 403

    reply = company.asks("GET", f"{path}/export?outcome=failed", "admin")

    lines = reply.get_data(as_text=True).splitlines()
    assert lines[0] == '\ufeff"question","outcome","former_answer","new_answer","error","stream_id"'
    assert lines[1] == '"年假几天？","failed","抱歉，找不到。","抱歉","provider_timeout","s3"'
    assert len(lines) == 3
    assert [act.action for act in company.acts] == ["feedback.batch", "batch.export"]


def test_an_answer_that_the_log_cut_is_the_same_if_it_begins_alike(company: Company) -> None:
    """The log keeps `QUESTION_LOG_BYTES` of it."""
    given = [Given("s0", {"answer": "抱歉，", "cut": "1"}), Given("s1", {"answer": "抱歉，", "cut": ""})]
    task = company.batches.create(owner="admin:ann", name="again", texts=["一", "二"], given=given)[0]
    for lane in range(2):
        claimed = company.batches.claim(lane)
        assert claimed
        company.batches.complete(claimed, content="抱歉，找不到。")

    counts = company.gets(f"batches/{task.task_id}/comparison")[1]["counts"]

    assert (counts["same"], counts["changed"]) == (1, 1)


def test_tasks_of_other_callers_are_not_compared(company: Company) -> None:
    """Their words are not an administrator's; an unknown task is a 404 too."""
    task = company.batches.create(owner="key:fingerprint", name="绩效", texts=["一"])[0]

    for task_id in (task.task_id, "unknown"):
        assert company.gets(f"batches/{task_id}/comparison?with_words=true", "admin")[0] == 404
        assert company.asks("GET", f"batches/{task_id}/comparison/export", "admin").status_code == 404
    assert company.acts == []
