"""The demo's page in Chromium, with the whole product."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Request, Route, expect

from config.texts import ZH
from demo.page.conversations import Conversations
from demo.page.server import PageServer, create_page
from demo.stage import running_stage
from demo.wecom.long_connection.user import SimulatedUser
from demo.wecom.simulator import SimulatedBot, WeComUser
from tests.browser.stage import TIMEOUT, screenshot
from tests.support.wecom_stub import AES_KEY, TOKEN, StubCallback, frame

pytestmark = [pytest.mark.browser, pytest.mark.scenario]


@pytest.fixture(scope="module")
def demo_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a page in front of a running gateway with all its services."""
    with running_stage(tmp_path_factory.mktemp("demo"), {}) as stage, page_for(stage.user, stage.set_mode) as url:
        yield url


@contextmanager
def page_for(
    user_for: Callable[[str], SimulatedUser],
    set_mode: Callable[[str], None] | None,
    push: Callable[[str, str], tuple[str, str]] | None = None,
) -> Iterator[str]:
    with (
        closing(Conversations(user_for)) as conversations,
        socket.create_server(("127.0.0.1", 0)) as listener,
        PageServer(create_page(conversations, set_mode, push=push), listener) as server,
    ):
        yield server.url


class Person:
    """A person at the page. `foreign` has requests to other hosts, `broken` the errors of the page's script."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.foreign: list[str] = []
        self.broken: list[str] = []
        page.set_default_timeout(TIMEOUT)
        self._home = url
        page.on("request", self._watch)
        page.on("pageerror", lambda error: self.broken.append(str(error)))
        page.goto(url)

    def _watch(self, request: Request) -> None:
        if not request.url.startswith((self._home, "data:")):
            self.foreign.append(request.url)

    def chooses(self, value: str) -> None:
        self.page.locator(f"input[value={value}]").check()

    def asks(self, text: str) -> Locator:
        """Type a question, press Enter, and return the element of the answer."""
        answers = self.page.locator("#chat .theirs[data-state]")
        before = answers.count()
        self.page.get_by_role("textbox").click()
        self.page.keyboard.type(text)
        self.page.keyboard.press("Enter")
        return answers.nth(before)

    def sees_finish(self, answer: Locator) -> str:
        expect(answer).to_have_attribute("data-state", "finished", timeout=TIMEOUT)
        return answer.locator(".text").inner_text()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """An empty tab of a laptop's size."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    yield context.new_page()
    context.close()


@pytest.fixture
def person(page: Page, demo_url: str) -> Iterator[Person]:
    """A person at the page of the whole product; it must have no errors and no requests to other hosts."""
    person = Person(page, demo_url)
    expect(page.locator("#chat .theirs").first).to_contain_text(ZH["welcome"][:6])
    yield person
    assert person.broken == []
    assert person.foreign == []


@pytest.mark.main_story
def test_an_answer_grows_in_its_bubble_until_it_is_finished(person: Person) -> None:
    """The placeholder is shown first, then the growing answer, then the finished one."""
    answer = person.asks("年假怎么申请")

    expect(answer.locator(".text")).to_have_text(ZH["thinking"])
    expect(answer.locator(".bubble")).to_have_attribute("aria-busy", "true")
    expect(answer.locator(".text")).to_contain_text("年假申请", timeout=TIMEOUT)
    begun = answer.locator(".text").inner_text()
    finished = person.sees_finish(answer)

    assert len(finished) > len(begun)
    assert "还需要我帮你查一下剩余天数吗？" in finished
    assert answer.locator("li").count() >= 4
    expect(answer.locator(".bubble")).to_have_attribute("aria-busy", "false")


def test_a_message_after_the_bubbles_end_is_shown_below_it(person: Person) -> None:
    """The frame of an answer that is too large announces it; it breaks no rule of WeCom."""
    person.chooses("long")

    answer = person.asks("整本手册")

    expect(answer.locator(".late .text")).to_contain_text("(2/2)", timeout=TIMEOUT)
    expect(answer.locator(".bubble").first).to_contain_text("(1/2)")
    expect(answer.locator(".failure")).to_have_count(0)


def test_pictures_and_files_are_in_the_bubble(person: Person) -> None:
    """The browser shows each picture of the finished frame, and the file's link leads to the gateway."""
    person.chooses("pictures")
    answer = person.asks("画一座房子")
    person.sees_finish(answer)

    pictures = answer.locator(".pictures img")
    expect(pictures).to_have_count(3)
    widths = pictures.evaluate_all("found => found.map(one => one.naturalWidth)")
    assert widths == [480, 480, 480]
    expect(answer.get_by_role("link", name="年度报告.pdf")).to_have_attribute("href", re.compile(r"/files/\S+\.pdf$"))


