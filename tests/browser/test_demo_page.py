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
from demo.stage import Stage, running_stage
from demo.wecom.long_connection.user import SimulatedUser
from demo.wecom.simulator import SimulatedBot, WeComUser
from tests.browser.pages.test_page_axe import SERIOUS, findings
from tests.browser.stage import LAPTOP, PHONE, TIMEOUT, screenshot
from tests.support.wecom_stub import AES_KEY, TOKEN, StubCallback, frame

pytestmark = [pytest.mark.browser, pytest.mark.scenario]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test over callbacks, or over what its mark `over` names."""
    if "stage" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("over")
        metafunc.parametrize("stage", mark.args if mark else ["callbacks"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The demo: a running gateway with all its services."""
    with running_stage(tmp_path_factory.mktemp("demo"), {}, websocket=request.param == "socket") as stage:
        yield stage


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


#: Records every text that the newest answer shows.
RECORDS = """() => {
  window.shown = [];
  new MutationObserver(() => {
    const text = [...document.querySelectorAll("#chat .theirs[data-state] .text")].at(-1)?.textContent.trim();
    if (text && text !== shown.at(-1)) shown.push(text);
  }).observe(document.getElementById("chat"), { childList: true, subtree: true, characterData: true });
}"""


class PageUser:
    """A person at the page. `foreign` has requests to other hosts, `broken` the errors of the page's script."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.foreign: list[str] = []
        self.broken: list[str] = []
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


def test_an_answer_looks_as_on_the_gateways_pages(person: PageUser) -> None:
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


def test_every_frame_is_listed_for_developers(person: PageUser) -> None:
    """The last frame is in the first row, with its finish flag, bytes and milliseconds."""
    person.sees_finish(person.asks("营业时间"))

    cells = person.page.locator("#rows tr").first.locator("td").all_inner_texts()
    assert cells[0] == "#1"
    assert cells[2] == "true"
    # 31 without the suggested questions, which may come too late.
    assert int(cells[3]) >= 31
    assert re.fullmatch(r"\d+", cells[4])


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """An empty tab of a laptop's size."""
    with chromium.new_context(
        viewport={"width": 1280, "height": 800}, reduced_motion="reduce", locale="zh-CN"
    ) as context:
        context.set_default_timeout(TIMEOUT)
        yield context.new_page()


@pytest.fixture
def person(page: Page, stage: Stage) -> Iterator[PageUser]:
    """A person at the page of the whole product: it has no errors, asks no other host, and no frame breaks a rule."""
    with page_for(stage.user, stage.set_mode, stage.push) as url:
        person = PageUser(page, url)
        expect(page.locator("#chat .theirs").first).to_contain_text(ZH["welcome"][:6])
        yield person
        assert (person.broken, person.foreign) == ([], [])
    assert stage.long_connection is None or stage.long_connection.broken == []


@pytest.mark.main_story
def test_an_answer_takes_the_place_of_its_placeholder(person: PageUser) -> None:
    """The placeholder is shown first; the finished answer is whole and formatted."""
    person.page.evaluate(RECORDS)
    answer = person.asks("年假怎么申请")
    finished = person.sees_finish(answer)

    assert person.page.evaluate("shown[0]") == ZH["thinking"]
    assert "还需要我帮你查一下剩余天数吗？" in finished
    assert answer.locator("li").count() >= 4
    expect(answer.locator(".bubble")).to_have_attribute("aria-busy", "false")


@pytest.mark.parametrize(("choice", "code"), [("lisi", "unknown_user"), ("error", "provider_error")])
def test_errors_are_shown_in_the_bubble(person: PageUser, choice: str, code: str) -> None:
    """An unknown user and a failing Dify each show their sentence."""
    person.chooses(choice)

    assert person.sees_finish(person.asks("年假怎么申请")) == ZH[code]


