"""`python -m bench.streams`: the cost of 200, 500 and 1,000 concurrent answers with ten deltas a second each.

One gunicorn with two workers, Redis, the mock Dify and the measuring processes share all cores of this machine; the CPU
use of each is among the figures. Questions are sent by WeCom's channel, and there are no polls. Delays are those of
`SAMPLE` streams (`bench.load.stream_reader`): at most 5 ms and one round trip to Redis too long. Redis's cost of
measuring them is determined before, without load, and subtracted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import redis

from bench.figures import Figure, percentile
from bench.load.callbacks import Callbacks
from bench.load.posting import posted
from bench.load.stream_reader import Reader, reader
from bench.load.stream_yardsticks import yardsticks
from bench.load.turns import production
from bench.report import show
from bench.stage.cheap_dify import CheapDify, cheap_dify
from bench.stage.replicas import RedisServer, Replica, allow_files, redis_server, replicas, wait_for
from services.streams.store import stream_keys

SIZES = (200, 500, 1000)
ROUNDS = 3
#: Seconds between two deltas of an answer.
EVERY = 0.1
#: Deltas of an answer that goes on until it is finished.
ENDLESS = 10**6
#: Questions a second until all answers are running.
ASKED = 100.0
#: Seconds of warm-up, and seconds of the measurement.
SETTLE, STEADY = 1.0, 12.0
#: Seconds in which the reader is measured alone.
LOOKING = 1.0
#: Number of streams whose tails are read, and seconds after which an unfinished answer counts as lost.
SAMPLE, TIMEOUT = 24, 60.0
WORKERS = 2


@dataclass(frozen=True, slots=True)
class Spent:
    """Resources used so far or in an interval: CPU in seconds, `net` in bytes to and from Redis."""

    seconds: float
    workers: float
    redis: float
    dify: float
    net: float
    deltas: float
    dify_net: float

    def __sub__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, each.name) - getattr(other, each.name) for each in fields(self)))


@dataclass(frozen=True, slots=True)
class Turn:
    """The result for one number of answers: steady cost, delays in seconds, number of incomplete answers, KiB."""

    spent: Spent
    delays: Sequence[float]
    lost: int
    rss: int

    def per_delta(self, seconds: float) -> float:
        """Return microseconds."""
        return 1e6 * seconds / self.spent.deltas

    def share(self, seconds: float) -> float:
        """Return percent of a core."""
        return 100 * seconds / self.spent.seconds


class Streams:
    """Measures one replica set with different numbers of answers."""

    def __init__(self, store: RedisServer, dify: CheapDify, replica: Replica, reader: Reader) -> None:
        self.store = store
        self.dify = dify
        self.replica = replica
        self._reader = reader
        self._client = redis.Redis.from_url(store.url, decode_responses=True)
        self._still = self._looking()

    def turn(self, count: int, name: str, steady: float) -> Turn:
        """Stream this many answers at once and measure them for this many seconds; `name` must be unique."""
        asked = self.ask(count, name)
        time.sleep(min(SETTLE, steady))
        before = self._spent()
        delays = self._reader.watch(self.store.url, list(asked.values())[:: max(1, count // SAMPLE)], steady)
        spent, rss = self._spent() - before, self.replica.rss
        looks = spent.seconds / self._still.seconds
        alone = replace(spent, redis=spent.redis - looks * self._still.redis, net=spent.net - looks * self._still.net)
        self.dify.finish()
        return Turn(alone, delays, self.lost(asked), rss)

    def ask(self, count: int, name: str) -> dict[str, str]:
        """Ask questions whose answers run until Dify is told to finish; return their streams' ids."""
        callbacks = Callbacks()
        questions = [f"年假怎么申请 {name} {number}" for number in range(count)]
        requests = [callbacks.question(question, f"{name}-{number}") for number, question in enumerate(questions)]
        replies = posted(self.replica.port, requests, 1 / ASKED)
        return {question: callbacks.opened(body)["id"] for question, body in zip(questions, replies, strict=True)}

    def lost(self, asked: dict[str, str]) -> int:
        """Wait until all answers have ended; return how many differ from Dify's text or were asked more than once."""
        keys = [stream_keys(stream) for stream in asked.values()]
        statuses = [("HGET", key.hash, "status") for key in keys]
        with suppress(TimeoutError):
            wait_for(lambda: "processing" not in self._replies(statuses), "the last end", TIMEOUT)
        found = zip(self._replies(statuses), self._replies([("GET", key.text) for key in keys]), strict=True)
        return len(not_whole(dict(zip(asked, found, strict=True)), *self.dify.told()))

    def _looking(self) -> Spent:
        """Return the cost of the reader alone."""
        before = self._spent()
        self._reader.watch(self.store.url, [f"{number:032x}" for number in range(SAMPLE)], LOOKING)
        return self._spent() - before

    def _replies(self, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
            return pipeline.execute()

    def _spent(self) -> Spent:
        stats = self._client.info("stats")
        net = stats["total_net_input_bytes"] + stats["total_net_output_bytes"]
        cpu = (self.replica.cpu, self.store.cpu, self.dify.cpu)
        return Spent(time.monotonic(), *cpu, net, self.dify.deltas, self.dify.bytes)


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """Yield the figures; `scale` multiplies durations and numbers of answers."""
    allow_files(8 * SIZES[-1])
    naive: list[float] = []
    parse: list[float] = []
    turns: dict[int, list[Turn]] = {size: [] for size in SIZES}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        store = stack.enter_context(redis_server(folder))
        beside = stack.enter_context(yardsticks(store.url, scale))
        streams = stack.enter_context(staged(folder, store))
        # In ascending order, because a worker does not return memory to the system.
        for size, number in product(SIZES, range(max(1, round(ROUNDS * scale)))):
            naive.append(beside.naive())
            parse.append(beside.parse())
            count = max(4, round(size * scale))
            turns[size].append(streams.turn(count, f"{size}-{number}", max(0.5, STEADY * scale)))
    about = "a plain program: requests.iter_lines, json.loads and one RPUSH per delta"
    yield Figure("streams.naive", tuple(naive), "µs", about)
    yield Figure("streams.parse", tuple(parse), "µs", "the same bytes, parsed from memory and nothing else")
    for size in SIZES:
        yield from _figures(size, turns[size])


def not_whole(
    found: Mapping[str, tuple[str | None, str | None]], answers: Mapping[str, str], asks: Mapping[str, int]
) -> list[str]:
    """Return the questions whose stream lacks exactly Dify's text and a completed status, or that were asked twice."""
    return [
        question
        for question, (status, text) in found.items()
        if status != "completed" or text != answers.get(question, "") or asks[question] != 1
    ]


@contextmanager
def staged(folder: Path, store: RedisServer, **more: str) -> Iterator[Streams]:
    """Run a replica set with production settings and `more`."""
    with ExitStack() as stack:
        dify = stack.enter_context(cheap_dify(ENDLESS, EVERY))
        settings = production(store.url, DIFY_BASE_URL=dify.base_url, **more)
        (replica,) = stack.enter_context(replicas(1, settings, folder, workers=WORKERS))
        yield Streams(store, dify, replica, stack.enter_context(reader()))


#: The figures of each size: name, unit, description, goal at the largest size, and a function of the turn.
_ROWS: tuple[tuple[str, str, str, str, Callable[[Turn], float]], ...] = (
    ("delay_p50", "ms", "delta sent to readable in Redis", "", lambda turn: 1000 * percentile(turn.delays, 50)),
    ("delay_p99", "ms", "the slowest hundredth of them", "< 250", lambda turn: 1000 * percentile(turn.delays, 99)),
    ("lost", "answers", "not whole byte for byte, or asked twice", "<= 0", lambda turn: turn.lost),
    ("rss", "MiB", f"memory of {WORKERS} workers together", "< 512", lambda turn: turn.rss / 1024),
    ("cpu_per_delta", "µs", "CPU of the workers per delta", "<= 60", lambda turn: turn.per_delta(turn.spent.workers)),
    ("redis_cpu_per_delta", "µs", "CPU of Redis per delta", "", lambda turn: turn.per_delta(turn.spent.redis)),
    ("redis_net_per_delta", "B", "to and from Redis per delta", "", lambda turn: turn.spent.net / turn.spent.deltas),
    ("dify_net_per_delta", "B", "from Dify per delta", "", lambda turn: turn.spent.dify_net / turn.spent.deltas),
    ("rate", "deltas/s", "that the mock sent", "", lambda turn: turn.spent.deltas / turn.spent.seconds),
    ("workers_share", "%", "of a core that the workers take", "", lambda turn: turn.share(turn.spent.workers)),
    ("redis_share", "%", "of a core that Redis takes", "", lambda turn: turn.share(turn.spent.redis)),
    ("dify_share", "%", "of a core that the mock takes", "", lambda turn: turn.share(turn.spent.dify)),
)


def _figures(size: int, turns: Sequence[Turn]) -> Iterator[Figure]:
    for what, unit, about, goal, value in _ROWS:
        beside = "streams.naive" if what == "cpu_per_delta" else ""
        wanted = goal if size == SIZES[-1] or what == "lost" else ""
        yield Figure(f"streams.{size}.{what}", tuple(map(value, turns)), unit, about, yardstick=beside, goal=wanted)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table; return 0 if every goal is reached."""
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description="What very many answers cost.")
    parser.add_argument("--scale", type=float, default=1.0, help="size of crowds and time, beside the usual ones")
    figures = show(measure(parser.parse_args(argv).scale))
    return 0 if all(figure.met is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