def test_an_answer_looks_as_on_the_gateways_pages(person: Person) -> None:
    """Thinking is folded, code has its language, colours and a button; the dark theme follows the system."""
    person.chooses("formatted")
    answer = person.asks("年假有几天")
    person.sees_finish(answer)

    expect(answer.locator(".thinking > p")).to_be_hidden()
    answer.get_by_text("思考过程").click()
    expect(answer.locator(".thinking > p")).to_be_visible()
    expect(answer.get_by_role("link", name="来源 1")).to_have_css("border-radius", "9px")
    expect(answer.locator("li.task")).to_have_text(["☑ 已转正", "☐ 提前三个工作日申请"])
    expect(answer.locator("math[display=block] mfrac")).to_be_visible()
    expect(answer.locator(".code-bar span")).to_have_text("python")
    expect(answer.locator("pre .k").first).to_have_css("color", "rgb(150, 41, 139)")
    person.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    answer.get_by_role("button", name="复制代码").click()
    expect(answer.locator(".code-copy")).to_have_text("已复制")
    assert person.page.evaluate("navigator.clipboard.readText()").startswith("def days(years: int)")
    screenshot(person.page, "demo-formatted")
    person.page.emulate_media(color_scheme="dark")
    expect(answer.locator("pre .k").first).to_have_css("color", "rgb(226, 155, 224)")
    expect(answer.locator(".bubble")).to_have_css("background-color", "rgb(25, 29, 36)")
    screenshot(person.page, "demo-formatted-dark")


def test_the_app_learns_who_asks(person: Person) -> None:
    """The app lists the inputs that it was sent: name and department come from the directory, as `/whoami` has them."""
    shown = person.sees_finish(person.asks("我是谁"))
    known = person.sees_finish(person.asks("/whoami"))

    assert "name：张三" in shown
    assert "department：研发部" in shown
    assert "张三" in known


def test_every_frame_is_listed_for_developers(person: Person) -> None:
    """The last frame is in the first row, with its finish flag, bytes and milliseconds."""
    person.sees_finish(person.asks("营业时间"))

    cells = person.page.locator("#rows tr").first.locator("td").all_inner_texts()
    assert cells[0] == "#1"
    assert cells[2] == "true"
    # 31 without the suggested questions, which may come too late.
    assert int(cells[3]) >= 31
    assert re.fullmatch(r"\d+", cells[4])


@pytest.mark.parametrize(("choice", "code"), [("lisi", "unknown_user"), ("error", "provider_error")])
def test_errors_are_shown_in_the_bubble(person: Person, choice: str, code: str) -> None:
    """An unknown user and a failing Dify each show their sentence."""
    person.chooses(choice)

    assert person.sees_finish(person.asks("年假怎么申请")) == ZH[code]


def test_a_user_with_an_expired_token_is_answered(person: Person) -> None:
    """The token is renewed without a visible difference."""
    person.chooses("wangwu")

    assert person.sees_finish(person.asks("营业时间")).startswith("周一至周五")


@pytest.mark.full
def test_an_answer_that_outlasts_its_bubble_goes_on_in_a_message(person: Person) -> None:
    """The bubble ends after its time, twenty seconds in the demo, and the rest comes when the answer is complete."""
    person.chooses("late")
    answer = person.asks("年假怎么申请")

    expect(answer).to_have_attribute("data-state", "finished", timeout=TIMEOUT)
    shown = answer.locator(".bubble").first.inner_text()
    rest = answer.locator(".bubble.late")
    expect(rest).to_contain_text("(2/2)", timeout=2 * TIMEOUT)

    assert "(1/2)" in shown
    assert "还需要我帮你查一下剩余天数吗" in rest.inner_text()


def test_a_group_mentions_the_bot(person: Person) -> None:
    """The mention is no part of the question; suggestions are a list, because cards are for single chats."""
    person.chooses("group")

    answer = person.sees_finish(person.asks("年假怎么申请"))

    assert person.page.locator(".mine .bubble").inner_text() == "@来宝助手 年假怎么申请"
    assert answer.startswith("年假申请")
    assert "营业时间是什么时候" in answer
    assert person.page.locator(".card").count() == 0


def test_two_questions_at_once_have_a_bubble_each(person: Person) -> None:
    """A second question can be asked before the first one's answer is complete."""
    first = person.asks("年假怎么申请")
    expect(first).to_be_visible()
    second = person.asks("营业时间")

    assert person.sees_finish(second).startswith("周一至周五")
    assert person.sees_finish(first).startswith("年假申请")


