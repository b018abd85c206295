"""TCP relays in front of a local server, which tests make slow, silent, unreachable, lossy, or lead elsewhere."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

READ_BYTES = 1 << 20


@dataclass(eq=False)
class Link:
    """One connection: the client's socket and, once connected, the server's. `state` is a subclass's own."""

    client: socket.socket
    state: Any = None
    server: socket.socket | None = None
    #: A silent link drops the data of both directions until it is closed.
    silent: bool = False

    def close(self) -> None:
        for sock in filter(None, (self.client, self.server)):
            _cut(sock)


class Relay:
    """Forward connections to `target`, a local port; if nothing listens there, cut them.

    Each fault lasts as long as its `with` block. A link that was silent stays silent: only new connections work again,
    as after a firewall lost its state. Subclasses override `request` and `reply`.
    """

    def __init__(self, target: int, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.target = target
        #: The number of connections accepted so far.
        self.taken = 0
        self._lock = threading.Lock()
        self._links: set[Link] = set()
        self._delay: Callable[[], float] = lambda: 0.0
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

    def state(self) -> Any:
        """Return the `state` of a new link."""
        return None

    def request(self, link: Link, data: bytes) -> None:
        """Forward what a client sent. An OSError ends the link."""
        if link.server:
            link.server.sendall(data)

    def reply(self, link: Link, data: bytes) -> None:
        """Forward what the server sent. An OSError ends the link."""
        link.client.sendall(data)

    def cut(self) -> None:
        """Cut every open connection."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.close()

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Delay every piece of a reply by `seconds`."""
        with self._delayed(lambda: seconds):
            yield

    @contextmanager
    def lossy(self, dice: random.Random) -> Iterator[None]:
        """Delay every piece of a reply by 200 to 400 ms, and some by more, as a network that loses 5 % of its packets.

        A lost packet is sent again after 200 ms, TCP's shortest timeout, and after twice that time if it is lost again.
        """

        def delay() -> float:
            seconds, timeout = dice.uniform(0.2, 0.4), 0.2
            while dice.random() < 0.05:
                seconds, timeout = seconds + timeout, timeout * 2
            return seconds

        with self._delayed(delay):
            yield

    @contextmanager
    def _delayed(self, delay: Callable[[], float]) -> Iterator[None]:
        before, self._delay = self._delay, delay
        try:
            yield
        finally:
            self._delay = before

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
                self.taken += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            link = Link(client, self.state(), silent=self._silent)
            self._links.add(link)
        try:
            with suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if not link.silent:
                    link.server = socket.create_connection(("127.0.0.1", self.target), timeout=30.0)
                    link.server.settimeout(None)
                    link.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._replies, args=(link, link.server), daemon=True).start()
                while data := client.recv(READ_BYTES):
                    if not link.silent:
                        self.request(link, data)
        finally:
            link.close()
            with self._lock:
                self._links.discard(link)

    def _replies(self, link: Link, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(READ_BYTES):
                time.sleep(self._delay())
                if not link.silent:
                    self.reply(link, data)
        if not link.silent:
            link.close()


#: What may happen to one exchange: the connection breaks before the request is forwarded, after it and before the
#: reply, or within the reply; or the reply is dropped and the connection stays open.
Fault = Literal["request", "reply", "half", "silence"]

FAULTS: tuple[Fault, ...] = ("request", "reply", "half")


class LossyRelay(Relay):
    """Break the share `loss` of the exchanges, at random with a seed: a client waits for a reply before it asks again.

    `losses` counts the broken exchanges. In every `silent_every`-th one the reply is dropped; 0: in none.
    """

    def __init__(self, target: int, seed: int, *, loss: float = 0.08, silent_every: int = 0) -> None:
        self.losses: Counter[Fault] = Counter()
        self._loss = loss
        self._silent_every = silent_every
        self._dice = random.Random(seed)
        self._throwing = threading.Lock()
        super().__init__(target)

    def request(self, link: Link, data: bytes) -> None:
        link.state = self._throw()
        if link.state[0] == "request":
            raise ConnectionResetError
        super().request(link, data)

    def reply(self, link: Link, data: bytes) -> None:
        fault, share = link.state
        if fault == "half":
            super().reply(link, data[: int(len(data) * share)])
        if fault in ("reply", "half"):
            raise ConnectionResetError
        if fault is None:
            super().reply(link, data)

    def _throw(self) -> tuple[Fault | None, float]:
        """Return the fault of the next exchange, and the share of its reply that is forwarded."""
        with self._throwing:
            if self._dice.random() >= self._loss:
                return None, 1.0
            fault = self._dice.choice(FAULTS)
            if self._silent_every and sum(self.losses.values()) % self._silent_every == self._silent_every - 1:
                fault = "silence"
            self.losses[fault] += 1
            return fault, self._dice.random()


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
