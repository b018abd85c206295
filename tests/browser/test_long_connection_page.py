"""The demo's page in Chromium, over the simulated long connection, with the whole product."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from config.texts import ZH
from demo.stage import Stage, running_stage
from tests.browser.stage import TIMEOUT, screenshot
from tests.browser.test_demo_page import Person, page, page_for

__all__ = ["page"]

pytestmark = [pytest.mark.browser, pytest.mark.scenario]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The demo with a gateway that is a client of the simulated WeCom."""
    with running_stage(tmp_path_factory.mktemp("demo"), {}, websocket=True) as stage:
        yield stage


@pytest.fixture
def person(page: Page, stage: Stage) -> Iterator[Person]:
    """A person at the page; it must have no errors and no requests to other hosts, and no frame breaks a rule."""
    with page_for(stage.user, stage.set_mode, stage.push) as url:
        person = Person(page, url)
        yield person
        assert (person.broken, person.foreign) == ([], [])
    assert stage.long_connection is not None
    assert stage.long_connection.broken == []


def test_answer_grows_without_a_callback(person: Person) -> None:
    """The welcome comes first; the answer's frames grow in one bubble, which has thumbs at the end."""
    expect(person.page.locator("#chat .theirs").first).to_contain_text(ZH["welcome"][:6])

    answer = person.asks("年假怎么申请")
    expect(answer.locator(".text")).to_contain_text("年假申请", timeout=TIMEOUT)
    shown = person.sees_finish(answer)

    assert "还需要我帮你查一下剩余天数吗？" in shown
    expect(answer.locator(".failure")).to_have_count(0)
    expect(person.page.locator(".lead")).to_contain_text("长连接")


def test_rest_of_a_long_answer_follows_in_messages(person: Person) -> None:
    person.chooses("long")

    answer = person.asks("整本手册")

    expect(answer.locator(".late .text").first).to_contain_text("(2/2)", timeout=TIMEOUT)
    screenshot(person.page, "long-connection")
    expect(answer.locator(".failure")).to_have_count(0)


def test_pictures_and_files_follow_in_messages(person: Person) -> None:
    """The browser shows each picture, and offers the file under its name."""
    person.chooses("pictures")

    answer = person.asks("画一座房子")

    expect(answer.locator(".late img")).to_have_count(3, timeout=TIMEOUT)
    expect(answer.get_by_role("link", name="年度报告.pdf")).to_have_attribute(
        "download", "年度报告.pdf", timeout=TIMEOUT
    )
    widths = answer.locator(".late img").evaluate_all("found => found.map(one => one.naturalWidth)")
    assert widths == [480, 480, 480]
    assert max(answer.locator(".late img").evaluate_all("found => found.map(one => one.clientWidth)")) <= 240
    screenshot(person.page, "long-connection-files")


def test_every_kind_of_message_is_answered(person: Person) -> None:
    """Pictures and files come with a key of their own; the app sees them."""
    answers = person.page.locator("#chat .theirs[data-state]")
    for number, kind in enumerate(("photo", "file", "voice", "quote")):
        person.page.locator(f"button[name={kind}]").click()
        assert ("我看到了" in person.sees_finish(answers.nth(number))) == (kind != "voice")


def test_thumbs_rate_an_answer(person: Person) -> None:
    answer = person.asks("营业时间")
    person.sees_finish(answer)

    answer.get_by_role("button", name="准确", exact=True).click()

    expect(answer.get_by_role("button", name="准确", exact=True)).to_have_attribute("aria-pressed", "true")


def test_push_appears_in_a_line_of_its_own(person: Person) -> None:
    """The button pushes through the gateway's REST what was typed, once the person has written to the bot."""
    person.sees_finish(person.asks("营业时间"))
    person.page.get_by_role("textbox").fill("**下班**了")
    person.page.get_by_role("button", name="推送").click()

    pushed = person.page.locator("#chat .theirs .late").filter(has_text="下班了")
    expect(pushed).to_be_visible(timeout=TIMEOUT)
    expect(pushed.locator("strong")).to_have_text("下班")
    expect(person.page.locator("#chat .failure")).to_have_count(0)
    screenshot(person.page, "long-connection-push")
