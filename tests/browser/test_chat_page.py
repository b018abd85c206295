"""The chat page in Chromium, with a replica, Redis and a mock Dify."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Locator, Page, expect

from config.texts import ZH
from demo.mocks.dify.scripts import says
from demo.mocks.dify.server import SCRIPTS, MockDify, expected_answer
from tests.browser.stage import PHONE, TIMEOUT, Watch, screenshot, tab
from tests.support.replicas import Replica, dify_settings, settings_for
from tests.support.servers.processes import RedisServer, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.scenario, pytest.mark.timeout(240)]

KEY = "sk-page-key-not-real"
FAKE_SPEECH = Path(__file__).parent / "fake_speech.js"


class LastingReplica(Replica):
    """A replica that can be restarted on its port."""

    def restart(self) -> None:
        self.kill()
        self.process = self._launch()
        self.wait_ready()


@contextmanager
def replica_for(redis: RedisServer, dify: MockDify, folder: Path, **changes: str) -> Iterator[LastingReplica]:
    settings = {"WEBSOCKET_AUTH": "none", "APP_NAME": "来宝", "STREAM_LEASE": "2", **changes}
    replica = LastingReplica(settings_for(redis.url(7), **dify_settings(dify.base_url), **settings), folder)
    try:
        replica.wait_ready()
        yield replica
    finally:
        replica.kill()


@pytest.fixture(scope="module")
def slow_dify(open_dify: MockDify) -> MockDify:
    """A Dify that is slow enough to see answers grow."""
    open_dify.delay, open_dify.slow = 0.04, 0.3
    return open_dify


class Visitor:
    """A person at the page."""

    def __init__(self, page: Page, watch: Watch) -> None:
        self.page = page
        self.watch = watch
        self.turns = page.locator(".turn")
        self.state = page.locator("#state")

    def opens(self, path: str = "/chat") -> Visitor:
        self.page.goto(self.watch.home + path)
        return self

    def is_connected(self) -> Visitor:
        expect(self.state).to_have_attribute("data-state", "open", timeout=TIMEOUT)
        return self

    def asks(self, text: str) -> Locator:
        """Type a question, press Enter, and return its turn."""
        before = self.turns.count()
        self.page.locator("#question").fill(text)
        self.page.locator("#question").press("Enter")
        return self.turns.nth(before)

    def sees_end(self, turn: Locator, state: str = "completed") -> str:
        """Wait for the end of an answer and return its text."""
        expect(turn).to_have_attribute("data-state", state, timeout=TIMEOUT)
        return turn.locator(".blocks").inner_text()


@pytest.fixture
def visitor(chromium: Browser, open_replica: Replica, slow_dify: MockDify) -> Iterator[Visitor]:
    """A connected visitor; the page must have no errors and no requests to other hosts."""
    with tab(chromium, open_replica.url, scripts=(FAKE_SPEECH,)) as (page, watch):
        yield Visitor(page, watch).opens().is_connected()
        watch.assert_clean()


def shown_words(markdown: str) -> str:
    """Return an answer's letters and digits, which rendering keeps in order."""
    return "".join(re.findall(r"[^\W_]", re.sub(r"(?m)^ *\d+\. ", "", markdown)))


@pytest.mark.main_story
def test_an_answer_grows_in_its_bubble(visitor: Visitor) -> None:
    """The question is shown at once, then the growing answer, at the end its sources."""
    turn = visitor.asks("年假怎么申请")

    expect(turn.locator(".mine .words")).to_have_text("年假怎么申请")
    expect(turn.locator(".theirs")).to_have_attribute("aria-busy", "true")
    expect(turn.locator(".blocks")).to_contain_text("年假申请")
    begun = turn.locator(".blocks").inner_text()
    whole = visitor.sees_end(turn)

    assert len(whole) > len(begun)
    assert shown_words(whole) == shown_words(expected_answer("年假怎么申请"))
    assert turn.locator(".blocks ol > li").count() == 4
    expect(turn.locator(".theirs")).to_have_attribute("aria-busy", "false")
    expect(turn.locator(".sources")).to_contain_text("来源（1）")
    expect(visitor.page.locator("#announcer")).to_contain_text("还需要我帮你查一下剩余天数吗？")


