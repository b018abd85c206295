"""The server's sentences on a page in the other language: each that can reach a page is found again, gaps included."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from channels.web.pages.pages import HTML, other_sentences
from config.texts import EN, FALLBACK, LOCALES, ZH, Texts
from config.texts.requests import ZH_REQUESTS
from tests.browser.chat.test_chat_frames import pages_url
from tests.browser.stage import tab

__all__ = ["pages_url"]

pytestmark = pytest.mark.browser

OTHER = {"zh": "en", "en": "zh"}
GAP = re.compile(r"\{(\w+)\}")
#: Sentences that lose a gap in Chinese. They are pydantic's of single fields, which no page shows.
LOSSY = [english for english, chinese in ZH_REQUESTS.items() if set(GAP.findall(english)) != set(GAP.findall(chinese))]

Told = Mapping[str, str]


def filled(template: str) -> str:
    return GAP.sub(lambda gap: f"7 {gap[1]}", template)


def errors(locale: str) -> Iterator[tuple[Told, str]]:
    """Yield every error of a server, with its sentence in the other language; `rag_error` is only around others."""
    for code, sentence in LOCALES[locale].items():
        if code == "rag_error":
            continue
        yield {"code": code.upper(), "content": filled(sentence)}, filled(LOCALES[OTHER[locale]][code])
    for english, chinese in ZH_REQUESTS.items():
        said, shown = (chinese, english) if locale == "zh" else (english, chinese)
        if english not in LOSSY:
            yield {"reason": "invalid_fields", "message": filled(said)}, filled(shown)


def sentences_of(page: Page, texts: Texts, told: list[Told], *, shown_in: str) -> list[str]:
    """Return what a page of a server with `texts` shows for errors in a language."""
    page.goto("about:blank")
    page.evaluate("(locale) => (document.documentElement.dataset.locale = locale)", texts.locale)
    known = f"const SENTENCES = {json.dumps(other_sentences(texts))}, preferences = {{ locale: '{shown_in}' }};"
    page.add_script_tag(content=known + (HTML / "shared/words.js").read_text())
    return list(page.evaluate("(told) => told.map(sentenceOf)", told))


@pytest.mark.parametrize("locale", LOCALES)
def test_every_sentence_of_the_server_follows_the_language(bare_page: Page, locale: str) -> None:
    """In the server's language as it came; in the other one with what filled its gaps."""
    told, expected = map(list, zip(*errors(locale), strict=True))
    sentences = [one.get("content") or one["message"] for one in told]

    assert sentences_of(bare_page, Texts(locale), told, shown_in=locale) == sentences
    assert sentences_of(bare_page, Texts(locale), told, shown_in=OTHER[locale]) == expected
    assert len(told) > 200
    assert all(english.startswith(("Input ", "String ", "{kind} ")) for english in LOSSY)


@pytest.mark.parametrize(("told", "shown"), [
    ({"code": "RAG_ERROR", "detail": "PROVIDER_BUSY", "message": "x"}, EN["provider_busy"]),
    ({"code": "ITS_OWN", "content": ZH[FALLBACK]}, EN[FALLBACK]),
    ({"code": "RAG_ERROR", "detail": "ITS_OWN", "message": ZH["rag_error"].format(sentence=ZH[FALLBACK])},
     EN[FALLBACK]),
    ({"code": "NOT_ALLOWED", "content": ZH["not_allowed"]}, EN["not_allowed"]),
    ({"code": "RAG_ERROR", "detail": "NOT_ALLOWED", "message": ZH["rag_error"].format(sentence="请打 8001")},
     "请打 8001"),
    ({"reason": "row_too_long", "message": "第 3 行除问题外超过 9 字节。"},
     "Row 3 has more than 9 bytes beside its question."),
    ({"code": "MESSAGE_TOO_LONG", "content": "最长 9，谢谢。"}, EN["message_too_long"].format(limit=9)),
    ({"code": "UNKNOWN_ACTION", "content": "没有这个动作"}, "没有这个动作"),
    ({"reason": "", "message": "Bad Gateway"}, ""),
])  # fmt: skip
def test_a_sentence_is_found_by_its_code_or_its_template(bare_page: Page, told: Told, shown: str) -> None:
    """A gap can be such a sentence itself; a replaced sentence is found if it kept its gaps; what is unknown stays.

    Without a code the words are a proxy's or the framework's, not for people.
    """
    texts = Texts("zh", {"message_too_long": "最长 {limit}，谢谢。", "unknown_action": "没有这个动作"})

    assert sentences_of(bare_page, texts, [told], shown_in="en") == [shown]


#: The frames with which a fake server greets and refuses, by the page.
GREETING = {"/chat": {"type": "system", "content": "hello"}, "/realtime": {"type": "ack", "message": "connected"}}
REFUSED = {
    "/chat": ("message_too_long", {"limit": "10000"}, "content"),
    "/realtime": ("invalid_message", {"what": "cursor"}, "message"),
}


@pytest.mark.parametrize(("path", "place"), [("/chat", "#notice-words"), ("/realtime", ".event.failure")])
def test_a_refusal_is_written_again_in_the_other_language(
    chromium: Browser, pages_url: str, path: str, place: str
) -> None:
    """An error of a socket that belongs to no question, with a gap."""
    key, values, member = REFUSED[path]
    zh, en = (Texts(locale).get(key, **values) for locale in ("zh", "en"))

    def refuses(route: WebSocketRoute) -> None:
        for frame in (GREETING[path], {"type": "error", "code": key.upper(), member: zh}):
            route.send(json.dumps(frame))

    with tab(chromium, pages_url) as (page, watch):
        page.route_web_socket(re.compile("/ws/"), refuses)
        page.goto(pages_url + path)
        for shown in (zh, en, zh):
            expect(page.locator(place)).to_have_text(shown)
            page.locator("#language").click()
        watch.assert_clean()


def test_a_failed_request_is_written_again_in_the_other_language(chromium: Browser, pages_url: str) -> None:
    """The batch page of a server without a database says so in both languages, and in its own words without a code."""
    reply = {"code": 30000, "message": ZH["batch_unavailable"], "data": {"reason": "batch_unavailable"}}
    with tab(chromium, pages_url) as (page, _):
        page.route("**/api/batch/**", lambda route: route.fulfill(status=503, json=reply))
        page.goto(pages_url + "/batch")
        for shown in (ZH["batch_unavailable"], EN["batch_unavailable"]):
            expect(page.locator("#refused")).to_have_text(shown)
            page.locator("#language").click()

        page.route("**/api/batch/**", lambda route: route.fulfill(status=500, json={"message": "Server Error"}))
        page.locator("#questions").fill("年假？")
        page.locator("#start").click()
        for shown in ("没有成功，请稍后再试。", "This did not work. Please try again later."):
            expect(page.locator("#not-taken")).to_have_text(shown)
            page.locator("#language").click()
