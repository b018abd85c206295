"""`python -m tools.log` and `tools.usage`: what they choose and print, on SQLite and MariaDB."""

from __future__ import annotations

import csv
import io
import json
import re
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from config.settings import Settings
from services.feedback.records import RatedAnswer, Rating
from services.feedback.sql_store import SqlFeedbackStore
from services.usage.log_store import NAMES, PAGE
from services.usage.sql_store import SqlUsageStore
from tests.support.schema import migrated
from tests.support.settings_values import settings
from tests.support.usage import entry
from tools import admin, log, usage
from tools._log.times import moment

NOW = datetime.now(UTC)
ANSWER = RatedAnswer(True, "completed", "tag", "default", "wecom", "x", "x", "dify", "m1", "c1")
#: The members that every question has, in documents and elsewhere.
DOCUMENTED = [
    *("stream_id", "time", "channel", "bot", "person", "name", "department", "outcome", "seconds"),
    *("first_text_seconds", "tokens", "price", "currency", "provider", "rating", "question", "answer"),
]
WORDS = {"question": "年假有几天？", "answer": "=1+1", "files": ["规定.pdf"], "has_words": 1}


@pytest.fixture
def found(sql_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Settings]:
    """Settings of a database with five questions."""
    made = settings(DATABASE_PATH="unused")
    monkeypatch.setattr(Settings, "sql_url", property(lambda _: type(made.redis_address)(sql_url)))
    ratings = SqlFeedbackStore(migrated(sql_url))
    store = SqlUsageStore(sql_url)
    unknown: dict[str, Any] = {"tokens": None, "prompt_tokens": None, "completion_tokens": None, "price": None}
    unknown["currency"] = ""
    store.save(
        [
            entry("s1", time=NOW - timedelta(hours=1), day=NOW.date(), **WORDS),
            entry("s2", time=NOW - timedelta(hours=2), day=NOW.date(), person="lisi", department="财务部", bot="hr"),
            entry("s3", time=NOW - timedelta(hours=3), day=NOW.date(), outcome="provider_error", **unknown),
            entry("s4", time=NOW - timedelta(days=3), day=NOW.date() - timedelta(days=3), channel="http", person=""),
            entry("s5", time=NOW - timedelta(days=45), day=NOW.date() - timedelta(days=45), price=Decimal(2)),
        ],
        log=True,
    )
    for stream_id, kind, at in (("s1", "like", 5), ("s1", "dislike", 9), ("s2", "like", 5)):
        ratings.save(stream_id, ANSWER, [(f"p{at}", 1, Rating(kind, "太短", (2,), at=at))])  # type: ignore[arg-type]
    store.close()
    ratings.close()
    return lambda: made


