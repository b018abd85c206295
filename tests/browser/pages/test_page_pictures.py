"""Takes the pictures of docs/pages.md: each page in each theme, in both languages and on a phone."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from demo.mocks.dify.scripts import says
from demo.mocks.dify.server import SCRIPTS, MockDify
from tests.browser.stage import TIMEOUT, screenshot, tab
from tests.support.replicas import ADMIN_TOKEN, Replica

pytestmark = [
    pytest.mark.browser,
    pytest.mark.scenario,
    pytest.mark.timeout(240),
    pytest.mark.skipif("SCREENSHOTS" not in os.environ, reason="SCREENSHOTS=folder takes the pictures"),
]

FAKE_SPEECH = Path(__file__).parents[1] / "fake_speech.js"
#: The most bytes of a picture, so that the document loads quickly.
MOST_BYTES = 100_000

SMALL = (1000, 640)
PHONE = (390, 780)
#: Size of the window, theme and language of each picture.
LOOKS = {"light": (SMALL, "light", "zh"), "dark": (SMALL, "dark", "en"), "phone": (PHONE, "light", "zh")}
LOOKS |= {"phone-dark": (PHONE, "dark", "en")}

ASKED = {"zh": "去上海出差，住宿标准是多少？", "en": "How much may a hotel in Shanghai cost?"}
NEXT = {"zh": "那年假怎么申请？", "en": "And how do I apply for leave?"}
ANSWERED = {
    "zh": """公司差旅住宿标准如下（每晚，含税）：

| 城市级别 | 员工 | 经理 |
|:--|--:|--:|
| 一线城市 | ¥550 | ¥700 |
| 省会城市 | ¥400 | ¥550 |
| 其他城市 | ¥300 | ¥400 |

**报销时请注意：**

- 超出标准的部分须由部门负责人事先审批
- 发票抬头与税号须与公司一致，30 天内提交
""",
    "en": """These are the limits for a night, tax included:

| City | Staff | Managers |
|:--|--:|--:|
| Beijing, Shanghai, Guangzhou | ¥550 | ¥700 |
| Provincial capitals | ¥400 | ¥550 |
| Elsewhere | ¥300 | ¥400 |

**For the reimbursement:**

- Your manager approves what is above the limit beforehand
- Hand in the invoice within 30 days
""",
}


#: The answer to the second question of the batch.
SHORT = {
    "zh": "在 OA 里选“假期申请”，由部门负责人审批。",
    "en": "Choose “Leave” in the OA; your manager approves it.",
}


def answer_to(question: str) -> str:
    locale = language_of(question)
    return ANSWERED[locale] if ASKED[locale] in question else SHORT[locale]


def language_of(question: str) -> str:
    return "zh" if re.search(r"[\u4e00-\u9fff]", question) else "en"


@pytest.fixture
def replica(open_replica: Replica, open_dify: MockDify) -> Iterator[Replica]:
    """The open replica, whose Dify answers in the language of the question."""
    SCRIPTS["picture"] = says(answer_to, "a table")
    before, open_dify.default, open_dify.delay = open_dify.default, "picture", 0.01
    yield open_replica
    open_dify.default = before


def chats(page: Page, locale: str) -> None:
    page.locator("#question").fill(ASKED[locale])
    page.keyboard.press("Enter")
    expect(page.locator(".turn").last).to_have_attribute("data-state", "completed", timeout=TIMEOUT)
    expect(page.locator("#chats-list li:not(:has(.tag))")).to_have_count(1, timeout=TIMEOUT)


def speaks(page: Page, locale: str) -> None:
    page.locator("#line").fill(ASKED[locale])
    page.keyboard.press("Enter")
    expect(page.locator(".turn").last).to_have_attribute("data-state", "finished", timeout=TIMEOUT)


def submits(page: Page, locale: str) -> None:
    page.locator("#questions").fill(f"{ASKED[locale]}\n{NEXT[locale]}\n[[400-invalid_param]] {NEXT[locale]}")
    page.locator("#start").click()
    expect(page.locator("#task")).to_have_attribute(
        "data-status", re.compile("completed|failed|partly"), timeout=TIMEOUT
    )
    page.locator("#task").scroll_into_view_if_needed()


def administers(page: Page, locale: str) -> None:
    """Ask two questions, and look at the day's figures once they count."""
    home, client = page.url.partition("/admin")[0], page.request
    for question in (ASKED[locale], NEXT[locale]):
        client.post(f"{home}/api/chat", data={"query": question})
    page.locator("#token").fill(ADMIN_TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#figures dt")).to_have_count(8)
    expect(page.locator("#figures dd").first).not_to_have_text(re.compile("^[01]$"), timeout=TIMEOUT)
    page.evaluate("document.activeElement.blur()")


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(
    ("path", "acts"), [("chat", chats), ("realtime", speaks), ("batch", submits), ("admin", administers)]
)
def test_the_pictures_of_the_pages(
    chromium: Browser, replica: Replica, path: str, acts: Callable[[Page, str], None], look: str
) -> None:
    """A finished answer, as a person sees it; the file is small enough for a document."""
    size, theme, locale = LOOKS[look]
    with tab(chromium, replica.url, size=size, scripts=(FAKE_SPEECH,)) as (page, watch):
        page.goto(f"{replica.url}/{path}")
        page.evaluate("([theme, locale]) => Object.assign(preferences, { theme, locale })", [theme, locale])
        acts(page, locale)
        page.mouse.move(0, 0)

        picture = screenshot(page, f"pages-{path}-{look}")

        assert picture is not None
        assert picture.stat().st_size <= MOST_BYTES
        watch.assert_clean()
