"""The conversations of several tabs in one IndexedDB: what a late tab may not overwrite, and the limit of turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from channels.web.pages.pages import HTML
from tests.browser.chat.test_chat_frames import FakeServer, pages_url, server
from tests.browser.stage import screenshot

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

#: Store a conversation for each number of days since its last change.
DATED = """async (days) => {
  const db = await new Promise((done) => {
    const request = indexedDB.open("wechatlaibao.chat", 1);
    request.onsuccess = () => done(request.result);
  });
  const transaction = db.transaction(["chats"], "readwrite");
  for (const ago of days) {
    const then = new Date();
    then.setHours(0, 0, 0, 0);
    then.setDate(then.getDate() - ago);
    const chat = { id: `c${ago}`, title: `${ago} days`, changed: then.getTime(), unfinished: 0 };
    transaction.objectStore("chats").put(chat);
  }
  await new Promise((done) => (transaction.oncomplete = done));
  db.close();
}"""

#: Give every conversation another title, and tell the page, as another tab does; wait until it can have read it.
RENAMED = """async (title) => {
  const db = await new Promise((done) => {
    const request = indexedDB.open("wechatlaibao.chat", 1);
    request.onsuccess = () => done(request.result);
  });
  const ended = (transaction) => new Promise((done) => (transaction.oncomplete = done));
  const renaming = db.transaction(["chats", "turns"], "readwrite");
  const chats = renaming.objectStore("chats");
  chats.getAll().onsuccess = ({ target }) => target.result.forEach((chat) => chats.put({ ...chat, title }));
  await ended(renaming);
  const [heard, told] = [new BroadcastChannel("wechatlaibao.chat"), new BroadcastChannel("wechatlaibao.chat")];
  await new Promise((done) => {
    heard.onmessage = done;
    told.postMessage({ changed: true });
  });
  // A transaction that writes waits for those that read before it.
  for (let round = 0; round < 2; round++) await ended(db.transaction(["chats", "turns"], "readwrite"));
  db.close();
}"""

#: Delete the database, as another page or a person does; it fails where an open tab blocks that.
DELETED = """() => new Promise((done, failed) => {
  const request = indexedDB.deleteDatabase("wechatlaibao.chat");
  request.onsuccess = () => done(true);
  request.onblocked = () => failed(new Error("blocked"));
})"""

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


def test_a_deleted_database_leaves_the_page_usable(server: FakeServer) -> None:
    """The deletion waits for no tab. The page says that nothing is stored, and further answers are shown."""
    server.asks("年假？")
    server.receives(1)
    server.page.evaluate(DELETED)
    expect(server.page.locator("#notice")).to_contain_text("浏览器不允许保存对话")

    server.asks("病假？")
    server.receives(2)

    expect(server.page.locator(".turn")).to_have_count(2)


def test_the_list_is_grouped_by_date_and_keeps_some_on_top(server: FakeServer) -> None:
    """A pinned conversation stays on top over a reload and another answer, until it is released."""
    page, groups = server.page, server.page.locator("#chats-list section")
    page.evaluate(DATED, [0, 1, 2, 7, 8, 30, 31])
    page.reload()
    server.is_open(2)
    named = "toLocaleDateString('zh-CN', { year: 'numeric', month: 'long' })"
    month = page.evaluate(f"new Date(Date.now() - 31 * 864e5).{named}")
    dated = {"今天": ["0 days"], "昨天": ["1 days"], "近 7 天": ["2 days", "7 days"]}
    dated |= {"近 30 天": ["8 days", "30 days"], month: ["31 days"]}

    def shows(expected: dict[str, list[str]]) -> None:
        expect(groups.locator("h2")).to_have_text(list(expected))
        for group, titles in zip(groups.all(), expected.values(), strict=True):
            expect(group.locator(".chat-title")).to_have_text(titles)

    shows(dated)
    item = page.locator("#chats-list li", has_text="7 days")
    item.get_by_role("button", name="操作").click()
    item.get_by_role("button", name="置顶").click()
    shows({"置顶": ["7 days"], **dated, "近 7 天": ["2 days"]})
    screenshot(page, "chat-pinned")
    item.locator(".chat-open").click()
    server.is_open(3)
    server.asks("年假？")
    server.receives(1)
    server.has_stored()
    page.reload()
    server.is_open(4)
    shows({"置顶": ["7 days"], **dated, "近 7 天": ["2 days"]})
    item.get_by_role("button", name="操作").click()
    expect(item.get_by_role("button", name="置顶")).to_have_attribute("aria-pressed", "true")
    item.get_by_role("button", name="置顶").click()
    shows({**dated, "今天": ["7 days", "0 days"], "近 7 天": ["2 days"]})


def test_a_press_on_the_list_counts_although_it_is_drawn_again(server: FakeServer) -> None:
    """Another tab changes the title between the two ends of a press; the list shows it right after."""
    page = server.page
    server.asks("年假？")
    server.receives(1)
    item = page.locator("#chats-list li")
    expect(item).to_have_count(1)
    server.has_stored()
    item.get_by_role("button", name="操作").hover()
    page.mouse.down()

    page.evaluate(RENAMED, "病假")
    page.mouse.up()

    expect(item.get_by_role("button", name="重命名")).to_be_visible()
    expect(item.locator(".chat-title")).to_have_text("病假")


def test_a_press_that_ends_elsewhere_delays_a_drawing_only(server: FakeServer) -> None:
    """What came meanwhile is shown with the next frame."""
    page = server.page
    server.asks("年假？")
    server.receives(1)
    item = page.locator("#chats-list li")
    expect(item).to_have_count(1)
    server.has_stored()
    item.get_by_role("button", name="操作").hover()
    page.mouse.down()
    page.evaluate(RENAMED, "病假")
    page.locator("#question").hover()
    page.mouse.up()

    server.passes(1)

    expect(item.locator(".chat-title")).to_have_text("病假")


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
    server.has_stored()
    page.reload()
    expect(page.locator(".turn")).to_have_count(500)
    expect(page.locator(".turn .words").last).to_have_text("one more")


#: Hold the page's database back until `letGo()`.
HELD = """
const held = new Promise((done) => (globalThis.letGo = done));
const { set, ...rest } = Object.getOwnPropertyDescriptor(IDBRequest.prototype, "onsuccess");
Object.defineProperty(IDBRequest.prototype, "onsuccess", { ...rest, set(taken) {
  set.call(this, this instanceof IDBOpenDBRequest ? () => held.then(taken) : taken);
} });
"""


def test_a_question_that_is_asked_before_the_page_is_ready_is_shown(server: FakeServer) -> None:
    """It belongs to the conversation that is shown once the database is open."""
    server.page.add_init_script(HELD)
    server.page.reload()
    server.page.locator("#question").fill("年假？")
    server.page.keyboard.press("Enter")
    expect(server.page.locator("#question")).to_have_value("")

    server.page.evaluate("letGo()")

    expect(server.page.locator(".turn .mine")).to_contain_text("年假？")
    server.until(lambda: [frame["content"] for frame in server.received[-1]] == ["年假？"])
    expect(server.page.locator("#chats-list .chat-open")).to_have_attribute("aria-current", "true")
