"""A TCP proxy whose target can be made slow, silent, unreachable or closed, and healthy again, on one fixed address."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

READ_BYTES = 256 * 1024


@dataclass(eq=False)
class _Link:
    """One connection: the client's socket and, once connected, the server's."""

    client: socket.socket
    server: socket.socket | None = None
    #: A silent link drops the data of both directions until it is closed.
    silent: bool = False

    def close(self) -> None:
        for sock in filter(None, (self.client, self.server)):
            _cut(sock)


class SlowProxy:
    """Forward connections to a local port; each fault lasts as long as its `with` block.

    A link that was silent stays silent: only new connections work again, as after a firewall lost its state.
    """

    def __init__(self, target: int, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._target = ("127.0.0.1", target)
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._delay = 0.0
        self._silent = False
        self.host = host
        self._server = self._listen(port)
        self.port: int = self._server.getsockname()[1]

    def close(self) -> None:
        _cut(self._server)
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def connections(self) -> int:
        """The number of connections that clients have open."""
        return len(self._links)

    def cut(self) -> None:
        """Cut every open connection."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.close()

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Delay every piece of a reply by `seconds`."""
        self._delay = seconds
        try:
            yield
        finally:
            self._delay = 0.0

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Accept connections but forward no data, on existing ones neither."""
        with self._lock:
            self._silent = True
            for link in self._links:
                link.silent = True
        try:
            yield
        finally:
            self._silent = False

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Cut every connection and refuse new ones."""
        _cut(self._server)
        self.cut()
        try:
            yield
        finally:
            self._server = self._listen(self.port)

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Make existing connections silent, and leave new ones without an answer to their SYN."""
        with self.silent(), ExitStack() as stack:
            _cut(self._server)
            full = stack.enter_context(socket.create_server((self.host, self.port), backlog=0))
            # Once its backlog is full, the kernel answers no further SYN.
            for _ in range(4):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            yield
        self._server = self._listen(self.port)

    def _listen(self, port: int) -> socket.socket:
        server = socket.create_server((self.host, port), backlog=256)
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()
        return server

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            link = _Link(client, silent=self._silent)
            self._links.add(link)
        try:
            with suppress(OSError):
                if not link.silent:
                    link.server = socket.create_connection(self._target, timeout=5.0)
                    link.server.settimeout(None)
                    threading.Thread(target=self._pump, args=(link, link.server, client), daemon=True).start()
                for each in filter(None, (client, link.server)):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._pump(link, client, link.server)
        finally:
            link.close()
            with self._lock:
                self._links.discard(link)

    def _pump(self, link: _Link, source: socket.socket, sink: socket.socket | None) -> None:
        with suppress(OSError):
            while data := source.recv(READ_BYTES):
                if sink is link.client:
                    time.sleep(self._delay)
                if sink and not link.silent:
                    sink.sendall(data)
        if not link.silent or sink is not link.client:
            link.close()


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
