"""The administrators' API of log and usage: the rows of the tools, words on demand and by role, pages by cursor."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import pytest

from channels.admin import reports
from channels.admin.reports import Reports, reports_blueprint
from services.errors import StoreUnavailable
from services.streams.records import Chunk
from services.usage.log_store import NAMES, SqlLogStore
from services.usage.sql_store import SqlUsageStore
from services.usage.sums_store import SqlSumsStore
from tests.support.admins import AdminApi
from tests.support.schema import migrated
from tests.support.usage import AT, DAY, entry

WORDS = {"question": "年假几天？", "answer": "五天", "has_words": 1}


class Company(AdminApi):
    """Five questions of two persons in an SQLite file, and administrators of each role."""

    def __init__(self, folder: Path, closes: ExitStack, *, sql: bool = True) -> None:
        #: The streams in Redis, and whether it is away.
        self.streams: dict[str, tuple[dict[str, str], list[Chunk]]] = {}
        self.is_away = False
        log = sums = None
        if sql:
            url = migrated(f"sqlite:///{folder}/reports.db")
            store, log, sums = SqlUsageStore(url), SqlLogStore(url), SqlSumsStore(url)
            for each in (store, log, sums):
                closes.callback(each.close)
            asked = [
                entry(f"s{number}", time=AT + timedelta(minutes=number // 2), person=person, **WORDS)
                for number, person in enumerate(("wang", "li", "wang", "li"))
            ]
            failed = entry("s4", time=AT + timedelta(hours=1), outcome="provider_timeout", tokens=None, price=None)
            store.save([*asked, failed], log=True)
        zone = ZoneInfo("Asia/Shanghai")
        super().__init__(lambda administrators: reports_blueprint(Reports(administrators, log, sums, self, zone)))

    def load(self, stream_id: str) -> tuple[dict[str, str], list[Chunk]]:
        """Return a stream as `StreamStore` does."""
        if self.is_away:
            raise StoreUnavailable("Redis")
        return self.streams.get(stream_id, ({}, []))


@pytest.fixture
def closes() -> Iterator[ExitStack]:
    with ExitStack() as closes:
        yield closes


@pytest.fixture
def company(tmp_path: Path, closes: ExitStack) -> Company:
    return Company(tmp_path, closes)


def test_questions_come_in_pages_newest_first(company: Company) -> None:
    """Questions of the same moment are neither lost nor repeated at a page's end."""
    found: list[str] = []
    cursor = ""
    while True:
        status, data = company.gets(f"questions?limit=2&cursor={cursor}")
        assert status == 200
        found += [row["stream_id"] for row in data["questions"]]
        if not (cursor := data["next"]):
            break

    assert found == ["s4", "s3", "s2", "s1", "s0"]