def test_markup_in_a_question_and_its_answer_stays_text(person: PageUser) -> None:
    """Neither the question nor an answer that repeats it adds an element to the page."""
    attack = "<img src=x onerror=\"document.title='broken into'\"><script>document.title='broken into'</script>"

    answer = person.sees_finish(person.asks(attack))

    assert attack in answer
    assert person.page.locator(".mine .bubble").inner_text() == attack
    assert person.page.locator("#chat img, #chat script").count() == 0
    assert person.page.title() == "WechatLaibao 演示"


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
        person = PageUser(page, url)
        page.get_by_role("textbox").fill("hello")
        page.keyboard.press("Enter")

        expect(page.locator(".line.mine .bubble")).to_have_text("hello")
        expect(closed).to_have_count(0)
        assert while_loading == [2]
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
        person = PageUser(page, url)
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


@pytest.mark.over("callbacks", "socket")
def test_the_rest_of_a_long_answer_follows_in_messages(person: PageUser) -> None:
    """The frame of an answer that is too large announces it; it breaks no rule of WeCom."""
    person.chooses("long")
    answer = person.asks("整本手册")

    expect(answer.locator(".late .text").first).to_contain_text("(2/2)", timeout=TIMEOUT)
    expect(answer.locator(".failure")).to_have_count(0)
    screenshot(person.page, "long")


@pytest.mark.over("callbacks", "socket")
def test_pictures_and_files_are_shown(person: PageUser) -> None:
    """The browser shows each picture, in the bubble or in a message after it, and a link leads to the file."""
    person.chooses("pictures")
    answer = person.asks("画一座房子")

    pictures = answer.locator(".pictures img, .late img")
    expect(pictures).to_have_count(3, timeout=TIMEOUT)
    for picture in pictures.all():
        expect(picture).to_have_js_property("naturalWidth", 480)
    expect(answer.get_by_role("link", name="年度报告.pdf")).to_be_visible()
    screenshot(person.page, "files")


@pytest.mark.over("callbacks", "socket")
def test_every_kind_of_message_has_a_button(person: PageUser) -> None:
    """A picture with the typed words, a file, voice and a quoted picture are answered; the sample picture is shown."""
    answers = person.page.locator("#chat .theirs[data-state]")
    person.page.get_by_role("textbox").fill("图里是什么")
    for number, kind in enumerate(("photo", "file", "voice", "quote")):
        person.page.locator(f"button[name={kind}]").click()
        assert ("我看到了" in person.sees_finish(answers.nth(number))) == (kind != "voice")

    expect(person.page.locator("#chat img.attached").first).to_have_js_property("naturalWidth", 320)
    expect(person.page.locator("#chat .mine .bubble").first).to_contain_text("图里是什么")


@pytest.mark.over("socket")
def test_a_push_is_a_line_of_its_own(person: PageUser) -> None:
    """The button pushes through the gateway's REST what was typed, once the person has written to the bot."""
    expect(person.page.locator(".lead")).to_contain_text("长连接")
    person.sees_finish(person.asks("营业时间"))
    person.page.get_by_role("textbox").fill("**下班**了")
    person.page.get_by_role("button", name="推送").click()

    pushed = person.page.locator("#chat .theirs .late").filter(has_text="下班了")
    expect(pushed.locator("strong")).to_have_text("下班")
    expect(person.page.locator("#chat .failure")).to_have_count(0)
    screenshot(person.page, "push")


TAKES_PICTURES = pytest.mark.skipif("SCREENSHOTS" not in os.environ, reason="SCREENSHOTS=folder takes the pictures")


