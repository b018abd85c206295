"""All pages by axe-core, the engine that browsers' own audits use: in both themes and both languages."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Page, expect

from tests.browser.stage import LAPTOP, PHONE, TIMEOUT, pushes, screenshot, tab
from tests.support.replicas import ADMIN_TOKEN, Replica
from tests.support.servers.processes import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.scenario, pytest.mark.timeout(240)]

#: What axe calls the findings that keep a person from using a page.
SERIOUS = {"serious", "critical"}
QUESTION = "报销需要哪些材料？"


def asks_in_chat(page: Page) -> None:
    page.locator("#question").fill(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".turn")).to_have_attribute("data-state", "completed", timeout=TIMEOUT)


def is_asked_back(page: Page) -> None:
    """Get a card and the choices of a form, and say of the answer that it is bad."""
    for number, question in enumerate(("能问什么 [[card]]", "报销要什么材料 [[form]]")):
        page.locator("#question").fill(question)
        page.keyboard.press("Enter")
        expect(page.locator(".turn").nth(number)).to_have_attribute("data-state", "completed", timeout=TIMEOUT)
    page.locator(".turn .dislike").last.click()
    expect(page.locator(".reasons")).to_be_visible()


def reads_a_passage(page: Page) -> None:
    """Pin the conversation, regenerate its answer, and look at what a citation cites."""
    for number in range(2):
        if number:
            page.locator(".turn .regenerate").click()
        else:
            page.locator("#question").fill("年假有几天 [[formatted]]")
            page.keyboard.press("Enter")
        expect(page.locator(".versions")).to_be_visible(visible=bool(number), timeout=TIMEOUT)
        expect(page.locator(".turn")).to_have_attribute("data-state", "completed", timeout=TIMEOUT)
    page.locator("#chats-list .chatActions").click()
    page.locator("#chats-list .pin").click()
    expect(page.locator("#chats-list .pin")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Tab")
    page.locator(".cite a").focus()
    expect(page.get_by_role("tooltip")).to_be_visible()


def deletes_a_conversation(page: Page) -> None:
    asks_in_chat(page)
    if page.locator("#chats-open").is_visible():
        page.locator("#chats-open").click()
    page.locator("#chats-list .chatActions").click()
    page.locator("#chats-list .delete").click()
    expect(page.locator("#confirm")).to_be_visible()


def says_a_question(page: Page) -> None:
    page.locator("#line").fill(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".turn")).to_have_attribute("data-state", "finished", timeout=TIMEOUT)


def submits_questions(page: Page) -> None:
    page.locator("#questions").fill(f"{QUESTION}\n[[400-invalid_param]] 二")
    page.locator("#start").click()
    expect(page.locator("#task")).to_have_attribute("data-status", "partly", timeout=TIMEOUT)
    for row in page.locator(".open").all():
        row.click()
    expect(page.locator(".blocks li").first).to_be_visible(timeout=TIMEOUT)


def opens_the_key(page: Page) -> None:
    page.locator("#key-open").click()
    expect(page.locator("#key-input")).to_be_focused()


def signs_in(page: Page) -> None:
    page.locator("#token").fill(ADMIN_TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_attribute("data-state", "open")


def looks_at_questions(page: Page) -> None:
    signs_in(page)
    page.locator("#views a[data-view=questions]").click()
    expect(page.locator("#log tr:visible, #none-found:visible").first).to_be_visible()


def looks_at_usage(page: Page) -> None:
    signs_in(page)
    page.locator("#views a[data-view=usage]").click()
    expect(page.locator("#usage-about")).not_to_be_empty()


def looks_at_feedback(page: Page) -> None:
    signs_in(page)
    page.locator("#views a[data-view=feedback]").click()
    page.locator("#gaps-find").click()
    expect(page.locator("#gaps-about")).not_to_be_empty()


def compares_answers(page: Page) -> None:
    """Dislike an answer, and ask its question again."""
    signs_in(page)
    home, client = page.url.partition("/admin")[0], page.request
    asked = client.post(f"{home}/api/chat", data={"query": QUESTION}).json()["data"]
    client.post(f"{home}/api/chat/{asked['stream_id']}/feedback", data={"rating": "dislike"})

    def is_kept() -> bool:
        ratings = client.get(f"{home}/api/admin/feedback?with_words=true&limit=500").json()["data"]["ratings"]
        return any(one["stream_id"] == asked["stream_id"] and one["question"] for one in ratings)

    wait_until(is_kept, timeout=120.0, every=0.5)
    page.locator("#views a[data-view=feedback]").click()
    page.locator("#ratings-again").click()
    expect(page.locator("#comparison-rows")).to_contain_text(QUESTION)


def checks_rules(page: Page) -> None:
    signs_in(page)
    page.locator("#views a[data-view=rules]").click()
    page.locator("#check-form [name=text]").fill("- {allow: true}")
    page.locator("#check-form [type=submit]").click()
    expect(page.locator("#check-about")).not_to_be_empty()


def compares_rules(page: Page) -> None:
    signs_in(page)
    page.locator("#views a[data-view=rules]").click()
    page.locator("#check-form [name=text]").fill(f"# saved by {page.viewport_size}\n- {{allow: true}}")
    page.locator("#check-form [type=submit]").click()
    page.locator("#rules-save").click()
    page.locator("#versions button").first.click()
    expect(page.locator("#difference")).to_be_visible()


def looks_at_work(page: Page) -> None:
    pushes(page, "queued", "failed")
    signs_in(page)
    page.locator("#views a[data-view=work]").click()
    expect(page.locator("#pushes button")).to_have_count(1)
    expect(page.locator("#sockets-count")).not_to_be_empty()


def removes(page: Page, css: str) -> None:
    """Remove what /docs repeats: axe would take a minute for all of it."""
    page.evaluate("(css) => document.querySelectorAll(css).forEach((one) => one.remove())", css)


def tries_an_operation(page: Page) -> None:
    block = page.locator(".opblock-post").filter(has=page.locator("[data-path='/api/chat']"))
    block.locator(".opblock-summary-control").click()
    block.locator(".try-out__btn").click()
    block.locator(".execute").click()
    expect(block.locator(".live-responses-table .response")).to_be_visible(timeout=TIMEOUT)
    removes(
        page, ".opblock-tag-section:not(:has(.is-open)), span + span > .opblock:not(.is-open), .response ~ .response"
    )


def opens_the_credentials(page: Page) -> None:
    page.locator(".btn.authorize").click()
    expect(page.locator(".auth-container").first).to_be_visible()
    removes(page, ".opblock-tag-section")


#: A page, and what a person does there before it is looked at.
VIEWS = [
    ("/", lambda page: None),
    ("/", opens_the_key),
    ("/chat", lambda page: None),
    ("/chat", asks_in_chat),
    ("/chat", is_asked_back),
    ("/realtime", says_a_question),
    ("/batch", submits_questions),
    ("/admin", signs_in),
]
#: Each on a laptop and on a phone; /docs, which takes axe longer, on one of them.
SIZED = [(*view, size) for size in (LAPTOP, PHONE) for view in VIEWS]
SIZED += [("/chat", deletes_a_conversation, PHONE), ("/chat", reads_a_passage, LAPTOP)]
SIZED += [
    ("/admin", lambda page: None, PHONE),
    ("/admin", looks_at_questions, PHONE),
    ("/admin", looks_at_usage, PHONE),
]
SIZED += [("/admin", looks_at_feedback, LAPTOP), ("/admin", looks_at_feedback, PHONE)]
SIZED += [("/admin", compares_answers, LAPTOP), ("/admin", compares_answers, PHONE)]
SIZED += [("/admin", checks_rules, LAPTOP), ("/admin", checks_rules, PHONE)]
SIZED += [("/admin", compares_rules, LAPTOP), ("/admin", compares_rules, PHONE)]
SIZED += [("/admin", looks_at_work, LAPTOP), ("/admin", looks_at_work, PHONE)]
SIZED += [("/docs", tries_an_operation, LAPTOP), ("/docs", opens_the_credentials, PHONE)]


#: Shows each field's placeholder as text of the same colours, because axe ignores placeholders.
PLACEHOLDERS = """() => document.querySelectorAll("input[placeholder], textarea[placeholder]").forEach((field) => {
  field.parentElement.querySelector(".shown-placeholder")?.remove();
  if (!field.checkVisibility()) return;
  const { color, opacity } = getComputedStyle(field, "::placeholder");
  const { backgroundColor } = getComputedStyle(field);
  const shown = Object.assign(document.createElement("div"), { className: "shown-placeholder" });
  shown.textContent = field.placeholder;
  Object.assign(shown.style, { color, opacity, backgroundColor });
  field.parentElement.append(shown);
})"""


def findings(page: Page, impacts: Collection[str] = SERIOUS) -> list[str]:
    """Return the violations of these impacts that axe finds, each with the first elements that have it."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']} {[node['html'][:120] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in impacts
    ]


@pytest.mark.parametrize(("path", "prepares", "size"), SIZED, ids=lambda one: getattr(one, "__name__", str(one)))
def test_axe_finds_nothing_serious(
    chromium: Browser, open_replica: Replica, path: str, prepares: Callable[[Page], None], size: tuple[int, int]
) -> None:
    """The empty page, a finished answer, a table of answers and the key dialog, light and dark, in zh and en.

    Nothing is wider than the screen.
    """
    with tab(chromium, open_replica.url, size=size) as (page, watch):
        page.goto(open_replica.url + path)
        prepares(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for locale in ("zh", "en"):
            for theme in ("light", "dark"):
                page.evaluate("([locale, theme]) => Object.assign(preferences, { locale, theme })", [locale, theme])
                expect(page.locator("html")).to_have_attribute("data-theme", theme)
                page.evaluate(PLACEHOLDERS)
                screenshot(page, "-".join(("axe", path[1:], prepares.__name__, str(size[0]), locale, theme)))

                assert findings(page) == [], (locale, theme)
        watch.assert_clean()
