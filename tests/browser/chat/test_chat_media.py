"""Pictures and files on the chat page, the app's opening, suggestions, and pictures of other hosts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, FilePayload, Page

from config.texts import ZH
from demo.mocks.dify.error_replies import MockErrorReply
from demo.mocks.dify.server import MockDify
from tests.browser.chat.chat_visitor import replica_for
from tests.browser.stage import PHONE, screenshot, tab
from tests.support.pictures import PDF, png
from tests.support.replicas import Replica
from tests.support.servers.processes import RedisServer, wait_until

PICTURE: FilePayload = {"name": "屋顶.png", "mimeType": "image/png", "buffer": png(300, 200)}
REPORT: FilePayload = {"name": "年报.pdf", "mimeType": "application/pdf", "buffer": PDF}
#: Seconds for one step; generous, for a busy machine.
WIDE = 45.0
FIELD = "#composer input[type=file]"
OPENING = "您好，我是**内部助手**，年假、报销、营业时间都可以问我。"
QUESTIONS = ("年假怎么申请？", "报销需要哪些材料？")
#: Put files into a drop or a paste of the page.
TRANSFER = """([kind, name, type]) => {
    const data = new DataTransfer();
    data.items.add(new File(["x".repeat(100)], name, { type }));
    const options = { clipboardData: data, dataTransfer: data, bubbles: true, cancelable: true };
    const event = kind === "paste" ? new ClipboardEvent(kind, options) : new DragEvent(kind, options);
    document.getElementById("question").dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def dify() -> Iterator[MockDify]:
    with MockDify() as dify:
        dify.opening, dify.begins_with, dify.suggested = OPENING, QUESTIONS, QUESTIONS
        yield dify


@pytest.fixture(scope="module")
def replica(redis_server: RedisServer, dify: MockDify, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A replica of its own: an app's opening is kept for minutes."""
    limits = {"RATE_LIMIT_USER": "off", "RATE_LIMIT_IP": "off"}
    with replica_for(redis_server, dify, tmp_path_factory.mktemp("media"), **limits) as replica:
        yield replica


@pytest.fixture
def page(chromium: Browser, replica: Replica) -> Iterator[Page]:
    with tab(chromium, replica.url) as (page, watch):
        page.goto(f"{replica.url}/chat")
        page.wait_for_selector("#composer .attach:visible")
        yield page
        watch.assert_clean()


def sends(page: Page, text: str = "") -> None:
    page.fill("#question", text)
    wait_until(lambda: page.locator(".attachment progress").count() == 0, WIDE)
    page.click("#send")


def ends(page: Page, count: int = 1) -> None:
    wait_until(lambda: page.locator(".turn[data-state=completed]").count() == count, WIDE)


def test_pictures_and_files_are_asked_about(page: Page, dify: MockDify) -> None:
    """Chosen by the button: shown with their progress, then in the question's bubble, also after a reload."""
    page.set_input_files(FIELD, [PICTURE, REPORT])
    page.wait_for_selector(".attachment .sent-picture img")
    screenshot(page, "chat-files-composer")
    sends(page, "这是什么？")
    ends(page)
    screenshot(page, "chat-files-answer")

    assert page.locator(".attachment").count() == 0
    assert [upload.name for upload in dify.uploads[-2:]] == ["屋顶.png", "年报.pdf"]
    assert page.locator(".mine .sent-picture img").get_attribute("alt") == "屋顶.png"
    assert page.locator(".mine .file-name").text_content() == "年报.pdf"
    assert "我看到了" in (page.locator(".theirs").text_content() or "")
    page.reload()
    page.wait_for_selector(".mine .sent-picture img")


def test_files_alone_are_a_question(page: Page, dify: MockDify) -> None:
    """A file that was removed is not sent; the question may be asked again with its file."""
    page.set_input_files(FIELD, [PICTURE, REPORT])
    page.wait_for_selector(".attachment >> nth=1")
    page.locator(".attachment .act").nth(1).click()
    sends(page)
    ends(page)
    page.locator(".turn .regenerate").click()
    wait_until(lambda: page.locator(".turn[data-state=completed] .mine .sent-picture").count() == 1, WIDE)
    ends(page)

    assert [request.body["query"] for request in dify.requests[-2:]] == [ZH["media_question"]] * 2
    assert [len(request.body["files"]) for request in dify.requests[-2:]] == [1, 1]


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_files_are_pasted_and_dropped(page: Page, dify: MockDify, kind: str) -> None:
    page.evaluate(TRANSFER, [kind, "a.txt", "text/plain"])
    sends(page, "里面写了什么？")
    ends(page)

    assert dify.uploads[-1].name == "a.txt"


def test_a_question_waits_for_its_uploads(page: Page) -> None:
    """It stays in the field, with a sentence."""
    page.route("**/api/files", lambda route: None)
    page.set_input_files(FIELD, [PICTURE])
    page.fill("#question", "这是什么？")
    page.click("#send")

    page.locator("#refusal", has_text="上传").wait_for()
    assert page.locator(".turn").count() == 0
    assert page.input_value("#question") == "这是什么？"


def test_what_cannot_be_sent_is_said(page: Page, dify: MockDify, replica: Replica) -> None:
    """Too large before anything is uploaded, empty, and too many; what the server says, too."""
    before = len(dify.uploads)
    large: FilePayload = {
        "name": "大.bin",
        "mimeType": "application/octet-stream",
        "buffer": bytes(20 * 1024 * 1024 + 1),
    }
    empty: FilePayload = {**PICTURE, "buffer": b""}
    many: list[FilePayload] = [{**PICTURE, "name": f"{number}.png"} for number in range(11)]
    empties: list[FilePayload] = [{**empty, "name": name} for name in ("一.png", "二.png")]
    page.set_input_files(FIELD, [large, *empties])
    page.locator("#refusal", has_text="二.png").wait_for()
    screenshot(page, "chat-files-refused")
    assert (page.text_content("#refusal") or "").splitlines() == [
        "大.bin 太大了，每个文件最大 20 MB。",
        "一.png 是空文件。",
        "二.png 是空文件。",
    ]
    page.set_input_files(FIELD, many)
    page.locator("#refusal", has_text="最多带 10 个文件，没有添加：10.png。").wait_for()

    assert page.locator(".attachment").count() == 10
    assert len(dify.uploads) == before
    dify.refuses_uploads = MockErrorReply.api(415, "unsupported_file_type", "")
    sends(page, "这些呢？")
    page.wait_for_selector(".turn .failure")
    dify.refuses_uploads = None
    assert ZH["media_wrong_type"] in (page.locator(".turn .failure").first.text_content() or "")


def test_the_app_opens_the_chat_and_suggests(page: Page, dify: MockDify) -> None:
    """A click asks a question; the suggestions under the last answer do, too, and a keyboard reaches them."""
    page.wait_for_selector("#opening strong")
    screenshot(page, "chat-opening")
    assert page.locator("#opening .suggestion").all_text_contents() == list(QUESTIONS)
    page.locator("#opening .suggestion").first.click()
    ends(page)
    page.wait_for_selector(".turn .suggestion:visible")
    screenshot(page, "chat-suggestions")
    page.locator(".turn .suggestion").nth(1).focus()
    page.keyboard.press("Enter")
    ends(page, 2)

    assert [request.body["query"] for request in dify.requests[-2:]] == list(QUESTIONS)
    assert page.locator(".turn .suggestion:visible").count() == 2


def test_a_phone_and_the_dark(chromium: Browser, replica: Replica) -> None:
    """Nothing is wider than the page, in either language."""
    with tab(chromium, replica.url, size=PHONE, dark=True) as (page, watch):
        page.goto(f"{replica.url}/chat")
        page.wait_for_selector("#opening .suggestion")
        screenshot(page, "chat-opening-phone")
        page.set_input_files(FIELD, [PICTURE, REPORT])
        page.wait_for_selector(".attachment .sent-picture img")
        screenshot(page, "chat-files-phone")
        sends(page, "这是什么？")
        ends(page)
        screenshot(page, "chat-answer-phone")
        for _ in range(2):
            button, box = (page.locator(css).bounding_box() for css in ("#send", "#composer .box"))
            assert button
            assert box
            assert button["x"] + button["width"] < box["x"] + box["width"]
            page.locator("#language").click()

        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        watch.assert_clean()
