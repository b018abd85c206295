"""The conversations of several tabs in one IndexedDB: what a late tab may not overwrite, and the limit of turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from channels.web.pages.pages import HTML
from tests.browser.chat.test_chat_frames import FakeServer, pages_url, server

__all__ = ["pages_url", "server"]

pytestmark = pytest.mark.browser

#: Two tabs' databases, and what each is told of deleted conversations.
TWO_TABS = """
const isEnded = (state) => ["completed", "cancelled", "error"].includes(state);
globalThis.gone = [];
globalThis.tabs = [0, 1].map((tab) => new ChatDatabase({
  trouble: (kind) => { throw new Error(kind); }, changed: () => {}, deleted: (id) => gone.push([tab, id]),
}));
"""
#: Store a conversation of this many turns, as the one that the tab shows.
FILL = """async (count) => {
  const [key] = Object.keys(sessionStorage).filter((one) => one.endsWith(".client"));
  const id = JSON.parse(sessionStorage.getItem(key));
  const db = await new Promise((done) => {
    const request = indexedDB.open("wechatlaibao.chat", 1);
    request.onsuccess = () => done(request.result);
  });
  const transaction = db.transaction(["chats", "turns"], "readwrite");
  transaction.objectStore("chats").put({ id, title: "many", changed: 1, unfinished: 0 });
  for (let number = 1; number <= count; number++) {
    const turn = { id: `t${number}`, chat: id, number, question: `q${number}`, state: "completed", text: "a" };
    transaction.objectStore("turns").put(turn);
  }
  await new Promise((done) => (transaction.oncomplete = done));
  db.close();
}"""

Tabs = Callable[[str], Any]


@pytest.fixture
def tabs(bare_page: Page, pages_url: str) -> Tabs:
    """Evaluates an expression with `a` and `b`, the databases of two tabs."""
    bare_page.goto(f"{pages_url}/api/chat/opening")
    bare_page.add_script_tag(content=(HTML / "chat" / "database.js").read_text("utf-8") + TWO_TABS)
    bare_page.evaluate("Promise.all(tabs.map((one) => one.open()))")
    return lambda script: bare_page.evaluate(f"(async () => {{ const [a, b] = tabs; {script} }})()")


def turn(state: str, text: str) -> str:
    return f"{{ id: 't', chat: 'c', number: 1, question: 'q', state: '{state}', text: '{text}' }}"


CHAT = "{ id: 'c', title: 'first', changed: 1, unfinished: 0 }"


def test_a_late_tab_overwrites_no_end_and_no_title(tabs: Tabs) -> None:
    """A part of an answer never replaces its end, an older title not a newer one; another end does."""
    tabs(f"await a.save({CHAT}, [{turn('completed', 'whole')}]); await a.rename('c', 'renamed')")
    tabs(f"await b.save({CHAT}, [{turn('growing', 'who')}])")

    assert tabs("return (await b.turns('c')).map(({ text }) => text)") == ["whole"]
    assert tabs("return (await b.chats()).map(({ title }) => title)") == ["renamed"]
    tabs(f"await b.save({CHAT}, [{turn('error', 'failed')}])")
    assert tabs("return (await a.turns('c')).map(({ text }) => text)") == ["failed"]


def test_a_deleted_conversation_is_not_written_again(tabs: Tabs) -> None:
    """A tab that knows it as stored, and saves once more, is told; its turns are gone, too."""
    tabs(f"await a.save({CHAT}, [{turn('completed', 'whole')}]); await b.turns('c'); await a.delete('c')")
    tabs("gone.length = 0")
    tabs(f"await b.save({CHAT}, [{turn('growing', 'who')}])")

    assert tabs("return gone") == [[1, "c"]]
    assert tabs("return [await a.chats(), await a.turns('c'), [...await a.search('who')]]") == [[], [], []]


def test_what_is_saved_is_what_it_was_when_it_was_saved(tabs: Tabs) -> None:
    """The page goes on changing its turns while the transaction waits."""
    tabs(f"const one = {turn('growing', 'who')}; const saved = a.save({CHAT}, [one]); one.text = 'late'; await saved")

    assert tabs("return (await b.turns('c')).map(({ text }) => text)") == ["who"]


def test_a_conversation_has_500_questions(server: FakeServer) -> None:
    """The next one takes the place of the oldest, which the page says; a reload shows the same."""
    page = server.page
    page.evaluate(FILL, 500)
    page.reload()
    expect(page.locator(".turn")).to_have_count(500)

    server.asks("one more")

    expect(page.locator("#notice")).to_contain_text("500")
    expect(page.locator(".turn .words").first).to_have_text("q2")
    page.reload()
    expect(page.locator(".turn")).to_have_count(500)
    expect(page.locator(".turn .words").last).to_have_text("one more")
