"""The chat page with a fake server: the frames that it sends, its reconnects, and what it shows of frames."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Browser, Locator, Page, WebSocketRoute, expect
from werkzeug.serving import make_server

from channels.web.pages.pages import pages_blueprint
from config.texts import Texts
from tests.browser.stage import screenshot, tab
from tests.support.servers.processes import wait_until

pytestmark = pytest.mark.browser

Frame = dict[str, Any]

#: The time of pages whose clock is stopped.
STOPPED_AT = 1_800_000_000
#: Resolves when what was written before is in the database: its transactions follow each other.
STORED = """() => new Promise((done) => {
  const request = indexedDB.open("wechatlaibao.chat", 1);
  request.onsuccess = () => {
    request.result.transaction(["chats", "turns"]).oncomplete = () => done(request.result.close());
  };
})"""
#: The opening of an app that says nothing and takes no files.
OPENING = {
    "opening": "",
    "html": "",
    "suggested_questions": [],
    "files": {"allowed": False, "max_bytes": 0, "max_files": 0},
}


@pytest.fixture(scope="module")
def pages_url() -> Iterator[str]:
    """The URL of the pages and of an empty opening: the tests answer their sockets."""
    app = Flask("pages")
    app.add_url_rule("/api/chat/opening", view_func=lambda: {"data": OPENING})
    app.register_blueprint(pages_blueprint(texts=Texts("zh"), app_name="来宝", ws_path="/ws/realtime-asr"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = make_server("127.0.0.1", 0, app, threaded=True, fd=listener.fileno())
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.shutdown()
        thread.join()


@dataclass
class FakeServer:
    """The server's end of the page's sockets, and the page's clock, which the test advances."""

    page: Page
    #: All sockets so far, and the frames received from each.
    sockets: list[WebSocketRoute] = field(default_factory=list)
    received: list[list[Frame]] = field(default_factory=list)
    #: The first frame for a new socket; None sends nothing.
    greeting: Frame | None = field(default_factory=lambda: {"type": "system", "content": "hello", "client_id": "c"})

    def takes(self, route: WebSocketRoute) -> None:
        frames: list[Frame] = []
        self.sockets.append(route)
        self.received.append(frames)
        route.on_message(lambda message: frames.append(json.loads(message)))
        if self.greeting:
            route.send(json.dumps(self.greeting))

    def says(self, *frames: Frame) -> None:
        for frame in frames:
            self.sockets[-1].send(json.dumps(frame))

    def receives(self, count: int) -> list[Frame]:
        """Wait until the latest socket has received so many frames; return them."""
        self.until(lambda: len(self.received[-1]) >= count)
        return self.received[-1]

    def passes(self, seconds: float) -> None:
        self.page.clock.run_for(round(seconds * 1000))

    def has_stored(self) -> None:
        """Let the page store what has changed, and wait until it has: a reload would stop it."""
        self.passes(1)
        self.page.evaluate(STORED)

    def cuts(self, code: int = 1006) -> None:
        """Close the latest socket, and wait until the page has noticed it."""
        before = self.page.locator("#state").get_attribute("data-state")
        self.sockets[-1].close(code=code if code != 1006 else 3000)
        expect(self.page.locator("#state")).not_to_have_attribute("data-state", before or "")

    def is_open(self, count: int) -> None:
        """Wait until the page has opened so many sockets."""
        self.until(lambda: len(self.sockets) >= count)
        expect(self.page.locator("#state")).to_have_attribute("data-state", "open")
        assert len(self.sockets) == count

    def until(self, seen: Any) -> None:
        # Playwright handles a socket's messages only during a call.
        wait_until(lambda: seen() or self.page.evaluate("0"), timeout=30.0) if not seen() else None

    def asks(self, text: str) -> Locator:
        turns = self.page.locator(".turn")
        before = turns.count()
        self.page.locator("#question").fill(text)
        self.page.locator("#question").press("Enter")
        return turns.nth(before)


@contextmanager
def fake_server(chromium: Browser, url: str, *scripts: Path) -> Iterator[FakeServer]:
    """Open a chat page whose socket is open and whose clock is stopped; it must have no errors."""
    with tab(chromium, url, scripts=scripts) as (page, watch):
        server = FakeServer(page)
        page.clock.install(time=STOPPED_AT - 86_400)
        page.clock.pause_at(STOPPED_AT)
        page.route_web_socket(re.compile("/ws/chat/"), server.takes)
        page.goto(url + "/chat")
        server.is_open(1)
        yield server
        watch.assert_clean()


