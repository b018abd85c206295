"""Calls a task's webhook when the task has ended: at least once, from any replica, again after errors.

POST {"event": "batch_ended", "task": the task as REST shows it}, signed by the first `SECRET_KEY` in two ways. The
headers `webhook-id`, `webhook-timestamp` and `webhook-signature` are those of Standard Webhooks 1.0
(standardwebhooks.com): the id is one for all attempts, and a recorded call is too old after some minutes.
`X-Signature-256` is the HMAC-SHA256 of the body alone, in hexadecimal digits. Any 2xx is a delivery.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable

from services import metrics
from services.batches.records import Task
from services.batches.store import SqlBatchStore
from services.errors import BatchUnknown, FetchError, ProviderError, WebhookRefused
from services.http.fetcher import Poster

log = logging.getLogger(__name__)

#: Seconds for one exchange, and in which no other process begins the same attempt.
TIMEOUT = 10.0
LEASE = 30.0
#: Seconds between two attempts; the attempt after the last of them is the last.
PAUSES = (5.0, 30.0, 120.0, 600.0, 3600.0, 3600.0, 3600.0)
#: Seconds between two checks for webhooks that are due.
LOOK_SECONDS = 5.0


class Webhooks:
    """Delivers the webhooks of ended tasks, one at a time; `key` signs, None if there is no `SECRET_KEY`."""

    def __init__(
        self, store: SqlBatchStore, poster: Poster, key: bytes | None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._poster = poster
        self._key = key
        self._clock = clock

    def check(self, url: str) -> None:
        """Check that a task's webhook can be delivered.

        Raises:
            WebhookRefused: its address is not allowed or its name is unknown; code "webhook_unsigned": no key signs.
        """
        if self._key is None:
            raise WebhookRefused("there is no SECRET_KEY", code="webhook_unsigned")
        try:
            self._poster.check(url)
        except FetchError as exc:
            raise WebhookRefused(str(exc)) from exc

    def deliver(self) -> float:
        """Deliver the webhook that has been due for the longest time; return the seconds until the next call.

        Raises:
            StoreUnavailable: the database is away; a delivery that it did not store is made again.
        """
        if self._key is None or not (taken := self._store.take_webhook(LEASE)):
            return LOOK_SECONDS
        task_id, attempt = taken
        try:
            cause = self._posted(self._store.get(task_id), self._key)
        except BatchUnknown:
            return 0.0
        if not cause:
            outcome, pause = "delivered", None
        else:
            pause = PAUSES[attempt - 1] if attempt <= len(PAUSES) else None
            outcome = "failed" if pause is None else "retried"
        self._store.settle_webhook(task_id, attempt, delivered=not cause, again=pause, error=cause)
        metrics.BATCH_WEBHOOKS.labels(outcome).inc()
        delivery = {"task_id": task_id, "outcome": outcome, "attempt": attempt, "cause": cause}
        log.log(logging.WARNING if cause else logging.INFO, "batch webhook", extra=delivery)
        return 0.0

    def close(self) -> None:
        self._poster.close()

    def _posted(self, task: Task, key: bytes) -> str:
        """Post the task; return why it did not arrive, "" if it did."""
        body = json.dumps({"event": "batch_ended", "task": task.to_dict()}, ensure_ascii=False).encode()
        headers = signed(body, delivery_of(task), int(self._clock()), key)
        try:
            status = self._poster.post(task.options.webhook_url, body, headers, timeout=TIMEOUT)
        except (FetchError, ProviderError) as exc:
            return str(exc)
        return "" if 200 <= status < 300 else f"HTTP {status}"


def delivery_of(task: Task) -> str:
    """Return the id of a task's end. One that is asked again ends again, under another id."""
    end = task.completed_at or task.cancelled_at or task.created_at
    return f"{task.task_id}-{int(end.timestamp() * 1000)}"


def signed(body: bytes, delivery: str, seconds: int, key: bytes) -> dict[str, str]:
    """Return the headers that sign a body; `seconds` is the time of this attempt."""
    signature = hmac.digest(key, f"{delivery}.{seconds}.".encode() + body, "sha256")
    return {
        "webhook-id": delivery,
        "webhook-timestamp": str(seconds),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
        "X-Signature-256": hmac.new(key, body, hashlib.sha256).hexdigest(),
    }