@TAKES_PICTURES
def test_the_screenshots_of_the_documents(person: PageUser) -> None:
    """A finished answer and a growing one; a picture with words; the end of a full bubble, and the message after it."""
    person.page.set_viewport_size({"width": 1280, "height": 1040})
    person.sees_finish(person.asks("营业时间"))
    person.chooses("slow")
    answer = person.asks("年假怎么申请")
    expect(answer.locator(".text > ol > li")).to_have_count(4)
    screenshot(person.page, "simulator")

    person.page.reload()
    person.page.get_by_role("textbox").fill("图里是什么")
    person.page.locator("button[name=photo]").click()
    person.sees_finish(person.page.locator("#chat .theirs[data-state]").first)
    screenshot(person.page, "photo")

    person.page.reload()
    person.chooses("long")
    late = person.asks("整本手册").locator(".late").first
    expect(late.locator(".text")).to_contain_text("(2/2)")
    late.evaluate("late => { late.scrollIntoView(); document.querySelector('#chat').scrollBy(0, -260) }")
    screenshot(person.page, "late")


#: Where an element is: whether all of it is inside the visible part of the chat, and inside the window.
IN_VIEW = """form => {
  const [box, chat] = [form, document.querySelector("#chat")].map((one) => one.getBoundingClientRect());
  return [box.top >= chat.top && box.bottom <= chat.bottom - 8, box.top >= 0 && box.bottom <= innerHeight];
}"""


@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_the_form_of_a_bad_rating_comes_into_view(person: PageUser, size: tuple[int, int]) -> None:
    """All of it is in sight with room below, and its first reason has the focus; a second press folds it away."""
    person.page.set_viewport_size({"width": size[0], "height": size[1]})
    answer = person.asks("年假怎么申请")
    person.sees_finish(answer)
    thumb = answer.get_by_role("button", name="不准确")
    thumb.click()

    form = answer.locator("form")
    expect(form.get_by_label("与问题无关")).to_be_focused()
    assert form.evaluate(IN_VIEW) == [True, True]
    screenshot(person.page, f"demo-reasons-{size[0]}")
    thumb.click()
    expect(form).to_be_hidden()


def test_the_page_is_accessible_in_both_themes(person: PageUser) -> None:
    """axe finds nothing from moderate on, with a rated answer and cards; the switch outlives a reload."""
    for question in ("年假怎么申请", "营业时间"):
        answer = person.asks(question)
        person.sees_finish(answer)
    answer.get_by_role("button", name="不准确").click()
    switch = person.page.locator("#theme")
    expect(switch).to_have_accessible_name("主题：跟随系统")
    for name, ground in (("主题：浅色", "rgb(238, 241, 245)"), ("主题：深色", "rgb(34, 40, 49)")):
        switch.click()
        expect(switch).to_have_accessible_name(name)
        expect(person.page.locator("body")).to_have_css("background-color", ground)
        screenshot(person.page, f"demo-{name[-2:]}")
        assert findings(person.page, {"moderate", *SERIOUS}) == []
    person.page.reload()
    expect(switch).to_have_accessible_name("主题：深色")
    expect(person.page.locator("html")).to_have_attribute("data-theme", "dark")
    inside = "[...document.querySelectorAll('.panel, body')].every((one) => one.scrollWidth <= one.clientWidth)"
    for width in (1280, 1110, 390):
        person.page.set_viewport_size({"width": width, "height": 800})
        assert person.page.evaluate(inside), width


def test_an_answer_is_rated_and_the_rating_withdrawn(person: PageUser) -> None:
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


def test_a_forms_choice_is_clicked_on_its_card(person: PageUser) -> None:
    """The card keeps the clicked button, and the rest of the answer is a message below it."""
    person.chooses("form")
    answer = person.asks("报销要什么材料")
    person.sees_finish(answer)
    card = answer.get_by_role("group", name="卡片")
    expect(card.get_by_role("button")).to_have_text(["同意", "驳回", "转交财务"])
    screenshot(person.page, "card")

    card.get_by_role("button", name="驳回").click()

    expect(card.get_by_role("heading")).to_have_text(ZH["card_clicked"])
    expect(card.get_by_role("button")).to_have_text(["驳回"])
    expect(answer.locator(".late .text")).to_contain_text("您选择了“驳回”", timeout=TIMEOUT)
    screenshot(person.page, "card-clicked")
    expect(person.page.locator(".failure")).to_have_count(0)