@pytest.fixture
def server(chromium: Browser, pages_url: str) -> Iterator[FakeServer]:
    with fake_server(chromium, pages_url) as server:
        yield server


def asked(server: FakeServer, text: str = "年假？") -> tuple[Locator, Frame]:
    """Ask a question, and have the server accept it as stream s1."""
    turn = server.asks(text)
    frame = server.receives(1)[-1]
    echo = {"type": "chat", "role": "user", "content": text, "id": frame["id"], "stream_id": "s1"}
    server.says(echo, {"type": "typing", "status": True, "stream_id": "s1", "id": frame["id"]})
    expect(turn).to_have_attribute("data-state", "growing")
    return turn, frame


def delta(content: str, html: str, *, cursor: int, block: int = 0) -> Frame:
    blocks = [{"block": block, "html": html}]
    return {"type": "chat_delta", "stream_id": "s1", "cursor": cursor, "content": content, "html": blocks}


DONE = {"type": "typing", "status": False, "stream_id": "s1"}


def whole(content: str, **more: Any) -> Frame:
    fields = {"type": "chat", "role": "assistant", "content": content, "stream_id": "s1", "cursor": 9, "sources": []}
    return {**fields, "status": "completed", **more}


def test_a_ping_is_sent_every_25_seconds(server: FakeServer) -> None:
    """Each ping has the page's time; while pongs come the socket stays open."""
    for count in (1, 2, 3):
        server.passes(25)
        ping = server.receives(count)[-1]
        assert ping["type"] == "ping"
        server.says({"type": "pong", "timestamp": ping["timestamp"]})
        server.page.evaluate("0")

    server.is_open(1)


def test_a_silent_connection_is_replaced(server: FakeServer) -> None:
    """Fifteen seconds after a ping without a pong the page opens another socket."""
    server.passes(25)
    server.receives(1)
    server.passes(16)
    server.passes(2)

    server.is_open(2)


def test_a_frozen_link_is_replaced_within_ten_seconds_while_an_answer_is_expected(server: FakeServer) -> None:
    """Three seconds of silence bring a ping, five more another socket, on which the answer is resumed."""
    turn, _ = asked(server)
    server.passes(4)
    assert server.receives(2)[-1]["type"] == "ping"
    server.passes(6)
    server.is_open(2)

    # A large frame on a slow link is silent too: the next socket has twice the time.
    assert server.receives(1)[-1]["type"] == "resume"
    server.passes(4)
    server.receives(2)
    server.passes(6)
    server.is_open(2)
    expect(turn).to_have_attribute("data-state", "growing")


def test_a_link_on_which_the_answer_grows_gets_no_ping(server: FakeServer) -> None:
    """Every frame shows that the link works."""
    asked(server)
    for cursor in range(1, 7):
        server.passes(2)
        server.says(delta("两", f"<p>{'两' * cursor}</p>", cursor=cursor))
        expect(server.page.locator(".blocks")).to_have_text("两" * cursor)

    assert [frame["type"] for frame in server.received[-1]] == ["chat"]


def test_an_offline_browser_is_noticed_at_once(server: FakeServer) -> None:
    """The event `offline` ends the connection; the page connects again by itself."""
    server.page.evaluate("dispatchEvent(new Event('offline'))")

    expect(server.page.locator("#state")).to_have_attribute("data-state", "waiting")
    server.passes(2)
    server.is_open(2)


def test_a_rating_is_sent_again_until_it_is_confirmed(server: FakeServer) -> None:
    """A refused one is taken back, with the sentence."""
    turn, _ = asked(server)
    server.says(whole("两天", html="<p>两天</p>"), DONE)
    good = turn.get_by_role("button", name="有帮助", exact=True)
    good.click()
    like = {"type": "feedback", "stream_id": "s1", "rating": "like"}
    assert server.receives(2)[-1] == like
    server.cuts()
    server.passes(2)
    server.is_open(2)
    assert server.receives(1) == [like]
    server.says(like)
    good.click()
    assert server.receives(2)[-1] == {**like, "rating": None}

    server.says({"type": "error", "code": "FEEDBACK_FULL", "content": "等待处理的评价太多", "stream_id": "s1"})

    expect(server.page.locator("#notice")).to_contain_text("等待处理的评价太多")
    expect(good).to_have_attribute("aria-pressed", "true")
    expect(turn).to_have_attribute("data-state", "completed")