def lines(text: str) -> Iterator[dict[str, Any]]:
    return map(json.loads, text.splitlines())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "s1 s2 s3 s4 s5"),
        (("--limit", "2"), "s1 s2"),
        (("--person", "zhangsan"), "s1 s3 s5"),
        (("--department", "财务部"), "s2"),
        (("--bot", "hr"), "s2"),
        (("--channel", "http"), "s4"),
        (("--outcome", "provider_error"), "s3"),
        (("--rating", "dislike"), "s1"),
        (("--rating", "like"), "s1 s2"),
        (("--rating", "none"), "s3 s4 s5"),
        (("--since", "2d"), "s1 s2 s3"),
        (("--until", "2d", "--since", "2020-01-01"), "s4 s5"),
        (("--words", "年假"), "s1"),
        (("--words", "%"), ""),
        (("--person", "nobody' OR 1=1 --"), ""),
    ],
)
def test_questions_are_chosen(
    options: tuple[str, ...], expected: str, found: Callable[[], Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    """Newest first, one JSON object a line."""
    assert log.main(["list", "--json", *options], load=found) == 0

    assert [row["stream_id"] for row in lines(capsys.readouterr().out)] == expected.split()


def test_a_question_has_every_member(found: Callable[[], Settings], capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers are numbers, and what is unknown is null."""
    log.main(["list", "--json"], load=found)

    rows = {row["stream_id"]: row for row in lines(capsys.readouterr().out)}
    first, third = rows["s1"], rows["s3"]
    assert all(list(row)[: len(DOCUMENTED)] == DOCUMENTED for row in rows.values())
    assert (first["tokens"], first["price"], first["seconds"], first["currency"]) == (30, 0.001, 2.5, "USD")
    assert (first["rating"], first["rating_reasons"], first["rating_comment"]) == ("dislike", [2], "太短")
    assert (first["question"], first["files"]) == ("年假有几天？", ["规定.pdf"])
    assert first["time"].endswith("+08:00")
    assert datetime.fromisoformat(first["time"]) == NOW.replace(microsecond=NOW.microsecond // 1000 * 1000) - timedelta(
        hours=1
    )
    nothing = ("tokens", "price", "currency", "rating", "question", "answer", "files", "name", "first_text_seconds")
    assert [third[name] for name in nothing] == [None] * len(nothing)


def test_files_are_streamed_and_harmless(
    found: Callable[[], Settings], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """CSV and XLSX have the same columns, oldest first, and no formula."""
    log.main(["export", "--csv"], load=found)
    written = capsys.readouterr().out.removeprefix("\ufeff")
    log.main(["export", "--xlsx", "--output", str(tmp_path / "log.xlsx")], load=found)
    sheet = openpyxl.load_workbook(tmp_path / "log.xlsx").active
    assert sheet is not None

    table = list(csv.DictReader(io.StringIO(written)))
    workbook = [list(row) for row in sheet.iter_rows(values_only=True)]
    assert [row["stream_id"] for row in table] == ["s5", "s4", "s3", "s2", "s1"]
    assert (table[-1]["answer"], table[-1]["seconds"], table[2]["tokens"]) == ("'=1+1", "2.5", "")
    assert workbook[0] == list(table[0]) == list(NAMES)
    assert [row[0] for row in workbook[1:]] == [row["stream_id"] for row in table]
    assert (workbook[-1][8], workbook[-1][16]) == (2.5, "'=1+1")


@pytest.mark.full
def test_an_export_of_any_length_needs_the_memory_of_a_page(
    found: Callable[[], Settings], sql_url: str, tmp_path: Path
) -> None:
    """Five times the rows take no more of it, in every form."""

    def peaks(rows: int) -> list[int]:
        with closing(SqlUsageStore(sql_url)) as store:
            for first in range(0, rows, PAGE):
                some = [entry(f"{rows}-{n}", bot=f"b{rows}", **WORDS) for n in range(first, first + PAGE)]
                store.save(some, log=True)
        return [peak(form, rows) for form in ("csv", "json", "xlsx")]

    def peak(form: str, rows: int) -> int:
        tracemalloc.start()
        argv = ["export", f"--{form}", "--bot", f"b{rows}", "--output", str(tmp_path / f"{form}.{rows}")]
        assert log.main(argv, load=found) == 0
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peaks(PAGE)
    few, many = peaks(2 * PAGE), peaks(10 * PAGE)

    assert max(large / small for small, large in zip(few, many, strict=True)) < 1.5, (few, many)
    assert len((tmp_path / f"json.{10 * PAGE}").read_text("utf-8").splitlines()) == 10 * PAGE


def test_one_question_is_shown(found: Callable[[], Settings], capsys: pytest.CaptureFixture[str]) -> None:
    """Or a line says that there is none."""
    assert log.main(["show", "s1", "--json"], load=found) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == "=1+1"
    assert log.main(["show", "s1"], load=found) == 0
    assert "department           研发部" in capsys.readouterr().out

    assert log.main(["show", "s9"], load=found) == 1
    assert "s9" in capsys.readouterr().err


def test_each_look_at_words_is_in_the_audit(found: Callable[[], Settings], capsys: pytest.CaptureFixture[str]) -> None:
    """A list, one question and an export: by whom, which question or filter, the newest first."""
    for command in (["list", "--person", "zhangsan"], ["show", "s1"], ["show", "s9"], ["export", "--words", "年假"]):
        log.main(command, load=found)
    capsys.readouterr()

    assert admin.main(["audit", "--json"], load=found) == 0
    rows = list(lines(capsys.readouterr().out))
    assert [(row["action"], row["object"], row["after"]) for row in rows] == [
        ("questions.export", "", "words=%E5%B9%B4%E5%81%87"),
        ("question.read", "s9", None),
        ("question.read", "s1", None),
        ("questions.read", "", "person=zhangsan"),
    ]
    assert all(row["name"].startswith("tools.log (") for row in rows)


#: What would clear a terminal (in seven bits and in eight), hide text, turn its direction, or imitate another field.
HOSTILE = "年假\x1b[2J\x9b2J\x7f\x08\r\u202e\u2066\u2028?\nrating               like\n=1+1"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def hostile(found: Callable[[], Settings], sql_url: str) -> Callable[[], Settings]:
    """The same with a question whose person, name and words are hostile."""
    people = {"name": HOSTILE, "department": HOSTILE[:60], "person": HOSTILE[:60]}
    words = {**WORDS, "question": HOSTILE, "answer": f"抱歉{HOSTILE}"}
    store = SqlUsageStore(sql_url)
    store.save([entry("bad", time=NOW, day=NOW.date(), **words, **people)], log=True)
    store.close()
    return found


@pytest.mark.parametrize(
    "command", ["list", "list --json", "list --csv", "show bad", "show bad --json", "export", "gaps", "gaps --json"]
)
def test_no_words_control_the_terminal(
    hostile: Callable[[], Settings], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Neither those of questions nor those of names."""
    assert log.main(command.split(), load=hostile) == 0
    out = capsys.readouterr().out

    assert "年假" in out
    assert not CONTROLS.search(out.replace("\r\n", "\n"))


def test_json_has_control_codes_escaped(hostile: Callable[[], Settings], capsys: pytest.CaptureFixture[str]) -> None:
    """A program reads the words as they were."""
    log.main(["show", "bad", "--json"], load=hostile)

    assert json.loads(capsys.readouterr().out)["question"] == HOSTILE


def test_no_words_imitate_a_field(hostile: Callable[[], Settings], capsys: pytest.CaptureFixture[str]) -> None:
    """Further lines of a text are indented."""
    log.main(["show", "bad"], load=hostile)

    assert "rating" not in [line.partition(" ")[0] for line in capsys.readouterr().out.split("\n")]


def test_a_table_is_for_reading(found: Callable[[], Settings], capsys: pytest.CaptureFixture[str]) -> None:
    """One line per question."""
    log.main(["list"], load=found)

    head, first, *others = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["time", "channel", "bot", "person"]
    assert "年假有几天？" in first
    assert len(others) == 4


def test_sums_by_what_is_asked(found: Callable[[], Settings], capsys: pytest.CaptureFixture[str]) -> None:
    """Of 30 days; the failed question's tokens are unknown, not 0."""
    assert usage.main(["--by", "day,department", "--json"], load=found) == 0

    rows = list(lines(capsys.readouterr().out))
    assert [(row["day"], row["department"]) for row in rows] == [
        (str(NOW.date() - timedelta(days=3)), "研发部"),
        (str(NOW.date()), "研发部"),
        (str(NOW.date()), "财务部"),
    ]
    today = rows[1]
    counts = ("questions", "answers", "failures", "tokens", "unknown_tokens", "price", "currency", "likes", "dislikes")
    assert [today[name] for name in counts] == [2, 1, 1, 30, 1, 0.001, "USD", 1, 1]
    assert (today["failures_by_code"], today["seconds"]) == ({"provider_error": 1}, 5.0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), (4, 90, 0.003)),
        (("--since", "2020-01-01"), (5, 120, 2.003)),
        (("--by", "month", "--since", "2020-01-01", "--person", "lisi"), (1, 30, 0.001)),
        (("--by", "outcome", "--channel", "wecom", "--bot", "hr"), (1, 30, 0.001)),
        (("--person", "nobody"), (0, 0, None)),
    ],
)
def test_sums_of_days_and_people(
    options: tuple[str, ...], expected: Any, found: Callable[[], Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --by there is one row, also where nothing was asked."""
    usage.main(["--json", *options], load=found)

    (row,) = lines(capsys.readouterr().out)
    assert (row["questions"], row["tokens"], row["price"]) == expected


#: By name, questions a minute before and after midnight in Shanghai, where the day is eight hours ahead of UTC.
MIDNIGHTS = {
    "a": "2026-01-31T23:59:00+08:00",
    "b": "2026-02-01T00:01:00+08:00",
    "c": "2028-02-28T23:59:00+08:00",
    "d": "2028-02-29T00:01:00+08:00",
    "e": "2028-02-29T23:59:00+08:00",
    "f": "2028-03-01T00:01:00+08:00",
}


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        ("2026-01-31", "2026-01-31", "a"),
        ("2026-02-01", "2026-02-01", "b"),
        ("2026-01-01", "2026-02-28", "a b"),
        ("2028-02-01", "2028-02-28", "c"),
        ("2028-02-29", "2028-02-29", "d e"),
        ("2028-02-29", "2028-03-01", "d e f"),
        ("2028-03-01", "2028-03-31", "f"),
    ],
)
def test_log_and_usage_have_the_same_days(
    since: str,
    until: str,
    expected: str,
    found: Callable[[], Settings],
    sql_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A day, a month's end and a leap day begin at midnight in Shanghai, by day, month and person."""
    asked = {name: datetime.fromisoformat(time) for name, time in MIDNIGHTS.items()}
    with closing(SqlUsageStore(sql_url)) as store:
        store.save([entry(name, time=time, day=time.date(), bot="clock") for name, time in asked.items()], log=True)
    span = ["--since", since, "--until", until, "--bot", "clock", "--json"]

    def run(main: Any, *argv: str) -> list[dict[str, Any]]:
        assert main([*argv, *span], load=found) == 0
        return list(lines(capsys.readouterr().out))

    names = expected.split()
    assert sorted(row["stream_id"] for row in run(log.main, "list")) == names
    for by, length in (("day", 10), ("month", 7)):
        sums = {row[by]: row["questions"] for row in run(usage.main, "--by", by)}
        assert sums == Counter(MIDNIGHTS[name][:length] for name in names)
    assert [row["questions"] for row in run(usage.main, "--by", "person")] == [len(names)]


def test_usage_as_csv(found: Callable[[], Settings], capsys: pytest.CaptureFixture[str]) -> None:
    """With the columns of --by first."""
    usage.main(["--by", "channel", "--csv"], load=found)

    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out.removeprefix("\ufeff"))))
    assert [(row["channel"], row["questions"]) for row in table] == [("http", "1"), ("wecom", "3")]