@pytest.mark.parametrize("query", ["words=年假", "rating=none&bot=default", "bot=default&channel=wecom"])
def test_a_search_goes_on_where_a_page_stopped_looking(
    company: Company, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    """A page looks through a bounded number of questions: some have no result; none is lost or repeated."""
    monkeypatch.setattr(reports, "MOST_SEARCHED", 1)
    found: list[list[str]] = []
    cursor = ""
    while True:
        data = company.gets(f"questions?limit=2&{query}&cursor={cursor}", "admin")[1]
        found.append([question["stream_id"] for question in data["questions"]])
        if not (cursor := data["next"]):
            break

    newest = [] if "words" in query else ["s4"]
    assert found == [newest, ["s3"], ["s2"], ["s1"], ["s0"], []]


def test_a_filter_with_an_index_fills_its_page(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row that its index finds is one of the filter: there is nothing else to look through."""
    monkeypatch.setattr(reports, "MOST_SEARCHED", 1)

    page = company.gets("questions?limit=2&person=wang")[1]

    assert [question["stream_id"] for question in page["questions"]] == ["s2", "s0"]


def test_a_viewer_sees_figures_without_words(company: Company) -> None:
    """A row has every member of the tool's, words as null."""
    row = company.gets("questions/s0")[1]

    assert tuple(row) == NAMES
    assert (row["person"], row["tokens"], row["price"], row["seconds"]) == ("wang", 30, 0.001, 2.5)
    assert {row[name] for name in ("question", "answer", "rating_comment")} == {None}
    assert row["time"] == "2026-01-31T23:59:00.000+08:00"
    assert company.acts == []


@pytest.mark.parametrize("path", ["questions?with_words=true", "questions?words=年假", "questions/s0?with_words=true"])
def test_words_are_for_the_role_admin_and_audited(
    company: Company, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Searching in words reveals them too; the search is in the audit, and not in the log."""
    caplog.set_level(logging.INFO)
    assert [company.gets(path, role)[0] for role in ("viewer", "operator")] == [403, 403]
    assert company.acts == []

    status, data = company.gets(path, "admin")

    assert status == 200
    assert "年假" not in caplog.text
    assert not [record for record in caplog.records if "%E5" in str(vars(record)) or "年假" in str(vars(record))]
    (act,) = company.acts
    assert act.object == ("s0" if "s0" in path else "")
    assert (act.after is None) == ("s0" in path)
    assert (act.name, act.action) == ("admin", "question.read" if "s0" in path else "questions.read")
    if "with_words" in path:
        shown = data if "s0" in path else data["questions"][-1]
        assert (shown["question"], shown["answer"]) == ("年假几天？", "五天")
    else:
        assert len(data["questions"]) == 4


@pytest.mark.parametrize(
    ("query", "streams"),
    [
        ("person=li", ["s3", "s1"]),
        ("outcome=provider_timeout", ["s4"]),
        ("since=2026-02-01T00:00:00%2B08:00", ["s4", "s3", "s2"]),
        ("until=2026-01-31T16:00:00Z&person=wang", ["s0"]),
        ("rating=like", []),
    ],
)
def test_questions_are_chosen_as_the_tool_does(company: Company, query: str, streams: list[str]) -> None:
    """Several filters together choose what fits all of them."""
    assert [row["stream_id"] for row in company.gets(f"questions?{query}")[1]["questions"]] == streams


def test_usage_has_the_sums_of_the_tool(company: Company) -> None:
    """By any dimensions; what no provider reported is null, not 0."""
    status, data = company.gets(f"usage?by=person,outcome&since={DAY}&until={DAY}")

    assert (status, data["since"]) == (200, DAY.isoformat())
    rows = {(row["person"], row["outcome"]): row for row in data["rows"]}
    assert rows.keys() == {("li", "completed"), ("wang", "completed"), ("zhangsan", "provider_timeout")}
    assert (rows["li", "completed"]["questions"], rows["li", "completed"]["tokens"]) == (2, 60)
    assert Decimal(str(rows["li", "completed"]["price"])) == Decimal("0.002")
    failed = rows["zhangsan", "provider_timeout"]
    assert (failed["failures"], failed["failures_by_code"]) == (1, {"provider_timeout": 1})
    assert (failed["tokens"], failed["price"]) == (None, None)
    assert company.gets("usage?by=day,day&person=li&since=2026-01-01&until=2026-01-31")[1]["rows"][0]["questions"] == 2


def test_usage_is_limited_to_the_largest_or_the_last_sums(company: Company) -> None:
    """`groups` tells how many there are."""
    data = company.gets(f"usage?by=person&limit=1&since={DAY}&until={DAY}")[1]
    assert ([row["person"] for row in data["rows"]], data["groups"]) == (["li"], 3)

    data = company.gets(f"usage?by=day&limit=1&since={DAY}&until={DAY}")[1]
    assert ([row["day"] for row in data["rows"]], data["groups"]) == ([DAY.isoformat()], 1)


@pytest.mark.parametrize(
    ("query", "columns", "words"),
    [
        ("by=day&since=2026-01-30&until=2026-02-02", 4, ["01-30", "02-02"]),
        ("by=month&since=2025-12-31&until=2026-02-01", 3, ["2025-12", "2026-02"]),
        ("by=day&since=0001-01-01&until=9999-12-31&width=240", 400, ["9998-11-27"]),
        ("by=day&since=2026-02-02&until=2026-02-01", 0, []),
        ("by=person&since=2026-01-31&until=2026-01-31&dark=true", 3, ["wang", "zhangsan", "#83aaff"]),
        ("by=person&of=price&since=2026-01-31&until=2026-01-31", 3, ["0.002 USD"]),
        ("by=department&of=tokens&since=2026-01-31&until=2026-01-31", 1, ["研发部", "120"]),
    ],
)
def test_a_chart_draws_the_sums(company: Company, query: str, columns: int, words: list[str]) -> None:
    """As SVG: a bar for each day of the span, also for those without questions, or for each name."""
    reply = company.asks("GET", f"usage/chart?{query}")

    drawn = reply.get_data(as_text=True)
    assert (reply.status_code, reply.mimetype) == (200, "image/svg+xml")
    assert len(ElementTree.fromstring(drawn).findall("{http://www.w3.org/2000/svg}rect")) == columns
    assert [word for word in words if word not in drawn] == []


def test_the_usage_as_a_file_is_for_the_role_admin_and_audited(company: Company) -> None:
    """Its columns are those of the tool; the audit has the filter, before the first row is sent."""
    query = f"by=person&since={DAY}&until={DAY}"
    assert company.asks("GET", f"usage/export?{query}", "operator").status_code == 403
    assert company.acts == []

    reply = company.asks("GET", f"usage/export?{query}", "admin")

    head, *lines = reply.get_data(as_text=True).splitlines()
    assert head.startswith('\ufeff"person","questions","answers","failures","cancelled","tokens","price","currency"')
    assert lines[0].startswith('"li","2","2","0","0","60","0.002","USD"')
    assert len(lines) == 3
    assert reply.headers["Content-Disposition"] == 'attachment; filename="usage.csv"'
    assert [(act.action, act.after) for act in company.acts] == [("usage.export", query)]


@pytest.mark.parametrize(
    "path",
    ["questions?cursor=x", "questions?limit=501", "questions?since=yesterday", "usage?by=day,name", "usage?since=1"],
)
def test_a_wrong_parameter_is_named(company: Company, path: str) -> None:
    """The error has the parameter's name."""
    status, data = company.gets(path)

    assert (status, data["reason"]) == (422, "invalid_fields")
    assert data["errors"][0]["field"] in path


def test_a_question_has_a_story(company: Company) -> None:
    """The log's steps are joined by those that its stream knows, as long as that lives."""
    company.streams["s0"] = {"auth_state": "cached", "waiting": "", "delivered": "sent", "status": "completed"}, []

    status, data = company.gets("questions/s0/story")

    assert (status, data["in_log"], data["in_redis"]) == (200, True, True)
    assert [(step["event"], step["detail"]) for step in data["steps"]] == [
        ("asked", "wecom"),
        ("authenticated", "cached"),
        ("waited", ""),
        ("provider_asked", "dify"),
        ("ended", "completed"),
        ("late_message", "sent"),
    ]
    assert (data["steps"][0]["time"], data["steps"][4]["seconds"]) == ("2026-01-31T23:59:00.000+08:00", 2.5)
    company.is_away = True
    data = company.gets("questions/s4/story")[1]
    assert (data["in_redis"], data["steps"][-1]["detail"]) == (None, "provider_timeout")


def test_a_running_question_has_a_story_without_the_log(company: Company) -> None:
    """Its times are those of its chunks; it has no words."""
    fields = {"created_time": AT.isoformat(), "status": "processing", "takeovers": "2", "asks": "1", "provider": "dify"}
    company.streams["s9"] = fields, [Chunk("年假", (AT + timedelta(seconds=3)).isoformat())]

    data = company.gets("questions/s9/story")[1]

    steps = {step["event"]: step for step in data["steps"]}
    assert list(steps) == ["asked", "provider_asked", "first_text", "taken_over"]
    assert (data["in_log"], steps["first_text"]["seconds"], steps["taken_over"]["count"]) == (False, 3.0, 2)
    assert "年假" not in str(data)


def test_the_log_as_a_file_is_for_the_role_admin_and_audited(company: Company) -> None:
    """Oldest first; words come only if they are asked for."""
    assert company.asks("GET", "questions/export", "operator").status_code == 403
    assert company.acts == []

    plain = company.asks("GET", "questions/export?person=wang", "admin").get_data(as_text=True)
    full = company.asks("GET", "questions/export?person=wang&with_words=true", "admin").get_data(as_text=True)

    assert plain.splitlines()[0] == "\ufeff" + ",".join(f'"{name}"' for name in NAMES)
    assert [line.split(",")[0] for line in plain.splitlines()[1:]] == ['"s0"', '"s2"']
    assert ("五天" in plain, "五天" in full) == (False, True)
    assert [(act.action, act.after) for act in company.acts] == [
        ("questions.export", "person=wang"),
        ("questions.export", "person=wang&with_words=true"),
    ]


def test_an_unknown_question_is_a_404(company: Company) -> None:
    """Its reason is that of every unknown stream."""
    for path in ("questions/s9", "questions/s9/story"):
        assert company.gets(path) == (404, {"reason": "stream_unknown"})


def test_without_a_database_there_is_neither(tmp_path: Path, closes: ExitStack) -> None:
    """404, as for addresses that do not exist."""
    company = Company(tmp_path, closes, sql=False)

    paths = ("questions", "questions/s1", "questions/export", "usage", "usage/chart", "usage/export")
    assert [company.gets(path, "admin")[0] for path in paths] == [404] * len(paths)
    assert company.acts == []


@pytest.mark.parametrize("path", ["usage?by=person", "usage/chart?by=person"])
def test_more_sums_than_a_view_reads_are_refused(company: Company, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Before they are read; the file has all."""
    monkeypatch.setattr(reports, "MOST_SUMS", 1)
    span = "since=2026-01-01&until=2026-02-28"

    status, data = company.gets(f"{path}&{span}")

    assert (status, data["errors"][0]["field"]) == (422, "by")
    assert company.asks("GET", f"usage/export?by=person&{span}", "admin").status_code == 200