def test_a_thumb_down_asks_why(server: FakeServer) -> None:
    """The rating goes at once, the reasons with the next one; they are sent again until they are confirmed."""
    turn, _ = asked(server)
    server.says(whole("两天", html="<p>两天</p>"), DONE)
    bad = turn.get_by_role("button", name="没有帮助", exact=True)
    bad.click()
    rating = {"type": "feedback", "stream_id": "s1", "rating": "dislike"}
    assert server.receives(2)[-1] == rating
    for reason in ("不完整", "内容有误", "信息过时", "信息过时"):
        turn.get_by_role("button", name=reason).click()
    turn.get_by_placeholder("其他原因").fill("是五天")
    screenshot(server.page, "chat-reasons")
    turn.get_by_placeholder("其他原因").press("Enter")
    explained = {**rating, "content": "内容有误；不完整；是五天"}
    assert server.receives(3)[-1] == explained
    expect(turn.locator(".reasons")).to_have_count(0)
    expect(bad).to_be_focused()

    server.says(rating)
    server.cuts()
    server.passes(2)
    server.is_open(2)
    assert server.receives(1) == [explained]
    server.says(rating)
    server.cuts()
    server.passes(2)
    server.is_open(3)
    assert server.received[-1] == []
    bad.click()
    assert server.receives(1) == [{**rating, "rating": None}]
    expect(turn.locator(".reasons")).to_have_count(0)


def test_a_replaced_page_stops_its_dots(server: FakeServer) -> None:
    """It changes nothing until its button is pressed; then the answer is resumed."""
    turn, _ = asked(server)
    server.says(delta("两", "<p>两</p>", cursor=1))
    expect(turn.locator(".typing")).to_be_visible()
    server.passes(1)
    server.cuts(4409)

    expect(turn.locator(".typing")).to_be_hidden()
    expect(turn.locator(".theirs")).to_have_attribute("aria-busy", "false")
    server.passes(120)
    assert len(server.sockets) == 1
    server.page.get_by_role("button", name="在这里继续").click()
    server.is_open(2)
    assert server.receives(1)[-1]["type"] == "resume"
    expect(turn.locator(".typing")).to_be_visible()


def test_reconnect_delays_grow_to_half_a_minute(server: FakeServer) -> None:
    """Delays double up to 30 seconds; a random part makes each shorter by half at most."""
    server.greeting = None
    for longest in (1, 2, 4, 8, 16, 30, 30):
        before = len(server.sockets)
        server.cuts(1011)
        server.passes(longest / 2 - 0.05)
        assert len(server.sockets) == before
        server.passes(longest / 2 + 0.1)
        server.until(lambda before=before: len(server.sockets) > before)
        server.page.evaluate("0")

    server.cuts(1011)
    expect(server.page.locator("#state")).to_contain_text("秒后重连")


def test_after_a_restart_the_page_reconnects_at_once(server: FakeServer) -> None:
    """Code 1012 means that another replica can answer."""
    server.sockets[-1].close(code=1012)
    server.page.wait_for_function("document.querySelector('#state').dataset.state !== 'open'")
    server.passes(0.01)

    server.is_open(2)


@pytest.mark.parametrize(
    "event", ["dispatchEvent(new Event('online'))", "document.dispatchEvent(new Event('visibilitychange'))"]
)
def test_coming_online_or_back_to_the_tab_reconnects_at_once(server: FakeServer, event: str) -> None:
    """The `online` and `visibilitychange` events end the delay."""
    server.cuts()
    server.page.evaluate(event)

    server.is_open(2)


@pytest.mark.parametrize(("code", "message"), [(4409, "已在别的窗口打开"), (4410, "管理员")])
def test_after_a_final_close_the_page_waits_for_a_click(server: FakeServer, code: int, message: str) -> None:
    """Codes 4409 and 4410 show the reason; the page reconnects only by its button."""
    server.cuts(code)
    server.passes(120)

    expect(server.page.get_by_role("alert")).to_contain_text(message)
    assert len(server.sockets) == 1
    server.page.get_by_role("button", name="在这里继续").click()
    server.is_open(2)


def test_a_question_without_its_echo_is_sent_again(server: FakeServer) -> None:
    """The same id marks it as the same question for the server."""
    server.asks("年假？")
    first = server.receives(1)[0]
    server.cuts()
    server.passes(2)
    server.is_open(2)

    assert server.receives(1)[0] == first
    assert first["type"] == "chat"
    assert first["content"] == "年假？"
    assert first["render"] == "html"
    assert len(first["id"]) == 32


