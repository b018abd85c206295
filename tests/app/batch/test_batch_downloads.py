"""All results of a task as a file: CSV for Excel, without formulas, a workbook for people, JSONL without any change."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import openpyxl
import pytest
from openpyxl.utils import get_column_letter
from openpyxl.utils.escape import unescape

from channels.batch.downloads import COLUMNS, PIECE, download, table_rows
from channels.batch.workbook import WIDTHS, WorkbookReader
from config.texts import ZH
from services.batches.records import BatchOptions, Given, Item, Task
from services.errors import StoreUnavailable
from tests.support.batches.counter import TASKS, Counter, data_of, refused
from tests.support.batches.twin import START
from utils.formats.csv_writer import csv_lines
from utils.formats.xlsx_writer import workbook_pieces
from utils.printable import harmless

READER = WorkbookReader("en", 0)
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


@pytest.mark.parametrize("format", ["csv", "jsonl", "xlsx"])
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

    reply = download(task(), items(), format, READER)  # type: ignore[arg-type]
    pieces = list(islice(reply.iter_encoded(), 3))

    assert all(PIECE <= len(piece) < PIECE + 4000 for piece in pieces)
    assert 3 * PIECE / 2000 < read < 3 * PIECE / 1000


def of_workbook(content: bytes, name: str = "Results") -> list[tuple[Any, ...]]:
    """Return the rows of the only sheet, as a spreadsheet reads them."""
    return list(openpyxl.load_workbook(io.BytesIO(content), read_only=True)[name].iter_rows(values_only=True))


def with_rows() -> tuple[Counter, str]:
    """Return a counter and a task whose two texts have ids and further columns, one of which has a formula."""
    counter = Counter()
    task_id = counter.task()
    for index, (own, note) in enumerate((("A-1", "=1+1"), ("A-2", ""))):
        given = Given(own, {"备注": note, "status": "open"})
        counter.batches.answer(task_id, Item(index, "How?", "completed", content="So.\x00\n=1", given=given))
    return counter, task_id


def test_a_csv_has_the_columns_of_the_file_at_its_end() -> None:
    """Own ids and input columns follow ours; one that is called as one of ours is told apart, formulas are text."""
    counter, task_id = with_rows()

    sent = counter.asks("GET", f"{TASKS}/{task_id}/results?format=csv").data

    head, first, second = csv.reader(io.StringIO(sent.decode("utf-8-sig")))
    assert head == [*COLUMNS, "备注", "status (input)"]
    assert first[-3:] == ["A-1", "'=1+1", "open"]
    assert second[-3:] == ["A-2", "", "open"]


def for_people(reader: WorkbookReader) -> bytes:
    """Return the workbook of a file's two rows: one is answered with all that an answer can have."""
    own = {"部门": "人事", "状态": "新"}
    answer = (
        "<think>想</think>## 年假\n\n- **五天**，见[手册](https://a.test/h)\n\n| 工龄 | 天数 |\n|---|---|\n| 1 | 5 |"
    )
    answered = Item(
        *(0, "年假有几天", "completed", 1, answer),
        metadata={"n": 1},
        sources=({"title": "手册", "url": "https://a.test/h", "position": 1}, {"title": "制度"}),
        usage={"total_tokens": 431, "total_price": "0.0012", "currency": "USD"},
        started_at=datetime(2026, 11, 21, 18, 0, 5, tzinfo=UTC),
        given=Given("A-1", own),
    )
    error = {"code": "provider_timeout", "message": "Too slow."}
    failed = Item(1, "=1+1", "failed", 3, error=error, given=Given("A-2", {**own, "部门": "@A1"}))
    return b"".join(download(task(), iter([answered, failed]), "xlsx", reader).iter_encoded())


def test_a_workbook_is_for_people() -> None:
    """Own columns come first, words are in the reader's language, answers are plain text, times are local dates."""
    head, first, second = of_workbook(for_people(WorkbookReader("zh", 480)), "结果")

    assert head[:7] == ("编号", "部门", "状态（原表）", "序号", "问题", "回答", "状态")
    assert head[7:] == (
        "失败原因",
        "来源",
        "Token 用量",
        "费用",
        "尝试次数",
        "开始时间（UTC+08:00）",
        "完成时间（UTC+08:00）",
    )
    assert first[:5] == ("A-1", "人事", "新", 1, "年假有几天")
    assert first[5] == "年假\n\n• 五天，见手册 (https://a.test/h)\n\n工龄 | 天数\n1 | 5"
    assert first[6:12] == ("已完成", None, "1. 手册 https://a.test/h\n2. 制度", 431, "0.0012 USD", 1)
    assert first[12] == datetime(2026, 11, 22, 2, 0, 5)
    assert first[13] is None
    assert second[1:8] == ("'@A1", "新", 2, "'=1+1", None, "失败", ZH["provider_timeout"])


def test_a_workbook_has_widths_and_a_head() -> None:
    """Each column has its width, texts are wrapped, and the head is bold and stays in sight."""
    book = openpyxl.load_workbook(io.BytesIO(for_people(READER)))

    sheet = book["Results"]
    widths = [sheet.column_dimensions[get_column_letter(at)].width for at in range(1, sheet.max_column + 1)]
    assert widths == [14, 20, 20, *WIDTHS.values()]
    assert [cell.value for cell in sheet[1]][:4] == ["Id", "部门", "状态", "No."]
    assert all(cell.font.b for cell in sheet[1])
    assert sheet["F2"].alignment.wrap_text
    assert sheet["M2"].number_format == "yyyy-mm-dd hh:mm:ss"
    assert sheet.freeze_panes == "A2"


