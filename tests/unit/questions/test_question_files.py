"""Question files: the column with the questions, encodings, and limits on size and complexity."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any

import openpyxl
import pytest

from utils.formats import xlsx_rows
from utils.questions.files.reading import MAX_CHARS, MAX_TEXTS, preview, read_file
from utils.questions.files.rows import FileKind, FileRefused, Wanted, kind_of

SHEET = "xl/worksheets/sheet1.xml"


def workbook(rows: Iterable[Sequence[Any]], **more: Iterable[Sequence[Any]]) -> bytes:
    """Return an .xlsx with these rows in its first sheet, and with further sheets by name."""
    book = openpyxl.Workbook()
    for sheet, its_rows in ((book.active, rows), *((book.create_sheet(name), one) for name, one in more.items())):
        assert sheet is not None
        for row in its_rows:
            sheet.append(list(row))
    return saved(book)


def saved(book: openpyxl.Workbook) -> bytes:
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def rewritten(content: bytes, part: str, xml: bytes) -> bytes:
    """Return the workbook with the content of one of its parts replaced."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, xml if name == part else old.read(name))
    return out.getvalue()


def sheet_xml(rows: bytes, before: bytes = b"") -> bytes:
    namespace = b"http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    return before + b'<worksheet xmlns="' + namespace + b'"><sheetData>' + rows + b"</sheetData></worksheet>"


def read_texts(content: bytes, wanted: Wanted) -> list[str]:
    return read_file(content, wanted).texts


def refusal(content: bytes, wanted: Wanted) -> str:
    with pytest.raises(FileRefused) as refused:
        read_texts(content, wanted)
    return refused.value.reason


def of_csv(text: str, **wanted: Any) -> list[str]:
    return read_texts(text.encode(), Wanted("csv", **wanted))


@pytest.mark.parametrize(
    ("filename", "content", "kind"),
    [
        ("a.txt", b"x", "text"),
        ("A.CSV", b"x", "csv"),
        ("a.tsv", b"x", "csv"),
        ("a.xlsx", xlsx_rows.MAGIC, "xlsx"),
        ("workbook called.csv", xlsx_rows.MAGIC, "xlsx"),
        ("a.xlsx", b"no workbook", "xlsx"),
    ],
)
def test_the_kind_is_found_by_the_first_bytes_or_the_name(filename: str, content: bytes, kind: FileKind) -> None:
    """A workbook is recognised under any name; text and CSV files by their names."""
    assert kind_of(filename, content) == kind


@pytest.mark.parametrize(
    ("filename", "content"), [("a.pdf", b"%PDF"), ("noname", b"x"), ("old.xls", bytes.fromhex("d0cf11e0a1b11ae1"))]
)
def test_a_file_of_another_kind_is_unsupported(filename: str, content: bytes) -> None:
    """This includes .xls workbooks and, with the same first bytes, workbooks with a password."""
    with pytest.raises(FileRefused) as refused:
        kind_of(filename, content)

    assert refused.value.reason == "unsupported_file"


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old mac"])
def test_each_line_of_plain_text_is_a_question(line_end: str) -> None:
    """Surrounding white space and blank lines are dropped; plain text has no header."""
    text = line_end.join(["question", "  年假有几天？ ", "", "\t", 'Is "this" one, too?', ""])

    assert read_texts(text.encode(), Wanted("text")) == ["question", "年假有几天？", 'Is "this" one, too?']