def test_an_answer_is_resumed_from_its_cursor(server: FakeServer) -> None:
    """A reset leaves the shown text until new text comes, and no text is shown twice."""
    turn, _ = asked(server)
    server.says(delta("一", "<p>一</p>", cursor=3))
    expect(turn.locator(".blocks")).to_have_text("一")
    server.cuts()
    server.passes(2)
    server.is_open(2)

    assert server.receives(1) == [{"type": "resume", "stream_id": "s1", "cursor": 3, "render": "html"}]
    server.says({"type": "reset", "stream_id": "s1", "cursor": 0})
    expect(turn.locator(".blocks")).to_have_text("一")
    server.says(delta("一二", "<p>一二</p>", cursor=5), whole("一二。", html="<p>一二。</p>"), DONE)

    expect(turn).to_have_attribute("data-state", "completed")
    expect(turn.locator(".blocks")).to_have_text("一二。")
    assert turn.locator(".blocks p").count() == 1


def test_escape_in_the_key_dialog_stops_no_answer(server: FakeServer) -> None:
    """It closes the dialog alone."""
    turn, _ = asked(server)
    server.page.locator("#key-open").click()
    server.page.keyboard.press("Escape")

    expect(server.page.locator("#key")).to_be_hidden()
    expect(turn).not_to_have_attribute("data-state", "cancelled")
    assert [frame["type"] for frame in server.received[-1]] == ["chat"]


def test_a_stop_without_a_connection_is_sent_later(server: FakeServer) -> None:
    """The stop follows the resume on the next socket; a stopped question that was not sent yet is never sent."""
    turn, _ = asked(server)
    server.cuts()
    late = server.asks("营业时间？")
    server.page.keyboard.press("Escape")
    expect(late).to_have_attribute("data-state", "cancelled")
    server.passes(2)
    server.is_open(2)

    resume, stop = server.receives(2)
    assert resume["type"] == "resume"
    assert stop == {"type": "stop", "stream_id": "s1"}
    server.says({"type": "typing", "status": True, "stream_id": "s1"}, DONE)
    expect(turn).to_have_attribute("data-state", "cancelled")
    assert [frame["type"] for frame in server.received[-1]] == ["resume", "stop"]


def test_an_answer_that_was_stopped_before_its_text_is_asked_again(server: FakeServer) -> None:
    """Regenerate is there, and nothing that would need a text."""
    turn, _ = asked(server)
    server.page.keyboard.press("Escape")
    assert server.receives(2)[-1] == {"type": "stop"}
    server.says(DONE)
    expect(turn).to_have_attribute("data-state", "cancelled")
    assert turn.locator(".actions .act:visible").count() == 1

    turn.get_by_role("button", name="重新生成").click()
    frame = server.receives(3)[-1]
    assert (frame["type"], frame["content"]) == ("chat", "年假？")
    expect(server.page.locator(".turn")).to_have_count(1)


def test_a_reset_replaces_the_whole_text(server: FakeServer) -> None:
    """The first delta after a reset replaces all earlier blocks."""
    turn, _ = asked(server)
    server.says(delta("旧", "<p>旧</p>", cursor=1), delta("2", "<p>旧二</p>", cursor=2, block=1))
    server.says({"type": "reset", "stream_id": "s1", "cursor": 2}, delta("新", "<p>新</p>", cursor=3))

    expect(turn.locator(".blocks")).to_have_text("新")
    server.says(whole("新", html="<p>新</p>"), DONE)
    expect(turn).to_have_attribute("data-state", "completed")
    expect(turn.locator(".blocks")).to_have_text("新")


def test_the_last_frame_replaces_only_blocks_that_differ(server: FakeServer) -> None:
    """Equal blocks keep their elements, and with them a user's selection; blocks that differ are replaced."""
    turn, _ = asked(server)
    server.says(delta("a", "<p>a</p>\n", cursor=1), delta("b", "<p>b</p>\n", cursor=2, block=1))
    expect(turn.locator(".blocks p")).to_have_count(2)
    turn.locator(".blocks p").first.evaluate("(one) => (one.id = 'kept')")
    server.says(whole("a b!", html="<p>a</p>\n<p>b!</p>\n"))

    expect(turn.locator(".blocks")).to_have_text("a b!", use_inner_text=False)
    assert turn.locator("#kept").count() == 1
    server.says(whole("c", html="<p>c</p>\n"), DONE)
    expect(turn.locator(".blocks")).to_have_text("c")


