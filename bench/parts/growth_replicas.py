"""Scaling by replicas: the cost of polls, and the number answered, with 1, 2 and 4 replicas on one Redis.

All processes share the machine's cores. So two things are compared: the cost of a poll at a fixed rate per replica,
which does not depend on the cores; and the polls answered without a limit, with the machine's capacity. The same
number of replicas of the floor, measured in turns, shows that capacity.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from bench.figures import Figure, figure, percentile, ratios
from bench.load.live_streams import LiveStreams
from bench.stage.servers import FLOOR, PRODUCT, RedisServer
from bench.stage.stage import Meter, Stage, Turn

COUNTS = (1, 2, 4)
#: The fixed rate per replica, as a share of what one alone answers: four replicas do not saturate two cores.
PACE = 0.1
#: Rounds, slices of each number of replicas in a round, seconds of a slice, and connections to each replica.
ROUNDS, SLICES, SLICE, CONNECTIONS = 3, 6, 0.75, 32
#: The goal for the ratio of measured to ideal throughput.
ADDS_UP = ">= 0.9"


class Round:
    """The result of a round: the cost and the rate of its least disturbed slices."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        cores = len(os.sched_getaffinity(0))
        #: Microseconds of workers and Redis per poll.
        self.cost = percentile([turn.cpu + turn.redis_cpu for turn in turns], 25)
        #: Polls a second.
        self.rate = percentile([turn.outcome.rate for turn in turns], 75)
        #: Percent of all cores, including the load generator.
        self.machine = median(
            100 * (turn.used.workers + turn.used.redis + turn.outcome.cpu) / (turn.outcome.seconds * cores)
            for turn in turns
        )


#: The rounds of each number of replicas.
Rounds = dict[int, list[Round]]


class Servers:
    """Replicas of the product or of the floor, of which any number are polled at once."""

    def __init__(self, stage: Stage, store: RedisServer, config: Path, counts: Sequence[int]) -> None:
        self._stage = stage
        replicas = [stage.replica(store, config=config) for _ in range(max(counts))]
        self._meters = {count: Meter(store, *replicas[:count]) for count in counts}
        #: Polled without a limit, and at the fixed rate.
        self.most: Rounds = {count: [] for count in counts}
        self.paced: Rounds = {count: [] for count in counts}

    def poll_without_limit(self, streams: LiveStreams, seconds: float) -> None:
        self._round(self.most, streams, seconds)

    def poll_at_a_pace(self, streams: LiveStreams, seconds: float) -> None:
        """Poll each replica at `PACE` of the maximum that one alone answered."""
        self._round(self.paced, streams, seconds, PACE * median(one.rate for one in self.most[1]))

    def _round(self, rounds: Rounds, streams: LiveStreams, seconds: float, rate: float | None = None) -> None:
        def turn(count: int) -> Turn:
            options = {"connections": CONNECTIONS, "rate": rate and rate * count}
            return self._stage.poll(self._meters[count], streams, seconds, **options)

        # Every replica is polled once before the measurement.
        turn(max(rounds))
        turns = [(count, turn(count)) for count in [*rounds] * SLICES]
        for count in rounds:
            rounds[count].append(Round([one for polled, one in turns if polled == count]))


def measure(scale: float = 1.0, counts: Sequence[int] = COUNTS) -> Iterator[Figure]:
    """Yield the figures for these numbers of replicas, which include 1; `scale` multiplies slices and rounds.

    Raises:
        LoadFailed: a poll was not answered.
    """
    with Stage(own_core=False) as stage:
        store = stage.redis()
        streams = LiveStreams("replicas", 1024)
        streams.write(store.url)
        product, floor = (Servers(stage, store, config, counts) for config in (PRODUCT, FLOOR))
        for poll in (Servers.poll_without_limit, Servers.poll_at_a_pace):
            for _ in range(max(1, round(ROUNDS * scale))):
                poll(product, streams, SLICE * scale)
                poll(floor, streams, SLICE * scale)
    yield from figures(product, floor)


def figures(product: Servers, floor: Servers) -> Iterator[Figure]:
    part, most = "growth.replicas", max(product.most)
    for count in product.most:
        name, fast, slow = f"{part}.{count}", product.most[count], product.paced[count]
        yield Figure(f"{name}.cpu", _costs(product, count), "µs", "CPU of workers and Redis per poll, at a pace")
        yield figure(f"{name}.polls", slow, lambda one: one.rate, "polls/s", "answered at that pace")
        about = "of all cores taken at that pace, load included"
        yield figure(f"{name}.machine", slow, lambda one: one.machine, "%", about)
        about = "answered when asked as fast as they answer"
        yield figure(f"{name}.most", fast, lambda one: one.rate, "polls/s", about)
        yield figure(f"{name}.most_machine", fast, lambda one: one.machine, "%", "of all cores taken meanwhile")
        if count > 1:
            about = f"polls/s of {count}, by what {count} times one, or the whole machine, would answer"
            beside = _adds_up(f"{name}.floor_adds_up", floor, count, f"the same of {count} floors")
            yield beside
            yield _adds_up(f"{name}.adds_up", product, count, about, yardstick=beside.name, goal=ADDS_UP)
    beside = ratios(f"{part}.floor_efficiency", _costs(floor, 1), _costs(floor, most), "the same of the floor")
    yield beside
    about, more = (
        f"cost of a poll with one replica / with {most}, at a pace",
        {"yardstick": beside.name, "goal": ADDS_UP},
    )
    yield ratios(f"{part}.efficiency", _costs(product, 1), _costs(product, most), about, **more)


def _costs(servers: Servers, count: int) -> tuple[float, ...]:
    return tuple(one.cost for one in servers.paced[count])


def _adds_up(name: str, servers: Servers, count: int, about: str, **more: str) -> Figure:
    ideal = [min(count * one.rate, 100 * one.rate / one.machine) for one in servers.most[1]]
    return ratios(name, [one.rate for one in servers.most[count]], ideal, about, **more)