@pytest.mark.parametrize(
    ("encoded", "encoding"),
    [
        ("怎么报销？".encode(), "auto"),
        ("怎么报销？".encode("utf-8-sig"), "auto"),
        ("怎么报销？".encode("utf-8-sig"), "utf-8"),
        ("怎么报销？".encode("gb18030"), "auto"),
        ("怎么报销？".encode("gb18030"), "gb18030"),
        ("怎么报销？".encode("utf-16"), "auto"),
        ("怎么报销？".encode("utf-16"), "utf-16"),
    ],
    ids=["utf-8", "marked", "marked and told", "gb18030", "gb18030 told", "utf-16", "utf-16 told"],
)
@pytest.mark.parametrize("kind", ["text", "csv"])
def test_the_encodings_of_windows_and_excel_are_read(kind: FileKind, encoded: bytes, encoding: Any) -> None:
    """UTF-8 with and without byte order mark, UTF-16 as Excel writes Unicode text, and GB18030 of old programs."""
    assert read_texts(encoded, Wanted(kind, encoding=encoding)) == ["怎么报销？"]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"\xff\xff\xff", "auto"),
        ("Où est le café ? Ça coûte très cher.".encode("latin-1"), "auto"),
        ("Wie hoch ist die Vergütung? Natürlich!".encode("cp1252"), "auto"),
        ("有給休暇は何日ありますか？経費の精算はどうすればいいですか？".encode("shift-jis"), "auto"),
        ("請問年假有幾天？如何報銷差旅費？".encode("big5"), "auto"),
        ("Как оформить отпуск? Сколько дней положено?".encode("cp1251"), "auto"),
        (
            "연차 휴가는 며칠입니까? 경비는 어떻게 정산합니까? 출장 신청은 어디에서 합니까? "
            "급여는 언제 지급됩니까? 회의실은 어떻게 예약합니까?".encode("euc-kr"),
            "auto",
        ),
        ("怎么报销？".encode("gb18030"), "utf-8"),
        ("怎么报销？".encode("utf-16-le"), "auto"),
        ("how?".encode("utf-16-le"), "auto"),
    ],
    ids=[
        *("no encoding", "latin-1", "cp1252", "shift-jis", "big5", "cp1251", "euc-kr"),
        *("not as told", "utf-16 unmarked", "latin utf-16 unmarked"),
    ],
)
def test_an_unreadable_encoding_is_refused(content: bytes, encoding: Any) -> None:
    """No question is asked with replacement characters, or with NULs between its letters."""
    assert refusal(content, Wanted("text", encoding=encoding)) == "bad_encoding"


@pytest.mark.parametrize(
    "text",
    [
        "怎么报销？",
        "喆是谁？",
        "VPN 怎么连？" * 50,
        "年假\n病假\n产假\n婚假\n社保\n公积金\n差旅\n报销".replace("\n", " "),
        "请问产假（含难产假、多胞胎假）共有几天，镕基先生？①是 ②否 →《制度》" * 20,
        "鞠躬尽瘁饕餮蹉跎，请问这些词怎么读？",
        "¥100 以内的发票可以报销吗？“例外”由谁批准……",
    ],
)
def test_chinese_in_gbk_is_detected(text: str) -> None:
    """Rare names, symbols and Western words in the text do not prevent the detection."""
    assert read_texts(text.encode("gb18030"), Wanted("text")) == [text]


def test_a_given_encoding_is_not_checked() -> None:
    """With encoding gb18030, text of rare characters is accepted that `auto` may refuse."""
    assert read_texts("镕".encode("gbk"), Wanted("text", encoding="gb18030")) == ["镕"]


def test_the_column_with_a_usual_name_is_used() -> None:
    """Its position and the case of its name do not matter; the header is not a question."""
    assert of_csv("id,Question ,note\n1,How?,x\n2,Why?,y\n") == ["How?", "Why?"]
    assert of_csv("编号,问题\n1,年假有几天？\n") == ["年假有几天？"]


def test_of_two_usual_names_the_more_certain_one_wins() -> None:
    assert of_csv("text,question\nbackground,How?\n") == ["How?"]


def test_without_a_header_the_only_text_column_is_used() -> None:
    """Columns of numbers, dates and codes are ignored, and the first row is a question too."""
    assert of_csv("How?,1\nWhy?,2\n") == ["How?", "Why?"]
    assert of_csv("1,2026-01-02,How?,A-17,是\n2,2026-01-03,Why?,A-18,否\n") == ["How?", "Why?"]


