"""The cost of a delta, and of a byte of a poll's reply, in answers of 1,000 to 16,000 deltas.

Answers stop at half their length. The second half is measured, with equal numbers of deltas of each length in turns,
so that other load on the machine affects all lengths alike; short answers are asked for again. Then they are polled.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import redis

from bench.figures import Figure
from bench.load.callbacks import Callbacks
from bench.load.generator import LoadFailed
from bench.parts.growth import Costs, table
from bench.stage.dify import WITHIN
from bench.stage.servers import wait_for
from bench.stage.stage import Meter, Stage
from services.streams.store import stream_keys

LENGTHS = {"1k": 1000, "2k": 2000, "4k": 4000, "8k": 8000, "16k": 16000}
#: Deltas in one step of an answer, and the minimum in a shortened run. Writes are paced: a measurement of less than a
#: second would contain a varying number of them.
STEP, SHORTEST = 500, 200
#: Concurrent answers of a length, seconds between two deltas of an answer, and seconds in which all are asked for.
ANSWERS, EVERY, ASKING = 10, 0.004, 0.1
#: Rounds of all lengths, turns of each length in a round, and seconds after a turn until all deltas are written.
ROUNDS, TURNS, SETTLING = 2, 8, 0.25
#: Slices of polls in a round, and seconds of a slice.
POLL_SLICES, POLL_SLICE = 8, 0.5
#: Timeout in seconds beyond an answer's own duration.
TIMEOUT = 60.0
COSTS = {
    "cpu_per_delta": ("µs", "CPU of the worker per delta"),
    "redis_cpu_per_delta": ("µs", "CPU of Redis per delta"),
    "redis_bytes": ("B", "to and from Redis per delta"),
    "redis_memory": ("B", "kept by Redis per delta, without the room it gives a text that grows"),
    "poll_cpu_per_byte": ("ns", "CPU of the worker per byte of a poll's reply"),
    "poll_redis_cpu_per_byte": ("ns", "CPU of Redis per byte of a poll's reply"),
    "poll_redis_bytes": ("B", "to and from Redis per byte of a poll's reply"),
}


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """Yield the figures; `scale` shortens answers, slices and rounds.

    Raises:
        TimeoutError: an answer was not whole in time.
        LoadFailed: a callback was not answered, or a poll not with the answer.
    """
    rounds = {length: Costs() for length in LENGTHS}
    with Stage() as stage:
        lengths = Lengths(stage, scale)
        for _ in range(max(1, round(ROUNDS * scale))):
            for length, slices in lengths.round().items():
                rounds[length].end_round(slices)
    yield from table("growth.length", COSTS, rounds)


class Lengths:
    """Measures one worker with answers of all lengths."""

    def __init__(self, stage: Stage, scale: float) -> None:
        store = stage.redis()
        self._stage = stage
        self._dify = stage.dify(1, EVERY)
        self._meter = Meter(store, stage.replica(store, self._dify))
        self._redis = redis.Redis.from_url(store.url, decode_responses=True)
        self._scale = scale
        self._deltas = {length: max(SHORTEST, round(deltas * scale)) for length, deltas in LENGTHS.items()}
        self._step = min(STEP, min(self._deltas.values()) // 2)
        self._streams: dict[str, list[str]] = {}
        self._callbacks = Callbacks()

    def round(self) -> dict[str, Costs]:
        """Measure writing, and then polling, with all lengths in turns; return the costs of each slice."""
        slices = {length: Costs() for length in LENGTHS}
        for turn in range(max(1, round(TURNS * self._scale))):
            steps = {length: deltas // 2 // self._step for length, deltas in self._deltas.items()}
            self._begin([length for length in LENGTHS if turn % steps[length] == 0])
            for length in LENGTHS:
                self._write(length, slices[length])
        self._dify.let("", max(self._deltas.values()))
        self._wait_whole(LENGTHS)
        for length in LENGTHS:
            slices[length].add(redis_memory=self._stored(length))
        for length in [*LENGTHS] * POLL_SLICES:
            self._poll(length, slices[length])
        return slices

    def _begin(self, lengths: Sequence[str]) -> None:
        """Ask for answers of these lengths, timed so that all reach their half together."""
        self._wait_whole(set(lengths) & self._streams.keys())
        halves = {length: self._deltas[length] // 2 for length in lengths}
        expected = self._dify.deltas + ANSWERS * sum(halves.values())
        longest, began = max(halves.values()), time.monotonic()
        for length in sorted(lengths, key=lambda length: -halves[length]):
            time.sleep(max(0.0, began + (longest - halves[length]) * EVERY - time.monotonic()))
            self._streams[length] = self._ask(length)
        wait_for(lambda: self._dify.deltas >= expected, "half of the deltas", longest * EVERY + TIMEOUT)
        time.sleep(SETTLING)

    def _ask(self, length: str) -> list[str]:
        """Ask for answers that wait at their half; return their streams' ids."""
        wanted = f"*{self._deltas[length]}/{self._deltas[length] // 2}"
        questions = [
            self._callbacks.question(f"{length}：年假怎么申请？{number}{wanted}", f"{length}-{number}")
            for number in range(ANSWERS)
        ]
        options: dict[str, Any] = {"connections": ANSWERS, "rate": ANSWERS / ASKING, "samples": ANSWERS}
        # In the order of the questions, because each answer is polled by its own person; replies may arrive in another.
        replies = self._stage.turn(self._meter, questions, **options).outcome.bodies
        return [self._callbacks.opened(replies[number])["id"] for number in range(ANSWERS)]

    def _write(self, length: str, costs: Costs) -> None:
        """Let answers of this length continue by some deltas, and record the cost of writing them."""
        deltas, sent, before = self._step * ANSWERS, self._dify.deltas, self._meter.read()
        self._dify.let(f"{length}：", self._step)
        wait_for(lambda: self._dify.deltas >= sent + deltas, "some deltas", self._step * EVERY + TIMEOUT)
        time.sleep(SETTLING)
        used = self._meter.read() - before
        cpu, redis_cpu = 1e6 * used.workers / deltas, 1e6 * used.redis / deltas
        costs.add(cpu_per_delta=cpu, redis_cpu_per_delta=redis_cpu, redis_bytes=used.net / deltas)

    def _wait_whole(self, lengths: Iterable[str]) -> None:
        keys = [stream_keys(stream).hash for length in lengths for stream in self._streams[length]]
        wait_for(lambda: {self._redis.hget(key, "status") for key in keys} <= {"completed"}, "whole answers", TIMEOUT)

    def _stored(self, length: str) -> float:
        """Return the bytes that Redis stores per delta of these answers."""
        stored = 0
        for keys in map(stream_keys, self._streams[length]):
            stored += sum(self._redis.memory_usage(key, samples=0) or 0 for key in (keys.hash, keys.messages))
            stored += self._redis.strlen(keys.text)
        return stored / ANSWERS / self._deltas[length]

    def _poll(self, length: str, costs: Costs) -> None:
        """Poll these answers for one slice, and record the cost."""
        requests = [
            self._callbacks.refresh(stream, f"{length}-{number}") for number, stream in enumerate(self._streams[length])
        ]
        turn = self._stage.turn(self._meter, requests, POLL_SLICE * self._scale, samples=ANSWERS)
        for shown in map(self._callbacks.opened, turn.outcome.bodies.values()):
            if not shown["finish"] or WITHIN not in shown["content"]:
                raise LoadFailed(f"not the answer: {str(shown)[:200]}")
        used, size = turn.used, turn.outcome.received
        cpu, redis_cpu = 1e9 * used.workers / size, 1e9 * used.redis / size
        costs.add(poll_cpu_per_byte=cpu, poll_redis_cpu_per_byte=redis_cpu, poll_redis_bytes=used.net / size)
