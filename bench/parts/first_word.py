"""What the gateway adds between Dify's first delta and the moment a person can see it.

A replica like that of `streams` is at half load: 500 answers with ten deltas a second each. Questions are asked one
after another and their first delta awaited, in turns by WeCom's polls, each sent as soon as the last one is answered,
and by a WebSocket. The delay includes a poll's own time: `first_word.round_trip` measures that alone.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle

from bench.figures import Figure, figure, percentile
from bench.load.callbacks import Callbacks, exchange
from bench.load.socket_clients import Client, Crowd
from bench.parts.streams import Streams
from bench.stage.dify import sent_times
from bench.stage.servers import allow_files
from bench.stage.stage import Stage

#: Running answers in the background: half the maximum of `bench.parts.streams`.
BACKGROUND = 500
#: Rounds, probes of each kind in a round, and deltas of a probe's answer.
ROUNDS, PROBES, PIECES = 3, 100, 3
#: Number of sockets, which ask in turns and are spread over the workers.
SOCKETS = 8
#: Timeout for a first word, in seconds.
TIMEOUT = 20.0
#: Limits are off, because all questions come from one address and a socket belongs to one person.
SETTINGS = {"WEBSOCKET_AUTH": "none", "RATE_LIMIT_USER": "off", "RATE_LIMIT_KEY": "off", "RATE_LIMIT_IP": "off"}


@dataclass(slots=True)
class Round:
    """Delays in seconds, of first words by polls and by sockets, and of single polls; and the workers' CPU share."""

    polls: list[float] = field(default_factory=list)
    sockets: list[float] = field(default_factory=list)
    round_trips: list[float] = field(default_factory=list)
    #: Percent of a core.
    workers_share: float = 0.0


class Probes:
    """Asks one replica, and measures when the first word of each answer arrives."""

    def __init__(self, streams: Streams, crowd: Crowd) -> None:
        self._replica = streams.replica
        self._crowd = crowd
        self._callbacks = Callbacks()
        clients = [Client(f"probe-{number}") for number in range(SOCKETS)]
        for client in clients:
            crowd.join(client)
        self._clients = cycle(clients)
        self._asked = 0

    def round(self, probes: int) -> Round:
        """Raises: TimeoutError: a first word did not arrive."""
        result = Round()
        began, cpu = time.monotonic(), self._replica.cpu
        for _ in range(probes):
            result.polls.append(self._by_polls(result.round_trips))
            result.sockets.append(self._by_socket())
        result.workers_share = 100 * (self._replica.cpu - cpu) / (time.monotonic() - began)
        return result

    def _question(self) -> str:
        self._asked += 1
        return f"第一个字 {self._asked} *{PIECES}"

    def _by_polls(self, round_trips: list[float]) -> float:
        """Ask, poll until text arrives, and return the seconds between Dify's delta and the poll's reply."""
        question, end = self._question(), time.monotonic() + TIMEOUT
        with socket.create_connection(("127.0.0.1", self._replica.port), TIMEOUT) as connection:
            reply = exchange(connection, self._callbacks.question(question, question))
            poll = self._callbacks.refresh(self._callbacks.opened(reply)["id"], question)
            while time.monotonic() < end:
                began = time.time()
                body = exchange(connection, poll)
                arrived = time.time()
                round_trips.append(arrived - began)
                first = next(sent_times(self._callbacks.opened(body)["content"]), None)
                if first is not None:
                    return arrived - first
        raise TimeoutError(f"{question}: no word by polls")

    def _by_socket(self) -> float:
        client, question = next(self._clients), self._question()
        # Wait until the client's previous answer is complete.
        self._crowd.listen(lambda: not client.question or bool(client.status), TIMEOUT)
        client.delays.clear()
        client.ask(question)
        if not self._crowd.listen(lambda: bool(client.delays), TIMEOUT):
            raise TimeoutError(f"{question}: no word by a socket")
        return client.delays[0]


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """Yield the figures; `scale` multiplies the numbers of answers and probes."""
    allow_files(8 * BACKGROUND)
    count = max(4, round(BACKGROUND * scale))
    with Stage(own_core=False) as stage:
        streams = Streams(stage, **SETTINGS)
        probes = Probes(streams, stage.enter_context(Crowd(streams.replica.port)))
        streams.ask(count, "background")
        rounds = [probes.round(max(2, round(PROBES * scale))) for _ in range(ROUNDS)]
    load = f"while {count} answers go on"
    trip = figure("first_word.round_trip", rounds, _delay("round_trips", 50), "ms", f"median of a single poll, {load}")
    yield trip
    for percent, goal in ((50, "< 10"), (99, "< 60")):
        for name, about in (("poll", "Dify's first delta to its poll"), ("socket", "to its socket's frame")):
            delay, more = _delay(f"{name}s", percent), {"goal": goal, "yardstick": trip.name}
            yield figure(f"first_word.{name}.p{percent}", rounds, delay, "ms", about, **more)
    about = f"of a core that the workers take, {load}"
    yield figure("first_word.workers_share", rounds, lambda one: one.workers_share, "%", about)


def _delay(name: str, percent: float) -> Callable[[Round], float]:
    """Return a function that gives this percentile of a round's delays of this name, in milliseconds."""
    return lambda one: 1000 * percentile(getattr(one, name), percent)
