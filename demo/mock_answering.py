"""What the mock answer services share: who asked what, scripts by name, and a trip-wire for probes.

A service has one address that generates, and so costs; everything else about it is free to look at.
"""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from demo.mock_answering_http import BAD_GATEWAY, Asked, Script, Server, Whole
from demo.mock_dify_answers import marker

__all__ = ["BAD_GATEWAY", "Asked", "MockAnswering", "Script", "Whole"]


@dataclass
class MockAnswering(ABC):
    """The mock and what it saw. Every script ends within `limit` seconds, whatever the client does."""

    host: str = "127.0.0.1"
    port: int = 0
    #: The script of a question that names none.
    default: str = "normal"
    #: Seconds: between two pieces of an answer, between the pieces of a slow answer, at most in all.
    delay: float = 0.0
    slow: float = 0.02
    limit: float = 30.0
    #: The one key that is let in; "" lets any in.
    api_key: str = ""
    asked: list[Asked] = field(default_factory=list)
    #: What was looked at without asking: (path, Authorization).
    looks: list[tuple[str, str]] = field(default_factory=list)
    accepted_connections: int = 0
    open_streams: int = 0
    peak_streams: int = 0

    #: The path whose requests cost.
    generating = ""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self._refused: Counter[str] = Counter()
        self._sockets: set[socket.socket] = set()
        self._server = Server((self.host, self.port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @abstractmethod
    def scripts(self) -> Mapping[str, Script]:
        """Return what it can do with a question, by name."""

    @abstractmethod
    def question(self, body: Mapping[str, Any]) -> str | None:
        """Return what a request asks, None where it is none."""

    def refused(self, body: Mapping[str, Any]) -> Whole | None:
        """Return the refusal of a request whose fields the service does not take, None where it takes them."""
        return None

    @abstractmethod
    def look(self, path: str) -> Whole | None:
        """Return what a free address answers, None where there is none."""

    @abstractmethod
    def refusal(self, status: int, code: str) -> Whole:
        """Return the service's own way to refuse."""

    @property
    def address(self) -> str:
        """The address of the server, without a path."""
        return f"http://{self.host}:{self._server.server_address[1]}"

    def expected_answer(self, question: str) -> str:
        """Return the text a client must end up with, the present default considered."""
        return self.scripts()[marker(question) or self.default].answer(question)

    @contextmanager
    def costing_nothing(self) -> Iterator[None]:
        """Let the block do anything that costs nothing.

        Raises:
            AssertionError: it reached the address that generates.
        """
        before = len(self.asked)
        yield
        if len(self.asked) != before:
            raise AssertionError(f"{self.generating} was reached, which costs")

    def start(self) -> Self:
        """Listen, in threads of its own."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop listening and cut every connection."""
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

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def record(self, asked: Asked) -> None:
        with self._lock:
            self.asked.append(asked)

    def refuses(self, script: Script, question: str) -> bool:
        """Tell whether the script refuses this request, counting it."""
        if script.refusal is None:
            return False
        with self._lock:
            self._refused[question] += 1
            return script.refusals is None or self._refused[question] <= script.refusals

    @contextmanager
    def connected(self, sock: socket.socket) -> Iterator[None]:
        """Count a connection for the block."""
        with self._lock:
            self._sockets.add(sock)
            self.accepted_connections += 1
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(sock)

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Count a stream for the block."""
        with self._lock:
            self.open_streams += 1
            self.peak_streams = max(self.peak_streams, self.open_streams)
        try:
            yield
        finally:
            with self._lock:
                self.open_streams -= 1
