"""Batches as files: the fields of the form, the file types, and every error."""

from __future__ import annotations

import io

import pytest
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse

from channels.batch import uploads as batch_uploads
from channels.batch.endpoints import PREVIEW
from channels.batch.models import Preview
from channels.web.multipart import FIELDS_BYTES
from tests.support.batches.counter import MAX_BYTES, TASKS, Counter, data_of, refused
from tests.unit.questions.test_question_files import SHEET, rewritten, sheet_xml, workbook
from utils.questions.files.reading import read_file
from utils.questions.files.rows import FileRefused, Wanted

CUT = b"--x\r\nContent-Disposition: form-data; name=file; filename=q.txt\r\n\r\nHo"
CSV = "id,question\n1,年假有几天？\n2,How?\n".encode()


@pytest.fixture
def counter() -> Counter:
    return Counter()


def texts_of_upload(counter: Counter, filename: str, content: bytes, **fields: str) -> list[str]:
    """Upload a file and return the texts of its task."""
    return counter.texts(data_of(counter.uploads(filename, content, **fields), 201)["task_id"])


@pytest.mark.parametrize(
    ("filename", "content"),
    [
        # Each file is read by a new process; test_question_files has the contents of files.
        ("q.csv", CSV.decode().encode("gb18030")),
        ("q.xlsx", workbook([["id", "question"], [1, "年假有几天？"], [2, "How?"]])),
        pytest.param("q.txt", "年假有几天？\nHow?".encode("utf-8-sig"), marks=pytest.mark.full),
        pytest.param("q.csv", CSV, marks=pytest.mark.full),
    ],
    ids=["csv in gb18030", "xlsx", "text", "csv"],
)
def test_a_file_becomes_a_task(counter: Counter, filename: str, content: bytes) -> None:
    """The task has the file's texts in their order, and its name."""
    reply = counter.uploads(filename, content)

    shown = data_of(counter.asks("GET", reply.headers["Location"]))
    assert counter.texts(shown["task_id"]) == ["年假有几天？", "How?"]
    assert (shown["name"], shown["description"]) == ("q", "")


def test_a_file_whose_column_is_unclear_names_its_columns(counter: Counter) -> None:
    """The error lists the columns, and a form field chooses one."""
    content = "编号,事项,说明\n101,年假,五天\n".encode()

    error = counter.uploads("q.csv", content).get_json()["data"]["errors"][0]

    assert (error["field"], error["problem"].endswith(": 1 编号, 2 事项, 3 说明.")) == ("column", True)
    assert texts_of_upload(counter, "q.csv", content, column="事项") == ["年假"]


TABLE = "id,question,备注,\nA-1,年假有几天？,急,\nA-2,How?,,x\n".encode()


def test_rows_come_back_with_their_results(counter: Counter) -> None:
    """The chosen id column is the id; all other columns come back by their names, also blank cells."""
    task_id = data_of(counter.uploads("q.csv", TABLE, id_column="ID"), 201)["task_id"]

    first, second = data_of(counter.asks("GET", f"{TASKS}/{task_id}/results"))["results"]

    assert (first["id"], first["columns"]) == ("A-1", {"备注": "急", "4": ""})
    assert (second["id"], second["columns"]) == ("A-2", {"备注": "", "4": "x"})


def test_a_preview_shows_the_columns_and_stores_nothing(counter: Counter) -> None:
    """Numbers from 1, samples without blank cells, the columns that look like questions and ids, and the limit."""
    reply = counter.asks("POST", PREVIEW, data={"file": (io.BytesIO(TABLE), "q.csv")})

    shown = data_of(reply)
    assert Preview.model_validate(shown).model_dump() == shown
    assert [(one["index"], one["name"], one["samples"]) for one in shown["columns"]] == [
        (1, "id", ["A-1", "A-2"]),
        (2, "question", ["年假有几天？", "How?"]),
        (3, "备注", ["急"]),
        (4, "4", ["x"]),
    ]
    assert (shown["column"], shown["id_column"], shown["header"], shown["rows"]) == (2, 1, True, 2)
    assert (shown["sheets"], shown["max_bytes"]) == ([], MAX_BYTES)
    assert counter.batches.status().totals["pending"] == 0


def test_a_preview_of_a_workbook_names_its_sheets(counter: Counter) -> None:
    """A column that cannot be told is null, a wrong sheet an error; `header` is followed."""
    book = workbook([["x"]], other=[["a", "b"], ["c", "d"]])

    def preview(**fields: str) -> TestResponse:
        return counter.asks("POST", PREVIEW, data={"file": (io.BytesIO(book), "q.xlsx"), **fields})

    shown = data_of(preview(sheet="other", header="no"))
    assert (shown["sheets"], shown["column"], shown["header"], shown["rows"]) == (["Sheet", "other"], None, False, 2)
    assert refused(preview(sheet="third"))[2] == "no_such_sheet"
    assert refused(preview(column="1"))[2] == "invalid_fields"


