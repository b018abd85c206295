"""Logs and metrics of Redis outages: one line and one count when a node goes away, one line when it is back."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import redis

from services import metrics
from services.errors import StoreUnavailable
from utils.running_time import RunningClock, running_time

log = logging.getLogger(__name__)

#: Seconds without an error after which a node counts as back: one that rejects writes still answers reads.
QUIET_SECONDS = 2.0
#: Seconds between two log lines about a crowded pool.
CROWD_SECONDS = 10.0
#: Seconds from a node's failure until its keys have moved to another node.
FAILOVER_SECONDS = 10.0
#: Seconds after a pause of this process in which calls may time out because of it: their time ran on meanwhile.
PAUSE_SECONDS = 2.0


@dataclass(slots=True)
class _Outage:
    since: float
    failed_at: float


class Outages:
    """The outages of each node by its name, which is "" if there is only one."""

    def __init__(self, clock: Callable[[], float], running: RunningClock = running_time) -> None:
        """`clock` gives seconds; `running` knows this process's pauses, whose timeouts are no outages."""
        self._clock = clock
        self._running = running
        self._noting = threading.Lock()
        #: The present outages by node.
        self.away: dict[str, _Outage] = {}
        self._crowded_at = -math.inf

    def concern(self, node: str) -> bool:
        """Tell whether a node is away, or any node went away so recently that another may have taken its keys."""
        if not self.away:
            return False
        now = self._clock()
        return node in self.away or any(now - each.since < FAILOVER_SECONDS for each in self.away.copy().values())

    def note(self, states: Mapping[str, StoreUnavailable | None], present: Callable[[], Collection[str]]) -> None:
        """Note the result of each node's calls: an error, or None.

        An outage ends when its node answers, or when others answer and the node is no longer `present`.
        """
        if not self.away and not any(states.values()):
            return
        with self._noting:
            for node, error in states.items():
                if error:
                    self._failed(node, error)
            answered = {node for node, error in states.items() if not error}
            gone = set(self.away) - set(present()) - set(states) if answered else set()
            for node in (answered | gone) & set(self.away):
                self._answered(node)

    def crowded(self) -> None:
        """Note that all connections of this process were in use: logged every `CROWD_SECONDS`, and no outage."""
        now = self._clock()
        if now - self._crowded_at > CROWD_SECONDS:
            self._crowded_at = now
            log.warning("all connections to redis are in use")

    def _failed(self, node: str, error: StoreUnavailable) -> None:
        now = self._clock()
        if node in self.away:
            self.away[node].failed_at = now
            return
        if isinstance(error.__cause__, redis.TimeoutError) and self._running.since_pause < PAUSE_SECONDS:
            return
        self.away[node] = _Outage(now, now)
        metrics.REDIS_OUTAGES.inc()
        metrics.REDIS_AWAY.set(1)
        log.error("redis is away", extra={"cause": str(error), **_named(node)})

    def _answered(self, node: str) -> None:
        now, outage = self._clock(), self.away[node]
        if now - outage.failed_at < QUIET_SECONDS:
            return
        del self.away[node]
        metrics.REDIS_AWAY.set(1 if self.away else 0)
        log.warning("redis is back", extra={"away_seconds": round(now - outage.since, 1), **_named(node)})


def _named(node: str) -> dict[str, str]:
    return {"node": node} if node else {}
