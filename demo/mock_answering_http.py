"""The HTTP side that the mock answer services share: reads questions, refuses, plays scripts to whoever asked."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from demo.mock_dify_answers import answer_to, marker
from demo.mock_dify_player import Client, ClientGone, whole
from demo.mock_dify_wire import Cut, Pause, Step

if TYPE_CHECKING:
    from demo.mock_answering import MockAnswering

_MAX_BODY = 4 * 1024 * 1024
#: How often a script that waits looks whether its client is still there, in seconds.
_LOOK = 0.05


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it came in, refused or not. The names of its headers are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    question: str


@dataclass(frozen=True, slots=True)
class Whole:
    """A reply that is no stream."""

    status: int
    body: bytes
    media: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(
        cls, payload: Any, status: int = 200, *, indent: int | None = None, headers: Mapping[str, str] | None = None
    ) -> Whole:
        return cls(status, json.dumps(payload, ensure_ascii=False, indent=indent).encode(), headers=headers or {})


BAD_GATEWAY = Whole(502, b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>", "text/html")


@dataclass(frozen=True, slots=True)
class Script:
    """One behaviour. `answer` is what a client must end up with; "" where it ends without an answer."""

    #: The pieces of a reply, or a whole one, from what was asked and the mock.
    play: Callable[[Asked, Any], Iterator[Step] | Whole]
    answer: Callable[[str], str] = answer_to
    media: str = "text/event-stream; charset=utf-8"
    #: False: no length and no chunks, the body ends with the connection.
    chunked: bool = True
    #: Rewrites the bytes on their way out, each piece its own write.
    cut: Callable[[bytes], list[bytes]] = whole
    refusal: Whole | None = None
    #: How often a question is refused before it is answered; None is always.
    refusals: int | None = None
    #: Seconds before the response's headers.
    headers_after: float = 0.0


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], mock: MockAnswering) -> None:
        self.mock = mock
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about clients that hang up; anything else is a bug of the mock and is printed."""
        if not isinstance(sys.exception(), (OSError, ClientGone)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60.0
    server: Server

    def handle(self) -> None:
        with self.server.mock.connected(self.connection):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the terminal for who started it."""

    def do_GET(self) -> None:
        mock = self.server.mock
        if self.path == mock.generating:
            mock.record(Asked(self.path, self._headers, {}, ""))
        else:
            mock.looks.append((self.path, self.headers.get("Authorization", "")))
        if not self._authorized():
            self._send(mock.refusal(401, "invalid_api_key"))
        else:
            self._send(mock.look(self.path) or mock.refusal(404, "not_found"))

    def do_POST(self) -> None:
        mock = self.server.mock
        body = self._body()
        question = mock.question(body) if isinstance(body, dict) else None
        if self.path == mock.generating:
            mock.record(Asked(self.path, self._headers, body if isinstance(body, dict) else {}, question or ""))
        if not self._authorized():
            self._send(mock.refusal(401, "invalid_api_key"))
        elif self.path != mock.generating:
            self._send(mock.refusal(404, "not_found"))
        elif isinstance(body, dict) and (refused := mock.refused(body)):
            self._send(refused)
        elif question is None:
            self._send(mock.refusal(400, "invalid_request_error"))
        else:
            self._answer(Asked(self.path, self._headers, body, question))

    @property
    def _headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def _body(self) -> Any:
        length = int(self.headers.get("Content-Length") or 0)
        try:
            return json.loads(self.rfile.read(min(length, _MAX_BODY)))
        except ValueError:
            return None

    def _authorized(self) -> bool:
        wanted = self.server.mock.api_key
        return not wanted or self.headers.get("Authorization") == f"Bearer {wanted}"

    def _answer(self, asked: Asked) -> None:
        mock = self.server.mock
        script = mock.scripts().get(marker(asked.question) or mock.default)
        if script is None:
            self._send(mock.refusal(400, "no_such_script"))
        elif script.refusal is not None and mock.refuses(script, asked.question):
            self._send(script.refusal)
        elif isinstance(reply := script.play(asked, mock), Whole):
            self._send(reply)
        else:
            with mock.streaming():
                self._stream(script, reply)

    def _stream(self, script: Script, steps: Iterator[Step]) -> None:
        mock = self.server.mock
        client = Client(self.connection, limit=mock.limit, chunked=script.chunked, cut=script.cut)
        ends = time.monotonic() + mock.limit
        self.close_connection = True
        if not self._wait(script.headers_after, client, ends):
            return
        self.send_response(200)
        self.send_header("Content-Type", script.media)
        self.send_header(*(("Transfer-Encoding", "chunked") if script.chunked else ("Connection", "close")))
        self.end_headers()
        if all(self._step(step, client, ends) for step in steps):
            client.finish()
            self.close_connection = not script.chunked

    def _step(self, step: Step, client: Client, ends: float) -> bool:
        if isinstance(step, Cut):
            client.reset()
            return False
        if isinstance(step, Pause):
            return self._wait(step.seconds, client, ends)
        if isinstance(step, bytes):
            client.write(step)
        return time.monotonic() < ends

    def _wait(self, seconds: float, client: Client, ends: float) -> bool:
        until = min(time.monotonic() + seconds, ends)
        while (left := until - time.monotonic()) > 0 and not self.server.mock.closing.is_set():
            client.watch(min(left, _LOOK))
        return time.monotonic() < ends and not self.server.mock.closing.is_set()

    def _send(self, reply: Whole) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.media)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)
