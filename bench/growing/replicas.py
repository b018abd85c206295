"""Scaling by replicas: the cost of polls, and the number answered, with 1, 2 and 4 replicas on one Redis.

All processes share the machine's cores. So two things are compared: the cost of a poll at a fixed rate per replica,
which does not depend on the cores; and the polls answered without a limit, with the machine's capacity. The same
number of replicas of the floor, measured in turns, shows that capacity.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.figures import Figure, percentile, ratios
from bench.growing.meter import Meter
from bench.load.generator import Generator, Job, generator
from bench.load.live_streams import LiveStreams, prose
from bench.load.turns import FLOOR, PRODUCT, production
from bench.stage.replicas import Replica, redis_server, replicas

COUNTS = (1, 2, 4)
#: The fixed rate per replica, as a share of what one alone answers: four replicas do not saturate two cores.
PACE = 0.1
#: Rounds, slices of each number of replicas in a round, seconds of a slice, and connections to each replica.
ROUNDS, SLICES, SLICE, CONNECTIONS = 3, 6, 0.75, 32
#: The goal for the ratio of measured to ideal throughput.
ADDS_UP = ">= 0.9"


@dataclass(frozen=True, slots=True)
class Slice:
    """The polls that some replicas answered in one slice, and their cost."""

    polls: int
    seconds: float
    #: CPU seconds of workers and Redis, and of the load generators.
    served: float
    load: float


class Round:
    """The result of a round: the cost and the rate of its least disturbed slices."""

    def __init__(self, slices: Sequence[Slice]) -> None:
        cores = len(os.sched_getaffinity(0))
        #: Microseconds of workers and Redis per poll.
        self.cost = percentile([1e6 * each.served / each.polls for each in slices], 25)
        #: Polls a second.
        self.rate = percentile([each.polls / each.seconds for each in slices], 75)
        #: Percent of all cores, including the load generators.
        self.machine = median(100 * (each.served + each.load) / (each.seconds * cores) for each in slices)


class Asked(NamedTuple):
    """The rounds of each number of replicas: polled without a limit, and at the fixed rate."""

    most: dict[int, list[Round]]
    paced: dict[int, list[Round]]


def measure(scale: float = 1.0, counts: Sequence[int] = COUNTS) -> Iterator[Figure]:
    """Yield the figures for these numbers of replicas, which include 1; `scale` multiplies slices and rounds.

    Raises:
        LoadFailed: a poll was not answered.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        store = stack.enter_context(redis_server(folder))
        streams = LiveStreams("replicas", prose(1024))
        streams.write(store.url)
        loads = [stack.enter_context(generator()) for _ in range(max(counts))]
        crowds = []
        for config in (PRODUCT, FLOOR):
            serving = stack.enter_context(replicas(len(loads), production(store.url), folder, config=config))
            meters = {count: stack.enter_context(Meter(store, serving[:count])) for count in counts}
            crowds.append(Crowd(serving, loads, meters, streams, SLICE * scale))
        for ask in (Crowd.ask_for_most, Crowd.ask_at_a_pace):
            for _ in range(max(1, round(ROUNDS * scale))):
                for crowd in crowds:
                    ask(crowd)
    yield from _figures(*(crowd.asked for crowd in crowds))


class Crowd:
    """Polls any number of the replicas at once."""

    def __init__(
        self,
        serving: Sequence[Replica],
        loads: Sequence[Generator],
        meters: dict[int, Meter],
        streams: LiveStreams,
        seconds: float,
    ) -> None:
        """Set the replicas, one generator per replica, and one meter per number of replicas."""
        self._serving = serving
        self._loads = loads
        self._meters = meters
        self._streams = streams
        self._seconds = seconds
        self.asked = Asked({number: [] for number in meters}, {number: [] for number in meters})

    def ask_for_most(self) -> None:
        """Run a round that polls each replica as fast as it answers."""
        self._round(self.asked.most, None)

    def ask_at_a_pace(self) -> None:
        """Run a round that polls each replica at `PACE` of the maximum that one alone answered."""
        self._round(self.asked.paced, PACE * median(each.rate for each in self.asked.most[1]))

    def _round(self, rounds: dict[int, list[Round]], rate: float | None) -> None:
        # Every replica is polled once before the measurement.
        self._slice(max(rounds), rate)
        slices = [(number, self._slice(number, rate)) for number in [*rounds] * SLICES]
        for number in rounds:
            rounds[number].append(Round([slice for polled, slice in slices if polled == number]))

    def _slice(self, number: int, rate: float | None) -> Slice:
        requests = self._streams.polls()
        jobs = [Job(each.port, requests, self._seconds, CONNECTIONS, rate) for each in self._serving[:number]]
        before = self._meters[number].cpu()
        with ThreadPoolExecutor(number) as threads:
            outcomes = list(threads.map(Generator.run, self._loads[:number], jobs))
        spent = self._meters[number].cpu() - before
        return Slice(
            sum(len(outcome.delays) for outcome in outcomes),
            max(outcome.seconds for outcome in outcomes),
            spent.workers + spent.redis,
            sum(outcome.cpu for outcome in outcomes),
        )


def _figures(product: Asked, floor: Asked) -> Iterator[Figure]:
    part = "growth.replicas"
    for number in product.most:
        name, fast, slow = f"{part}.{number}", product.most[number], product.paced[number]
        yield Figure(f"{name}.cpu", _costs(product, number), "µs", "CPU of workers and Redis per poll, at a pace")
        yield Figure(f"{name}.polls", tuple(each.rate for each in slow), "polls/s", "answered at that pace")
        about = "of all cores taken at that pace, load included"
        yield Figure(f"{name}.machine", tuple(each.machine for each in slow), "%", about)
        yield Figure(f"{name}.most", _rates(fast), "polls/s", "answered when asked as fast as they answer")
        yield Figure(f"{name}.most_machine", tuple(each.machine for each in fast), "%", "of all cores taken meanwhile")
        if number > 1:
            about = f"polls/s of {number}, by what {number} times one, or the whole machine, would answer"
            yield _adds_up(f"{name}.floor_adds_up", floor, number, f"the same of {number} floors")
            yield _adds_up(f"{name}.adds_up", product, number, about, yardstick=f"{name}.floor_adds_up", goal=ADDS_UP)
    about = f"cost of a poll with one replica / with {max(product.most)}, at a pace"
    yield _efficiency(f"{part}.floor_efficiency", floor, "the same of the floor")
    yield _efficiency(f"{part}.efficiency", product, about, yardstick=f"{part}.floor_efficiency", goal=ADDS_UP)


def _adds_up(name: str, asked: Asked, number: int, about: str, **more: str) -> Figure:
    should = [min(number * one.rate, 100 * one.rate / one.machine) for one in asked.most[1]]
    return ratios(name, _rates(asked.most[number]), should, about, **more)


def _efficiency(name: str, asked: Asked, about: str, **more: str) -> Figure:
    return ratios(name, _costs(asked, 1), _costs(asked, max(asked.most)), about, **more)


def _costs(asked: Asked, number: int) -> tuple[float, ...]:
    return tuple(each.cost for each in asked.paced[number])


def _rates(rounds: Sequence[Round]) -> tuple[float, ...]:
    return tuple(each.rate for each in rounds)
