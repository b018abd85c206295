"""All results of a task as a file: CSV for Excel, without formulas, and JSONL without any change."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from itertools import islice

import pytest

from channels.batch.downloads import COLUMNS, PIECE, csv_lines, download, harmless
from services.batches.records import BatchOptions, Item, Task
from services.errors import StoreUnavailable
from tests.support.batches.counter import TASKS, Counter, data_of
from tests.support.batches.twin import START

SOURCES = ({"title": "手册", "position": 1},)
FORMULAS = [
    "=1+1",
    "+A1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",
    "＋1",
    "－1",
    "＠a",
    "  =1",
    "-list",
    "- =1",
]
FORMULAS += [
    "- cmd|' /C calc'!A0",
    "- HYPERLINK(A1)",
    "- [x.xls]s!A1",
    "-42+cmd|' /C calc'!A0",
    "- a\n- SUM (A1)",
    "- -1+1",
]


def task(name: str = "FAQ") -> Task:
    return Task("3f0c1c9e-5d5b-4c43-9d0a-2f6f6d1f2a34", "key:a", name, "", "running", BatchOptions(), 3, START, START)


def answered_task(*texts: str) -> tuple[Counter, str]:
    """Return a counter and a task whose texts are all answered."""
    counter = Counter()
    task_id = counter.task(*texts)
    for index, text in enumerate(texts):
        counter.batches.answer(task_id, Item(index, text, "completed", content=text, sources=SOURCES))
    return counter, task_id


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def test_a_csv_has_a_row_for_each_text_in_order() -> None:
    """Texts without an answer have a row too, so the file lines up with the submitted one."""
    counter = Counter()
    task_id = counter.task("How?", "Why?", "两行\n文字")
    error = {"code": "provider_timeout", "message": "Too slow."}
    counter.batches.answer(
        task_id, Item(2, "两行\n文字", "completed", content='"Yes", 是的', usage={"total_tokens": 7})
    )
    counter.batches.answer(task_id, Item(0, "How?", "failed", error=error))

    rows = rows_of(counter.asks("GET", f"{TASKS}/{task_id}/results?format=csv").data)

    assert [(row["index"], row["text"], row["status"]) for row in rows] == [
        ("0", "How?", "failed"),
        ("1", "Why?", "pending"),
        ("2", "两行\n文字", "completed"),
    ]
    assert (rows[0]["error_code"], rows[0]["error_message"], rows[0]["content"]) == (*error.values(), "")
    assert (rows[2]["content"], json.loads(rows[2]["usage"]), rows[2]["error_code"]) == (
        '"Yes", 是的',
        {"total_tokens": 7},
        "",
    )
    assert rows[1]["completed_at"] == ""


def test_a_csv_opens_in_excel() -> None:
    """A byte order mark, quotes around every cell, and CRLF line ends."""
    counter, task_id = answered_task("a;=1+1")

    reply = counter.asks("GET", f"{TASKS}/{task_id}/results?format=csv")

    assert reply.content_type == "text/csv; charset=utf-8"
    assert reply.data.startswith(b'\xef\xbb\xbf"index","text",')
    assert reply.data.count(b"\r\n") == 2
    assert b'"a;=1+1"' in reply.data


@pytest.mark.parametrize("formula", FORMULAS, ids=[ascii(one) for one in FORMULAS])
def test_no_cell_is_a_formula(formula: str) -> None:
    """Questions, answers and errors are escaped: the text of a model is as untrusted as that of a user."""
    counter = Counter()
    task_id = counter.task(formula, "b")
    counter.batches.answer(task_id, Item(0, formula, "completed", content=formula))
    counter.batches.answer(task_id, Item(1, "b", "failed", error={"code": formula, "message": formula}))

    rows = rows_of(counter.asks("GET", f"{TASKS}/{task_id}/results?format=csv").data)

    cells = [rows[0]["text"], rows[0]["content"], rows[1]["error_code"], rows[1]["error_message"]]
    assert cells == [f"'{formula}"] * 4


@pytest.mark.parametrize(
    "text",
    [
        *("", "a=1", "1-2", "'x", "年假 = 5 天", "  x"),
        *("-42", "+8,000.50", "-1.5e-3", "-5%", " -42 ", "- list", "- 年假（5 天）\n- 病假 = 3 天！\n", "+ one\n+ two"),
    ],
)
def test_text_that_is_no_formula_is_unchanged(text: str) -> None:
    assert harmless(text) == text


def test_jsonl_has_exactly_the_results() -> None:
    """The lines equal the results in JSON pages; nothing is escaped for spreadsheets."""
    counter, task_id = answered_task("=1+1", "两行\n文字", "a\u2028b")

    reply = counter.asks("GET", f"{TASKS}/{task_id}/results?format=jsonl")

    assert reply.content_type == "application/x-ndjson"
    lines = reply.data.decode().split("\n")
    results = data_of(counter.asks("GET", f"{TASKS}/{task_id}/results"))["results"]
    assert [json.loads(line) for line in lines[:-1]] == results
    assert lines[-1] == ""
    assert results[0]["sources"] == list(SOURCES)


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_download_is_a_file_with_the_tasks_name(format: str) -> None:
    """`filename*` has the encoded name, `filename` a plain one; quotes and line breaks of the name are encoded."""
    counter = Counter()
    task_id = counter.task(name='a/b\\"常见"; x=\r\n1')

    reply = counter.asks("GET", f"{TASKS}/{task_id}/results?format={format}")

    name = f"a_b_%22%E5%B8%B8%E8%A7%81%22%3B%20x%3D%0D%0A1.{format}"
    plain = f"batch-{task_id}.{format}"
    assert reply.headers["Content-Disposition"] == f"attachment; filename=\"{plain}\"; filename*=UTF-8''{name}"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_download_reads_no_further_than_it_has_sent(format: str) -> None:
    """Ten thousand long answers are never in memory together."""
    read = 0

    def items() -> Iterator[Item]:
        nonlocal read
        for index in range(10_000):
            read += 1
            yield Item(index, "?", "completed", content="x" * 1000)

    reply = download(task(), items(), format)  # type: ignore[arg-type]
    pieces = list(islice(reply.iter_encoded(), 3))

    assert all(PIECE <= len(piece) < PIECE + 4000 for piece in pieces)
    assert 3 * PIECE / 2000 < read < 3 * PIECE / 1000


def test_an_outage_during_a_download_breaks_it_off() -> None:
    """The connection breaks off, so half a file never looks like a whole one."""

    def items() -> Iterator[Item]:
        yield Item(0, "?", content="x" * PIECE)
        raise StoreUnavailable

    sent = download(task(), items(), "csv").iter_encoded()

    assert next(sent)
    with pytest.raises(StoreUnavailable):
        list(sent)


def test_an_outage_before_a_download_is_an_error() -> None:
    def items() -> Iterator[Item]:
        raise StoreUnavailable
        yield

    with pytest.raises(StoreUnavailable):
        download(task(), items(), "jsonl")


def test_an_empty_csv_has_its_columns() -> None:
    assert "".join(csv_lines([])) == "\ufeff" + ",".join(f'"{name}"' for name in COLUMNS) + "\r\n"
