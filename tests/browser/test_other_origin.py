"""Pages of another origin in a real browser: an allowed one asks and reads, any other one gets nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Error, Page

from tests.support.replicas import AppServer

pytestmark = pytest.mark.browser

KEY = "not-a-real-key"
#: Asks with a key and reads the events of the reply, and its headers.
ASK = """async ([url, key]) => {
    const headers = {Authorization: `Bearer ${key}`, "Content-Type": "application/json", "X-Request-Id": "page-7"};
    const body = JSON.stringify({query: "年假？", stream: true});
    const reply = await fetch(`${url}/api/chat`, {method: "POST", headers, body});
    return {status: reply.status, id: reply.headers.get("X-Request-Id"), events: await reply.text()};
}"""
#: Asks without a key and follows the answer by an EventSource, which cannot send one.
FOLLOW = """async (url) => {
    const headers = {"Content-Type": "application/json"};
    const reply = await fetch(`${url}/api/chat`, {method: "POST", headers, body: JSON.stringify({query: "病假？"})});
    const {data} = await reply.json();
    const source = new EventSource(`${url}/api/chat/${data.stream_id}`);
    const end = await new Promise((resolve) => source.addEventListener("done", (event) => resolve(event.data)));
    source.close();
    return JSON.parse(end).content === data.content;
}"""
LISTS_WITH_COOKIES = "(url) => fetch(`${url}/v1/models`, {credentials: 'include'})"
LISTS = "(url) => fetch(`${url}/v1/models`).then((reply) => reply.status)"


class EmptyPage(BaseHTTPRequestHandler):
    """Any address is an empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""


@contextmanager
def other_site() -> Iterator[str]:
    """Serve empty pages at an origin of their own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), EmptyPage) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.full
def test_a_page_of_an_allowed_origin_asks_and_reads(redis_url: str, bare_page: Page) -> None:
    """With a key in a header; cookies cannot be sent along. A page of another origin can do nothing."""
    with other_site() as portal, other_site() as foreign:
        own = {"API_KEYS": KEY, "WEBSOCKET_AUTH": "none", "PUBLIC_ORIGINS": portal}
        with AppServer(redis_url, **own) as app:
            bare_page.goto(portal)
            asked = bare_page.evaluate(ASK, [app.url, KEY])
            followed = bare_page.evaluate(FOLLOW, app.url)
            models = bare_page.evaluate(LISTS, app.url)
            with pytest.raises(Error, match="Failed to fetch"):
                bare_page.evaluate(LISTS_WITH_COOKIES, app.url)
            bare_page.goto(foreign)
            for refused, given in ((ASK, [app.url, KEY]), (LISTS, app.url)):
                with pytest.raises(Error, match="Failed to fetch"):
                    bare_page.evaluate(refused, given)

    assert (asked["status"], asked["id"], followed, models) == (200, "page-7", True, 200)
    assert "event: done" in asked["events"]
