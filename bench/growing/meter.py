"""Measures what workers and Redis use, slice by slice, and how flat a row of figures is.

On a shared machine the same work sometimes takes up to twice the CPU time for a second. So costs are measured in many
short slices, compared items in turns; the value of a round is the 25th percentile of its slices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import redis

from bench.figures import Figure, percentile
from bench.stage.replicas import RedisServer, Replica, cpu_of

#: The goal for the ratio between the largest and the smallest step of a cost that should not grow.
FLAT = "<= 1.15"

#: The unit and the description of each cost, by its name.
Costs = Mapping[str, tuple[str, str]]
#: The values of each cost, by slice or by round.
Said = defaultdict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds of the workers and of Redis, so far or between two readings."""

    workers: float
    redis: float

    def __sub__(self, before: Cpu) -> Cpu:
        return Cpu(self.workers - before.workers, self.redis - before.redis)


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes to and from Redis so far, and the memory it uses without its connections."""

    net: int
    memory: int


class Meter:
    """Reads the resource use of replicas and their Redis. Reading the CPU time sends them no request."""

    def __init__(self, store: RedisServer, replicas: Iterable[Replica]) -> None:
        self._redis = redis.Redis.from_url(store.url)
        self._redis_pid = store.pid
        self._workers = [pid for replica in replicas for pid in replica.workers]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._redis.close()

    def cpu(self) -> Cpu:
        return Cpu(cpu_of(*self._workers), cpu_of(self._redis_pid))

    def stored(self) -> Stored:
        said = self._redis.info("stats", "memory")
        net = said["total_net_input_bytes"] + said["total_net_output_bytes"]
        return Stored(net, said["used_memory"] - said["mem_clients_normal"])


def settle(rounds: Said, slices: Said) -> None:
    """Add a round with the 25th percentile of its slices: other load on the machine only increases a cost."""
    for cost, values in slices.items():
        rounds[cost].append(percentile(values, 25))


def table(part: str, costs: Costs, steps: Mapping[str, Said]) -> list[Figure]:
    """Return the figures of a part: each cost at each step, and its growth."""
    rows: list[Figure] = []
    for cost, (unit, about) in costs.items():
        row = [Figure(f"{part}.{step}.{cost}", tuple(rounds[cost]), unit, about) for step, rounds in steps.items()]
        rows += [*row, _spread(f"{part}.{cost}.spread", row)]
    return rows


def _spread(name: str, row: Sequence[Figure]) -> Figure:
    values = [figure.value for figure in row]
    return Figure(name, (max(values) / min(values),), "ratio", "largest / smallest of these", goal=FLAT)
