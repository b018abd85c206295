"""Tabs for the tests of the product's pages, with a watch on errors and on requests to other hosts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, expect

#: Flags against Chromium's own background requests; a container's root user has no sandbox.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
#: Milliseconds for one step; generous, for a busy machine.
TIMEOUT = 45_000
expect.set_options(timeout=TIMEOUT)

LAPTOP = (1280, 800)
PHONE = (360, 740)

#: Messages of the browser itself while a server is away, as some tests intend.
OUTAGES = ("WebSocket connection to", "net::ERR_CONNECTION_REFUSED", "net::ERR_CONNECTION_RESET")


@dataclass
class Watch:
    """The requests, errors and warnings of a page since it was opened."""

    home: str
    #: URLs on other hosts, sockets included.
    foreign: list[str] = field(default_factory=list)
    #: Script errors, and errors in the console.
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def follow(self, page: Page) -> None:
        page.on("request", lambda request: self._add_request(request.url))
        page.on("websocket", lambda socket: self._add_request(socket.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._add_message)

    def assert_clean(self, *, outages: bool = False) -> None:
        """Raise on an error, a warning or a foreign request; `outages`: ignore errors of a server that is away."""
        found = [line for line in self.errors + self.warnings if not (outages and any(one in line for one in OUTAGES))]
        assert self.foreign == []
        assert found == []

    def expect_missing(self) -> None:
        """Take off what the browser says of files that the server did not have."""
        self.errors = [line for line in self.errors if "status of 404" not in line]

    def _add_request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob", "about") and parts.netloc != urlsplit(self.home).netloc:
            self.foreign.append(url)

    def _add_message(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)
        elif message.type == "warning":
            self.warnings.append(message.text)


@contextmanager
def tab(
    chromium: Browser,
    home: str,
    *,
    size: tuple[int, int] = LAPTOP,
    dark: bool = False,
    language: str = "zh-CN",
    scripts: tuple[Path, ...] = (),
) -> Iterator[tuple[Page, Watch]]:
    """Open an empty tab of a browser in a language, with a watch on it; `scripts` run before those of its pages."""
    width, height = size
    context = chromium.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        # The CPU draws each frame of an animation.
        reduced_motion="reduce",
        locale=language,
    )
    for script in scripts:
        context.add_init_script(path=script)
    context.set_default_timeout(TIMEOUT)
    page, watch = context.new_page(), Watch(home)
    watch.follow(page)
    try:
        yield page, watch
    finally:
        context.close()


def pushes(page: Page, *states: str) -> None:
    """Let the server have pushes in these states: the tests' replica has no bot with a long connection."""
    made = {"bot": "default", "chat": "c" * 32, "is_file": False, "created_at": "2026-11-24T08:00:00+00:00"}
    shown = [
        {**made, "id": f"default.{number:032x}", "state": state, "error": "", "ended_at": None}
        for number, state in enumerate(states)
    ]
    data = {"waiting": states.count("queued"), "pushes": shown}
    page.route("**/api/admin/pushes?*", lambda route: route.fulfill(json={"code": 200, "data": data}))


def screenshot(page: Page, name: str) -> Path | None:
    """Save a screenshot in the folder that SCREENSHOTS names; return None if the variable is not set."""
    folder = os.environ.get("SCREENSHOTS")
    if not folder:
        return None
    path = Path(folder) / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)
    return path
