"""The chat page before a server of the test's own words: what it sends, when it comes back, what it makes of frames."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Browser, Locator, Page, WebSocketRoute, expect
from werkzeug.serving import make_server

from channels.web.pages.pages import pages_blueprint
from tests.browser.stage import tab
from tests.support.servers.processes import wait_until

pytestmark = pytest.mark.browser

Frame = dict[str, Any]


@pytest.fixture(scope="module")
def pages_url() -> Iterator[str]:
    """The address of the pages alone: nobody answers their sockets but the tests."""
    app = Flask("pages")
    app.register_blueprint(pages_blueprint(locale="zh", app_name="来宝", ws_path="/ws/realtime-asr"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = make_server("127.0.0.1", 0, app, threaded=True, fd=listener.fileno())
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.shutdown()
        thread.join()


@dataclass
class Line:
    """The server's end of the page's sockets, and the page's clock, which stands until it is told to go on."""

    page: Page
    #: Each socket there was, and what came through it.
    sockets: list[WebSocketRoute] = field(default_factory=list)
    received: list[list[Frame]] = field(default_factory=list)
    #: What a new socket is greeted with; None: nothing at all.
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

    def hears(self, count: int) -> list[Frame]:
        """Return what came through the latest socket, once it is so many frames."""
        self.until(lambda: len(self.received[-1]) >= count)
        return self.received[-1]

    def passes(self, seconds: float) -> None:
        self.page.clock.run_for(round(seconds * 1000))

    def cuts(self, code: int = 1006) -> None:
        """End the latest socket; the page has seen it when this returns."""
        before = self.page.locator("#state").get_attribute("data-state")
        self.sockets[-1].close(code=code if code != 1006 else 3000)
        expect(self.page.locator("#state")).not_to_have_attribute("data-state", before or "")

    def is_open(self, count: int) -> None:
        """Wait for the socket of that number."""
        self.until(lambda: len(self.sockets) >= count)
        expect(self.page.locator("#state")).to_have_attribute("data-state", "open")
        assert len(self.sockets) == count

    def until(self, seen: Any) -> None:
        # Playwright takes a socket's messages while it is asked for something.
        wait_until(lambda: seen() or self.page.evaluate("0"), timeout=30.0) if not seen() else None

    def asks(self, text: str) -> Locator:
        turns = self.page.locator(".turn")
        before = turns.count()
        self.page.locator("#question").fill(text)
        self.page.locator("#question").press("Enter")
        return turns.nth(before)


@pytest.fixture
def line(chromium: Browser, pages_url: str) -> Iterator[Line]:
    """A page whose socket is open."""
    with tab(chromium, pages_url) as (page, watch):
        line = Line(page)
        page.clock.install()
        page.route_web_socket(re.compile("/ws/chat/"), line.takes)
        page.goto(pages_url + "/chat")
        line.is_open(1)
        page.clock.pause_at(page.evaluate("Date.now() / 1000") + 1)
        yield line
        watch.assert_clean()


def asked(line: Line, text: str = "年假？") -> tuple[Locator, Frame]:
    """Ask, and have the server take it as stream s1."""
    turn = line.asks(text)
    frame = line.hears(1)[-1]
    echo = {"type": "chat", "role": "user", "content": text, "id": frame["id"], "stream_id": "s1"}
    line.says(echo, {"type": "typing", "status": True, "stream_id": "s1", "id": frame["id"]})
    expect(turn).to_have_attribute("data-state", "growing")
    return turn, frame


def delta(content: str, html: str, *, cursor: int, block: int = 0) -> Frame:
    blocks = [{"block": block, "html": html}]
    return {"type": "chat_delta", "stream_id": "s1", "cursor": cursor, "content": content, "html": blocks}


DONE = {"type": "typing", "status": False, "stream_id": "s1"}


def whole(content: str, **more: Any) -> Frame:
    fields = {"type": "chat", "role": "assistant", "content": content, "stream_id": "s1", "cursor": 9, "sources": []}
    return {**fields, "status": "completed", **more}


def test_a_sign_of_life_is_given_every_25_seconds(line: Line) -> None:
    """Each has the page's time; while they are answered the socket stays."""
    for count in (1, 2, 3):
        line.passes(25)
        ping = line.hears(count)[-1]
        assert ping["type"] == "ping"
        line.says({"type": "pong", "timestamp": ping["timestamp"]})
        line.page.evaluate("0")

    line.is_open(1)


def test_a_link_that_is_silent_is_given_up(line: Line) -> None:
    """Fifteen seconds after a sign of life that nothing answered, another socket is opened."""
    line.passes(25)
    line.hears(1)
    line.passes(16)
    line.passes(2)

    line.is_open(2)