def test_a_workbook_without_own_ids_has_no_column_for_them_in_front() -> None:
    """They are behind ours: of later rows some may have one. Language and zone are the request's."""
    counter = Counter()
    task_id = counter.task("a", "b")
    counter.batches.answer(task_id, Item(1, "b", "completed", content="So.", given=Given("B")))
    path = f"{TASKS}/{task_id}/results?format=xlsx"

    head, first, second = of_workbook(counter.asks("GET", f"{path}&utc_offset=-90").data)
    chinese = of_workbook(counter.asks("GET", f"{path}&locale=zh").data, "结果")

    assert (head[0], head[-2:], first[:4], second[-1]) == (
        "No.",
        ("Ended (UTC-01:30)", "Id"),
        (1, "a", None, "Waiting"),
        "B",
    )
    assert (chinese[0][0], chinese[1][3]) == ("序号", "等待中")


@pytest.mark.parametrize(
    "wrong", ["format=csv&locale=zh", "utc_offset=60", "format=xlsx&locale=fr", "format=xlsx&utc_offset=900"]
)
def test_the_parameters_of_a_workbook_are_checked(wrong: str) -> None:
    counter, task_id = answered_task("a")

    assert refused(counter.asks("GET", f"{TASKS}/{task_id}/results?{wrong}"))[::2] == (422, "invalid_fields")


def test_a_workbook_holds_any_text() -> None:
    """Numbers are numbers; characters that XML lacks, escapes and cells beyond Excel's limit make no broken file."""
    texts = ("=SUM(A1)", "a\x00b\x0b", "_x0041_", "<&>", "两行\n文字 ", "\U0001f600", "\ud800", "x" * 40_000, "\ufffe")

    sent = b"".join(workbook_pieces([["text", "n"], *((text, 7) for text in texts)], name="<a & b>"))

    book = openpyxl.load_workbook(io.BytesIO(sent))
    rows = list(book.worksheets[0].iter_rows(values_only=True))
    assert [row[1] for row in rows[1:]] == [7] * len(texts)
    read = [str(row[0]) for row in rows[1:]]
    assert read[:1] == ["=SUM(A1)"]
    assert [unescape(text) for text in read[1:6]] == [*texts[1:6]]
    assert (read[6], len(read[7]), unescape(read[8])) == ("?", 32_767, "\ufffe")
    assert all(cell.data_type in "sn" for cell in book.worksheets[0]["A"])


def test_results_are_filtered_by_their_status(counter_of_three: tuple[Counter, str]) -> None:
    """Pages and files have only the failed ones, and the total counts them."""
    counter, task_id = counter_of_three
    path = f"{TASKS}/{task_id}/results?status=failed"

    shown = data_of(counter.asks("GET", f"{path}&size=1&page=2"))

    assert ([one["index"] for one in shown["results"]], shown["total"]) == ([2], 2)
    assert [row["index"] for row in rows_of(counter.asks("GET", f"{path}&format=csv").data)] == ["0", "2"]
    assert len(of_workbook(counter.asks("GET", f"{path}&format=xlsx").data)) == 3
    assert refused(counter.asks("GET", f"{TASKS}/{task_id}/results?status=lost"))[0] == 422


def test_answers_are_shown_as_safe_html(counter_of_three: tuple[Counter, str]) -> None:
    """Only where it is asked for, of at most a hundred results, and without scripts."""
    counter, task_id = counter_of_three
    path = f"{TASKS}/{task_id}/results"

    html = data_of(counter.asks("GET", f"{path}?render=html"))["results"][1]["html"]

    assert "<strong>So</strong>" in html
    assert "<script" not in html
    assert "html" not in data_of(counter.asks("GET", path))["results"][1]
    for wrong in ("render=html&size=101", "render=html&format=csv", "render=text"):
        assert refused(counter.asks("GET", f"{path}?{wrong}"))[0] == 422


@pytest.fixture
def counter_of_three() -> tuple[Counter, str]:
    """A counter and a task with a failed, a completed and a failed text."""
    counter = Counter()
    task_id = counter.task("a", "b", "c")
    error = {"code": "provider_timeout", "message": "Too slow."}
    for index, text in enumerate("abc"):
        answer = Item(index, text, "completed", content="**So** <script>x</script>")
        counter.batches.answer(task_id, answer if text == "b" else Item(index, text, "failed", error=error))
    return counter, task_id


def test_an_outage_during_a_download_breaks_it_off() -> None:
    """The connection breaks off, so half a file never looks like a whole one."""

    def items() -> Iterator[Item]:
        yield Item(0, "?", content="x" * PIECE)
        raise StoreUnavailable

    sent = download(task(), items(), "csv", READER).iter_encoded()

    assert next(sent)
    with pytest.raises(StoreUnavailable):
        list(sent)


def test_an_outage_before_a_download_is_an_error() -> None:
    def items() -> Iterator[Item]:
        raise StoreUnavailable
        yield

    with pytest.raises(StoreUnavailable):
        download(task(), items(), "jsonl", READER)


def test_an_empty_csv_has_its_columns() -> None:
    assert "".join(csv_lines(table_rows([]))) == "\ufeff" + ",".join(f'"{name}"' for name in COLUMNS) + "\r\n"
