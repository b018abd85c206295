"""Measures one worker on its own core turn by turn: the CPU time of the worker and of Redis in each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from bench.load.callbacks import AES_KEY, TOKEN
from bench.load.generator import Generator, Job, Outcome
from bench.stage.replicas import ROOT, RedisServer, Replica, wait_for
from services.streams.store import RUNNING_SHARDS

PRODUCT = ROOT / "gunicorn.conf.py"
FLOOR = ROOT / "bench" / "load" / "floor_conf.py"


@dataclass(frozen=True, slots=True)
class Turn:
    """The result of one job, and the resources used during it."""

    outcome: Outcome
    #: CPU seconds of the worker, and of Redis.
    worker: float
    redis: float
    #: Bytes that Redis received and sent.
    redis_bytes: float
    #: Duration in seconds.
    seconds: float

    @property
    def count(self) -> int:
        """Number of replies."""
        return len(self.outcome.delays)

    @property
    def micros(self) -> float:
        """Microseconds of the worker's CPU per reply."""
        return 1e6 * self.worker / self.count

    def without(self, rest: Turn) -> Turn:
        """Return the difference to the use of an idle worker over the same time."""
        part = self.seconds / rest.seconds
        worker, redis = self.worker - part * rest.worker, self.redis - part * rest.redis
        return Turn(self.outcome, worker, redis, self.redis_bytes - part * rest.redis_bytes, self.seconds)


class Bench:
    """A load generator, and the Redis of the replicas it calls."""

    def __init__(self, load: Generator, store: RedisServer) -> None:
        self._load = load
        self._store = store
        self._client = redis.Redis.from_url(store.url)

    def turn(self, replica: Replica, job: Job, *, after: float = 0.0) -> Turn:
        """Run a job against the replica, then wait `after` seconds and for the end of all answers.

        Raises:
            LoadFailed: see `Generator.run`.
            TimeoutError: an answer did not end.
        """
        return self._taken(replica, lambda: self._load.run(job), after)

    def rest(self, replica: Replica, seconds: float) -> Turn:
        """Measure the use while there are no requests."""
        return self._taken(replica, Outcome, seconds)

    def _taken(self, replica: Replica, act: Callable[[], Outcome], after: float) -> Turn:
        began, worker, cpu, moved = time.monotonic(), replica.cpu, self._store.cpu, self._moved()
        outcome = act()
        if after:
            time.sleep(after)
            wait_for(self._none_running, "the end of all answers")
        taken = (replica.cpu - worker, self._store.cpu - cpu, self._moved() - moved)
        return Turn(outcome, *taken, time.monotonic() - began)

    def _none_running(self) -> bool:
        # The product's index of running streams; prepared streams are not in it.
        return not self._client.exists(*(f"dify_streams:running:{shard}" for shard in range(RUNNING_SHARDS)))

    def _moved(self) -> int:
        stats = self._client.info("stats")
        return int(stats["total_net_input_bytes"]) + int(stats["total_net_output_bytes"])


def two_cores() -> tuple[Collection[int] | None, Collection[int] | None]:
    """Return the server's core and the core of all other processes; None for both if there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return ({cores[0]}, {cores[1]}) if len(cores) > 1 else (None, None)


def production(redis_url: str, **more: str) -> Mapping[str, str]:
    """Return production settings of one bot without user accounts; its Dify is unreachable unless `more` sets one."""
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
        **more,
    }


@contextmanager
def worker(
    settings: Mapping[str, str], folder: Path, cores: Collection[int] | None, config: Path = PRODUCT
) -> Iterator[Replica]:
    """Run one worker of the product or of the floor."""
    replica = Replica(settings, folder, cores=cores, config=config)
    try:
        replica.wait_ready()
        yield replica
    finally:
        replica.kill()