@pytest.mark.parametrize(
    ("content", "id_column", "reason"),
    [
        ("question,a,b,c\nHow?" + 3 * f",{'x' * 100_000}", "", "row_too_long"),
        (f"question\n{'x' * 200_000}", "", "text_too_long"),
        (f"question,x\nHow?,{'x' * 201}", "x", "id_too_long"),
        ("question,y\nHow?,z", "x", "no_such_column"),
    ],
    ids=["row", "question", "id", "column"],
)
def test_a_row_is_bounded(content: str, id_column: str, reason: str) -> None:
    """A row with too many bytes beside its question, a long id and a missing id column are refused in words."""
    with pytest.raises(FileRefused) as refusal:
        read_file(content.encode(), Wanted("csv", id_column=id_column))

    assert refusal.value.reason == reason


def test_a_long_cell_beside_a_question_is_kept() -> None:
    """A row's limit counts, not the one of Python's csv (131,072 characters)."""
    (row,) = read_file(f"question,page\nHow?,{'x' * 150_000}".encode(), Wanted("csv")).rows

    assert len(row.columns["page"]) == 150_000


def test_a_form_has_the_fields_of_json_and_selects_the_texts(counter: Counter) -> None:
    """Name, description and options, which are JSON; sheet, column and header override what is detected."""
    book = workbook([["x"]], other=[["a", "b"], ["c", "d"], ["e", '="Wh"&"y?"']])
    fields = {"name": "FAQ", "description": "all", "options": '{"max_attempts": 1, "inputs": {"role": "x"}}'}

    submitted = data_of(counter.uploads("q.xlsx", book, sheet="other", column="2", header="no", **fields), 201)

    shown = data_of(counter.asks("GET", f"{TASKS}/{submitted['task_id']}"))
    assert (shown["name"], shown["description"]) == ("FAQ", "all")
    assert (shown["options"]["inputs"], shown["options"]["max_attempts"]) == ({"role": "x"}, 1)
    assert counter.texts(shown["task_id"]) == ["b", "d"]
    # A formula that has no value is no question.
    assert submitted["formulas_without_value"] == 1


def test_empty_fields_are_ignored_and_a_key_finds_the_task_again(counter: Counter) -> None:
    """A page sends all fields. The name is the file's; a key's submission is compared by its texts, not its bytes."""
    empty = dict.fromkeys(("name", "description", "options", "column", "header", "sheet"), "")

    def send(content: bytes, encoding: str) -> TestResponse:
        file = FileStorage(io.BytesIO(content), f"/a/常见.{'n' * 150}.csv")
        form = {"file": file, "encoding": encoding, **empty}
        return counter.asks("POST", TASKS, data=form, headers={"Idempotency-Key": "k"})

    first, again = data_of(send(CSV, ""), 201), data_of(send(CSV.decode().encode("utf-16"), "utf-16"), 200)

    assert first == again
    assert first["formulas_without_value"] == 0
    shown = data_of(counter.asks("GET", f"{TASKS}/{first['task_id']}"))
    assert shown["name"] == f"常见.{'n' * 97}"
    assert counter.texts(first["task_id"]) == ["年假有几天？", "How?"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"column": "answer"}, "column"),
        ({"header": "maybe"}, "header"),
        ({"encoding": "klingon"}, "encoding"),
        ({"options": "{"}, "options"),
        ({"options": '{"user": "x"}'}, "options.user"),
        ({"texts": "How?"}, "texts"),
        ({"name": "n" * 101}, "name"),
    ],
)
def test_a_wrong_field_is_named(counter: Counter, fields: dict[str, str], field: str) -> None:
    reply = counter.uploads("q.csv", CSV, **fields)

    assert refused(reply)[:2] == (422, 10000)
    assert reply.get_json()["data"]["errors"][0]["field"] == field


