"""A relay in front of a real Redis that counts round trips and bytes, and holds requests back where a test wants it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import hiredis
import redis

from services.redis.client import all_scripts
from tests.support.servers.processes import wait_until

READ_BYTES = 1 << 20

#: The commands of one request; a call of a script has the script's name.
Names = tuple[str, ...]


@dataclass(eq=False)
class Trip:
    """One round trip: everything a client sent before it read a reply, with the bytes in both directions."""

    names: Names = ()
    sent: int = 0
    received: int = 0
    #: Replies that have not arrived yet.
    owed: int = 0


class CountingRelay:
    """Forward connections to a local Redis; `trips` are the round trips since the last `forget`, in their order."""

    def __init__(self, target: int) -> None:
        self.trips: list[Trip] = []
        #: Requests that are held now.
        self.held: list[Names] = []
        self._target = ("127.0.0.1", target)
        self._scripts = {one.sha: one.name for one in all_scripts()}
        self._holds: Callable[[Names], bool] = lambda names: False
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0), backlog=256)
        # Database 0: no connection begins with a SELECT.
        self.url = f"redis://127.0.0.1:{self._server.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.hold(lambda names: False)
        for each in (self._server, *self._open):
            _cut(each)

    @property
    def names(self) -> list[Names]:
        """The commands of each round trip."""
        return [trip.names for trip in self.trips]

    def forget(self) -> None:
        self.trips = []

    def hold(self, holds: Callable[[Names], bool]) -> None:
        """Hold requests for which `holds` is true; held requests for which it is false now go on."""
        with self._changed:
            self._holds = holds
            self._changed.notify_all()

    def sees_held(self, *names: Names) -> None:
        """Wait until exactly these requests are held."""
        wait_until(lambda: sorted(self.held) == sorted(names), timeout=30.0)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """Forward whole requests only: a client sends all of one before it waits for the reply."""
        server = socket.create_connection(self._target)
        self._open |= {client, server}
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        requests, trips = hiredis.Reader(), [Trip()]
        threading.Thread(target=self._answer, args=(server, client, trips), daemon=True).start()
        with suppress(OSError):
            while data := client.recv(READ_BYTES):
                requests.feed(data)
                self._count(trips, data, _whole(requests))
                server.sendall(data)
        _cut(client)
        _cut(server)

    def _count(self, trips: list[Trip], data: bytes, commands: list[list[bytes]]) -> None:
        """Record a request, as a new trip unless replies of the last one are missing; then wait while it is held."""
        names = tuple(self._name(words) for words in commands)
        with self._changed:
            if not trips[-1].owed:
                trips.append(Trip())
                self.trips.append(trips[-1])
            trip = trips[-1]
            trip.names += names
            trip.sent += len(data)
            trip.owed += len(names)
            self.held.append(names)
            self._changed.wait_for(lambda: not self._holds(names))
            self.held.remove(names)

    def _answer(self, server: socket.socket, client: socket.socket, trips: list[Trip]) -> None:
        replies = hiredis.Reader()
        with suppress(OSError):
            while data := server.recv(READ_BYTES):
                replies.feed(data)
                with self._changed:
                    trips[-1].received += len(data)
                    trips[-1].owed -= len(_whole(replies))
                client.sendall(data)
        _cut(client)

    def _name(self, words: list[bytes]) -> str:
        word = words[0].decode().upper()
        return self._scripts[words[1].decode()] if word == "EVALSHA" else word


def commands(server: redis.Redis) -> dict[str, int]:
    """Return how often each command ran since the last call of this function, those within scripts included."""
    calls = {name.removeprefix("cmdstat_"): found["calls"] for name, found in server.info("commandstats").items()}
    server.config_resetstat()
    return {name: count for name, count in calls.items() if name != "info" and not name.startswith("config")}


def _whole(reader: hiredis.Reader) -> list[list[bytes]]:
    """Return the complete messages that the reader has."""
    found = []
    while (one := reader.gets()) is not False:
        found.append(one)
    return found


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
