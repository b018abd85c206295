"""A relay in front of a real Redis that counts round trips and bytes, and holds requests back where a test wants it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import hiredis
import redis

from services.redis.calls import all_scripts
from tests.support.servers.processes import wait_until
from tests.support.servers.relay import Link, Relay

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


@dataclass(eq=False)
class Exchange:
    """The round trips of one connection, and the data of both directions that is not a whole message yet."""

    requests: hiredis.Reader = field(default_factory=hiredis.Reader)
    replies: hiredis.Reader = field(default_factory=hiredis.Reader)
    trip: Trip = field(default_factory=Trip)


class CountingRelay(Relay):
    """Forward connections to a local Redis; `trips` are the round trips since the last `forget`, in their order."""

    def __init__(self, target: int) -> None:
        self.trips: list[Trip] = []
        #: Requests that are held now.
        self.held: list[Names] = []
        self._scripts = {one.sha: one.name for one in all_scripts()}
        self._holds: Callable[[Names], bool] = lambda names: False
        self._changed = threading.Condition()
        super().__init__(target)
        # Database 0: no connection begins with a SELECT.
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def close(self) -> None:
        self.hold(lambda names: False)
        super().close()

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

    def state(self) -> Exchange:
        return Exchange()

    def request(self, link: Link, data: bytes) -> None:
        """Forward whole requests only: a client sends all of one before it waits for the reply.

        It is a new trip, unless replies of the last one are missing, and waits while it is held.
        """
        link.state.requests.feed(data)
        names = tuple(self._name(words) for words in _whole(link.state.requests))
        with self._changed:
            if not link.state.trip.owed:
                link.state.trip = Trip()
                self.trips.append(link.state.trip)
            trip = link.state.trip
            trip.names += names
            trip.sent += len(data)
            trip.owed += len(names)
            self.held.append(names)
            self._changed.wait_for(lambda: not self._holds(names))
            self.held.remove(names)
        super().request(link, data)

    def reply(self, link: Link, data: bytes) -> None:
        link.state.replies.feed(data)
        with self._changed:
            link.state.trip.received += len(data)
            link.state.trip.owed -= len(_whole(link.state.replies))
        super().reply(link, data)

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
