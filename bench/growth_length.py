"""What a delta costs, and a byte of a poll's reply, in answers of 1,000 to 16,000 deltas.

Every length is asked for by as many people and comes as fast, so writes share round trips alike: what differs is the
length. The second half of each answer counts, where it is at least half as long. When all are whole they are polled.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean

import redis

from bench.callbacks import Callbacks
from bench.cheap_dify import CheapDify, cheap_dify
from bench.figures import Figure
from bench.growth_meter import Meter, Said, settle, table
from bench.load import Generator, Job, generator
from bench.stage import Replica, redis_server, wait_for
from bench.turns import production, two_cores, worker
from services.stream_store import stream_keys

LENGTHS = {"1k": 1000, "2k": 2000, "4k": 4000, "8k": 8000, "16k": 16000}
#: Deltas an answer has in each round at least, or several answers together.
AT_LEAST = 4000
#: Deltas of an answer whose half can still be cut into slices, in a run that is shortened.
SHORTEST = 200
#: Answers at once, seconds between two deltas of one, and seconds within which all are asked for.
ANSWERS, EVERY, ASKING = 10, 0.004, 0.1
#: Rounds of all lengths, and seconds of a slice while an answer is written.
ROUNDS, SLICE = 2, 0.25
#: Slices of polls in a round, seconds of one, and connections.
POLL_SLICES, POLL_SLICE, CONNECTIONS = 8, 0.5, 64
#: Seconds beyond an answer's own time until it is given up.
PATIENCE = 60.0
COSTS = {
    "cpu_per_delta": ("µs", "CPU of the worker per delta"),
    "redis_cpu_per_delta": ("µs", "CPU of Redis per delta"),
    "redis_bytes": ("B", "to and from Redis per delta"),
    "redis_memory": ("B", "kept by Redis per delta, while an answer doubles"),
    "poll_cpu_per_byte": ("ns", "CPU of the worker per byte of a poll's reply"),
    "poll_redis_cpu_per_byte": ("ns", "CPU of Redis per byte of a poll's reply"),
    "poll_redis_bytes": ("B", "to and from Redis per byte of a poll's reply"),
}


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """Yield the figures; `scale` shortens answers, slices and rounds.

    Raises:
        TimeoutError: an answer was not whole in time.
        LoadFailed: a callback was not answered.
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
    """One worker, and answers of one length after the other."""

    def __init__(
        self, client: redis.Redis, meter: Meter, dify: CheapDify, replica: Replica, load: Generator, scale: float
    ) -> None:
        self._redis = client
        self._meter = meter
        self._dify = dify
        self._port = replica.port
        self._load = load
        self._scale = scale
        self._slice_deltas = SLICE * scale * ANSWERS / EVERY
        self._callbacks = Callbacks()

    def rounds(self, count: int) -> dict[str, Said]:
        """Have answers written and polled in so many rounds; return what each length cost."""
        self._poll(self._written(self._deltas("1k"), defaultdict(list)), defaultdict(list))
        rounds: dict[str, Said] = {which: defaultdict(list) for which in LENGTHS}
        for _ in range(count):
            streams = {which: self._repeated(self._deltas(which), rounds[which]) for which in LENGTHS}
            slices: dict[str, Said] = {which: defaultdict(list) for which in LENGTHS}
            for which in [*LENGTHS] * POLL_SLICES:
                self._poll(streams[which], slices[which])
            for which in LENGTHS:
                settle(rounds[which], slices[which])
        return rounds

    def _deltas(self, which: str) -> int:
        return max(SHORTEST, round(LENGTHS[which] * self._scale))

    def _repeated(self, deltas: int, rounds: Said) -> list[str]:
        """Do what `_written` does, short answers several times: each length is measured for long enough."""
        for _ in range(round(AT_LEAST * self._scale) // deltas - 1):
            self._written(deltas, rounds)
        return self._written(deltas, rounds)

    def _written(self, deltas: int, rounds: Said) -> list[str]:
        """Have answers of so many deltas written, and note what the second half cost; return their streams."""
        first, empty = self._dify.deltas, self._meter.stored().memory
        streams = self._asked(deltas)
        half, whole = first + ANSWERS * deltas // 2, first + ANSWERS * deltas
        wait_for(lambda: self._dify.deltas >= half, f"half of {deltas} deltas", deltas * EVERY + PATIENCE)
        half, net = self._dify.deltas, self._meter.stored().net
        slices: Said = defaultdict(list)
        while self._dify.deltas + self._slice_deltas <= whole:
            self._slice(slices)
            slices["redis_memory"].append((self._meter.stored().memory - empty) / (self._dify.deltas - first))
        # Redis gives a text that grows up to twice its room. While it doubles, all of that is seen once.
        rounds["redis_memory"].append(fmean(slices.pop("redis_memory")))
        rounds["redis_bytes"].append((self._meter.stored().net - net) / (self._dify.deltas - half))
        settle(rounds, slices)
        wait_for(lambda: self._dify.deltas >= whole and self._whole(streams), f"{deltas} deltas", PATIENCE)
        return streams

    def _asked(self, deltas: int) -> list[str]:
        questions = [self._callbacks.question(f"年假怎么申请？{each}*{deltas}", f"u{each}") for each in range(ANSWERS)]
        # Half of one less: the last is due before the end, and none after it.
        job = Job(self._port, questions, ASKING, ANSWERS, (ANSWERS - 0.5) / ASKING, samples=ANSWERS)
        return [self._callbacks.opened(body)["id"] for body in self._load.run(job).bodies.values()]

    def _slice(self, slices: Said) -> None:
        """Note what so many deltas cost as are sent in a moment."""
        sent, cpu = self._dify.deltas, self._meter.cpu()
        wait_for(lambda: self._dify.deltas >= sent + self._slice_deltas, "a slice of deltas", PATIENCE)
        sent, spent = self._dify.deltas - sent, self._meter.cpu() - cpu
        slices["cpu_per_delta"].append(1e6 * spent.workers / sent)
        slices["redis_cpu_per_delta"].append(1e6 * spent.redis / sent)

    def _whole(self, streams: Sequence[str]) -> bool:
        return all(self._redis.hget(stream_keys(stream).hash, "status") == "completed" for stream in streams)

    def _poll(self, streams: Sequence[str], slices: Said) -> None:
        """Poll these for a moment, and note what it cost."""
        requests = [self._callbacks.refresh(stream, f"u{each}") for each, stream in enumerate(streams)]
        net, cpu = self._meter.stored().net, self._meter.cpu()
        outcome = self._load.run(Job(self._port, requests, POLL_SLICE * self._scale, CONNECTIONS))
        spent, net = self._meter.cpu() - cpu, self._meter.stored().net - net
        slices["poll_cpu_per_byte"].append(1e9 * spent.workers / outcome.received)
        slices["poll_redis_cpu_per_byte"].append(1e9 * spent.redis / outcome.received)
        slices["poll_redis_bytes"].append(net / outcome.received)
