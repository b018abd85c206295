"""Posts alerts to the group of operators through its robot: one message for each group of alerts, equal ones once.

A message is posted at least once: if the robot did not take it, or its reply was lost, the alerts are released and the
sender is told to send them again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, get_args

from config.texts import Texts
from services import metrics
from services.errors import ProviderError, StoreUnavailable
from services.wecom.alert_store import AlertClaim, AlertStatus, AlertStore
from services.wecom.handoff import MOST_BYTES, cut
from utils.stream_utils import clip_utf8

log = logging.getLogger(__name__)

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
#: Seconds for a message, with connecting.
POST_SECONDS = 2.0
#: Bytes of an alert's name, and of its words, in a message.
NAME_BYTES, WORDS_BYTES = 200, 900
#: Alerts that this process remembers while Redis is away.
MOST_ALONE = 1_000


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert as its sender names it."""

    #: The same for the same alert of the same occurrence.
    id: str
    status: AlertStatus
    name: str
    severity: Severity
    words: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class AlertOutcomes:
    """How many alerts of a group were posted, and how many were not, by reason."""

    posted: int = 0
    repeated: int = 0
    below_severity: int = 0
    limited: int = 0


class GroupAlerts:
    """Posts the alerts of one sender's group as one message. Thread-safe."""

    def __init__(
        self, store: AlertStore, post: Callable[[str], None], texts: Texts, *, severity: Severity = "critical"
    ) -> None:
        """`post` sends a message to the robot; alerts below `severity` are not posted."""
        self._store = store
        self._send = post
        self._texts = texts
        self._least = SEVERITIES.index(severity)
        #: The alerts claimed without Redis, the oldest first.
        self._alone: dict[tuple[AlertStatus, str], None] = {}

    def post(self, alerts: Sequence[Alert]) -> AlertOutcomes:
        """Post the alerts that were not posted before.

        Raises:
            ProviderError: the robot did not take the message; it may be posted again.
        """
        severe = [alert for alert in alerts if SEVERITIES.index(alert.severity) >= self._least]
        claim = self._claim(severe) if severe else AlertClaim((), 0, "")
        claimed = [severe[place] for place in claim.alerts]
        if claimed:
            self._post(claim, claimed)
        unclaimed = len(severe) - len(claimed)
        limited = unclaimed if claim.left < 0 else 0
        outcomes = AlertOutcomes(len(claimed), unclaimed - limited, len(alerts) - len(severe), limited)
        self._note(outcomes)
        return outcomes

    def test(self, who: str) -> None:
        """Post a message that only shows that the robot works, named by the person who asked for it.

        Raises:
            ProviderError: the robot did not take it.
        """
        self._send(self._texts.get("alert_test", person=cut(who, NAME_BYTES)))

    def _claim(self, alerts: Sequence[Alert]) -> AlertClaim:
        asked = [(alert.status, alert.id) for alert in alerts]
        try:
            claim = self._store.claim(asked)
        except StoreUnavailable:
            # An alert that Redis is away has to arrive: each replica posts it, once.
            return self._claim_alone(asked)
        if claim.left < 0 or not self._alone:
            return claim
        # A resolved alert that this process posted as firing without Redis.
        known = self._keep_alone(asked, firing=False)
        return claim._replace(alerts=tuple(sorted({*claim.alerts, *known})))

    def _claim_alone(self, asked: Sequence[tuple[AlertStatus, str]]) -> AlertClaim:
        claim = AlertClaim(self._keep_alone(asked, firing=True), 1, "")
        while len(self._alone) > MOST_ALONE:
            del self._alone[next(iter(self._alone))]
        return claim

    def _keep_alone(self, asked: Sequence[tuple[AlertStatus, str]], *, firing: bool) -> tuple[int, ...]:
        """Remember resolved alerts that this process posted as firing, and new firing ones if `firing`.

        Return their places.
        """
        new = tuple(
            place
            for place, key in enumerate(asked)
            if key not in self._alone and (firing if key[0] == "firing" else ("firing", key[1]) in self._alone)
        )
        for place in new:
            self._alone[asked[place]] = None
        return new

    def _post(self, claim: AlertClaim, alerts: Sequence[Alert]) -> None:
        try:
            self._send(message(self._texts, alerts, last=claim.left == 0))
        except ProviderError as exc:
            self._release(claim, alerts)
            metrics.ALERTS.labels("failed").inc(len(alerts))
            log.warning("alerts not posted", extra={"count": len(alerts), "cause": str(exc)})
            raise

    def _release(self, claim: AlertClaim, alerts: Sequence[Alert]) -> None:
        keys = [(alert.status, alert.id) for alert in alerts]
        for key in keys:
            self._alone.pop(key, None)
        with suppress(StoreUnavailable):
            self._store.release(claim, keys)

    @staticmethod
    def _note(outcomes: AlertOutcomes) -> None:
        counts = {name: getattr(outcomes, name) for name in AlertOutcomes.__slots__}
        for name, count in counts.items():
            metrics.ALERTS.labels(name).inc(count)
        log.info("alerts", extra=counts)


def message(texts: Texts, alerts: Sequence[Alert], *, last: bool) -> str:
    """Return the Markdown for the group, at most `MOST_BYTES`; `last` adds that the hour's limit is reached."""
    shown = [
        texts.get(
            f"alert_{alert.status}",
            name=cut(alert.name, NAME_BYTES),
            severity=alert.severity,
            words=cut(alert.words, WORDS_BYTES),
        ).strip()
        for alert in alerts
    ]
    end = "\n\n" + texts.get("alert_limit") if last else ""
    return clip_utf8("\n\n".join(shown), MOST_BYTES - len(end.encode())) + end
