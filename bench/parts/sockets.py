"""The cost of many WebSockets for one worker: some stay idle, the others get answers.

Every delta of an answer contains its send time. Clients, Redis and the mock Dify share one core, so delays are longer
than in production.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.figures import Figure, figure, percentile
from bench.load.socket_clients import Client, Crowd
from bench.stage.dify import MockDify
from bench.stage.servers import Replica, allow_files
from bench.stage.stage import Stage

#: Sockets that only listen, and sockets that ask.
IDLE, ANSWERING = 1000, 200
#: Deltas of an answer, seconds between two of them, and seconds within which all clients ask.
PIECES, EVERY, WITHIN = 80, 0.25, 4.0
#: Seconds of rest before memory is read, seconds in which idle CPU is measured, and rounds.
REST, IDLE_SECONDS, ROUNDS = 3.0, 20.0, 3
#: Timeout in seconds beyond an answer's own duration, for a takeover on a busy machine.
TIMEOUT = 90.0


@dataclass(frozen=True, slots=True)
class Round:
    """The cost of answering: CPU in microseconds per delta, additional KiB per socket, delays in seconds."""

    cpu: float
    kib: float
    delays: Sequence[float]


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """Yield the figures; `scale` multiplies numbers of sockets and deltas, and times."""
    idle, answering, pieces = round(IDLE * scale), max(2, round(ANSWERING * scale)), max(8, round(PIECES * scale))
    allow_files(4 * (idle + answering) + 2000)
    with Stage() as stage:
        dify = stage.dify(pieces, EVERY)
        replica = stage.replica(stage.redis(), dify, **settings(idle + answering))
        sockets = Sockets(stage.enter_context(Crowd(replica.port)), replica, dify, pieces, scale)
        sockets.round([Client("warm")], "warm")
        yield from sockets.idle(idle)
        yield from sockets.answering(answering)


class Sockets:
    """Measures one worker with idle sockets, and then with sockets that get answers of so many deltas."""

    def __init__(self, crowd: Crowd, replica: Replica, dify: MockDify, pieces: int, scale: float) -> None:
        self._crowd, self._replica, self._dify = crowd, replica, dify
        self._pieces, self._scale = pieces, scale
        self._errors: list[str] = []

    def idle(self, count: int) -> Iterator[Figure]:
        before = self._rested()
        for number in range(count):
            self._crowd.join(Client(f"idle-{number}"))
        kib = (self._rested() - before) / count
        yield Figure("sockets.idle_kib", (kib,), "KiB", f"memory of each of {count} idle sockets")
        shares = tuple(self._share(IDLE_SECONDS * self._scale / ROUNDS) for _ in range(ROUNDS))
        yield Figure("sockets.idle_cpu", shares, "%", "of a core that all of these take")

    def answering(self, count: int) -> Iterator[Figure]:
        clients = [Client(f"asking-{number}") for number in range(count)]
        rounds = [self.round(clients, f"round {number}") for number in range(ROUNDS)]
        # Only of the first round: later rounds reuse its memory.
        yield Figure("sockets.answering_kib", (rounds[0].kib,), "KiB", f"more for each of {count} that are answered")
        about = f"CPU of the worker per delta, questions included, {1 / EVERY:g} a second"
        yield figure("sockets.cpu_per_piece", rounds, lambda one: one.cpu, "µs", about)
        for percent in (50, 99):
            delays = tuple(1000 * percentile(one.delays, percent) for one in rounds)
            yield Figure(f"sockets.delay_p{percent}", delays, "ms", "delta sent to its frame at the client")
        about = "not whole byte for byte, or asked twice"
        yield Figure("sockets.wrong", (len(self._errors),), "answers", about, goal="<= 0")

    def round(self, clients: Sequence[Client], name: str) -> Round:
        """Have these clients answered, and measure the cost; `name` must be unique."""
        for client in clients:
            client.delays.clear()
            if not client.connects:
                self._crowd.join(client)
        before, cpu = self._rested(), self._replica.cpu
        ask(self._crowd, clients, name, WITHIN * self._scale)
        self._crowd.listen_for(self._pieces * EVERY / 2)
        kib = (self._replica.rss - before) / len(clients)
        self._errors += answer_errors(self._crowd, clients, self._dify, self._pieces * EVERY)
        cpu_per_piece = 1e6 * (self._replica.cpu - cpu) / (self._pieces * len(clients))
        return Round(cpu_per_piece, kib, [delay for client in clients for delay in client.delays])

    def _rested(self) -> int:
        """Return the worker's memory after a rest, in KiB."""
        self._crowd.listen_for(REST * self._scale)
        return self._replica.rss

    def _share(self, seconds: float) -> float:
        """Return the percent of a core that the worker takes."""
        cpu = self._replica.cpu
        self._crowd.listen_for(seconds)
        return 100 * (self._replica.cpu - cpu) / seconds


def settings(sockets: int) -> dict[str, Any]:
    """Return settings for so many sockets from one address."""
    limits = {"RATE_LIMIT_USER": "off", "RATE_LIMIT_KEY": "off", "RATE_LIMIT_IP": "off", "CONNECTIONS_PER_IP": "0"}
    return {"WEBSOCKET_AUTH": "none", "SOCKETS_MAX": str(sockets + 100), **limits}


def ask(crowd: Crowd, clients: Sequence[Client], name: str, seconds: float) -> None:
    """Let each client ask within this many seconds; `name` must be unique."""
    for client in clients:
        client.ask(f"{name} {client.name}")
        crowd.listen_for(seconds / len(clients))


def answer_errors(crowd: Crowd, clients: Sequence[Client], dify: MockDify, seconds: float) -> list[str]:
    """Listen until all answers are complete; describe each that is not the provider's text or was asked for twice.

    `seconds` is the duration of an answer.
    """
    crowd.listen(lambda: all(client.status for client in clients), seconds + TIMEOUT)
    answers, asks = dify.transcript()
    return [error for client in clients if (error := _error(client, answers, asks))]


def _error(client: Client, answers: Mapping[str, str], asks: Mapping[str, int]) -> str:
    if client.status != "completed":
        return f"{client.question}: {client.status or 'not whole in time'}"
    if client.text != answers.get(client.question):
        return f"{client.question}: not the provider's text"
    return "" if asks[client.question] == 1 else f"{client.question}: asked for {asks[client.question]} times"
