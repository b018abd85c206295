"""The base of every HTTP mock: the server, its connections, and reading and sending JSON and streams.

A mock is an `HttpMock`, and its routes are a `Handler`.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class ClientGone(Exception):
    """The client closed the connection."""


class HttpMock:
    """A server that runs in its own threads; a context manager. Subclasses call `listen` in their constructor."""

    def listen(self, host: str, port: int, handler: type[Handler]) -> None:
        """Bind the port. After `start`, each connection is served by a handler in its own thread."""
        #: Set by `close`: waiting handlers must return.
        self.closing = threading.Event()
        #: Connections accepted so far, open now, and the most at once.
        self.accepted_connections = self.open_connections = self.peak_connections = 0
        #: Answers being streamed now, and the most at once.
        self.open_streams = self.peak_streams = 0
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._server = _MockServer((host, port), handler, self)
        name = f"{type(self).__name__} on {self.address}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name=name, daemon=True)

    @property
    def address(self) -> str:
        """The server's URL without a path."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def start(self) -> Self:
        """Start serving."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop listening and close every connection, including those with a waiting handler."""
        self.closing.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def connected(self, sock: socket.socket) -> Iterator[None]:
        """Count a connection while the block runs."""
        with self._lock:
            self._sockets.add(sock)
            self.accepted_connections += 1
            self.open_connections += 1
            self.peak_connections = max(self.peak_connections, self.open_connections)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(sock)
                self.open_connections -= 1

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Count a stream while the block runs."""
        with self._lock:
            self.open_streams += 1
            self.peak_streams = max(self.peak_streams, self.open_streams)
        try:
            yield
        finally:
            with self._lock:
                self.open_streams -= 1


class _MockServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], handler: type[Handler], mock: HttpMock) -> None:
        self.mock = mock
        super().__init__(address, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that hang up. Any other error is a bug of the mock and is printed."""
        if not isinstance(sys.exception(), (OSError, ClientGone)):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Serves one connection of a mock. Subclasses implement the routes in `get` and `post`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _MockServer
    #: The mock; subclasses narrow its type.
    mock: HttpMock
    #: Whether the last body that was read ended before its length: its client is gone.
    cut = False

    def setup(self) -> None:
        self.mock = self.server.mock
        super().setup()

    @abstractmethod
    def get(self) -> None:
        """Answer a GET."""

    @abstractmethod
    def post(self) -> None:
        """Answer a POST."""

    def head(self) -> None:
        """Answer a HEAD. Only the auth API's mock supports it."""
        self.send_error(501, f"Unsupported method ({self.command!r})")

    def do_GET(self) -> None:
        self.get()

    def do_POST(self) -> None:
        self.post()

    def do_HEAD(self) -> None:
        self.head()

    def handle(self) -> None:
        with self.mock.connected(self.connection):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: URLs contain questions and passwords, and the terminal belongs to the demo."""

    @property
    def authorization(self) -> str:
        return self.headers.get("Authorization", "")

    def json_body(self, most: int = 4 * 2**20) -> Any:
        """Parse at most `most` bytes of the body as JSON; None if it is not JSON."""
        length = int(self.headers.get("Content-Length") or 0)
        try:
            sent = self.rfile.read(min(length, most))
            self.cut = len(sent) < min(length, most)
            return json.loads(sent)
        except ValueError:
            return None

    def reply(self, payload: Any, status: int = 200) -> None:
        """Send a payload as JSON."""
        self.send(status, json.dumps(payload, ensure_ascii=False).encode())

    def send(
        self, status: int, body: bytes, media: str = "application/json", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole reply. `headers` override or extend Content-Type and Content-Length."""
        self.send_head(status, {"Content-Type": media, "Content-Length": str(len(body)), **(headers or {})})
        self.wfile.write(body)

    def begin_stream(self, media: str, *, chunked: bool, headers: Mapping[str, str] | None = None) -> None:
        """Send the headers of a stream: chunked, or ended by closing the connection."""
        framing = {"Transfer-Encoding": "chunked"} if chunked else {"Connection": "close"}
        self.send_head(200, {"Content-Type": media, **(headers or {}), **framing})

    def send_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