def test_the_waits_grow_to_half_a_minute(line: Line) -> None:
    """Twice as long each time, never more than 30 seconds, and never less than half of that."""
    line.greeting = None
    for longest in (1, 2, 4, 8, 16, 30, 30):
        before = len(line.sockets)
        line.cuts(1011)
        line.passes(longest / 2 - 0.05)
        assert len(line.sockets) == before
        line.passes(longest / 2 + 0.1)
        line.until(lambda before=before: len(line.sockets) > before)
        line.page.evaluate("0")

    line.cuts(1011)
    expect(line.page.locator("#state")).to_contain_text("秒后重连")


def test_a_server_that_restarts_is_not_waited_for(line: Line) -> None:
    """Another replica answers at once."""
    line.sockets[-1].close(code=1012)
    line.page.wait_for_function("document.querySelector('#state').dataset.state !== 'open'")
    line.passes(0.01)

    line.is_open(2)


@pytest.mark.parametrize(
    "event", ["dispatchEvent(new Event('online'))", "document.dispatchEvent(new Event('visibilitychange'))"]
)
def test_nobody_waits_once_the_network_or_the_person_is_back(line: Line, event: str) -> None:
    """The next try is made at once."""
    line.cuts()
    line.page.evaluate(event)

    line.is_open(2)


@pytest.mark.parametrize(("code", "said"), [(4409, "已在别的窗口打开"), (4410, "管理员")])
def test_who_was_sent_away_comes_back_when_told_to(line: Line, code: int, said: str) -> None:
    """The page says why, and tries nothing by itself."""
    line.cuts(code)
    line.passes(120)

    expect(line.page.get_by_role("alert")).to_contain_text(said)
    assert len(line.sockets) == 1
    line.page.get_by_role("button", name="在这里继续").click()
    line.is_open(2)


def test_a_question_without_its_echo_is_sent_again(line: Line) -> None:
    """With the same id, so that it is one question however often it comes."""
    line.asks("年假？")
    first = line.hears(1)[0]
    line.cuts()
    line.passes(2)
    line.is_open(2)

    assert line.hears(1)[0] == first
    assert first["type"] == "chat"
    assert first["content"] == "年假？"
    assert first["render"] == "html"
    assert len(first["id"]) == 32


def test_an_answer_goes_on_from_its_cursor(line: Line) -> None:
    """What was shown stays until it comes anew, and nothing is twice."""
    turn, _ = asked(line)
    line.says(delta("一", "<p>一</p>", cursor=3))
    expect(turn.locator(".blocks")).to_have_text("一")
    line.cuts()
    line.passes(2)
    line.is_open(2)

    assert line.hears(1) == [{"type": "resume", "stream_id": "s1", "cursor": 3, "render": "html"}]
    line.says({"type": "reset", "stream_id": "s1", "cursor": 0})
    expect(turn.locator(".blocks")).to_have_text("一")
    line.says(delta("一二", "<p>一二</p>", cursor=5), whole("一二。", html="<p>一二。</p>"), DONE)

    expect(turn).to_have_attribute("data-state", "completed")
    expect(turn.locator(".blocks")).to_have_text("一二。")
    assert turn.locator(".blocks p").count() == 1


def test_a_stop_said_without_a_connection_is_kept(line: Line) -> None:
    """It follows as soon as there is somebody to tell; what was not sent yet never is."""
    turn, _ = asked(line)
    line.cuts()
    late = line.asks("营业时间？")
    line.page.keyboard.press("Escape")
    expect(late).to_have_attribute("data-state", "cancelled")
    line.passes(2)
    line.is_open(2)

    resume, stop = line.hears(2)
    assert resume["type"] == "resume"
    assert stop == {"type": "stop", "stream_id": "s1"}
    line.says({"type": "typing", "status": True, "stream_id": "s1"}, DONE)
    expect(turn).to_have_attribute("data-state", "cancelled")
    assert [frame["type"] for frame in line.received[-1]] == ["resume", "stop"]


def test_a_replaced_text_leaves_nothing_of_the_old(line: Line) -> None:
    """After a reset the new text takes the old one's place."""
    turn, _ = asked(line)
    line.says(delta("旧", "<p>旧</p>", cursor=1), delta("2", "<p>旧二</p>", cursor=2, block=1))
    line.says({"type": "reset", "stream_id": "s1", "cursor": 2}, delta("新", "<p>新</p>", cursor=3))

    expect(turn.locator(".blocks")).to_have_text("新")
    line.says(whole("新", html="<p>新</p>"), DONE)
    expect(turn).to_have_attribute("data-state", "completed")
    expect(turn.locator(".blocks")).to_have_text("新")


