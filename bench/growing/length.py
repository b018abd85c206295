"""The cost of a delta, and of a byte of a poll's reply, in answers of 1,000 to 16,000 deltas.

Answers stop at half their length. The second half is measured, with equal numbers of deltas of each length in turns,
so that other load on the machine affects all lengths alike; short answers are asked for again. Then they are polled.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import redis

from bench.figures import Figure
from bench.growing.meter import Meter, Said, settle, table
from bench.load.callbacks import Callbacks
from bench.load.generator import Generator, Job, LoadFailed, generator
from bench.load.turns import production, two_cores, worker
from bench.stage.cheap_dify import CheapDify, cheap_dify
from bench.stage.replicas import WITHIN, Replica, redis_server, wait_for
from services.streams.store import stream_keys

LENGTHS = {"1k": 1000, "2k": 2000, "4k": 4000, "8k": 8000, "16k": 16000}
#: Deltas in one step of an answer, and the minimum in a shortened run. Writes are paced: a measurement of less than a
#: second would contain a varying number of them.
STEP, SHORTEST = 500, 200
#: Concurrent answers of a length, seconds between two deltas of an answer, and seconds in which all are asked for.
ANSWERS, EVERY, ASKING = 10, 0.004, 0.1
#: Rounds of all lengths, turns of each length in a round, and seconds after a turn until all deltas are written.
ROUNDS, TURNS, SETTLING = 2, 8, 0.25
#: Slices of polls in a round, seconds of a slice, and connections.
POLL_SLICES, POLL_SLICE, CONNECTIONS = 8, 0.5, 64
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
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        server, others = two_cores()
        store = stack.enter_context(redis_server(folder, others))
        dify = stack.enter_context(cheap_dify(1, EVERY, others))
        settings = production(store.url, DIFY_BASE_URL=dify.base_url)
        replica = stack.enter_context(worker(settings, folder, server))
        load = stack.enter_context(generator(others))
        client = stack.enter_context(redis.Redis.from_url(store.url, decode_responses=True))
        meter = stack.enter_context(Meter(store, [replica]))
        rounds = Lengths(client, meter, dify, replica, load, scale).rounds(max(1, round(ROUNDS * scale)))
    yield from table("growth.length", COSTS, rounds)


class Lengths:
    """Measures one worker with answers of all lengths."""

    def __init__(
        self, client: redis.Redis, meter: Meter, dify: CheapDify, replica: Replica, load: Generator, scale: float
    ) -> None:
        self._redis = client
        self._meter = meter
        self._dify = dify
        self._port = replica.port
        self._load = load
        self._scale = scale
        self._deltas = {which: max(SHORTEST, round(deltas * scale)) for which, deltas in LENGTHS.items()}
        self._step = min(STEP, min(self._deltas.values()) // 2)
        self._streams: dict[str, list[str]] = {}
        self._callbacks = Callbacks()

    def rounds(self, count: int) -> dict[str, Said]:
        """Measure writing and polling in this many rounds; return the costs by length."""
        rounds: dict[str, Said] = {which: defaultdict(list) for which in LENGTHS}
        self._dify.halt()
        for _ in range(count):
            costs: dict[str, Said] = {which: defaultdict(list) for which in LENGTHS}
            for turn in range(max(1, round(TURNS * self._scale))):
                self._begin([which for which in LENGTHS if turn % self._turns(which) == 0])
                for which in LENGTHS:
                    self._go_on(which, costs[which])
            self._dify.let("", max(self._deltas.values()))
            self._wait_whole(LENGTHS)
            for which in LENGTHS:
                costs[which]["redis_memory"].append(self._kept(which))
            for which in [*LENGTHS] * POLL_SLICES:
                self._poll(which, costs[which])
            for which in LENGTHS:
                settle(rounds[which], costs[which])
        return rounds

    def _turns(self, which: str) -> int:
        """Return how many steps the second half of an answer of this length has."""
        return self._deltas[which] // 2 // self._step

    def _begin(self, lengths: Sequence[str]) -> None:
        """Ask for answers of these lengths, timed so that all reach their half together."""
        self._wait_whole(set(lengths) & self._streams.keys())
        halves = {which: self._deltas[which] // 2 for which in lengths}
        held, longest, begin = (
            self._dify.deltas + ANSWERS * sum(halves.values()),
            max(halves.values()),
            time.monotonic(),
        )
        for which in sorted(lengths, key=lambda which: -halves[which]):
            time.sleep(max(0.0, begin + (longest - halves[which]) * EVERY - time.monotonic()))
            self._streams[which] = self._asked(which)
        wait_for(lambda: self._dify.deltas >= held, "half of the deltas", longest * EVERY + TIMEOUT)
        time.sleep(SETTLING)

    def _asked(self, which: str) -> list[str]:
        words, deltas = f"{which}：年假怎么申请？", self._deltas[which]
        questions = [self._callbacks.question(f"{words}{each}*{deltas}", f"{which}-{each}") for each in range(ANSWERS)]
        # Half a question less, so that the last one is due before the end and none after it.
        job = Job(self._port, questions, ASKING, ANSWERS, (ANSWERS - 0.5) / ASKING, samples=ANSWERS)
        # In the order of the questions, because each answer is polled by its own person; replies may arrive in another.
        replies = self._load.run(job).bodies
        return [self._callbacks.opened(replies[each])["id"] for each in range(ANSWERS)]

    def _go_on(self, which: str, costs: Said) -> None:
        """Let answers of this length continue by some deltas, and record the cost of writing them."""
        deltas = self._step * ANSWERS
        net, sent, cpu = self._meter.stored().net, self._dify.deltas, self._meter.cpu()
        self._dify.let(f"{which}：", self._step)
        wait_for(lambda: self._dify.deltas >= sent + deltas, "some deltas", self._step * EVERY + TIMEOUT)
        time.sleep(SETTLING)
        spent, net = self._meter.cpu() - cpu, self._meter.stored().net - net
        costs["cpu_per_delta"].append(1e6 * spent.workers / deltas)
        costs["redis_cpu_per_delta"].append(1e6 * spent.redis / deltas)
        costs["redis_bytes"].append(net / deltas)

    def _wait_whole(self, lengths: Iterable[str]) -> None:
        wait_for(lambda: all(self._whole(self._streams[which]) for which in lengths), "whole answers", TIMEOUT)

    def _kept(self, which: str) -> float:
        """Return the bytes that Redis stores per delta of these answers."""
        kept = 0
        for stream in self._streams[which]:
            keys = stream_keys(stream)
            kept += sum(self._redis.memory_usage(key, samples=0) or 0 for key in (keys.hash, keys.messages))
            kept += self._redis.strlen(keys.text)
        return kept / ANSWERS / self._deltas[which]

    def _whole(self, streams: Sequence[str]) -> bool:
        return all(self._redis.hget(stream_keys(stream).hash, "status") == "completed" for stream in streams)

    def _poll(self, which: str, costs: Said) -> None:
        """Poll these answers for one slice, and record the cost."""
        requests = [
            self._callbacks.refresh(stream, f"{which}-{each}") for each, stream in enumerate(self._streams[which])
        ]
        net, cpu = self._meter.stored().net, self._meter.cpu()
        outcome = self._load.run(Job(self._port, requests, POLL_SLICE * self._scale, CONNECTIONS, samples=ANSWERS))
        spent, net = self._meter.cpu() - cpu, self._meter.stored().net - net
        for shown in map(self._callbacks.opened, outcome.bodies.values()):
            if not shown["finish"] or WITHIN not in shown["content"]:
                raise LoadFailed(f"not the answer: {str(shown)[:200]}")
        costs["poll_cpu_per_byte"].append(1e9 * spent.workers / outcome.received)
        costs["poll_redis_cpu_per_byte"].append(1e9 * spent.redis / outcome.received)
        costs["poll_redis_bytes"].append(net / outcome.received)
