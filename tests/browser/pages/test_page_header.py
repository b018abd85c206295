"""The header of all pages: links, language, theme and key, which are chosen once for all pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from config.texts import EN, ZH
from demo.mocks.dify.server import MockDify
from tests.browser.stage import PHONE, TIMEOUT, Watch, tab
from tests.support.replicas import Replica, dify_settings, replicas, settings_for
from tests.support.servers.processes import RedisServer

pytestmark = [pytest.mark.browser, pytest.mark.scenario, pytest.mark.timeout(240)]

PATHS = ("/chat", "/realtime", "/batch")
KEY = "a-key-of-the-pages"
STORED = "(name) => [sessionStorage.getItem(name), localStorage.getItem(name)]"


@pytest.fixture(scope="module")
def locked(
    redis_server: RedisServer, open_dify: MockDify, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replica]:
    """An application in English whose sockets and batches need a key."""
    folder = tmp_path_factory.mktemp("locked")
    settings = {"WEBSOCKET_AUTH": "key", "API_KEYS": KEY, "LOCALE": "en", "APP_NAME": "来宝"}
    settings["DATABASE_PATH"] = str(folder / "laibao.db")
    env = settings_for(redis_server.url(5), **dify_settings(open_dify.base_url), **settings)
    with replicas(1, env, folder) as (replica,):
        yield replica


def is_open(page: Page) -> None:
    expect(page.locator("#state")).to_have_attribute("data-state", "open", timeout=TIMEOUT)


def follows(page: Page, link: str) -> None:
    """Go to another page by its link in the header."""
    page.get_by_role("navigation").get_by_role("link", name=link).click()
    is_open(page)


def enters_key(page: Page, key: str, *, on_device: bool = False) -> None:
    expect(page.locator("#key")).to_be_visible()
    page.locator("#key-input").fill(key)
    if on_device:
        page.get_by_label("on this device").check()
    page.locator("#key-input").press("Enter")


def assert_clean(watch: Watch) -> None:
    """The console reports each 401 of a request without a key; nothing else may be wrong."""
    assert [line for line in watch.errors + watch.warnings if "401" not in line] == []
    assert watch.foreign == []


@pytest.mark.main_story
def test_the_pages_lead_to_each_other_in_the_chosen_language_and_theme(
    chromium: Browser, open_replica: Replica
) -> None:
    """One click goes to the next page, which is marked; language and theme stay, also after a reload."""
    with tab(chromium, open_replica.url) as (page, watch):
        page.goto(open_replica.url + "/chat")
        # The browser warns of a socket that is closed before it is open.
        is_open(page)
        page.get_by_role("button", name="English").click()
        for _ in range(2):
            page.locator("#theme").click()
        for link, title in (("Live", "Live answers"), ("Batches", "Batches"), ("Chat", "Chat")):
            follows(page, link)

            expect(page.locator("nav [aria-current=page]")).to_have_text(link)
            expect(page.locator("html")).to_have_attribute("data-theme", "dark")
            expect(page.locator("html")).to_have_attribute("lang", "en")
            expect(page.locator("#theme")).to_have_accessible_name("Theme: dark")
            expect(page).to_have_title(f"来宝 · {title}")
        page.reload()
        expect(page.locator("#language")).to_have_text("中文")
        watch.assert_clean()


@pytest.mark.parametrize("path", PATHS)
def test_a_theme_that_is_chosen_holds_against_the_system(chromium: Browser, open_replica: Replica, path: str) -> None:
    """Without a choice the page follows the system at once; a choice is applied before the first paint."""
    with tab(chromium, open_replica.url, dark=True) as (page, watch):
        page.goto(open_replica.url + path)
        root = page.locator("html")
        expect(root).to_have_attribute("data-theme", "dark")
        page.emulate_media(color_scheme="light")
        expect(root).to_have_attribute("data-theme", "light")
        for _ in range(2):
            page.locator("#theme").click()
        expect(root).to_have_attribute("data-theme", "dark")

        page.add_init_script(
            "new MutationObserver((_, watch) => document.body && (watch.disconnect(),"
            " window.firstTheme = document.documentElement.dataset.theme))"
            ".observe(document, { childList: true, subtree: true })"
        )
        # The browser warns of a socket that is closed before it is open.
        is_open(page)
        page.reload()
        assert page.evaluate("window.firstTheme") == "dark"
        watch.assert_clean()


def test_a_choice_reaches_the_pages_that_are_open(chromium: Browser, open_replica: Replica) -> None:
    """Another tab of the same browser changes its language and theme at once."""
    with tab(chromium, open_replica.url) as (page, watch):
        page.goto(open_replica.url + "/chat")
        other = page.context.new_page()
        watch.follow(other)
        other.goto(open_replica.url + "/batch")
        is_open(other)

        page.get_by_role("button", name="English").click()
        for _ in range(2):
            page.locator("#theme").click()

        expect(other.locator("html")).to_have_attribute("data-theme", "dark")
        expect(other.locator("#start")).to_have_text("Start")
        watch.assert_clean()


def test_a_key_for_this_tab_opens_all_pages(chromium: Browser, locked: Replica) -> None:
    """The key is asked for once, after a wrong one again; other tabs do not get it. All pages are in the LOCALE,
    because they do not know the browser's language.
    """
    with tab(chromium, locked.url, language="fr-FR") as (page, watch):
        page.goto(locked.url + "/chat")
        enters_key(page, "wrong")
        expect(page.locator("#key-wrong")).to_be_visible()
        # The wrong key is forgotten already.
        expect(page.locator("#key-forget")).to_be_hidden()
        enters_key(page, KEY)
        is_open(page)

        for link, title in (("Live", "Live answers"), ("Batches", "Batches")):
            follows(page, link)
            expect(page.locator("#key")).to_be_hidden()
            expect(page).to_have_title(f"来宝 · {title}")
        assert page.evaluate(STORED, "wechatlaibao.key") == [KEY, None]
        other = page.context.new_page()
        other.goto(locked.url + "/batch")
        expect(other.locator("#key")).to_be_visible()
        assert_clean(watch)


@pytest.mark.parametrize(("language", "shown"), [("zh-TW", "对话"), ("en-GB", "Chat"), ("fr-FR", "对话")])
def test_a_first_visit_is_in_the_browsers_language(
    chromium: Browser, open_replica: Replica, language: str, shown: str
) -> None:
    """In the server's where the pages have no other; what a person has chosen counts from then on."""
    with tab(chromium, open_replica.url, language=language) as (page, watch):
        page.goto(f"{open_replica.url}/chat")
        is_open(page)
        expect(page).to_have_title(f"来宝 · {shown}")

        page.locator("#language").click()
        page.reload()
        is_open(page)
        expect(page).to_have_title(f"来宝 · {'Chat' if shown == '对话' else '对话'}")
        watch.assert_clean()