def test_markup_in_a_question_and_its_answer_stays_text(person: Person) -> None:
    """Neither the question nor an answer that repeats it adds an element to the page."""
    attack = "<img src=x onerror=\"document.title='broken into'\"><script>document.title='broken into'</script>"

    answer = person.sees_finish(person.asks(attack))

    assert attack in answer
    assert person.page.locator(".mine .bubble").inner_text() == attack
    assert person.page.locator("#chat img, #chat script").count() == 0
    assert person.page.title() == "WechatLaibao 演示"


def test_the_page_is_usable_on_a_phone(person: Person) -> None:
    """The page is not wider than the screen, and the end of the answer and the send button are visible."""
    person.page.set_viewport_size({"width": 360, "height": 740})

    answer = person.asks("报销需要哪些材料")
    person.sees_finish(answer)

    assert person.page.evaluate("document.documentElement.scrollWidth") <= 360
    expect(answer.locator(".text li").last).to_be_visible()
    expect(person.page.get_by_role("button", name="发送")).to_be_visible()


@pytest.mark.full
def test_every_kind_of_message_has_a_button(person: Person) -> None:
    """A picture with the typed words, a file, voice and a quoted picture are answered; the sample picture is shown."""
    answers = person.page.locator("#chat .theirs[data-state]")
    person.page.get_by_role("textbox").fill("图里是什么")
    for number, kind in enumerate(("photo", "file", "video", "voice", "quote")):
        person.page.locator(f"button[name={kind}]").click()
        said = person.sees_finish(answers.nth(number))
        assert ("我看到了" in said) == (kind != "voice")

    picture = person.page.locator("#chat img.attached").first
    assert picture.evaluate("image => image.naturalWidth") == 320
    expect(person.page.locator("#chat .mine .bubble").first).to_contain_text("图里是什么")
    assert (person.foreign, person.broken) == ([], [])


def test_nothing_is_sent_before_the_page_is_ready(page: Page) -> None:
    """Until the script has its choices the composer is closed: the browser would send the form itself and reload."""
    closed = page.locator("#composer :disabled")
    while_loading: list[int] = []

    def choices(route: Route) -> None:
        while_loading.append(closed.count())
        route.continue_()

    page.route("**/choices", choices)
    with (
        StubCallback() as callback,
        page_for(lambda who: WeComUser(callback.url, SimulatedBot(TOKEN, AES_KEY), who), None) as url,
    ):
        person = Person(page, url)
        page.get_by_role("textbox").fill("hello")
        page.keyboard.press("Enter")

        expect(page.locator(".line.mine .bubble")).to_have_text("hello")
        expect(closed).to_have_count(0)
        assert while_loading == [2]
        assert person.broken == []


def test_the_page_is_translated_to_english(person: Person) -> None:
    """Labels and accessible names change with the language."""
    person.page.get_by_role("button", name="English").click()

    expect(person.page.get_by_role("button", name="Send")).to_be_visible()
    expect(person.page.get_by_role("textbox", name="Type a question")).to_be_visible()
    expect(person.page.get_by_role("radio", name="Zhang San known user")).to_be_checked()
    expect(person.page.get_by_role("log", name="Chat")).to_be_visible()
    assert person.page.locator("html").get_attribute("lang") == "en"


def test_a_failing_callback_is_shown_in_the_chat(page: Page) -> None:
    """An HTTP error of the callback is a red line under the question."""
    with (
        StubCallback() as callback,
        page_for(lambda who: WeComUser(callback.url, SimulatedBot(TOKEN, AES_KEY), who), None) as url,
    ):
        callback.status = 403
        person = Person(page, url)
        page.get_by_role("textbox").fill("hello")
        page.keyboard.press("Enter")

        expect(page.locator(".failure").last).to_have_text("网关拒绝了回调 (the callback answered 403)")
        assert person.broken == []


def test_a_broken_rule_is_a_red_line_at_the_bubble(page: Page) -> None:
    """A frame over WeCom's limit is shown, with the rule's words in red below it, once for all frames."""
    with (
        StubCallback() as callback,
        page_for(lambda who: WeComUser(callback.url, SimulatedBot(TOKEN, AES_KEY), who), None) as url,
    ):
        long = "x" * 20_481
        callback.reply = lambda message: (
            None if message["msgtype"] == "event" else frame(long, finish=message["msgtype"] == "stream")
        )
        person = Person(page, url)
        page.get_by_role("textbox").fill("hello")
        page.keyboard.press("Enter")

        answer = page.locator(".line.theirs").last
        rule = answer.locator(".rule")
        expect(answer).to_have_attribute("data-state", "finished", timeout=TIMEOUT)
        expect(rule).to_have_count(1)
        expect(rule).to_have_text("网关的回复不合企业微信的规则: a frame of more than 20480 bytes: 20481")
        expect(rule).to_have_css("color", "rgb(180, 35, 35)")
        expect(page.locator(".bubble.broken")).to_have_count(1)
        assert person.broken == []
        if folder := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=Path(folder) / "broken-rule.png")