@pytest.mark.parametrize(
    ("filename", "content", "status", "reason"),
    [
        ("q.pdf", b"%PDF", 415, "unsupported_file"),
        ("q.xls", bytes.fromhex("d0cf11e0a1b11ae1"), 415, "unsupported_file"),
        ("q.xlsx", b"PK\x03\x04broken", 422, "unreadable_file"),
        ("q.txt", b"x\n" * 10_001, 422, "too_many_texts"),
        pytest.param("q.csv", b"\xff\xff", 422, "bad_encoding", marks=pytest.mark.full),
        pytest.param("q.csv", "question\nÇa\n".encode("latin-1"), 422, "bad_encoding", marks=pytest.mark.full),
        pytest.param(
            "q.csv", "编号,事项,说明\n101,年假,五天\n".encode(), 422, "unclear_column", marks=pytest.mark.full
        ),
        pytest.param("q.txt", b"", 422, "no_texts", marks=pytest.mark.full),
        pytest.param("q.txt", b"x" * 10_001, 422, "text_too_long", marks=pytest.mark.full),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_file_that_cannot_be_read_has_its_reason(
    counter: Counter, filename: str, content: bytes, status: int, reason: str
) -> None:
    assert refused(counter.uploads(filename, content)) == (status, 10000, reason)


def test_a_file_beyond_the_limit_is_refused(counter: Counter) -> None:
    """A file of exactly the limit is read; a form beyond the limit is rejected before its file is read."""
    most = (b"How?\n" * (MAX_BYTES // 5))[:MAX_BYTES]
    assert refused(counter.uploads("q.txt", most))[2] == "too_many_texts"

    for beyond in (1, FIELDS_BYTES + 1):
        reply = counter.uploads("q.txt", most + b"x" * beyond)
        assert refused(reply) == (413, 10000, "too_large")
        assert reply.get_json()["data"]["max_bytes"] == MAX_BYTES


def test_fields_of_a_form_are_bounded(counter: Counter) -> None:
    """A field as long as a file and a form with very many fields are rejected."""
    assert counter.uploads("q.txt", b"How?", options="x" * (FIELDS_BYTES + 1)).status_code == 413
    assert counter.uploads("q.txt", b"How?", **{f"f{n}": "" for n in range(30)}).status_code == 413


def test_a_form_needs_exactly_one_file(counter: Counter) -> None:
    """No file, a file under another name, or two files is an error."""
    one, two, three, four, five = ((io.BytesIO(b"How?"), "q.txt") for _ in range(5))
    forms = ({"name": "x"}, {"document": one}, {"file": [two, three]}, {"file": four, "more": five})

    for form in forms:
        reply = counter.asks("POST", TASKS, data=form, content_type="multipart/form-data")
        assert refused(reply) == (422, 10000, "invalid_fields")
        assert reply.get_json()["data"]["errors"][0]["field"] == "file"


def test_a_repeated_field_is_rejected(counter: Counter) -> None:
    reply = counter.asks("POST", TASKS, data={"file": (io.BytesIO(b"How?"), "q.txt"), "name": ["a", "b"]})

    assert reply.get_json()["data"]["errors"] == [{"field": "name", "problem": "was given more than once"}]


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("multipart/form-data", b"--x--"),
        ("multipart/form-data; boundary=x", CUT),
    ],
    ids=["no boundary", "cut"],
)
def test_a_broken_form_is_refused(counter: Counter, content_type: str, content: bytes) -> None:
    """A form that is cut off makes no task."""
    reply = counter.asks("POST", TASKS, data=content, content_type=content_type)

    assert refused(reply) == (400, 10000, "broken_form")


def test_a_file_that_takes_too_long_to_read_is_rejected(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    """After READ_SECONDS the reading process is ended."""
    monkeypatch.setattr(batch_uploads, "READ_SECONDS", 0.0)

    assert refused(counter.uploads("q.csv", CSV)) == (422, 10000, "file_too_complex")


def test_files_read_at_once_are_limited(counter: Counter) -> None:
    """One more gets 503 with Retry-After; a file that was rejected releases its slot."""
    counter.uploads("q.csv", b"\xff\xff")
    data_of(counter.uploads("q.csv", CSV), 201)

    reply = Counter(files_at_once=0).uploads("q.csv", CSV)

    assert refused(reply) == (503, 503, "busy")
    assert int(reply.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("limit", "most", "rows"),
    [
        pytest.param("MEMORY", 160_000_000, b"<row>" + b"<c/>" * 500_000 + b"</row>", marks=pytest.mark.full),
        pytest.param("CPU_SECONDS", 1, (b"<row>" + b"<c/>" * 10 + b"</row>") * 100_000, marks=pytest.mark.full),
    ],
    ids=["a row that takes memory", "rows that take time"],
)
def test_a_hostile_workbook_does_not_harm_the_server(
    counter: Counter, monkeypatch: pytest.MonkeyPatch, limit: str, most: int, rows: bytes
) -> None:
    """The process that reads it hits its limits; the server goes on."""
    bomb = rewritten(workbook([["How?"]]), SHEET, sheet_xml(rows))
    monkeypatch.setattr(batch_uploads, limit, most)
    # So long that a busy machine does not hit this limit first.
    monkeypatch.setattr(batch_uploads, "READ_SECONDS", 100.0)

    assert len(bomb) <= MAX_BYTES
    assert refused(counter.uploads("q.xlsx", bomb)) == (422, 10000, "file_too_complex")
    data_of(counter.uploads("q.csv", CSV), 201)