@pytest.mark.parametrize(
    "rows",
    [
        "编号,内容\n101,年假有几天\n102,怎么报销\n",
        "内容,编号\n年假有几天,101\n怎么报销,102\n",
        "Nr,Frage\n101,年假有几天\n102,怎么报销\n",
        "编号,问题类型,问题（必填）\n101,人事,年假有几天\n102,财务,怎么报销\n",
        "标题,内容\n年假有几天?,五天。\n怎么报销?,在系统里填单。\n",
        "部门,咨询,备注\n人事,年假有几天？,急\n财务,怎么报销？,\n",
    ],
    ids=["numbers", "numbers behind", "a word above numbers", "a longer name", "questions and answers", "one asks"],
)
def test_without_a_usual_name_a_column_is_found_by_its_content(rows: str) -> None:
    """A header without a usual name is recognised, and not asked."""
    assert [text.rstrip("?？") for text in of_csv(rows)] == ["年假有几天", "怎么报销"]


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ("编号,事项,说明\n101,年假,五天\n102,报销,三天\n", "1 编号, 2 事项, 3 说明"),
        ("怎么请假,在系统里申请\n怎么报销,找财务\n", "1 怎么请假, 2 在系统里申请"),
        ("Hello, how are you?\nWhy?\n", "1 Hello, 2 how are you?"),
        ("编号,数量\n101,5\n102,6\n", "1 编号, 2 数量"),
        ("1,2\n3,4\n", "1 1, 2 2"),
        ("问题,问题\n一?,二?\n", "1 问题, 2 问题"),
        (f"{'长' * 50},,x\na,b,c\n", f"1 {'长' * 30}, 2 –, 3 x"),
    ],
    ids=["two of words", "no header", "a comma in a question", "numbers only", "numbers alone", "twice", "shown short"],
)
def test_an_unclear_column_is_refused_with_a_list_of_columns(rows: str, columns: str) -> None:
    """The wrong column is never asked by a guess; a column's number resolves the doubt."""
    with pytest.raises(FileRefused) as refused:
        read_texts(rows.encode(), Wanted("csv"))

    assert (refused.value.reason, refused.value.field) == ("unclear_column", "column")
    assert refused.value.problem.endswith(f"choose one of these: {columns}.")
    assert len(of_csv(rows, column="2")) >= 1


def test_a_header_is_recognised_when_a_number_chooses_the_column() -> None:
    """The first row is a header if any of its names is usual, or if it has a word above numbers."""
    assert of_csv("编号,问题\n1,年假有几天\n", column="2") == ["年假有几天"]
    assert of_csv("编号,问题\n1,年假有几天\n", column="1") == ["1"]
    assert of_csv("编号,内容\n101,年假有几天\n", column="2") == ["年假有几天"]
    assert of_csv("Nr,Frage\n1,年假有几天\n", column="2") == ["年假有几天"]
    assert of_csv("人事,年假有几天\n财务,怎么报销\n", column="2") == ["年假有几天", "怎么报销"]


@pytest.mark.parametrize("column", ["note", " NOTE ", "3"])
def test_a_column_is_chosen_by_its_name_or_number(column: str) -> None:
    """Numbers count from 1; a column chosen by its name implies a header."""
    header = "yes" if column == "3" else "auto"

    assert of_csv("id,question,note\n1,How?,a\n2,Why?,b\n", column=column, header=header) == ["a", "b"]


def test_a_number_is_also_the_name_of_a_column() -> None:
    """If the header contains the number, it is taken as a name, as in a table of years."""
    assert of_csv("2024,1\na,b\n", column="1") == ["b"]
    assert of_csv("2024,1\na,b\n", column="2024") == ["a"]


def test_the_header_option_overrides_the_detection() -> None:
    """`no` keeps a first row with a usual name; `yes` skips a first row without one."""
    assert of_csv("question\nHow?\n", header="no") == ["question", "How?"]
    assert of_csv("whatever\nHow?\n", header="yes") == ["How?"]
    assert of_csv("question\nHow?\n", header="auto", column="1") == ["How?"]


def test_a_missing_column_is_refused() -> None:
    assert refusal(b"id,question\n1,How?\n", Wanted("csv", column="answer")) == "no_such_column"
    assert refusal(b"id,question\n1,How?\n", Wanted("csv", column="question", header="no")) == "no_such_column"
    assert refusal(b"id,question\n1,How?\n", Wanted("csv", column="7")) == "no_texts"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_the_delimiter_is_the_most_frequent_one_of_the_first_line(delimiter: str) -> None:
    """Characters in quotes do not count."""
    others = ",;\t".replace(delimiter, "") * 3
    row = delimiter.join([f'"{others}"', "How?"])

    assert of_csv(f"{row}\n{row}\n", column="2", header="no") == ["How?", "How?"]


