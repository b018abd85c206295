"""Starts the servers of one part, and measures what they use."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import redis

from bench.load.callbacks import AES_KEY, TOKEN
from bench.load.generator import Generator, Job, Outcome
from bench.load.live_streams import LiveStreams
from bench.stage.dify import MockDify, mock_dify
from bench.stage.servers import PRODUCT, RedisServer, Replica, cpu_of, redis_server

#: Number of replies to polls that are checked in each turn.
SAMPLES = 16


class Stage(ExitStack):
    """The servers of one part. They end with the block.

    With `own_core`, replicas run on the first core, and everything else, this process included, on the second. On a
    machine with one core, or without `own_core`, every process runs on any core.
    """

    def __init__(self, *, own_core: bool = True) -> None:
        super().__init__()
        self._folder = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        first, *others = sorted(os.sched_getaffinity(0))
        self._core = {first} if own_core and others else None
        if self._core:
            self.callback(os.sched_setaffinity, 0, {first, *others})
            os.sched_setaffinity(0, {others[0]})
        self.load = self.enter_context(Generator())

    def redis(self) -> RedisServer:
        return self.enter_context(redis_server(self._folder))

    def dify(self, pieces: int, every: float) -> MockDify:
        return self.enter_context(mock_dify(pieces, every))

    def replica(
        self, store: RedisServer, dify: MockDify | None = None, *, config: Path = PRODUCT, workers: int = 1, **more: str
    ) -> Replica:
        """Run a replica of the product, or of the floor, with production settings and `more`."""
        settings = production(store.url, **({"DIFY_BASE_URL": dify.base_url} if dify else {}), **more)
        replica = Replica(settings, self._folder, config, workers=workers, cores=self._core)
        self.callback(replica.kill)
        return replica

    def turn(self, meter: Meter, requests: Sequence[bytes], seconds: float | None = None, **options: Any) -> Turn:
        """Send requests to the meter's replicas, and measure what is used meanwhile; `options` are those of `Job`.

        Raises:
            LoadFailed: see `Generator.run`.
        """
        before = meter.read()
        outcome = self.load.run(Job(meter.ports, requests, seconds, **options))
        return Turn(outcome, meter.read() - before)

    def poll(self, meter: Meter, streams: LiveStreams, seconds: float, **options: Any) -> Turn:
        """Poll prepared streams, and check samples of the replies. Raises: LoadFailed: a reply is missing or wrong."""
        turn = self.turn(meter, streams.polls(), seconds, samples=SAMPLES, **options)
        streams.check(turn.outcome.bodies)
        return turn


class Usage(NamedTuple):
    """What servers have used so far, or between two readings: CPU in seconds, traffic in bytes."""

    seconds: float
    workers: float
    redis: float
    #: To and from Redis.
    net: float
    #: Of the mock Dify: its CPU, and the number and the bytes of its deltas.
    dify: float = 0.0
    deltas: float = 0.0
    dify_net: float = 0.0

    def __sub__(self, before: Usage) -> Usage:
        return Usage(*(now - then for now, then in zip(self, before, strict=True)))

    def without(self, idle: Usage) -> Usage:
        """Subtract what workers and Redis use in the same time while they are idle."""
        part = self.seconds / idle.seconds
        workers, store = self.workers - part * idle.workers, self.redis - part * idle.redis
        return self._replace(workers=workers, redis=store, net=self.net - part * idle.net)


class Meter:
    """Reads what some replicas, their Redis and the mock Dify have used."""

    def __init__(self, store: RedisServer, *replicas: Replica, dify: MockDify | None = None) -> None:
        self.ports = [replica.port for replica in replicas]
        self._client = redis.Redis.from_url(store.url)
        self._store = store
        self._workers = [pid for replica in replicas for pid in replica.workers]
        self._dify = dify

    def read(self) -> Usage:
        stats = self._client.info("stats")
        net = stats["total_net_input_bytes"] + stats["total_net_output_bytes"]
        dify = (self._dify.cpu, self._dify.deltas, self._dify.bytes) if self._dify else ()
        return Usage(time.monotonic(), cpu_of(*self._workers), cpu_of(self._store.pid), net, *dify)

    def idle(self, seconds: float) -> Usage:
        """Return what is used in this many seconds without requests."""
        before = self.read()
        time.sleep(seconds)
        return self.read() - before

    def memory(self) -> int:
        """Return the bytes that Redis stores, without those of its connections."""
        memory = self._client.info("memory")
        return int(memory["used_memory"] - memory["mem_clients_normal"])


@dataclass(frozen=True, slots=True)
class Turn:
    """The replies to one job, and what the servers used meanwhile."""

    outcome: Outcome
    used: Usage

    @property
    def count(self) -> int:
        """Number of replies."""
        return len(self.outcome.delays)

    @property
    def cpu(self) -> float:
        """Microseconds of the workers' CPU per reply."""
        return 1e6 * self.used.workers / self.count

    @property
    def redis_cpu(self) -> float:
        """Microseconds of Redis's CPU per reply."""
        return 1e6 * self.used.redis / self.count

    @property
    def redis_net(self) -> float:
        """Bytes to and from Redis per reply."""
        return self.used.net / self.count


def production(redis_url: str, **settings: str) -> Mapping[str, str]:
    """Return production settings of one bot without user accounts; its Dify is unreachable unless one is set."""
    return {
        "REDIS_URL": redis_url,
        "WECHAT_TOKEN": TOKEN,
        "WECHAT_ENCODING_AES_KEY": AES_KEY,
        "AUTH_MODE": "none",
        "RAG_PROVIDER": "dify",
        "DIFY_BASE_URL": "http://127.0.0.1:9",
        "DIFY_API_KEY": "app-bench-not-secret",
        "LOG_LEVEL": "INFO",
        "LOG_FORMAT": "json",
        **settings,
    }