@pytest.mark.parametrize(
    ("main", "argv", "message"),
    [
        (log.main, ["list", "--since", "gestern"], "expected a day"),
        (usage.main, ["--by", "colour"], "expected of month, day"),
    ],
)
def test_wrong_options_are_one_line(
    main: Any, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what is expected."""
    assert main(argv, load=lambda: settings(DATABASE_PATH="x.db")) == 1

    assert message in capsys.readouterr().err


@pytest.mark.parametrize("main", [lambda load: log.main(["list"], load=load), lambda load: usage.main([], load=load)])
def test_without_a_database_there_is_no_log(main: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The line names the setting."""
    assert main(settings) == 1

    assert "MYSQL_HOST or DATABASE_PATH" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "end", "expected"),
    [
        ("2026-01-31", False, "2026-01-31T00:00:00+08:00"),
        ("2026-01-31", True, "2026-02-01T00:00:00+08:00"),
        ("2028-02-28", True, "2028-02-29T00:00:00+08:00"),
        ("2026-01-31T08:30", True, "2026-01-31T08:30:00+08:00"),
        ("2026-01-31T08:30:00+00:00", False, "2026-01-31T08:30:00+00:00"),
        ("36h", False, "2026-03-29T20:00:00+08:00"),
    ],
)
def test_times_are_those_of_the_zone(text: str, end: bool, expected: str) -> None:
    """A day begins at its midnight there."""
    now = datetime.fromisoformat("2026-03-31T08:00:00+08:00")

    assert moment(text, now, end=end) == datetime.fromisoformat(expected)