def test_excels_sep_line_sets_the_delimiter() -> None:
    assert of_csv("sep=;\r\nid;question\r\n1,5;How, then?\r\n") == ["How, then?"]


def test_a_csv_cell_may_contain_line_breaks_and_quotes() -> None:
    assert of_csv('question,id\n"Two\nlines, ""quoted""",1\nHe said "hm",2\n') == [
        'Two\nlines, "quoted"',
        'He said "hm"',
    ]


def test_a_quote_that_is_never_closed_is_refused() -> None:
    """Otherwise all later rows would become part of one cell without a sign."""
    assert refusal(b'question\n"How?\nWhy?\n', Wanted("csv")) == "unreadable_file"


def test_short_and_blank_rows_are_skipped() -> None:
    assert of_csv("id,question\n\n1\n2,\n3,How?\n,,\n") == ["How?"]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [(b"", Wanted("text")), (b" \n\n", Wanted("text")), (b"question\n", Wanted("csv")), (workbook([]), Wanted("xlsx"))],
    ids=["empty", "blank", "header only", "empty sheet"],
)
def test_a_file_without_texts_is_refused(content: bytes, wanted: Wanted) -> None:
    assert refusal(content, wanted) == "no_texts"


def test_the_number_of_texts_is_limited() -> None:
    """MAX_TEXTS texts are accepted, one more is refused."""
    most = "x\n" * MAX_TEXTS

    assert len(read_texts(most.encode(), Wanted("text"))) == MAX_TEXTS
    assert refusal((most + "x").encode(), Wanted("text")) == "too_many_texts"


def test_the_length_of_a_text_is_limited() -> None:
    """MAX_CHARS characters, not bytes, are accepted; the error names the line and does not quote the text."""
    assert len(read_texts(("问" * MAX_CHARS).encode(), Wanted("text"))[0]) == MAX_CHARS

    with pytest.raises(FileRefused) as refused:
        read_texts(("How?\n" + "问" * (MAX_CHARS + 1)).encode(), Wanted("text"))

    assert (refused.value.reason, refused.value.problem) == ("text_too_long", "Row 2 has more than 10000 characters.")


def test_the_size_of_all_texts_is_limited() -> None:
    """A small workbook may be large when read, because it stores a repeated text only once."""
    repeated = workbook([["x" * 1000]] * 200)

    assert len(repeated) < 20_000
    assert len(read_texts(repeated, Wanted("xlsx", max_bytes=200_000))) == 200
    assert refusal(repeated, Wanted("xlsx", max_bytes=199_999)) == "too_many_texts"


def test_cells_of_a_workbook_are_read_as_excel_shows_them() -> None:
    """Whole numbers have no decimals, dates no time; Excel's escapes are decoded."""
    cells = [
        "How?",
        5,
        2.0,
        2.5,
        True,
        datetime(2026, 1, 2),
        datetime(2026, 1, 2, 3, 4),
        date(2026, 1, 3),
        "a_x000D_\nb",
    ]

    texts = read_texts(workbook([["question"], *([cell] for cell in cells)]), Wanted("xlsx"))

    assert texts == ["How?", "5", "2", "2.5", "TRUE", "2026-01-02", "2026-01-02 03:04:00", "2026-01-03", "a\r\nb"]


def test_formulas_without_a_value_are_counted() -> None:
    """Some programs write formulas without calculated values; these cells are skipped and counted."""
    rows: list[list[Any]] = [["id", "question"], [1, "How?"], [2, '="Wh"&"y?"'], ["=1+1", ""], [4, "=A2"]]

    reading = read_file(workbook(rows), Wanted("xlsx"))

    assert (reading.texts, reading.unvalued) == (["How?"], 2)
    assert read_file(workbook([["question"], ["How?"], [""]]), Wanted("xlsx")).unvalued == 0


def test_a_file_of_formulas_without_values_is_refused() -> None:
    """The error tells how many there are, and to save the file in Excel."""
    for rows in ([["question"], ["=A2"], ["=A3"]], [["=A2"], ["=A3"]]):
        with pytest.raises(FileRefused, match="2 formulas have no value, so open and save it in Excel") as refused:
            read_texts(workbook(rows), Wanted("xlsx"))
        assert refused.value.reason == "no_texts"


