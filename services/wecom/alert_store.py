"""The alerts that were posted to the operators' group, over all replicas.

    {dify_alerts}:posted      sorted set: "firing:<id>", "resolved:<id>" -> when it is forgotten, in seconds since 1970
    {dify_alerts}:messages    sorted set: token of a message of the last hour -> when it no longer counts

An alert is claimed before its message is posted, and released if the robot did not take the message.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from services.redis.store import Call, ScriptRunner, script

#: Seconds for which an alert is remembered, and the most alerts; beyond that the oldest are forgotten.
REMEMBERED_SECONDS, MOST_REMEMBERED = 7 * 86_400.0, 10_000

_KEYS = ("{dify_alerts}:posted", "{dify_alerts}:messages")

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
