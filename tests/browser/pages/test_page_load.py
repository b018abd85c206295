"""The first load of each page, counted in Chromium against the real server: requests, and bytes as they are sent."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.stage import TIMEOUT, tab
from tests.support.replicas import Replica

pytestmark = [pytest.mark.browser, pytest.mark.scenario, pytest.mark.timeout(240)]

#: The most requests and bytes of a page's first load; bytes of bodies and headers, compressed.
MOST_REQUESTS = 6
MOST_BYTES = 56_000


@pytest.mark.parametrize(("path", "shown", "most_requests", "most_bytes"), [
    ("/", "nav", MOST_REQUESTS, MOST_BYTES),
    ("/chat", "#state[data-state=open]", MOST_REQUESTS, MOST_BYTES),
    ("/realtime", "#state[data-state=open]", MOST_REQUESTS, MOST_BYTES),
    ("/batch", "#state[data-state=open]", MOST_REQUESTS, MOST_BYTES),
    ("/admin", "#token", MOST_REQUESTS, MOST_BYTES),
    # Swagger UI's script and style, and the document that it shows.
    ("/docs", ".opblock >> nth=0", 4, 500_000),
])  # fmt: skip
def test_the_first_load_is_small(
    chromium: Browser, open_replica: Replica, path: str, shown: str, most_requests: int, most_bytes: int
) -> None:
    """A browser with an empty cache gets a page that works by few requests; the document is compressed."""
    with tab(chromium, open_replica.url) as (page, watch):
        network = page.context.new_cdp_session(page)
        network.send("Network.enable")
        asked: list[str] = []
        sent: list[float] = []
        network.on("Network.requestWillBeSent", lambda event: asked.append(event["request"]["url"]))
        network.on("Network.webSocketCreated", lambda event: asked.append(event["url"]))
        network.on("Network.loadingFinished", lambda event: sent.append(event["encodedDataLength"]))

        reply = page.goto(open_replica.url + path)
        expect(page.locator(shown)).to_be_visible(timeout=TIMEOUT)
        page.wait_for_load_state("networkidle")

        loaded = [address for address in asked if not address.startswith("data:")]
        assert reply is not None
        assert reply.header_value("content-encoding") in ("br", "gzip")
        assert 1 <= len(loaded) <= most_requests, loaded
        assert 1_000 < sum(sent) <= most_bytes, (path, sum(sent))
        watch.assert_clean()
