"""A file on the batch page: shown before it is submitted, refused before it is uploaded, and asked as it was chosen."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openpyxl
import pytest
from playwright.sync_api import Browser, Download, Page, expect

from tests.browser.batch.batch_visitor import LARGEST, QUESTION, Enters, open_page, saved, sees, submits
from tests.browser.stage import TIMEOUT, screenshot
from tests.support.replicas import Replica
from tests.unit.questions.test_question_files import workbook

pytestmark = [pytest.mark.browser, pytest.mark.scenario, pytest.mark.timeout(240)]

ROWS = [["编号", "问题", "部门"], ["A-7", QUESTION, "人事"], ["A-8", "营业时间", "门店"]]


def chooses(page: Page, file: Path) -> None:
    page.locator("#file").set_input_files(file)
    expect(page.locator("#preview")).to_be_visible(timeout=TIMEOUT)
    expect(page.locator("#reading")).to_be_hidden(timeout=TIMEOUT)


def rows_of(download: Download) -> list[tuple[object, ...]]:
    """Return the rows of a saved workbook's sheet."""
    book = openpyxl.load_workbook(io.BytesIO(download.path().read_bytes()))
    return list(book.worksheets[0].iter_rows(values_only=True))


def drops(page: Page, name: str, text: str) -> None:
    """Drop a text file on the form."""
    moved = page.evaluate_handle(
        """([text, name]) => {
          const moved = new DataTransfer();
          moved.items.add(new File([text], name));
          return moved;
        }""",
        [text, name],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": moved})
    expect(page.locator("#reading")).to_be_hidden(timeout=TIMEOUT)


@contextmanager
def uploads_of(page: Page) -> Iterator[list[str]]:
    """Collect the addresses that the page sends files or tasks to."""
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    yield sent


def test_a_workbook_is_shown_and_asked_with_its_columns(enters: Enters, tmp_path: Path) -> None:
    """The preview marks the columns of questions and ids; the results have both, and the file's other columns."""
    file = tmp_path / "门店.xlsx"
    file.write_bytes(workbook(ROWS))
    with enters() as page:
        chooses(page, file)
        expect(page.locator("#sample th")).to_have_text(["编号编号", "问题问题", "部门"])
        expect(page.locator("#sample td.asked")).to_have_text([QUESTION, "营业时间"])
        expect(page.locator("#rows-count")).to_have_text("共 2 个问题；其他列会和回答一起保留。")
        expect(page.locator("#start")).to_have_text("开始提问（2 个）")
        screenshot(page, "batch-preview")

        submits(page)
        sees(page, "completed")

        expect(page.locator("#task-name")).to_have_text("门店")
        expect(page.locator(".about")).to_have_text(["A-7 · 部门：人事", "A-8 · 部门：门店"])
        with saved(page, "csv").path().open(encoding="utf-8-sig", newline="") as table:
            assert [row["id"] for row in csv.DictReader(table)] == ["A-7", "A-8"]
        chinese = rows_of(saved(page, "xlsx"))
        page.get_by_role("button", name="English").click()
        english = rows_of(saved(page, "xlsx"))
        assert chinese[0][:5] == ("编号", "部门", "序号", "问题", "回答")
        assert english[0][:5] == ("Id", "部门", "No.", "Question", "Answer")
        assert english[1][:4] == ("A-7", "人事", 1, QUESTION)
        assert "**" not in str(english[1][4])


def test_the_columns_can_be_chosen(enters: Enters, tmp_path: Path) -> None:
    """Nothing can be submitted before a column is chosen; the chosen one is asked, the first row too without header."""
    file = tmp_path / "两列.csv"
    file.write_text("年假怎么申请？,报销要什么？\n病假怎么申请？,发票要纸质的吗？\n", "utf-8")
    with enters() as page:
        chooses(page, file)
        expect(page.locator("#rows-count")).to_have_text("请选择哪一列是问题。")
        expect(page.locator("#start")).to_be_disabled()
        page.locator("#header").uncheck()
        page.locator("#column").select_option(label="第 2 列")
        expect(page.locator("#start")).to_have_text("开始提问（2 个）", timeout=TIMEOUT)
        page.locator("#priority").select_option("high")

        submits(page)

        expect(page.locator(".line-row .asked .clip")).to_have_text(["报销要什么？", "发票要纸质的吗？"])
        expect(page.locator("#facts")).to_contain_text("优先级 高")
        sees(page, "completed")


def test_the_sheet_with_the_questions_is_shown_first(enters: Enters, tmp_path: Path) -> None:
    """A sheet of instructions before it is not asked, and can be seen in the choice of sheets."""
    file = tmp_path / "收集表.xlsx"
    file.write_bytes(workbook([["填写说明"], ["每行写一个问题。"]], 收集=ROWS))
    with enters() as page:
        chooses(page, file)
        expect(page.locator("#sheet")).to_have_value("收集")
        expect(page.locator("#sheet option")).to_have_text(["Sheet", "收集"])
        expect(page.locator("#sample td.asked")).to_have_text([QUESTION, "营业时间"])

        submits(page)

        expect(page.locator(".line-row .asked .clip")).to_have_text([QUESTION, "营业时间"])
        sees(page, "completed")


def test_another_sheet_is_read_again(enters: Enters, tmp_path: Path) -> None:
    """The second sheet has columns of its own, of which the questions are asked."""
    file = tmp_path / "两张.xlsx"
    file.write_bytes(workbook(ROWS, 备份=[["question"], ["营业时间"]]))
    with enters() as page:
        chooses(page, file)
        page.locator("#sheet").select_option("备份")
        expect(page.locator("#sample th")).to_have_text(["question问题"], timeout=TIMEOUT)
        expect(page.locator("#column-field")).to_be_hidden()

        submits(page)

        expect(page.locator(".line-row .asked .clip")).to_have_text(["营业时间"])
        sees(page, "completed")


def test_a_text_file_is_dropped_and_removed(enters: Enters) -> None:
    """It has no columns to choose; without it, typed questions are asked again."""
    with enters() as page:
        drops(page, "问题.txt", f"{QUESTION}\n\n营业时间")
        expect(page.locator("#file-name")).to_have_text("问题.txt")
        expect(page.locator("#start")).to_have_text("开始提问（2 个）", timeout=TIMEOUT)
        expect(page.locator("#column-field")).to_be_hidden()
        page.locator("#forget").click()
        expect(page.locator("#questions")).to_be_visible()
        expect(page.locator("#start")).to_be_disabled()
        drops(page, "问题.txt", f"{QUESTION}\n营业时间")
        expect(page.locator("#start")).to_be_enabled(timeout=TIMEOUT)

        submits(page)

        expect(page.locator(".line-row .asked .clip")).to_have_text([QUESTION, "营业时间"])


def test_a_file_that_is_too_large_is_not_uploaded(enters: Enters, tmp_path: Path) -> None:
    """The page says the size and the limit of the server; the same for a file of another type. Nothing is sent."""
    large, other = tmp_path / "大.csv", tmp_path / "a.pdf"
    large.write_bytes(b"x" * (LARGEST + 1))
    other.write_bytes(b"%PDF")
    with enters() as page, uploads_of(page) as sent:
        page.locator("#file").set_input_files(large)
        expect(page.locator("#not-taken")).to_have_text(
            "文件有 195 KB，超过了 195 KB 的上限，没有上传。请拆成几个文件。"
        )
        page.locator("#file").set_input_files(other)
        expect(page.locator("#not-taken")).to_have_text("只能使用 .txt、.csv、.tsv 或 .xlsx 文件。")
        expect(page.locator("#preview")).to_be_hidden()
        assert sent == []


def test_an_unreadable_file_is_explained_once_in_the_pages_language(
    chromium: Browser, replica: Replica, tmp_path: Path
) -> None:
    """The server answers in technical English; the page has its own sentence in both languages, in one place."""
    file = tmp_path / "kaputt.csv"
    file.write_text('question\n"a\n', "utf-8")
    with open_page(chromium, replica, refusals=(422,)) as page:
        chooses(page, file)
        sentence = page.locator("#not-taken")
        expect(sentence).to_have_text("文件已损坏或格式不对。CSV 请检查引号是否成对。")
        expect(page.locator("#start")).to_be_disabled()
        page.get_by_role("button", name="English").click()
        expect(sentence).to_have_text("The file is damaged or has a wrong format. In a CSV, are all quotes closed?")
        expect(page.locator(".failure:visible")).to_have_count(1)