def test_text_without_html_is_shown_as_it_is(server: FakeServer) -> None:
    """Text of a frame without `html` is shown as plain text, markup included."""
    turn, _ = asked(server)
    server.says({"type": "chat_delta", "stream_id": "s1", "cursor": 1, "content": "<b>x</b>\n* y"})

    expect(turn.locator(".plain")).to_have_text("<b>x</b>\n* y", use_inner_text=True)
    server.says(whole("<b>x</b>\n* y"), DONE)
    expect(turn.locator(".plain")).to_contain_text("* y")
    assert turn.locator(".blocks b").count() == 0


def test_an_expired_answer_shows_the_error(server: FakeServer) -> None:
    """The text that was shown stays, with the server's sentence."""
    turn, _ = asked(server)
    server.says(delta("一", "<p>一</p>", cursor=3))
    expect(turn.locator(".blocks")).to_have_text("一")
    server.cuts()
    server.passes(2)
    server.is_open(2)
    server.says({"type": "error", "code": "STREAM_UNKNOWN", "content": "这条回答已经过期", "stream_id": "s1"}, DONE)

    expect(turn).to_have_attribute("data-state", "error")
    expect(turn.locator(".failure")).to_have_text("这条回答已经过期")
    expect(turn.locator(".blocks")).to_have_text("一")


def test_a_refused_question_shows_the_error(server: FakeServer) -> None:
    """An error with the question's id and no stream ends the turn."""
    turn = server.asks("年假？")
    frame = server.receives(1)[0]
    server.says({"type": "error", "code": "RATE_LIMITED", "content": "问得太快了", "id": frame["id"]})

    expect(turn).to_have_attribute("data-state", "error")
    expect(turn.locator(".failure")).to_have_text("问得太快了")


def test_a_resume_over_the_limit_is_repeated(server: FakeServer) -> None:
    """A stream that was refused with TOO_MANY_QUESTIONS is resumed again when another one has ended."""
    first, _ = asked(server)
    second = server.asks("营业时间？")
    frame = server.receives(2)[-1]
    server.says({"type": "chat", "role": "user", "content": "营业时间？", "id": frame["id"], "stream_id": "s2"})
    expect(second).to_have_attribute("data-state", "asked")
    server.cuts()
    server.passes(2)
    server.is_open(2)
    server.receives(2)
    server.says({"type": "error", "code": "TOO_MANY_QUESTIONS", "content": "太多", "stream_id": "s2"})
    server.says(whole("好", html="<p>好</p>"), DONE)

    expect(first).to_have_attribute("data-state", "completed")
    expect(second).to_have_attribute("data-state", "asked")
    assert [one["stream_id"] for one in server.receives(3)] == ["s1", "s2", "s2"]


def test_sources_are_plain_text_with_web_links_only(server: FakeServer) -> None:
    """Markup in a source is shown as text, and a `javascript:` address is no link."""
    turn, _ = asked(server)
    sources = [
        {"title": "<img src=x>", "dataset_name": "手册", "snippet": "<b>b</b> words"},
        {"title": "page", "url": "https://a.example/"},
        {"title": "bad", "url": "javascript:alert(1)"},
    ]
    server.says(whole("好", html="<p>好</p>", sources=sources, mock=True), DONE)
    turn.locator(".sources summary").click()

    lines = turn.locator(".sources li").all_inner_texts()
    assert [one.split("\n")[0] for one in lines] == ["手册 · <img src=x>", "page", "bad"]
    assert [one.get_attribute("href") for one in turn.locator(".sources a").all()] == ["https://a.example/"]
    assert turn.locator(".sources img, .sources b").count() == 0
    expect(turn.locator(".tag")).to_have_text("模拟回答")


def test_unknown_frames_are_ignored(server: FakeServer) -> None:
    """Unknown types, unknown streams and invalid JSON change nothing."""
    turn, _ = asked(server)
    server.sockets[-1].send("{not json")
    server.says({"type": "later"}, delta("x", "<p>x</p>", cursor=1) | {"stream_id": "s9"}, {"type": "heartbeat"})
    server.says({"type": "error", "code": "SERVER_ERROR", "content": "处理这条消息时出错了"})

    expect(server.page.get_by_role("alert")).to_contain_text("处理这条消息时出错了")
    expect(turn).to_have_attribute("data-state", "growing")
    assert turn.locator(".blocks").inner_text() == ""