def test_questions_in_a_row_each_get_their_answer(visitor: Visitor) -> None:
    """A second question can be asked before the first one's answer is complete."""
    first, second = visitor.asks("年假怎么申请"), visitor.asks("营业时间")

    assert visitor.sees_end(second).startswith("周一至周五")
    assert visitor.sees_end(first).startswith("年假申请")


@pytest.mark.parametrize("by", ["Escape", "button"])
def test_an_answer_can_be_stopped(visitor: Visitor, by: str) -> None:
    """The text so far stays, the turn is marked as stopped, and no more text comes."""
    turn = visitor.asks(f"[[slow]] 年假怎么申请 {by}")
    expect(turn.locator(".blocks")).to_contain_text("年假申请")

    if by == "button":
        visitor.page.get_by_role("button", name="停止", exact=True).click()
    else:
        visitor.page.keyboard.press("Escape")

    stopped = visitor.sees_end(turn, "cancelled")
    expect(turn.locator(".note")).to_contain_text("已停止")
    expect(visitor.page.locator("#stop")).to_be_hidden()
    assert stopped.startswith("年假申请")
    assert "剩余天数" not in stopped


def test_an_answer_continues_after_a_reload(visitor: Visitor, slow_dify: MockDify) -> None:
    """After a reload the answer grows to its end, complete and without repetition; Dify was asked once."""
    question = "[[slow]] 年假怎么申请？刷新"
    turn = visitor.asks(question)
    expect(turn.locator(".blocks")).to_contain_text("年假申请")

    visitor.page.reload()

    expect(visitor.turns).to_have_count(1)
    expect(visitor.turns.locator(".blocks")).to_contain_text("年假申请")
    whole = visitor.sees_end(visitor.turns)
    assert shown_words(whole) == shown_words(expected_answer(question))
    assert len(slow_dify.asked(question)) == 1


def test_finished_turns_survive_a_reload(visitor: Visitor) -> None:
    """Question, answer, sources and language are the same after a reload."""
    visitor.page.get_by_role("button", name="English").click()
    before = visitor.sees_end(visitor.asks("营业时间"))

    visitor.page.reload()

    assert visitor.sees_end(visitor.turns) == before
    expect(visitor.turns.locator(".sources")).to_contain_text("Sources (1)")
    expect(visitor.page.get_by_role("button", name="Send")).to_be_visible()


def test_answers_survive_a_killed_server(
    chromium: Browser,
    redis_server: RedisServer,
    slow_dify: MockDify,
    tmp_path: Path,
) -> None:
    """The page shows the outage and reconnects; each question, also one asked meanwhile, gets one whole answer."""
    with (
        replica_for(redis_server, slow_dify, tmp_path) as replica,
        tab(chromium, replica.url) as (page, watch),
    ):
        visitor = Visitor(page, watch).opens().is_connected()
        asked = visitor.asks("[[slow]] 年假怎么申请？停电")
        expect(asked.locator(".blocks")).to_contain_text("年假申请")

        replica.kill()
        expect(visitor.state).to_have_attribute("data-state", re.compile("waiting|connecting"))
        late = visitor.asks("报销需要哪些材料？停电")
        expect(late).to_have_attribute("data-state", "unsent")
        replica.restart()
        visitor.is_connected()

        answers = [visitor.sees_end(asked), visitor.sees_end(late)]
        questions = ["年假怎么申请？停电", "报销需要哪些材料？停电"]
        assert [shown_words(one) for one in answers] == [shown_words(expected_answer(one)) for one in questions]
        assert len(slow_dify.asked("报销需要哪些材料？停电")) == 1
        watch.assert_clean(outages=True)


def test_answers_survive_a_reload_of_the_server(
    chromium: Browser,
    redis_server: RedisServer,
    slow_dify: MockDify,
    tmp_path: Path,
) -> None:
    """The old worker closes the socket, the page connects to the new one, and the running answer is complete."""
    with (
        replica_for(redis_server, slow_dify, tmp_path, DRAIN_SECONDS="20") as replica,
        tab(chromium, replica.url) as (page, watch),
    ):
        sockets: list[str] = []
        page.on("websocket", lambda socket: sockets.append(socket.url))
        visitor = Visitor(page, watch).opens().is_connected()
        turn = visitor.asks("[[slow]] 年假怎么申请？重载")
        expect(turn.locator(".blocks")).to_contain_text("年假申请")

        replica.signal(signal.SIGHUP)

        assert shown_words(visitor.sees_end(turn)) == shown_words(expected_answer("年假怎么申请？重载"))
        wait_until(lambda: page.evaluate("0") or len(sockets) > 1, timeout=60.0)
        visitor.is_connected()
        visitor.sees_end(visitor.asks("营业时间"))
        watch.assert_clean(outages=True)