def test_a_formula_is_read_as_its_value() -> None:
    """This holds for XML as Excel writes it, and for XML with a namespace prefix."""
    row = b'<row r="%d"><c r="A%d" t="str"><f>A1</f>%b</c></row>'
    xml = sheet_xml(row % (1, 1, b"<v>How?</v>") + row % (2, 2, b""))

    for sheet in (xml, xml.replace(b"<f>", b"<x:f xmlns:x='y'>").replace(b"</f>", b"</x:f>")):
        assert read_texts(rewritten(workbook([["x"]]), SHEET, sheet), Wanted("xlsx")) == ["How?"]
    assert read_file(rewritten(workbook([["x"]]), SHEET, xml), Wanted("xlsx")).unvalued == 1


def test_an_escaped_lone_surrogate_is_replaced() -> None:
    """It cannot be encoded in UTF-8."""
    texts = read_texts(workbook([["a_xD800_b"]]), Wanted("xlsx"))

    assert texts == ["a\N{REPLACEMENT CHARACTER}b"]


def test_the_first_visible_or_the_named_sheet_is_read() -> None:
    """A hidden sheet is read if it is named."""
    book = openpyxl.load_workbook(io.BytesIO(workbook([["first"]], second=[["2"]], third=[["3"]])))
    book["Sheet"].sheet_state = "hidden"
    content = saved(book)

    assert read_texts(content, Wanted("xlsx")) == ["2"]
    assert read_texts(content, Wanted("xlsx", sheet="third")) == ["3"]
    assert read_texts(content, Wanted("xlsx", sheet="Sheet")) == ["first"]
    assert refusal(content, Wanted("xlsx", sheet="fourth")) == "no_such_sheet"


NOTES = [["填写说明"], ["请在“问题”一列填写，每行一个问题。"], ["填完后交给人事部。"]]
STAFF = [["姓名", "部门"], ["张三", "人事"], ["李四", "财务"]]


@pytest.mark.parametrize(
    ("sheets", "wanted", "chosen"),
    [
        ({"a": NOTES, "b": STAFF, "c": [["编号", "问题"], ["1", "年假有几天"]]}, {}, "c"),
        (
            {"a": [["问题类型", "说明"], ["一", "二"]], "b": [["序号", "您的问题（必填）"], ["1", "年假有几天"]]},
            {},
            "b",
        ),
        ({"a": [["姓名", "您的问题"], ["甲", "年假"]], "b": [["question"], ["How?"]]}, {}, "b"),
        ({"a": STAFF, "b": [["年假有几天？"], ["怎么报销？"]]}, {}, "b"),
        ({"a": STAFF, "b": [["咨询", "备注"], ["年假", "急"]]}, {"column": "咨询"}, "b"),
        ({"a": STAFF, "b": [["question"], ["How?"]]}, {"sheet": "a"}, "a"),
        ({"a": STAFF, "b": [["question"]]}, {}, "a"),
        ({"a": [["How?"], ["Why?"]], "b": [["Who?"], ["When?"]]}, {}, "a"),
        ({"a": [], "b": [["question"], ["How?"]]}, {}, "b"),
    ],
    ids=["by name", "by a longer name", "a usual name", "by content", "named", "told", "no rows", "equal", "empty"],
)
def test_the_sheet_with_the_questions_is_chosen(sheets: dict[str, Any], wanted: dict[str, Any], chosen: str) -> None:
    """The first one of those with the surest column; the preview shows the sheet that would be asked."""
    book = openpyxl.load_workbook(io.BytesIO(workbook([], **sheets)))
    book.remove(book["Sheet"])

    assert preview(saved(book), Wanted("xlsx", **wanted))["sheet"] == chosen


def test_the_chosen_sheet_is_asked() -> None:
    """Its formulas count, those of the first sheet do not."""
    content = workbook([["=1+1"], ["说明"]], 问题=[["问题"], ["年假有几天"], ["=A1"]])

    reading = read_file(content, Wanted("xlsx"))

    assert (reading.texts, reading.unvalued) == (["年假有几天"], 1)


