"""Tabs for the tests of the product's pages, and an eye on what a page must never do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page

#: Chromium tries to reach its maker's hosts unless it is told not to; a container's root has no sandbox.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
#: Milliseconds a step may take; wide, for a busy machine.
TIMEOUT = 45_000

LAPTOP = (1280, 800)
PHONE = (360, 740)

#: What the browser itself says when a server is away, which some tests want it to be.
OUTAGES = ("WebSocket connection to", "net::ERR_CONNECTION_REFUSED", "net::ERR_CONNECTION_RESET")


@dataclass
class Watch:
    """What a page asked for and complained of since it was opened."""

    home: str
    #: Addresses of another host, sockets included.
    foreign: list[str] = field(default_factory=list)
    #: Errors of its script, and what the console says is wrong.
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def follow(self, page: Page) -> None:
        page.on("request", lambda request: self._asked(request.url))
        page.on("websocket", lambda socket: self._asked(socket.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._said)

    def assert_clean(self, *, outages: bool = False) -> None:
        """Raise unless it stayed at home and whole; `outages`: its server was away meanwhile."""
        said = [line for line in self.errors + self.warnings if not (outages and any(one in line for one in OUTAGES))]
        assert self.foreign == []
        assert said == []

    def _asked(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob", "about") and parts.netloc != urlsplit(self.home).netloc:
            self.foreign.append(url)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)
        elif message.type == "warning":
            self.warnings.append(message.text)


@contextmanager
def tab(
    chromium: Browser, home: str, *, size: tuple[int, int] = LAPTOP, dark: bool = False, scripts: tuple[Path, ...] = ()
) -> Iterator[tuple[Page, Watch]]:
    """Open an empty tab that is watched; `scripts` run before those of its pages."""
    width, height = size
    context = chromium.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        # Each frame of an animation is drawn by the CPU.
        reduced_motion="reduce",
        locale="zh-CN",
    )
    for script in scripts:
        context.add_init_script(path=script)
    page, watch = context.new_page(), Watch(home)
    page.set_default_timeout(TIMEOUT)
    watch.follow(page)
    try:
        yield page, watch
    finally:
        context.close()


def screenshot(page: Page, name: str) -> Path | None:
    """Take a picture into the folder that SCREENSHOTS names; None without one."""
    folder = os.environ.get("SCREENSHOTS")
    if not folder:
        return None
    path = Path(folder) / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)
    return path
