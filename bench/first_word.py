"""`python -m bench.first_word`: what the gateway adds between Dify's first delta and the moment a person can see it.

A replica set like that of `bench.streams` is at half load: 500 answers with ten deltas a second each. Questions are
asked one after another and their first delta awaited, in turns by WeCom's polls, each sent as soon as the last one is
answered, and by a WebSocket. The delay includes a poll's own time: `first_word.round_trip` measures that alone.
"""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from bench.figures import Figure, percentile
from bench.load.callbacks import Callbacks
from bench.load.posting import exchange
from bench.load.socket_clients import Client, Crowd, stamps
from bench.report import show
from bench.stage.replicas import allow_files, redis_server
from bench.streams import Streams, staged

#: Running answers in the background: half the maximum of `bench.streams`.
BACKGROUND = 500
#: Probes of each kind in a round.
ROUNDS, PROBES = 3, 100
#: Deltas of a probe's answer.
PIECES = 3
#: Number of sockets, which ask in turns and are spread over the workers.
SOCKETS = 8
#: Timeout for a first word, in seconds.
TIMEOUT = 20.0
#: Limits are off or raised, because all questions come from one address and a socket belongs to one person.
SETTINGS = {"WEBSOCKET_AUTH": "none", "RATE_LIMIT_USER": "off", "RATE_LIMIT_IP": "off"}


@dataclass(slots=True)
class Round:
    """Delays in seconds, of first words by polls and by sockets, and of single polls; and the workers' CPU share."""

    polls: list[float] = field(default_factory=list)
    sockets: list[float] = field(default_factory=list)
    round_trips: list[float] = field(default_factory=list)
    #: Percent of a core.
    workers_share: float = 0.0


class FirstWords:
    """Measures the first words of one replica set."""

    def __init__(self, streams: Streams, crowd: Crowd) -> None:
        self._streams = streams
        self._crowd = crowd
        self._callbacks = Callbacks()
        self._clients = [Client(f"probe-{number}") for number in range(SOCKETS)]
        self._turn = cycle(self._clients)
        self._asked = 0
        for client in self._clients:
            crowd.join(client)

    def round(self, probes: int) -> Round:
        """Raises: TimeoutError: a first word did not arrive."""
        result = Round()
        began, cpu = time.monotonic(), self._streams.replica.cpu
        for _ in range(probes):
            result.polls.append(self._by_polls(result.round_trips))
            result.sockets.append(self._by_socket())
        result.workers_share = 100 * (self._streams.replica.cpu - cpu) / (time.monotonic() - began)
        return result

    def _question(self) -> str:
        self._asked += 1
        return f"第一个字 {self._asked} *{PIECES}"

    def _by_polls(self, round_trips: list[float]) -> float:
        """Ask, poll until text arrives, and return the seconds between Dify's delta and the poll's reply."""
        question = self._question()
        end = time.monotonic() + TIMEOUT
        with socket.create_connection(("127.0.0.1", self._streams.replica.port), TIMEOUT) as line:
            asked = exchange(line, self._callbacks.question(question, question))
            poll = self._callbacks.refresh(self._callbacks.opened(asked)["id"], question)
            while time.monotonic() < end:
                began = time.time()
                body = exchange(line, poll)
                seen = time.time()
                round_trips.append(seen - began)
                first = next(stamps(self._callbacks.opened(body)["content"]), None)
                if first is not None:
                    return seen - first
        raise TimeoutError(f"{question}: no word by polls")

    def _by_socket(self) -> float:
        client, question = next(self._turn), self._question()
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
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        store = stack.enter_context(redis_server(folder))
        streams = stack.enter_context(staged(folder, store, **SETTINGS))
        words = FirstWords(streams, stack.enter_context(Crowd(streams.replica.port)))
        streams.ask(count, "background")
        rounds = [words.round(max(2, round(PROBES * scale))) for _ in range(ROUNDS)]
    yield from _figures(rounds, f"while {count} answers go on")


def _figures(rounds: Sequence[Round], load: str) -> Iterator[Figure]:
    beside = "first_word.round_trip"

    def figure(name: str, about: str, percent: float, delays: Callable[[Round], list[float]], **more: str) -> Figure:
        values = tuple(1000 * percentile(delays(each), percent) for each in rounds)
        return Figure(f"first_word.{name}", values, "ms", about, **more)

    yield figure("round_trip", f"median of a single poll, {load}", 50, lambda each: each.round_trips)
    for percent, goal in ((50, "< 10"), (99, "< 60")):
        more = {"goal": goal, "yardstick": beside}
        yield figure(f"poll.p{percent}", "Dify's first delta to its poll", percent, lambda each: each.polls, **more)
        yield figure(f"socket.p{percent}", "to its socket's frame", percent, lambda each: each.sockets, **more)
    shares = tuple(each.workers_share for each in rounds)
    yield Figure("first_word.workers_share", shares, "%", f"of a core that the workers take, {load}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table; return 0 if every goal is reached."""
    parser = argparse.ArgumentParser(prog="python -m bench.first_word", description="How long a first word takes.")
    parser.add_argument("--scale", type=float, default=1.0, help="number of answers and probes, beside the usual one")
    figures = show(measure(parser.parse_args(argv).scale))
    return 0 if all(figure.met is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
