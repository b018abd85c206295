"""A socket client for tests that checks every received frame against the published schema."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.typing import Subprotocol

from tests.support.sockets.connecting import connected
from tests.support.sockets.frames import faults, kinds
from tools._ws.frames import AnswerLog, is_part

PATHS = {"chat": "/ws/chat", "realtime": "/ws/realtime-asr"}
#: Timeout in seconds of steps that take a moment on an idle machine.
TIMEOUT = 30.0

Fits = Mapping[str, Any] | Callable[[Any], bool]


class Visitor:
    """A client of one endpoint. Received frames are in `frames`, their names in the schema in `seen`."""

    def __init__(self, connection: ClientConnection, endpoint: str) -> None:
        self.endpoint = endpoint
        self.connection = connection
        self.frames: list[dict[str, Any]] = []
        self.seen: set[str] = set()
        self._transcript = AnswerLog()

    @property
    def busy(self) -> bool:
        """Whether an answer is running."""
        return self._transcript.busy

    def says(self, frame: Any) -> None:
        """Send a frame: a str as it is, anything else as JSON."""
        self.connection.send(frame if isinstance(frame, str) else json.dumps(frame, ensure_ascii=False))

    def hears(self, timeout: float = TIMEOUT) -> dict[str, Any]:
        """Return the next frame, which must match the endpoint's schema. Raises TimeoutError or ConnectionClosed."""
        raw = self.connection.recv(timeout)
        assert isinstance(raw, str)
        frame: dict[str, Any] = self._transcript.take(raw).frame
        (name,) = kinds(f"{self.endpoint}.server", frame) or [f"{faults(self.endpoint + '.server', frame)}: {raw}"]
        assert name.startswith(self.endpoint), name
        self.frames.append(frame)
        self.seen.add(name)
        return frame

    def until(self, fits: Fits) -> dict[str, Any]:
        """Return the next frame that contains `fits`, or for which it is true; fail after `TIMEOUT` seconds."""
        end = time.monotonic() + TIMEOUT
        since = len(self.frames)
        while time.monotonic() < end:
            frame = self.hears(max(0.01, end - time.monotonic()))
            if fits(frame) if callable(fits) else is_part(fits, frame):
                return frame
        raise AssertionError(f"{fits} did not come; what came: {self.frames[since:]}")

    def until_done(self) -> list[dict[str, Any]]:
        """Wait until the server has read everything sent and no answer is running; return the frames since."""
        since = len(self.frames)
        stamp = time.monotonic_ns()
        self.says({"type": "ping", "timestamp": stamp})
        self.until({"type": "pong", "timestamp": stamp})
        if self.busy:
            self.until(lambda frame: not self.busy)
        return self.frames[since:]

    def until_closed(self) -> int | None:
        """Read until the server closes; return its close code, or fail after `TIMEOUT` seconds."""
        with suppress(ConnectionClosed):
            self.until(lambda frame: False)
        return self.connection.close_code


@contextmanager
def visit(
    url: str,
    endpoint: str,
    *,
    key: str = "",
    client_id: str = "",
    lively: bool = True,
    by_page: bool = False,
    **options: Any,
) -> Iterator[Visitor]:
    """Connect to an endpoint of the replica at `url`, an http address.

    With `by_page` the key is sent in a subprotocol, as a web page does. With `lively` the client sends pings, so that
    no heartbeat timeout ends the connection.
    """
    address = url.replace("http", "ws", 1) + PATHS[endpoint] + (f"/{client_id}" if client_id else "")
    if by_page:
        protocol = "bearer." + base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
        options["subprotocols"] = [Subprotocol("wechatlaibao"), Subprotocol(protocol)]
    elif key:
        options["additional_headers"] = {"Authorization": f"Bearer {key}"}
    options |= {"compression": None, "ping_interval": 1 if lively else None, "ping_timeout": None, "max_size": 2**24}
    with connected(address, **options) as connection:
        yield Visitor(connection, endpoint)
