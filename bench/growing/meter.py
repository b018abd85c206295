"""What growth is measured with: what workers and Redis used, slice by slice, and how flat a row of figures is.

On a machine that others share, the same work takes up to twice the CPU time for a second here and there. So costs are
taken in many short slices, what is compared in turns; a round is what its quietest quarter of slices does not exceed.
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

#: From the smallest to the largest, a cost that does not grow stays within this ratio.
FLAT = "<= 1.15"

#: What each cost is called, its unit, and what it is.
Costs = Mapping[str, tuple[str, str]]
#: What each cost was, slice by slice or round by round.
Said = defaultdict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds so far, or between two moments: of the workers, and of Redis."""

    workers: float
    redis: float

    def __sub__(self, before: Cpu) -> Cpu:
        return Cpu(self.workers - before.workers, self.redis - before.redis)


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes to and from Redis so far, and those it keeps, without what its connections take."""

    net: int
    memory: int


class Meter:
    """Reads what replicas and their Redis use; the CPU without asking them."""

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
    """Add a round: what its slices cost where nothing disturbed them, which only ever adds."""
    for cost, values in slices.items():
        rounds[cost].append(percentile(values, 25))


def table(part: str, costs: Costs, steps: Mapping[str, Said]) -> list[Figure]:
    """Return the rows of a part: each cost at each step, and how flat it is."""
    rows: list[Figure] = []
    for cost, (unit, about) in costs.items():
        row = [Figure(f"{part}.{step}.{cost}", tuple(rounds[cost]), unit, about) for step, rounds in steps.items()]
        rows += [*row, _spread(f"{part}.{cost}.spread", row)]
    return rows


def _spread(name: str, row: Sequence[Figure]) -> Figure:
    values = [figure.value for figure in row]
    return Figure(name, (max(values) / min(values),), "ratio", "largest / smallest of these", goal=FLAT)