def test_with_a_real_dify_the_mocks_behaviour_is_hidden(page: Page) -> None:
    """The choice of the mock's behaviour is hidden, and the page says that a real Dify answers."""
    with (
        StubCallback() as callback,
        page_for(lambda who: WeComUser(callback.url, SimulatedBot(TOKEN, AES_KEY), who), None) as url,
    ):
        callback.reply = lambda message: None
        Person(page, url)

        expect(page.locator("#real")).to_be_visible()
        expect(page.locator("#modes")).to_be_hidden()


TAKES_PICTURES = pytest.mark.skipif("SCREENSHOTS" not in os.environ, reason="SCREENSHOTS=folder takes the pictures")


@TAKES_PICTURES
def test_the_screenshot_of_the_readme(person: Person) -> None:
    """A finished answer and a growing one."""
    person.page.set_viewport_size({"width": 1280, "height": 1040})
    person.sees_finish(person.asks("营业时间"))
    person.chooses("slow")
    answer = person.asks("年假怎么申请")
    expect(answer.locator(".text > ol > li")).to_have_count(4, timeout=TIMEOUT)

    screenshot(person.page, "simulator")


@TAKES_PICTURES
def test_the_screenshot_of_a_photo_question(person: Person) -> None:
    """A picture with words, and its answer."""
    person.page.set_viewport_size({"width": 1280, "height": 1060})
    person.page.get_by_role("textbox").fill("图里是什么")
    person.page.locator("button[name=photo]").click()
    person.sees_finish(person.page.locator("#chat .theirs[data-state]").first)

    screenshot(person.page, "photo")


@TAKES_PICTURES
def test_the_screenshot_of_a_late_answer(person: Person) -> None:
    """The end of a full bubble, and the message with the rest."""
    person.chooses("long")
    answer = person.asks("整本手册")
    late = answer.locator(".late").first
    expect(late.locator(".text")).to_contain_text("(2/2)", timeout=TIMEOUT)
    late.evaluate("late => { late.scrollIntoView(); document.querySelector('#chat').scrollBy(0, -260) }")

    screenshot(person.page, "late")


@pytest.mark.full
def test_an_answer_is_rated_and_the_rating_withdrawn(person: Person) -> None:
    """Thumbs are below finished answers only; what is wrong is told by reasons and words."""
    answer = person.asks("年假怎么申请")
    person.sees_finish(answer)

    answer.get_by_role("button", name="不准确").click()
    answer.get_by_label("回答不完整").check()
    answer.get_by_label("说说哪里不对").fill("请更具体一点")
    screenshot(person.page, "thumbs-form")
    answer.get_by_role("button", name="提交").click()
    expect(answer.get_by_role("status")).to_have_text("已评价")
    expect(answer.get_by_role("button", name="不准确")).to_have_attribute("aria-pressed", "true")
    screenshot(person.page, "thumbs")
    answer.get_by_role("button", name="撤回评价").click()
    expect(answer.get_by_role("status")).to_have_text("评价已撤回")

    command = person.asks("帮助")
    person.sees_finish(command)
    expect(command.get_by_role("button")).to_have_count(0)


@pytest.mark.full
def test_a_forms_choice_is_clicked_on_its_card(person: Person) -> None:
    """The card keeps the clicked button, and the rest of the answer is a message below it."""
    person.chooses("form")
    answer = person.asks("报销要什么材料")
    person.sees_finish(answer)
    card = answer.get_by_role("region", name="卡片")
    expect(card.get_by_role("button")).to_have_text(["同意", "驳回", "转交财务"])
    screenshot(person.page, "card")

    card.get_by_role("button", name="驳回").click()

    expect(card.get_by_role("heading")).to_have_text(ZH["card_clicked"])
    expect(card.get_by_role("button")).to_have_text(["驳回"])
    expect(answer.locator(".late .text")).to_contain_text("您选择了“驳回”", timeout=TIMEOUT)
    screenshot(person.page, "card-clicked")
    expect(person.page.locator(".failure")).to_have_count(0)
    assert (person.foreign, person.broken) == ([], [])


@pytest.mark.full
def test_an_apps_card_asks_its_question(person: Person) -> None:
    """The block is not in the bubble; a click is answered by a message."""
    person.chooses("card")
    answer = person.asks("有什么")
    assert "wecom-card" not in person.sees_finish(answer)
    card = answer.get_by_role("region", name="卡片")
    expect(card).to_contain_text("部门：人力资源")
    screenshot(person.page, "card-app")

    card.get_by_role("button", name="年假").click()

    expect(answer.locator(".late .text")).to_contain_text("也可以直接输入问题", timeout=TIMEOUT)
    expect(person.page.locator(".failure")).to_have_count(0)
