"""Posts faults to the operators' group by itself: of Redis, SQL, the answer provider, long connections and answers.

Each replica does a round every 15 s: it adds the answers that ended in its process to the counts of all replicas, and
tries to take the lead, a lock. The leader reads the health report and the counts. It posts a fault that two rounds in a
row have found, and once more when two rounds have not. The faults are in Redis with the start of their occurrence, so
another leader goes on with them: the id of an alert contains the start, and equal alerts are posted once.

While Redis is away no replica can lead. The one that led last posts that, and that Redis is back.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Any

from config.texts import Texts
from services.errors import ProviderError, StoreUnavailable
from services.redis.lock_store import LockStore
from services.rounds import Rounds
from services.wecom.alert_store import AlertStatus, FaultStore, FoundFaults
from services.wecom.alerts import Alert, GroupAlerts

#: Seconds between two rounds, and rounds in a row that make a fault begin or end.
ROUND_SECONDS, IN_A_ROW = 15.0, 2
#: The leader's lock, and its seconds: three rounds.
LOCK, LEAD_SECONDS = "alert_watch", 45.0
#: Seconds until the next attempt to post what the robot did not take, or what was beyond the hour's limit.
RETRY_SECONDS = 60.0
#: The share of answers that may fail, and the fewest ended answers of which it is taken.
FAILED_SHARE, LEAST_ENDED = 0.2, 20
#: Seconds for a round that runs while the replica stops.
STOP_SECONDS = 5.0
REDIS = "redis"
#: By the kind of a fault: the alert, whose section of the runbook has the same name, and the key of its words.
ALERTS = {
    REDIS: ("WechatLaibaoRedisAway", "alert_redis"),
    "sql": ("WechatLaibaoSqlAway", "alert_sql"),
    "provider": ("WechatLaibaoProviderAway", "alert_provider"),
    "evicted": ("WechatLaibaoBotEvicted", "alert_bot_evicted"),
    "unsubscribed": ("WechatLaibaoBotNotSubscribed", "alert_bot_unsubscribed"),
    "answers": ("WechatLaibaoAnswersFail", "alert_answers"),
}

#: The parts of a fault's words, by the fault: a kind, or "<kind>:<bot>".
Seen = Mapping[str, Mapping[str, str | int]]


@dataclass(slots=True)
class Occurrence:
    """One occurrence of a fault, as this replica posts it."""

    fault: str
    #: Seconds since 1970.
    start: str
    #: When each of its alerts may be posted, by this replica's clock; infinity once it was.
    due: dict[AlertStatus, float] = field(default_factory=dict)


class FaultWatch:
    """The watch of one replica, whose rounds run in a thread of their own."""

    def __init__(
        self,
        group: GroupAlerts,
        store: FaultStore,
        locks: LockStore,
        *,
        report: Callable[[], Mapping[str, Any]],
        ended: Callable[[], tuple[int, int]],
        texts: Texts,
        replica: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`report` returns the body of /health, `ended` how many answers of this process have ended, and failed.

        `replica` names this process in the lock; `now` is the time since 1970.
        """
        self._group = group
        self._store = store
        self._locks = locks
        self._report = report
        self._ended = ended
        self._texts = texts
        self._token = f"{replica}:{secrets.token_hex(4)}"
        self._clock = clock
        self._now = now
        self._counted = ended()
        self._leads_until = -inf
        #: The rounds in a row that found a fault, or as a negative number those that did not.
        self._rows: dict[str, int] = {}
        self._open: dict[str, Occurrence] = {}
        #: The same of Redis, which a replica that does not lead may still have to end.
        self._redis_row = 0
        self._redis: Occurrence | None = None
        self._rounds = Rounds("alert-watch", self.work, pause=ROUND_SECONDS)

    def start(self) -> None:
        self._rounds.start()

    def leave(self) -> None:
        """End the rounds, and let another replica lead."""
        self._rounds.stop()
        if self._clock() < self._leads_until:
            with suppress(StoreUnavailable):
                self._locks.release(LOCK, self._token)

    def close_all(self) -> None:
        """Nothing to close: it has no connections of its own."""

    def stop(self) -> None:
        self._rounds.stop()
        self._rounds.join(STOP_SECONDS)

    def work(self) -> float:
        """Do a round; return the seconds until the next one."""
        before, self._counted = self._counted, self._ended()
        try:
            found = self._store.count(self._counted[0] - before[0], self._counted[1] - before[1])
            leads = self._locks.acquire(LOCK, LEAD_SECONDS, self._token) is not None
        except StoreUnavailable:
            self._look_at_redis(away=True)
            return ROUND_SECONDS
        self._look_at_redis(away=False)
        if leads:
            self._leads_until = self._clock() + LEAD_SECONDS
            self._lead(found)
        else:
            self._leads_until = -inf
            self._rows.clear()
            self._open.clear()
        return ROUND_SECONDS

    def _look_at_redis(self, *, away: bool) -> None:
        self._redis_row = _row(self._redis_row, found=away)
        if self._redis_row == 1 and self._redis is None and self._clock() < self._leads_until:
            self._redis = Occurrence(REDIS, self._start())
        if self._redis is None:
            return
        if self._redis_row >= IN_A_ROW:
            self._post([(self._redis, self._alert(self._redis, "firing", {}))])
        elif self._redis_row <= -IN_A_ROW:
            if "firing" in self._redis.due:
                self._post([(self._redis, self._alert(self._redis, "resolved"))])
            if self._redis.due.get("resolved", inf) == inf:
                self._redis = None

    def _lead(self, found: FoundFaults) -> None:
        seen = faults(self._report(), found)
        starts = {fault: start for fault, start in found.starts.items() if _kind(fault) in ALERTS}
        for fault in {*self._rows, *seen, *starts}:
            self._rows[fault] = _row(self._rows.get(fault, 0), found=fault in seen)
        for fault in seen:
            if self._rows[fault] >= IN_A_ROW and fault not in starts:
                starts[fault] = self._store.begin(fault, self._start())
        self._open = {fault: self._occurrence(fault, start) for fault, start in starts.items()}
        self._post([*self._firing(seen), *self._resolved(seen)])
        for occurrence in [each for each in self._open.values() if each.due.get("resolved") == inf]:
            self._store.end(occurrence.fault)
            del self._open[occurrence.fault]
        self._rows = {fault: row for fault, row in self._rows.items() if row > 0 or fault in self._open}

    def _occurrence(self, fault: str, start: str) -> Occurrence:
        """Return the occurrence that this replica knows, else one of which it has posted nothing."""
        known = self._open.get(fault)
        return known if known and known.start == start else Occurrence(fault, start)

    def _firing(self, seen: Seen) -> list[tuple[Occurrence, Alert]]:
        opened = [each for each in self._open.values() if each.fault in seen]
        return [(each, self._alert(each, "firing", seen[each.fault])) for each in opened]

    def _resolved(self, seen: Seen) -> list[tuple[Occurrence, Alert]]:
        over = [each for each in self._open.values() if self._rows[each.fault] <= -IN_A_ROW]
        return [(each, self._alert(each, "resolved")) for each in over]

    def _alert(
        self, occurrence: Occurrence, status: AlertStatus, parts: Mapping[str, str | int] | None = None
    ) -> Alert:
        """Return an alert; without the `parts` of its words it has none."""
        kind, _, bot = occurrence.fault.partition(":")
        name, key = ALERTS[kind]
        lines = [] if parts is None else [self._texts.get(key, **parts), f"docs/runbook.md#{name.lower()}"]
        return Alert(
            id=f"{occurrence.fault}:{occurrence.start}",
            status=status,
            name=f"{name} ({bot})" if bot else name,
            severity="critical",
            words="\n".join(f"> {line}" for line in lines),
        )

    def _post(self, alerts: Sequence[tuple[Occurrence, Alert]]) -> None:
        """Post the alerts that are due, as one message."""
        now = self._clock()
        due = [(occurrence, alert) for occurrence, alert in alerts if occurrence.due.get(alert.status, -inf) <= now]
        if not due:
            return
        try:
            limited = self._group.post([alert for _, alert in due]).limited
        except ProviderError:
            limited = len(due)
        for occurrence, alert in due:
            occurrence.due[alert.status] = now + RETRY_SECONDS if limited else inf

    def _start(self) -> str:
        return f"{self._now():.0f}"


def faults(report: Mapping[str, Any], found: FoundFaults) -> Seen:
    """Return the faults of a health report and of the counts, without that of Redis."""
    seen: dict[str, dict[str, str | int]] = {}
    if not report["services"]["rag"]:
        seen["provider"] = {}
    for name, state in report["dependencies"].items():
        kind, _, bot = name.partition(":")
        if state == "ok":
            continue
        if kind == "long_connection":
            seen[f"{'evicted' if 'another program' in state else 'unsubscribed'}:{bot}"] = {"bot": bot}
        elif kind == "sql":
            seen[kind] = {}
    if found.ended >= LEAST_ENDED and found.failed > FAILED_SHARE * found.ended:
        seen["answers"] = {"ended": found.ended, "failed": found.failed}
    return seen


def _row(row: int, *, found: bool) -> int:
    return max(row, 0) + 1 if found else min(row, 0) - 1


def _kind(fault: str) -> str:
    return fault.partition(":")[0]
