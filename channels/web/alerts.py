"""The address to which Alertmanager sends its alerts, by its webhook of version 4, for the operators' WeCom group."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from math import ceil
from typing import Annotated, Literal

from flask import Blueprint, Response, request
from pydantic import BaseModel, ConfigDict, Field

from channels.web import rest
from channels.web.rest import Operation, RestError, RestModel, envelope, is_for_operators
from services.errors import AddressBlocked, ProviderError
from services.identity.guesses import Guesses
from services.wecom.alert_store import AlertStatus
from services.wecom.alerts import SEVERITIES, Alert, GroupAlerts, Severity

log = logging.getLogger(__name__)

#: Bytes of the largest body, and alerts of one group. Alertmanager's `max_alerts` limits what it sends.
MAX_BYTES, MAX_ALERTS = 512 * 1024, 500
#: The severity of an alert whose label is missing or none of ours.
OTHER_SEVERITY: Severity = "warning"

Words = Mapping[str, str]


class FiredAlert(BaseModel):
    """One alert of Alertmanager; other members are ignored."""

    status: AlertStatus
    labels: Words
    annotations: Words = {}
    starts_at: Annotated[str, Field(alias="startsAt", max_length=64)]
    fingerprint: Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,64}$")]


class AlertsSent(BaseModel):
    """A group of alerts, as Alertmanager's webhook sends it; other members are ignored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "version": "4",
                    "alerts": [
                        {
                            "status": "firing",
                            "labels": {"alertname": "WechatLaibaoRedisAway", "severity": "critical"},
                            "annotations": {"summary": "Redis away."},
                            "startsAt": "2026-01-05T03:04:05Z",
                            "fingerprint": "c4a5e9f0d1b2a397",
                        }
                    ],
                }
            ]
        }
    )

    version: Literal["4"]
    alerts: Annotated[list[FiredAlert], Field(min_length=1, max_length=MAX_ALERTS)]


class AlertsTaken(RestModel):
    """How many alerts were posted; and how many were not, because they were before, or by a setting."""

    posted: int
    repeated: int
    below_severity: int = Field(description="Below `ALERT_SEVERITY`.")
    limited: int = Field(description="Beyond `ALERT_MAX_PER_HOUR`; they are posted when they are sent again later.")


OPERATIONS = (
    Operation(
        "POST",
        "/alerts",
        "Alerts of Alertmanager, for the operators' group",
        "operations",
        body=AlertsSent,
        answers={200: AlertsTaken, 401: None, 404: None, 429: None, 502: None},
        auth="none",
        headers={"Authorization": "`Bearer` and one of `ALERT_TOKEN`."},
        description="404 without an `ALERT_TOKEN`, and on `PORT` where `OPS_PORT` is set. After a 502 send it again.",
    ),
)


def alerts_blueprint(
    group: GroupAlerts | None, tokens: Iterable[str], guesses: Guesses, ops_port: int | None
) -> Blueprint:
    """Return /alerts; without a group or a token everybody gets 404."""
    routes = Blueprint("alerts", __name__)
    known = [token.encode() for token in tokens]

    @routes.post("/alerts")
    def alerts() -> Response:
        if group is None or not known or not is_for_operators(ops_port):
            raise RestError(404)
        _check(known, guesses)
        sent = rest.parsed(AlertsSent, rest.json_body(max_bytes=MAX_BYTES))
        try:
            return envelope(asdict(group.post([_alert(each) for each in sent.alerts])))
        except ProviderError as exc:
            raise RestError(502) from exc

    return routes


def _check(known: Iterable[bytes], guesses: Guesses) -> None:
    scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
    shown, address = shown.strip(), request.remote_addr or ""
    try:
        guesses.check(address, "alert", shown)
    except AddressBlocked as blocked:
        wait = {"Retry-After": str(ceil(blocked.seconds))}
        raise RestError(429, reason=blocked.code, headers=wait) from blocked
    # Each token is compared, so that the time tells nothing.
    right = [hmac.compare_digest(shown.encode("utf-8", "replace"), token) for token in known]
    if scheme.lower() != "bearer" or not any(right):
        guesses.failed(address, "alert", shown)
        log.warning("alerts refused", extra={"address": address})
        raise RestError(401, headers={"WWW-Authenticate": "Bearer"})
    guesses.succeeded(address, shown)


def _alert(fired: FiredAlert) -> Alert:
    shown = [fired.annotations.get(name, "") for name in ("summary", "description", "runbook_url")]
    severity = next((each for each in SEVERITIES if each == fired.labels.get("severity", "").lower()), OTHER_SEVERITY)
    return Alert(
        id=f"{fired.fingerprint}:{fired.starts_at}",
        status=fired.status,
        name=fired.labels.get("alertname", ""),
        severity=severity,
        words="\n".join(f"> {line}" for text in shown for line in text.splitlines() if line.strip()),
    )
