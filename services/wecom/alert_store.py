"""The alerts that were posted to the operators' group, and the faults that the gateway found, over all replicas.

    {dify_alerts}:posted      sorted set: "firing:<id>", "resolved:<id>" -> when it is forgotten, in seconds since 1970
    {dify_alerts}:messages    sorted set: token of a message of the last hour -> when it no longer counts
    {dify_alerts}:faults      hash: a fault that is not over -> start of its occurrence, in seconds since 1970
    {dify_alerts}:ended       hash: "<minute>:ended", "<minute>:failed" -> answers that ended or failed in a minute

An alert is claimed before its message is posted, and released if the robot did not take the message.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from services.redis.store import Call, ScriptRunner, script

#: Seconds for which an alert is remembered, and the most alerts; beyond that the oldest are forgotten.
REMEMBERED_SECONDS, MOST_REMEMBERED = 7 * 86_400.0, 10_000

#: Minutes whose ended answers are counted, the present one included.
COUNTED_MINUTES = 5

_KEYS = ("{dify_alerts}:posted", "{dify_alerts}:messages")
_FAULTS, _ENDED = "{dify_alerts}:faults", "{dify_alerts}:ended"

AlertStatus = Literal["firing", "resolved"]


class AlertClaim(NamedTuple):
    """What one message may show."""

    #: The alerts by their place in the sequence that was claimed.
    alerts: tuple[int, ...]
    #: Messages that may still be posted within the hour; -1: none was left for this one.
    left: int
    token: str


class AlertStore:
    """Owns the keys above. Thread-safe.

    Raises:
        StoreUnavailable: from every method, when Redis is away; a claim may have been written.
    """

    def __init__(self, runner: ScriptRunner, *, per_hour: int, now: str = "") -> None:
        """Take the most messages of an hour; `now` replaces Redis's clock in tests."""
        self._runner = runner
        self._per_hour = per_hour
        self.now = now

    def claim(self, alerts: Sequence[tuple[AlertStatus, str]]) -> AlertClaim:
        """Claim the alerts that were not posted yet, a resolved one only if it was posted as firing before."""
        token = secrets.token_hex(8)
        words: list[str] = [word for status, alert_id in alerts for word in (status, alert_id)]
        args: tuple[str | float, ...] = (self.now, REMEMBERED_SECONDS, self._per_hour, MOST_REMEMBERED, token)
        # One attempt: the second would find the first one's claims, and post nothing.
        left, *claimed = self._runner.run([Call(script("alerts_claim"), _KEYS, (*args, *words))], attempts=1)[0]
        return AlertClaim(tuple(map(int, claimed)), int(left), token)

    def release(self, claim: AlertClaim, alerts: Iterable[tuple[AlertStatus, str]]) -> None:
        """Give back the claim of a message that was not posted."""
        named = (f"{status}:{alert_id}" for status, alert_id in alerts)
        self._runner.run([Call(script("alerts_release"), _KEYS, (claim.token, *named))])


class FoundFaults(NamedTuple):
    """What all replicas know together."""

    #: Answers that ended in the last `COUNTED_MINUTES`, and those of them that failed.
    ended: int
    failed: int
    #: The faults that are not over, with the start of their occurrences.
    starts: Mapping[str, str]


class FaultStore:
    """Owns the keys of faults and ended answers. Every method may raise `StoreUnavailable`."""

    def __init__(self, runner: ScriptRunner, *, now: str = "") -> None:
        """`now` replaces Redis's clock in tests."""
        self._runner = runner
        self.now = now

    def count(self, ended: int, failed: int) -> FoundFaults:
        """Add the answers that ended in this process since its last call; return what all replicas know."""
        call = Call(script("alerts_count"), (_ENDED, _FAULTS), (self.now, ended, failed, COUNTED_MINUTES))
        # One attempt: the second could count them twice.
        all_ended, all_failed, *pairs = self._runner.run([call], attempts=1)[0]
        return FoundFaults(int(all_ended), int(all_failed), dict(zip(pairs[::2], pairs[1::2], strict=True)))

    def begin(self, fault: str, start: str) -> str:
        """Write a fault that was found; return the start of its occurrence, which another leader may have written."""
        expire = Call(None, ("PEXPIRE", _FAULTS), (int(REMEMBERED_SECONDS * 1000),))
        calls = [Call(None, ("HSETNX", _FAULTS), (fault, start)), expire, Call(None, ("HGET", _FAULTS), (fault,))]
        return str(self._runner.run(calls)[2] or start)

    def end(self, fault: str) -> None:
        """Remove a fault that is over."""
        self._runner.run([Call(None, ("HDEL", _FAULTS), (fault,))])
