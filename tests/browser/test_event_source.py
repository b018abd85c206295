"""The browser's EventSource on an answer: it reconnects to another replica, and ends when the answer is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Page

from demo.mocks.dify.server import MockDify
from tests.support.replicas import dify_settings, replicas, settings_for
from tests.support.servers.processes import RedisServer
from tests.support.servers.relay import Relay

pytestmark = [pytest.mark.browser, pytest.mark.scenario]

DOCUMENT = Path(__file__).parents[2] / "docs" / "http-api.md"
#: An EventSource without handlers that is never closed, beside the program of the document.
FOLLOW = """(stream) => {
    window.texts = [];
    window.ended = new Promise((resolve) => window.follow(stream, (text) => window.texts.push(text), resolve));
    window.left = new EventSource(`/api/chat/${stream}`);
}"""


def test_an_event_source_gets_the_whole_answer(redis_server: RedisServer, bare_page: Page, tmp_path: Path) -> None:
    """It continues at another replica after a kill; a source that is never closed is told to stop at the end."""
    question = "[[slow]] EventSource 年假怎么申请"
    program = re.findall(r"^```js\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)[0]
    with MockDify(slow=0.25) as dify:
        own = dify_settings(dify.base_url, STREAM_LEASE="3", WEBSOCKET_AUTH="none")
        with (
            replicas(2, settings_for(redis_server.url(6), **own), tmp_path) as (first, second),
            Relay(first.port) as board,
        ):
            bare_page.goto(f"http://127.0.0.1:{board.port}/docs")
            bare_page.add_script_tag(content=program + "window.follow = follow;")
            dify.holds_at = 5
            body = {"query": question, "id": "browser", "stream": True}
            with requests.post(f"{second.url}/api/chat", json=body, stream=True, timeout=30) as reply:
                stream = re.findall(r'"stream_id":"(\w+)"', next(reply.iter_content(4096)).decode())[0]
            bare_page.evaluate(FOLLOW, stream)
            bare_page.wait_for_function("window.texts.length > 0")
            board.target = second.port
            first.kill()
            dify.holds_at = None
            end = bare_page.evaluate("window.ended")
            texts = bare_page.evaluate("window.texts")
            bare_page.wait_for_function("window.left.readyState === EventSource.CLOSED")
            asked = len(dify.asked(question))
        expected = dify.expected_answer(question)

    assert (end["status"], end["content"], texts[-1]) == ("completed", expected, expected)
    assert all(expected.startswith(text) for text in texts)
    assert len(texts) == len(set(texts)) > 1
    assert asked == 1