def test_the_last_frame_mends_what_is_not_the_same(line: Line) -> None:
    """Blocks that stand are left alone, so that what somebody has marked stays marked; others give way."""
    turn, _ = asked(line)
    line.says(delta("a", "<p>a</p>\n", cursor=1), delta("b", "<p>b</p>\n", cursor=2, block=1))
    expect(turn.locator(".blocks p")).to_have_count(2)
    turn.locator(".blocks p").first.evaluate("(one) => (one.id = 'kept')")
    line.says(whole("a b!", html="<p>a</p>\n<p>b!</p>\n"))

    expect(turn.locator(".blocks")).to_have_text("a b!", use_inner_text=False)
    assert turn.locator("#kept").count() == 1
    line.says(whole("c", html="<p>c</p>\n"), DONE)
    expect(turn.locator(".blocks")).to_have_text("c")


def test_text_without_html_is_shown_as_it_is(line: Line) -> None:
    """Where the server sends no HTML, markup is only text."""
    turn, _ = asked(line)
    line.says({"type": "chat_delta", "stream_id": "s1", "cursor": 1, "content": "<b>x</b>\n* y"})

    expect(turn.locator(".plain")).to_have_text("<b>x</b>\n* y", use_inner_text=True)
    line.says(whole("<b>x</b>\n* y"), DONE)
    expect(turn.locator(".plain")).to_contain_text("* y")
    assert turn.locator(".blocks b").count() == 0


def test_an_answer_that_is_gone_says_so(line: Line) -> None:
    """What was shown of it stays, with the sentence."""
    turn, _ = asked(line)
    line.says(delta("一", "<p>一</p>", cursor=3))
    expect(turn.locator(".blocks")).to_have_text("一")
    line.cuts()
    line.passes(2)
    line.is_open(2)
    line.says({"type": "error", "code": "STREAM_UNKNOWN", "content": "这条回答已经过期", "stream_id": "s1"}, DONE)

    expect(turn).to_have_attribute("data-state", "error")
    expect(turn.locator(".failure")).to_have_text("这条回答已经过期")
    expect(turn.locator(".blocks")).to_have_text("一")


def test_a_refused_question_says_why(line: Line) -> None:
    """An error that names only the question is its end."""
    turn = line.asks("年假？")
    frame = line.hears(1)[0]
    line.says({"type": "error", "code": "RATE_LIMITED", "content": "问得太快了", "id": frame["id"]})

    expect(turn).to_have_attribute("data-state", "error")
    expect(turn.locator(".failure")).to_have_text("问得太快了")


def test_an_answer_that_must_wait_is_asked_for_again(line: Line) -> None:
    """When a socket shows as many as it can, the next is resumed when one of them has ended."""
    first, _ = asked(line)
    second = line.asks("营业时间？")
    frame = line.hears(2)[-1]
    line.says({"type": "chat", "role": "user", "content": "营业时间？", "id": frame["id"], "stream_id": "s2"})
    expect(second).to_have_attribute("data-state", "asked")
    line.cuts()
    line.passes(2)
    line.is_open(2)
    line.hears(2)
    line.says({"type": "error", "code": "TOO_MANY_QUESTIONS", "content": "太多", "stream_id": "s2"})
    line.says(whole("好", html="<p>好</p>"), DONE)

    expect(first).to_have_attribute("data-state", "completed")
    expect(second).to_have_attribute("data-state", "asked")
    assert [one["stream_id"] for one in line.hears(3)] == ["s1", "s2", "s2"]


def test_sources_are_text_and_their_links_go_to_the_web_only(line: Line) -> None:
    """A source's words are never markup, and an address that runs something is no link."""
    turn, _ = asked(line)
    sources = [
        {"document_name": "<img src=x>", "dataset_name": "手册", "content": "<b>b</b> words"},
        {"title": "page", "url": "https://a.example/"},
        {"title": "bad", "url": "javascript:alert(1)"},
    ]
    line.says(whole("好", html="<p>好</p>", sources=sources, mock=True), DONE)
    turn.locator(".sources summary").click()

    lines = turn.locator(".sources li").all_inner_texts()
    assert [one.split("\n")[0] for one in lines] == ["手册 · <img src=x>", "page", "bad"]
    assert [one.get_attribute("href") for one in turn.locator(".sources a").all()] == ["https://a.example/"]
    assert turn.locator(".sources img, .sources b").count() == 0
    expect(turn.locator(".tag")).to_have_text("模拟回答")


def test_frames_nobody_understands_do_no_harm(line: Line) -> None:
    """Unknown types, strangers' streams and no JSON at all are passed over."""
    turn, _ = asked(line)
    line.sockets[-1].send("{not json")
    line.says({"type": "later"}, delta("x", "<p>x</p>", cursor=1) | {"stream_id": "s9"}, {"type": "heartbeat"})
    line.says({"type": "error", "code": "SERVER_ERROR", "content": "处理这条消息时出错了"})

    expect(line.page.get_by_role("alert")).to_contain_text("处理这条消息时出错了")
    expect(turn).to_have_attribute("data-state", "growing")
    assert turn.locator(".blocks").inner_text() == ""
