"""Queries of `tools.log` and `tools.usage` read by an index or a small table; `bench.log_queries` has their times."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import date, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from bench.log_queries import fill, plan, queries
from services.usage.log_store import LogFilter, LogPlace, SqlLogStore
from services.usage.sql_store import SqlUsageStore
from services.usage.sums_store import BY, SqlSumsStore
from services.usage.tables import DAILY
from tests.support.schema import migrated
from tests.support.usage import entry, rows

#: Filters that no index serves: the ratings are a table of their own.
RATED = ("rated dislike", "rated as nobody did", "rated none")


@pytest.fixture
def engine(sql_url: str) -> Iterator[sa.Engine]:
    migrated(sql_url)
    engine = sa.create_engine(sql_url)
    yield engine
    engine.dispose()


def unfit(kind: str, lines: Sequence[Sequence[Any]]) -> list[str]:
    """Return the lines that read all of the log, or sort what they read of it."""
    if kind == "sqlite":
        texts, found = [str(line[3]) for line in lines], []
        for number, text in enumerate(texts):
            # SQLite names the sort after its table.
            sorts = "ORDER BY" in text and texts[number - 1].split()[1] == "laibao_question_log"
            if sorts or (text.startswith("SCAN laibao_question_log") and "USING INDEX" not in text):
                found.append(text)
        return found
    # An intersection of two indexes is what few rows there are, and is sorted.
    of_log = [line for line in lines if line[2] == "laibao_question_log" and line[3] != "index_merge"]
    return [str(line) for line in of_log if line[3] == "ALL" or "Using filesort" in str(line[-1])]


def test_the_log_is_read_by_an_index_and_in_its_order(engine: sa.Engine, sql_url: str) -> None:
    """So a page costs what its rows cost, whatever is chosen, however long the log is."""
    fill(engine, 9000)

    plans = {name: plan(engine, query) for name, query in queries(sql_url) if name.startswith("log: ")}

    found = {name: unfit(engine.dialect.name, lines) for name, lines in plans.items() if not name[5:].startswith(RATED)}
    assert len(found) > 30
    assert {name: lines for name, lines in found.items() if lines} == {}
    assert "laibao_question_log_person" in str(plans["log: person"])


@pytest.mark.parametrize(
    "chosen", [LogFilter(words="打印机"), LogFilter(rating="like"), LogFilter(bot="bot1", outcome="busy")]
)
def test_a_search_reads_a_bounded_part_of_the_log(engine: sa.Engine, sql_url: str, chosen: LogFilter) -> None:
    """Up to the last of so many questions of its index; the parts together have what the whole search has."""
    fill(engine, 9000)
    with closing(SqlLogStore(sql_url)) as log:
        found: list[str] = []
        after: LogPlace | None = None
        while True:
            end = log.end(chosen, after, 700)
            found += [row["stream_id"] for row, _ in log.rows(chosen, after=after, end=end, page=7)]
            if end is None:
                break
            after = end

        assert found == [row["stream_id"] for row, _ in log.rows(chosen)]
        assert found
        assert log.end(LogFilter(bot="bot1"), None, 1) is None


def test_usage_reads_the_smallest_tables(engine: sa.Engine, sql_url: str) -> None:
    """Days without persons, whole months of persons, the days of one person by their index; days for the rest."""
    fill(engine, 3650)
    plans = {name: str(plan(engine, query)) for name, query in queries(sql_url) if name.startswith("usage: 365 days")}

    read = {name.removeprefix("usage: 365 days "): tables(text) for name, text in plans.items()}

    of_months = {"laibao_usage_months", "laibao_usage_daily"}
    assert read.pop("of a person by day") == {"laibao_usage_daily"}
    assert read.pop("by person") == read.pop("of a department by person") == of_months
    assert set(map(tuple, read.values())) == {("laibao_usage_days",)}
    assert "laibao_usage_daily_person" in plans["usage: 365 days of a person by day"]


def test_people_of_a_day_are_counted_by_the_sums_of_that_day(engine: sa.Engine, sql_url: str) -> None:
    """The overview reads neither other days nor the log."""
    fill(engine, 3650)
    ((_, query),) = [each for each in queries(sql_url) if each[0] == "usage: people of a day"]

    lines = plan(engine, query)

    assert tables(str(lines)) == {"laibao_usage_daily"}
    assert "laibao_question_log" not in str(lines)
    if engine.dialect.name == "sqlite":
        assert "SEARCH laibao_usage_daily" in str(lines)
    else:
        assert {line[3] for line in lines} <= {"ref", "range"}


def tables(text: str) -> set[str]:
    return set(re.findall(r"laibao_usage_(?:days|months|daily)\b", text))


#: Spans with whole months, with none, over a leap day and over the turn of a year.
SPANS = (
    ("2027-12-01", "2028-03-31"),
    ("2027-12-31", "2028-03-01"),
    ("2028-01-02", "2028-02-29"),
    ("2028-02-01", "2028-02-29"),
    ("2028-02-02", "2028-02-28"),
    ("2028-02-29", "2028-02-29"),
    ("2027-12-15", "2028-01-15"),
)


def test_sums_of_every_span_agree(sql_url: str) -> None:
    """Whatever tables they are read from: the rows by day and person are added up here."""
    migrated(sql_url)
    days = [date(2027, 12, 1) + timedelta(days=n) for n in range(122)]
    with closing(SqlUsageStore(sql_url)) as store:
        made = [
            entry(f"{day}{who}", day=day, person=who, outcome=("completed", "cancelled")[day.day % 2], tokens=day.day)
            for day in days
            for who in ("a", "b", "")
        ]
        store.save(made, log=False)
    daily = rows(sql_url, DAILY)

    with closing(SqlSumsStore(sql_url)) as sums:
        for since, until in SPANS:
            span = date.fromisoformat(since), date.fromisoformat(until)
            expected = sum(row["tokens"] for row in daily if span[0] <= row["day"] <= span[1])
            for by in ([], *([one] for one in BY), ["month", "person"], ["day", "person"], ["person", "department"]):
                found = sums.totals(*span, by=by)
                assert sum(total.tokens for _, total in found) == expected, (since, until, by)
            ((_, mine),) = sums.totals(*span, by=[], chosen={"person": "b"})
            assert mine.tokens * 3 == expected
            months = {key[0]: total.tokens for key, total in sums.totals(*span, by=["month"], chosen={"person": "b"})}
            assert months == {key[0]: total.tokens // 3 for key, total in sums.totals(*span, by=["month"])}
