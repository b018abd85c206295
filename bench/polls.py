"""`python -m bench.polls`: the cost of a poll of a running answer, compared with the floor (bench/load/floor.py).

One worker of each, on the first core; Redis and the load generator on the second. Both read the same streams with the
same callbacks, in turns: floor, product, floor, product. Figures are of the product unless they say otherwise.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import Figure, percentile, ratios
from bench.load.generator import Job, LoadFailed, generator
from bench.load.live_streams import LiveStreams, prose
from bench.load.turns import FLOOR, Bench, Turn, production, two_cores, worker
from bench.report import show
from bench.stage.replicas import Replica, redis_server

#: Polling connections, and the running answers they poll: the maximum of one replica.
CONNECTIONS, STREAMS = 64, 1000
#: Bytes of the streams' texts, by their name in figures.
SIZES = {"1k": 1024, "16k": 16 * 1024}
#: Number and seconds of rounds: many short ones, so that other load on the machine affects few of them.
ROUNDS, ROUND = 20, 1.0
#: Seconds of warm-up before the rounds.
WARM = 1.5
#: Polls a second and seconds of the run at a fixed rate.
PACE, PACED = 1000.0, 10.0
#: Number of replies checked in each round.
SAMPLES = 16


@dataclass
class Rounds:
    """The rounds of floor and product, in the same order."""

    floor: list[Turn] = field(default_factory=list)
    product: list[Turn] = field(default_factory=list)


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """Yield the figures; `scale` multiplies all durations.

    Raises:
        LoadFailed: a reply was wrong.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        server, others = two_cores()
        store = stack.enter_context(redis_server(folder, others))
        settings = production(store.url)
        floor = stack.enter_context(worker(settings, folder, server, FLOOR))
        product = stack.enter_context(worker(settings, folder, server))
        bench = Bench(stack.enter_context(generator(others)), store)
        streams = {which: LiveStreams(which, prose(size), STREAMS) for which, size in SIZES.items()}
        for one in streams.values():
            one.write(store.url)
        yield from Polls(bench, floor, product, streams, scale).figures()


class Polls:
    """Polls floor and product in turns, and then the product alone at a fixed rate."""

    def __init__(
        self, bench: Bench, floor: Replica, product: Replica, streams: dict[str, LiveStreams], scale: float
    ) -> None:
        self._bench = bench
        self._floor = floor
        self._product = product
        self._streams = streams
        # Signed once: the signatures are valid for ten minutes.
        self._polls = {which: some.polls() for which, some in streams.items()}
        self._scale = scale

    def figures(self) -> Iterator[Figure]:
        for which in SIZES:
            yield from self._beside_the_floor(which)
        yield from self._paced()
        yield Figure("polls.rss", (self._product.rss / 1024,), "MiB", "memory of the worker after all that")

    def _beside_the_floor(self, which: str) -> Iterator[Figure]:
        rounds = self._rounds(which)
        size = f"{which.replace('k', ' KiB')} of text"
        floor, floor_cpu = f"polls.floor.{which}", f"polls.floor_cpu.{which}"
        ours, least = ([turn.outcome.rate for turn in side] for side in (rounds.product, rounds.floor))
        yield Figure(floor, tuple(least), "polls/s", f"bare WSGI function, {size}")
        yield Figure(f"polls.product.{which}", tuple(ours), "polls/s", f"product, {size}", yardstick=floor)
        yield ratios(f"polls.ratio.{which}", ours, least, "product / floor, round by round", goal=">= 1.0")
        yield _each(
            floor_cpu, rounds.floor, lambda turn: turn.micros, "µs", f"CPU of the floor's worker a poll, {size}"
        )
        about = f"CPU of the worker a poll, {size}"
        yield _each(f"polls.cpu.{which}", rounds.product, lambda turn: turn.micros, "µs", about, yardstick=floor_cpu)
        yield from _around(which, rounds, size, len(self._polls[which][0]))

    def _rounds(self, which: str) -> Rounds:
        rounds = Rounds()
        self._turn(self._floor, which, WARM)
        self._turn(self._product, which, WARM)
        for _ in range(max(3, round(ROUNDS * self._scale))):
            rounds.floor.append(self._turn(self._floor, which, ROUND))
            rounds.product.append(self._turn(self._product, which, ROUND))
        return rounds

    def _turn(self, replica: Replica, which: str, seconds: float, rate: float | None = None) -> Turn:
        shorter = min(1.0, 3 * self._scale) * seconds
        job = Job(replica.port, self._polls[which], shorter, CONNECTIONS, rate, samples=SAMPLES)
        turn = self._bench.turn(replica, job)
        if wrong := self._streams[which].wrong(turn.outcome.bodies):
            raise LoadFailed(f"not what the stream shows: {wrong[0][:300]}")
        return turn

    def _paced(self) -> Iterator[Figure]:
        turn = self._turn(self._product, "1k", PACED, PACE)
        for name, percent, goal in (("polls.p50", 50, ""), ("polls.p99", 99, "< 50")):
            delay = 1000 * percentile(turn.outcome.delays, percent)
            yield Figure(name, (delay,), "ms", f"p{percent} of a poll at {PACE:g} a second", goal=goal)


def _around(which: str, rounds: Rounds, size: str, request: int) -> Iterator[Figure]:
    """Yield the figures of a poll's delay, bytes and Redis use; `request` is the request's bytes."""
    product = rounds.product
    about = f"CPU of Redis a poll, {size}"
    yield _each(f"polls.redis_cpu.{which}", product, lambda turn: 1e6 * turn.redis / turn.count, "µs", about)
    about = f"to and from Redis a poll, {size}"
    yield _each(f"polls.redis_net.{which}", product, lambda turn: turn.redis_bytes / turn.count, "B", about)
    about = f"to and from WeCom a poll, {size}"
    yield _each(f"polls.bytes.{which}", product, lambda turn: request + turn.outcome.received / turn.count, "B", about)
    if which == "1k":
        about = f"mean of a poll, {CONNECTIONS} at a time"
        yield _each("polls.mean", product, lambda turn: 1000 * sum(turn.outcome.delays) / turn.count, "ms", about)
        about = "of a core that the load generator takes"
        yield _each("polls.load_share", [*rounds.floor, *product], lambda turn: turn.outcome.share, "%", about)


def _each(
    name: str, turns: Sequence[Turn], value: Callable[[Turn], float], unit: str, about: str, *, yardstick: str = ""
) -> Figure:
    return Figure(name, tuple(map(value, turns)), unit, about, yardstick=yardstick)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table; return 0 if every goal is reached."""
    parser = argparse.ArgumentParser(prog="python -m bench.polls", description="What a poll costs.")
    parser.add_argument("--scale", type=float, default=1.0, help="how long it takes, beside its usual time")
    figures = show(measure(parser.parse_args(argv).scale))
    return 0 if all(figure.met is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
