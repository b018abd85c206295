"""The JavaScript client of docs/websocket.md in Chromium: its answer survives a killed replica."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from demo.mocks.dify.server import MockDify
from tests.support.replicas import dify_settings, replicas, settings_for
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.servers.relay import Relay
from tests.support.sockets.frames import program

pytestmark = [pytest.mark.browser, pytest.mark.scenario]

KEY = "not-a-real-key+/=ß"
ASK = """([url, key, question]) => {
    window.texts = [];
    window.chat = new LaibaoChat(url, key);
    window.done = window.chat.ask(question, (text) => window.texts.push(text));
}"""


def test_the_javascript_client_gets_its_whole_answer(
    redis_server: RedisServer, bare_page: Page, tmp_path: Path
) -> None:
    """Cut off by a killed replica the client resumes at another: the whole answer, in order, Dify asked once."""
    question = "[[slow]] JavaScript 年假怎么申请"
    with MockDify(slow=0.2) as dify:
        own = dify_settings(dify.base_url, STREAM_LEASE="3", WEBSOCKET_AUTH="key", API_KEYS=KEY)
        with (
            replicas(2, settings_for(redis_server.url(6), **own), tmp_path) as (first, second),
            Relay(first.port) as board,
        ):
            bare_page.goto(f"http://127.0.0.1:{board.port}/docs")
            bare_page.add_script_tag(content=program("js") + "window.LaibaoChat = LaibaoChat;")
            bare_page.evaluate(ASK, [f"ws://127.0.0.1:{board.port}/ws/chat", KEY, question])
            bare_page.wait_for_function("window.texts.length > 1")
            board.target = second.port
            first.kill()
            answer = bare_page.evaluate("window.done")
            texts = bare_page.evaluate("window.texts")
            # Another question, over the new connection.
            again = bare_page.evaluate("window.chat.ask('营业时间')")
            bare_page.evaluate("window.chat.close()")
            asked = len(dify.asked(question))
        expected = dify.expected_answer(question)

    assert (answer["status"], answer["error"], answer["text"]) == ("completed", "", expected)
    assert all(expected.startswith(text) for text in texts)
    assert again["text"].startswith("周一至周五")
    assert asked == 1
    wait_until(lambda: board.taken >= 2)
