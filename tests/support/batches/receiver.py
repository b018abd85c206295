"""A server that takes webhooks, for tests: it records each call, answers as scripted, and holds calls on demand."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self, cast


class Call(NamedTuple):
    """A webhook as it arrived."""

    path: str
    signature: str
    body: bytes
    #: The headers of Standard Webhooks: id, timestamp and signature.
    standard: tuple[str, str, str]

    @property
    def told(self) -> Any:
        return json.loads(self.body)


class WebhookReceiver:
    """Answers calls with the scripted statuses, 204 after the last one; `held` calls wait for the end."""

    def __init__(self, *statuses: int, held: bool = False) -> None:
        self.calls: list[Call] = []
        self._statuses = list(statuses)
        self._released = threading.Event()
        if not held:
            self._released.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?token=obviously-fake"

    def release(self) -> None:
        """Let held calls, and later ones, be answered."""
        self._released.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                standard = tuple(self.headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
                receiver.calls.append(Call(self.path, self.headers["X-Signature-256"], body, cast(Any, standard)))
                status = receiver._statuses.pop(0) if receiver._statuses else 204
                receiver._released.wait(120.0)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *_: Any) -> None:
                """Print nothing."""

        return Handler