ATTACKS = [
    "<img src=x onerror=\"document.title='broken into'\"><script>document.title='broken into'</script>",
    "[x](javascript:document.title='broken into') ![x](https://example.com/track.png) <svg/onload=alert(1)>",
    "\n\n<iframe src=//example.com></iframe>\n\n<style>*{display:none}</style>\n\n<form action=//example.com><button>a",
    '[a](data:text/html,<script>alert(1)</script>) `<script>` &lt;script&gt; "onmouseover="alert(1)',
]


def test_markup_in_questions_and_answers_stays_text(visitor: Visitor) -> None:
    """Neither a question nor an answer that repeats it adds an element to the page, also after a reload."""
    for attack in ATTACKS:
        visitor.sees_end(visitor.asks(f"{attack} 结束"))
    visitor.page.reload()
    for number in range(len(ATTACKS)):
        visitor.sees_end(visitor.turns.nth(number))

    expect(visitor.turns.locator(".mine .words")).to_have_text([f"{attack} 结束".strip() for attack in ATTACKS])
    assert visitor.turns.locator("img, script, svg, iframe, style, form, input").count() == 0
    assert visitor.turns.locator("[onerror], [onload], [onmouseover], [style], [class*=x]").count() == 0
    links = visitor.turns.locator(".blocks a").all()
    assert {link.get_attribute("href") for link in links} <= {"https://example.com/track.png"}
    assert all(link.get_attribute("rel") == "noopener noreferrer nofollow" for link in links)
    assert visitor.page.title() == "来宝 · 对话"


def test_a_failed_answer_can_be_asked_again(visitor: Visitor) -> None:
    """The bubble shows the sentence of the error, and a click asks the question again."""
    turn = visitor.asks("[[error]] 年假")
    visitor.sees_end(turn, "error")

    expect(turn.locator(".failure")).to_have_text(ZH["provider_error"])
    turn.get_by_role("button", name="重新提问").click()

    expect(visitor.turns).to_have_count(2)
    visitor.sees_end(visitor.turns.nth(1), "error")


def test_the_page_is_translated_to_english(visitor: Visitor) -> None:
    """Every label and accessible name changes with the language."""
    visitor.sees_end(visitor.asks("营业时间"))
    page = visitor.page

    page.get_by_role("button", name="English").click()

    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.get_by_role("textbox", name="Type a question")).to_be_visible()
    expect(page.get_by_role("button", name="Speak")).to_be_visible()
    expect(page.get_by_text("Sources (1)")).to_be_visible()
    expect(visitor.state).to_have_text("Connected")
    assert page.locator("html").get_attribute("lang") == "en"
    page.get_by_text("Settings").click()
    words = page.locator("button, summary, label > span, p").all_inner_texts()
    words += page.evaluate("[...document.querySelectorAll('[aria-label]')].map((one) => one.ariaLabel)")
    assert [text for text in words if re.search(r"[\u4e00-\u9fff]", text) and "周一" not in text] == ["中文"]


def test_locale_sets_the_first_language(
    chromium: Browser,
    redis_server: RedisServer,
    slow_dify: MockDify,
    tmp_path: Path,
) -> None:
    """With LOCALE=en the page is in English, also before its script runs."""
    with (
        replica_for(redis_server, slow_dify, tmp_path, LOCALE="en") as replica,
        tab(chromium, replica.url) as (page, watch),
    ):
        Visitor(page, watch).opens().is_connected()

        expect(page.get_by_role("button", name="Send")).to_be_visible()
        assert page.title() == "来宝 · Chat"
        watch.assert_clean()