def test_gaps_in_a_sheet_are_accepted() -> None:
    """Columns are counted by their position, empty ones included."""
    book = openpyxl.Workbook()
    assert book.active is not None
    book.active["C4"], book.active["C90000"] = "问题", "年假有几天？"

    assert read_texts(saved(book), Wanted("xlsx")) == ["年假有几天？"]


def test_the_declared_dimension_of_a_sheet_is_ignored() -> None:
    """Some programs write a wrong one, and some none."""
    wrong = b'<dimension ref="A1"/><sheetData>'
    row = b'<row r="%d"><c r="A%d" t="str"><v>q%d</v></c></row>'
    xml = sheet_xml(b"".join(row % (n, n, n) for n in (1, 2))).replace(b"<sheetData>", wrong, 1)

    assert read_texts(rewritten(workbook([["x"]]), SHEET, xml), Wanted("xlsx")) == ["q1", "q2"]


def test_a_zip_bomb_is_refused() -> None:
    """A workbook under 1 MB that would unpack to more than MAX_UNPACKED bytes is `file_too_complex`."""
    bomb = rewritten(workbook([["How?"]]), SHEET, b" " * (xlsx_rows.MAX_UNPACKED + 1))

    assert len(bomb) < 1_000_000
    assert refusal(bomb, Wanted("xlsx")) == "file_too_complex"


def test_a_part_with_a_wrong_length_is_refused() -> None:
    """Unpacking stops at the declared size, so the sum of the declared sizes is a safe limit."""
    rows = b'<row><c t="str"><v>How?</v></c></row>' * 20_000
    bomb = bytearray(rewritten(workbook([["How?"]]), SHEET, sheet_xml(rows)))
    size = len(sheet_xml(rows)).to_bytes(4, "little")

    lying = bytes(bomb.replace(size, (300).to_bytes(4, "little")))

    assert lying != bytes(bomb)
    assert refusal(lying, Wanted("xlsx")) == "unreadable_file"


def test_a_workbook_of_too_many_parts_is_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(xlsx_rows.MAX_PARTS + 1):
            archive.writestr(f"{number}", b"")

    assert refusal(out.getvalue(), Wanted("xlsx")) == "file_too_complex"


def test_more_rows_than_excel_takes_are_refused_before_any_is_parsed() -> None:
    """In any sheet; 20 million of them, which fit into the limit on bytes, would be parsed for seconds."""
    many = sheet_xml(b'<row><c t="str"><v>How?</v></c></row>' + b"<row/>" * xlsx_rows.MAX_ROWS)
    bomb = rewritten(workbook([["x"]], second=[["y"]]), SHEET, many)

    for sheet in ("Sheet", "second"):
        with pytest.raises(xlsx_rows.TooComplex):
            next(xlsx_rows.sheet_rows(bomb, sheet))


def test_a_row_number_beyond_excels_limit_is_refused() -> None:
    """Otherwise a row with a huge number would produce as many blank rows before it."""
    far = sheet_xml(b'<row r="999999999999"><c t="str"><v>How?</v></c></row>')

    assert refusal(rewritten(workbook([["x"]]), SHEET, far), Wanted("xlsx")) == "file_too_complex"


@pytest.mark.parametrize(
    "declared",
    [
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
        b'<!DOCTYPE x [<!ENTITY b SYSTEM "file:///etc/hostname">]>',
    ],
    ids=["laughs", "a file of the server"],
)
def test_entities_are_refused(declared: bytes) -> None:
    """Neither nested entities nor external ones are expanded."""
    xml = sheet_xml(b'<row><c t="str"><v>&b;</v></c></row>', declared)

    assert refusal(rewritten(workbook([["x"]]), SHEET, xml), Wanted("xlsx")) == "unreadable_file"


@pytest.mark.parametrize(
    "content",
    [b"PK\x03\x04", workbook([["How?"]])[:-200], rewritten(workbook([["How?"]]), SHEET, b"<no xml"), b"plain"],
    ids=["only the mark", "cut", "broken part", "no zip"],
)
def test_a_broken_workbook_is_refused(content: bytes) -> None:
    assert refusal(content, Wanted("xlsx")) == "unreadable_file"
