"""The cost of 200, 500 and 1,000 concurrent answers with ten deltas a second each.

One gunicorn with two workers, Redis, the mock Dify and the measuring process share all cores of this machine; the CPU
use of each is among the figures. Questions are sent by WeCom's channel, and there are no polls. Delays are those of
`SAMPLE` streams (`bench.load.tails`): at most 5 ms and one round trip to Redis too long. Redis's cost of measuring them
is determined before, without load, and subtracted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

import redis

from bench.figures import Figure, figure, percentile
from bench.load import naive, tails
from bench.load.callbacks import Callbacks, post_each
from bench.stage.servers import allow_files, wait_for
from bench.stage.stage import Meter, Stage, Usage
from services.streams.store import stream_keys

SIZES = (200, 500, 1000)
ROUNDS, WORKERS = 3, 2
#: Seconds between two deltas of an answer, and deltas of an answer that goes on until it is finished.
EVERY, ENDLESS = 0.1, 10**6
#: Questions a second until all answers are running.
ASKED = 100.0
#: Seconds of warm-up, of the measurement, and of reading tails without load.
WARM_UP, STEADY, READING = 1.0, 12.0, 1.0
#: Number of streams whose tails are read, and seconds after which an unfinished answer counts as lost.
SAMPLE, TIMEOUT = 24, 60.0


@dataclass(frozen=True, slots=True)
class Round:
    """The result for one number of answers: steady cost, delays in seconds, number of incomplete answers, KiB."""

    used: Usage
    delays: Sequence[float]
    lost: int
    rss: int

    def per_delta(self, seconds: float) -> float:
        """Return microseconds."""
        return 1e6 * seconds / self.used.deltas

    def share(self, seconds: float) -> float:
        """Return percent of a core."""
        return 100 * seconds / self.used.seconds


class Streams:
    """Measures one replica with different numbers of answers."""

    def __init__(self, stage: Stage, **settings: Any) -> None:
        self.store = stage.redis()
        self.dify = stage.dify(ENDLESS, EVERY)
        self.replica = stage.replica(self.store, self.dify, workers=WORKERS, **settings)
        self._meter = Meter(self.store, self.replica, dify=self.dify)
        self._client = redis.Redis.from_url(self.store.url, decode_responses=True)

    def reading(self) -> Usage:
        """Return what reading tails costs Redis."""
        before = self._meter.read()
        tails.watch(self.store.url, [f"{number:032x}" for number in range(SAMPLE)], READING)
        return (self._meter.read() - before)._replace(workers=0.0)

    def round(self, count: int, name: str, seconds: float, reading: Usage) -> Round:
        """Stream this many answers at once and measure them for this many seconds; `name` must be unique."""
        asked = self.ask(count, name)
        time.sleep(min(WARM_UP, seconds))
        before = self._meter.read()
        delays = tails.watch(self.store.url, list(asked.values())[:: max(1, count // SAMPLE)], seconds)
        used, rss = self._meter.read() - before, self.replica.rss
        self.dify.finish()
        return Round(used.without(reading), delays, self._lost(asked), rss)

    def ask(self, count: int, name: str) -> dict[str, str]:
        """Ask questions whose answers run until Dify is told to finish; return their streams' ids."""
        callbacks = Callbacks()
        questions = [f"年假怎么申请 {name} {number}" for number in range(count)]
        requests = [callbacks.question(question, f"{name}-{number}") for number, question in enumerate(questions)]
        replies = post_each(self.replica.port, requests, 1 / ASKED)
        return {question: callbacks.opened(body)["id"] for question, body in zip(questions, replies, strict=True)}

    def _lost(self, asked: dict[str, str]) -> int:
        """Wait until all answers have ended; return how many differ from Dify's text or were asked more than once."""
        keys = [stream_keys(stream) for stream in asked.values()]
        statuses = [("HGET", key.hash, "status") for key in keys]
        with suppress(TimeoutError):
            wait_for(lambda: "processing" not in self._replies(statuses), "the last end", TIMEOUT)
        found = zip(self._replies(statuses), self._replies([("GET", key.text) for key in keys]), strict=True)
        return len(not_whole(dict(zip(asked, found, strict=True)), *self.dify.transcript()))

    def _replies(self, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
            return pipeline.execute()


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """Yield the figures; `scale` multiplies durations and numbers of answers."""
    allow_files(8 * SIZES[-1])
    plain: list[float] = []
    parsed: list[float] = []
    rounds: dict[int, list[Round]] = {size: [] for size in SIZES}
    with Stage(own_core=False) as stage:
        streams = Streams(stage)
        fast_dify = stage.dify(naive.PIECES, naive.EVERY)
        yardsticks = naive.Yardsticks(fast_dify.base_url, streams.store.url, max(100, round(naive.PIECES * scale)))
        reading = streams.reading()
        # In ascending order, because a worker does not return memory to the system.
        for size, number in product(SIZES, range(max(1, round(ROUNDS * scale)))):
            plain.append(yardsticks.naive())
            parsed.append(yardsticks.parse())
            count, seconds = max(4, round(size * scale)), max(0.5, STEADY * scale)
            rounds[size].append(streams.round(count, f"{size}-{number}", seconds, reading))
    about = "a plain program: requests.iter_lines, json.loads and one RPUSH per delta"
    yield Figure("streams.naive", tuple(plain), "µs", about)
    yield Figure("streams.parse", tuple(parsed), "µs", "the same bytes, parsed from memory and nothing else")
    for size in SIZES:
        for what, unit, about, goal, value in _ROWS:
            wanted = goal if size == SIZES[-1] or what == "lost" else ""
            yardstick = "streams.naive" if what == "cpu_per_delta" else ""
            name = f"streams.{size}.{what}"
            yield figure(name, rounds[size], value, unit, about, yardstick=yardstick, goal=wanted)


def not_whole(
    found: Mapping[str, tuple[str | None, str | None]], answers: Mapping[str, str], asks: Mapping[str, int]
) -> list[str]:
    """Return the questions whose stream lacks exactly Dify's text and a completed status, or that were asked twice."""
    return [
        question
        for question, (status, text) in found.items()
        if status != "completed" or text != answers.get(question, "") or asks[question] != 1
    ]


#: The figures of each size: name, unit, description, goal at the largest size, and a function of the round.
_ROWS: tuple[tuple[str, str, str, str, Callable[[Round], float]], ...] = (
    ("delay_p50", "ms", "delta sent to readable in Redis", "", lambda one: 1000 * percentile(one.delays, 50)),
    ("delay_p99", "ms", "the slowest hundredth of them", "< 250", lambda one: 1000 * percentile(one.delays, 99)),
    ("lost", "answers", "not whole byte for byte, or asked twice", "<= 0", lambda one: one.lost),
    ("rss", "MiB", f"memory of {WORKERS} workers together", "< 512", lambda one: one.rss / 1024),
    ("cpu_per_delta", "µs", "CPU of the workers per delta", "<= 60", lambda one: one.per_delta(one.used.workers)),
    ("redis_cpu_per_delta", "µs", "CPU of Redis per delta", "", lambda one: one.per_delta(one.used.redis)),
    ("redis_net_per_delta", "B", "to and from Redis per delta", "", lambda one: one.used.net / one.used.deltas),
    ("dify_net_per_delta", "B", "from Dify per delta", "", lambda one: one.used.dify_net / one.used.deltas),
    ("rate", "deltas/s", "that the mock sent", "", lambda one: one.used.deltas / one.used.seconds),
    ("workers_share", "%", "of a core that the workers take", "", lambda one: one.share(one.used.workers)),
    ("redis_share", "%", "of a core that Redis takes", "", lambda one: one.share(one.used.redis)),
    ("dify_share", "%", "of a core that the mock takes", "", lambda one: one.share(one.used.dify)),
)