def test_a_key_is_asked_for_and_kept_for_the_tab(
    chromium: Browser,
    redis_server: RedisServer,
    slow_dify: MockDify,
    tmp_path: Path,
) -> None:
    """A wrong key shows an error, the right one connects, and a reload does not ask again."""
    with (
        replica_for(redis_server, slow_dify, tmp_path, WEBSOCKET_AUTH="key", API_KEYS=KEY) as replica,
        tab(chromium, replica.url) as (page, watch),
    ):
        visitor = Visitor(page, watch).opens()
        for key in ("wrong", KEY):
            page.get_by_label("密钥", exact=True).fill(key)
            page.get_by_role("button", name="进入").click()
            if key == "wrong":
                expect(page.locator("#key-wrong")).to_have_text("密钥无效或已过期，请检查后重试。")
        visitor.is_connected()
        expect(page.locator("#key")).to_be_hidden()
        visitor.sees_end(visitor.asks("营业时间"))
        page.reload()

        visitor.is_connected()
        visitor.sees_end(visitor.asks("营业时间"))
        assert KEY not in page.url
        watch.assert_clean()


def test_the_page_is_usable_on_a_phone(visitor: Visitor) -> None:
    """The page is not wider than the screen, and the end of an answer is visible above the input field."""
    visitor.page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})

    turn = visitor.asks("报销需要哪些材料")
    visitor.sees_end(turn)

    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    expect(turn.locator(".note")).to_be_in_viewport()
    expect(visitor.page.get_by_role("button", name="发送")).to_be_in_viewport()


def test_enter_sends_and_shift_enter_does_not(visitor: Visitor) -> None:
    """Shift+Enter adds a line to the question; Enter in an empty field sends nothing."""
    visitor.page.locator("#question").press("Enter")
    visitor.page.keyboard.type("营业时间")
    visitor.page.keyboard.press("Shift+Enter")
    visitor.page.keyboard.type("周末呢")
    visitor.page.keyboard.press("Enter")

    expect(visitor.turns).to_have_count(1)
    visitor.sees_end(visitor.turns)
    assert visitor.turns.locator(".mine .words").inner_text() == "营业时间\n周末呢"


def test_the_chat_is_exported_as_markdown(visitor: Visitor) -> None:
    """The file has the questions as quotations, the answers' Markdown, and their sources."""
    visitor.sees_end(visitor.asks("报销需要哪些材料"))

    with visitor.page.expect_download() as download:
        visitor.page.get_by_role("button", name="导出").click()

    text = Path(download.value.path()).read_text("utf-8")
    assert download.value.suggested_filename.endswith(".md")
    assert text.startswith("# 来宝\n")
    assert "> 报销需要哪些材料\n" in text
    assert expected_answer("报销需要哪些材料") in text
    assert "- 员工手册 · handbook.md" in text


def test_a_conversation_is_continued_only_if_chosen(visitor: Visitor, slow_dify: MockDify) -> None:
    """Dify gets the id of the earlier conversation only after the box is ticked."""
    for question in ("对话一", "对话二"):
        visitor.sees_end(visitor.asks(question))
    visitor.page.get_by_text("设置").click()
    visitor.page.get_by_label("连续对话").check()
    for question in ("对话三", "对话四"):
        visitor.sees_end(visitor.asks(question))

    named = [slow_dify.asked(f"对话{which}")[0].body.get("conversation_id") for which in "一二三四"]
    assert [bool(one) for one in named] == [False, False, False, True]


def test_a_new_chat_is_empty(visitor: Visitor) -> None:
    """Earlier turns are gone, also after a reload, and the next question is answered."""
    visitor.sees_end(visitor.asks("营业时间"))
    visitor.page.on("dialog", lambda dialog: dialog.accept())

    visitor.page.get_by_role("button", name="新对话").click()

    expect(visitor.turns).to_have_count(0)
    visitor.is_connected()
    visitor.page.reload()
    expect(visitor.page.get_by_text("有什么想问的？")).to_be_visible()
    visitor.sees_end(visitor.asks("营业时间"))


