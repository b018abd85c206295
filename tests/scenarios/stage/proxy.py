"""A TCP proxy that loses requests and replies at random, with a seed."""

from __future__ import annotations

import random
import socket
import threading
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self

#: What may happen to one exchange: the connection breaks before the request is forwarded, after it and before the
#: reply, or within the reply; or the reply is dropped and the connection stays open.
Fault = Literal["request", "reply", "half", "silence"]

FAULTS: tuple[Fault, ...] = ("request", "reply", "half")
READ_BYTES = 256 * 1024


class LossyProxy:
    """Forward connections to a local port and break the share `loss` of the exchanges.

    `losses` counts the broken exchanges. In every `silent_every`-th one the reply is dropped; 0: in none.
    """

    def __init__(self, target: int, seed: int, *, loss: float = 0.08, silent_every: int = 0) -> None:
        self.losses: Counter[Fault] = Counter()
        self._target = ("127.0.0.1", target)
        self._loss = loss
        self._silent_every = silent_every
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/1"

    def close(self) -> None:
        with self._lock:
            left = [self._server, *self._open]
        for each in left:
            _cut(each)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._target) as server:
            with self._lock:
                self._open |= {client, server}
            with suppress(OSError):
                self._carry(client, server)
            with self._lock:
                self._open -= {client, server}

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        """Forward requests until one exchange is lost; a client waits for each reply before its next request."""
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_pump, args=(server, client, fate := _Fate()), daemon=True).start()
        while request := client.recv(READ_BYTES):
            fault, share = self._throw()
            if fault == "request":
                return
            fate.fault, fate.share = fault, share
            server.sendall(request)

    def _throw(self) -> tuple[Fault | None, float]:
        with self._lock:
            if self._dice.random() >= self._loss:
                return None, 1.0
            fault = self._dice.choice(FAULTS)
            if self._silent_every and sum(self.losses.values()) % self._silent_every == self._silent_every - 1:
                fault = "silence"
            self.losses[fault] += 1
            return fault, self._dice.random()


class _Fate:
    """The fault of the reply that is under way."""

    fault: Fault | None = None
    share = 1.0


def _pump(server: socket.socket, client: socket.socket, fate: _Fate) -> None:
    with suppress(OSError):
        while reply := server.recv(READ_BYTES):
            if fate.fault == "half":
                client.sendall(reply[: int(len(reply) * fate.share)])
            if fate.fault in ("reply", "half"):
                break
            if fate.fault is None:
                client.sendall(reply)
    _cut(client)
    _cut(server)


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