def test_a_key_for_this_device_is_kept_until_it_is_forgotten(chromium: Browser, locked: Replica) -> None:
    """A new tab has the key; when it is forgotten in one tab, the others ask for it again."""
    with tab(chromium, locked.url, language="fr-FR") as (page, watch):
        page.goto(locked.url + "/batch")
        enters_key(page, KEY, on_device=True)
        is_open(page)
        other = page.context.new_page()
        watch.follow(other)
        other.goto(locked.url + "/chat")
        is_open(other)

        page.locator("#key-open").click()
        page.locator("#key-forget").click()

        expect(other.locator("#key")).to_be_visible()
        expect(other.locator("#state")).to_have_attribute("data-state", "auth")
        assert page.evaluate(STORED, "wechatlaibao.key") == [None, None]
        assert_clean(watch)


def test_a_dialog_that_is_closed_stays_closed(chromium: Browser, locked: Replica) -> None:
    """Escape closes the dialog; it opens again by the button in the header, and with a right key the page goes on."""
    with tab(chromium, locked.url, language="fr-FR") as (page, watch):
        page.goto(locked.url + "/chat")
        expect(page.locator("#key")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#key")).to_be_hidden()

        page.locator("#key-open").click()
        expect(page.locator("#key-input")).to_be_focused()
        enters_key(page, KEY)

        is_open(page)
        assert_clean(watch)


def test_a_state_is_announced_once(chromium: Browser, open_replica: Replica) -> None:
    """Screen readers hear that the page is connected, but not again after each request that succeeds."""
    with tab(chromium, open_replica.url) as (page, watch):
        page.goto(open_replica.url + "/batch")
        expect(page.locator("#state-announcement")).to_have_text("已连接", timeout=TIMEOUT)
        page.evaluate(
            "globalThis.told = 0; new MutationObserver(() => (told += 1))"
            ".observe(document.getElementById('state-announcement'), { childList: true })"
        )

        page.locator("#questions").fill("营业时间是什么？")
        page.locator("#start").click()
        expect(page.locator("#task")).to_have_attribute("data-status", "completed", timeout=TIMEOUT)

        assert page.evaluate("told") == 0
        watch.assert_clean()


def test_sentences_of_the_server_follow_the_language(chromium: Browser, open_replica: Replica) -> None:
    """A question that the provider refuses is refused in the page's language, also after a switch."""
    with tab(chromium, open_replica.url) as (page, watch):
        page.goto(open_replica.url + "/chat")
        is_open(page)
        page.locator("#question").fill("[[400-invalid_param]] 一")
        page.keyboard.press("Enter")
        failure = page.locator(".turn .failure")
        expect(failure).to_have_text(ZH["provider_rejected"], timeout=TIMEOUT)

        page.get_by_role("button", name="English").click()

        expect(failure).to_have_text(EN["provider_rejected"])
        watch.assert_clean()


def test_a_button_that_appears_after_a_switch_is_in_the_new_language(chromium: Browser, open_replica: Replica) -> None:
    """The language is changed while an answer runs; the button to ask again comes when it is stopped."""
    with tab(chromium, open_replica.url) as (page, watch):
        page.goto(open_replica.url + "/realtime")
        is_open(page)
        page.locator("#line").fill("年假怎么申请？[[slow]]")
        page.keyboard.press("Enter")
        expect(page.locator(".turn[data-state=growing]")).to_be_visible(timeout=TIMEOUT)
        page.locator("#language").click()
        page.locator("#stop").click()

        expect(page.locator(".turn .note")).to_contain_text("Ask again", timeout=TIMEOUT)
        watch.assert_clean()


@pytest.mark.parametrize("language", ["zh-CN", "en-US"])
def test_on_a_phone_the_header_has_one_line_above_its_links(
    language: str, chromium: Browser, open_replica: Replica
) -> None:
    """The product's own name, state and choices are beside each other while the page is connected."""
    with tab(chromium, open_replica.url, size=PHONE, language=language) as (page, _):
        for path in PATHS:
            page.goto(open_replica.url + path)
            is_open(page)
            page.locator(".brand span").evaluate("(one) => (one.textContent = 'WechatLaibao')")

            brand, choices = (page.locator(part).bounding_box() for part in (".brand", ".choices"))

            assert brand
            assert choices
            assert abs(brand["y"] + brand["height"] / 2 - choices["y"] - choices["height"] / 2) < 4