def test_the_same_chat_in_another_window_continues_there(visitor: Visitor) -> None:
    """The first window shows a banner and does not reconnect by itself; its button does."""
    kept = visitor.page.evaluate("sessionStorage.getItem('wechatlaibao.chat.client')")
    other = visitor.page.context.new_page()
    visitor.watch.follow(other)
    other.goto(visitor.watch.home + "/chat")
    other.evaluate("client => sessionStorage.setItem('wechatlaibao.chat.client', client)", kept)
    other.reload()

    expect(visitor.page.locator("#banner")).to_contain_text("这个对话已在别的窗口打开")
    expect(visitor.state).to_have_attribute("data-state", "closed")
    visitor.page.get_by_role("button", name="在这里继续").click()

    visitor.is_connected()
    expect(other.locator("#banner")).to_be_visible()


def test_speech_is_sent_after_a_silence_and_the_answer_read_aloud(visitor: Visitor) -> None:
    """Three seconds of silence send the words; only the answer is read, without its markup, at the chosen rate."""
    page = visitor.page
    page.get_by_text("设置").click()
    page.get_by_label("朗读回答").check()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="语音输入").click()

    page.evaluate("fakeSpeech.hear('营业', false)")
    page.evaluate("fakeSpeech.hear('营业时间', true)")
    expect(page.locator("#heard")).to_have_text("营业时间")
    assert visitor.turns.count() == 0

    expect(visitor.turns.locator(".mine .words")).to_have_text("营业时间")
    visitor.sees_end(visitor.turns)
    spoken = wait_until(lambda: page.evaluate("fakeSpeech.spoken"), timeout=30.0)
    assert [one["text"] for one in spoken] == ["周一至周五 9:00-18:00"]
    assert spoken[0]["rate"] == 1.25
    assert page.evaluate("fakeSpeech.running") is None
    page.evaluate("fakeSpeech.endOfPiece()")
    wait_until(lambda: page.evaluate("Boolean(fakeSpeech.running)"), timeout=30.0)
    expect(page.locator("#heard")).to_contain_text("请说话")
    assert page.evaluate("fakeSpeech.overlaps") == []


def test_only_sanitised_answers_become_html(chromium: Browser, open_replica: Replica) -> None:
    """Trusted Types refuse every other way to add HTML or script, also to the page's own code."""
    attempts = (
        "document.body.innerHTML = '<img src=x>'",
        "document.body.setAttribute('onclick', 'alert(1)')",
        "document.body.append(Object.assign(document.createElement('script'), { text: 'alert(1)' }))",
        "trustedTypes.createPolicy('other', { createHTML: (html) => html })",
    )
    with tab(chromium, open_replica.url) as (page, watch):
        Visitor(page, watch).opens().is_connected()

        for attempt in attempts:
            with pytest.raises(Error, match="Trusted"):
                page.evaluate(attempt)

        assert watch.foreign == []


PICTURE = """公司差旅住宿标准如下（每晚，含税）：

| 城市级别 | 员工 | 经理 | 总监及以上 |
|:--|--:|--:|--:|
| 一线城市（北上广深） | ¥550 | ¥700 | ¥1,000 |
| 省会与计划单列市 | ¥400 | ¥550 | ¥800 |
| 其他城市 | ¥300 | ¥400 | ¥600 |

**报销时请注意：**

- 超出标准的部分须由部门负责人在 OA 中事先审批
- 发票抬头与税号须与公司一致，30 天内提交
"""


@pytest.mark.skipif("SCREENSHOTS" not in os.environ, reason="SCREENSHOTS=folder takes the README's picture")
def test_the_screenshots(visitor: Visitor, slow_dify: MockDify) -> None:
    """A finished answer with a table and its source, and a growing one: light, dark, and on a phone."""
    SCRIPTS["picture"] = says(lambda question: PICTURE, "a table")
    page = visitor.page
    page.set_viewport_size({"width": 1200, "height": 800})
    slow_dify.default = "picture"
    first = visitor.asks("出差去上海，住宿标准是多少？")
    visitor.sees_end(first)
    first.locator(".sources summary").click()
    slow_dify.default = "slow"
    growing = visitor.asks("那年假怎么申请？")
    expect(growing.locator(".blocks")).to_contain_text("半天")

    screenshot(page, "chat")
    visitor.sees_end(growing)
    page.emulate_media(color_scheme="dark")
    screenshot(page, "chat-dark")
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    screenshot(page, "chat-phone")
    slow_dify.default = "normal"
