"""The values of batches: a task, its options, its items, and an item that a lane has claimed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

TaskStatus = Literal["pending", "running", "paused", "completed", "failed", "cancelled"]
ItemStatus = Literal["pending", "running", "completed", "failed", "cancelled"]
Priority = Literal["low", "normal", "high"]

TASK_STATUSES: tuple[TaskStatus, ...] = get_args(TaskStatus)
#: The lowest first.
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
#: Final statuses of a task.
ENDED: tuple[TaskStatus, ...] = ("completed", "failed", "cancelled")
#: Statuses of tasks that count against the limit of the queue.
UNFINISHED: tuple[TaskStatus, ...] = ("pending", "running", "paused")

Input = str | int | float | bool
#: none: the task has no webhook. pending: the task has not ended, or the delivery is not done.
WebhookState = Literal["none", "pending", "delivered", "failed"]


def utc_text(moment: datetime | None) -> str | None:
    """Return a time as JSON has it: ISO 8601 in UTC, with milliseconds and a Z."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """The options of a task that its client may set."""

    #: Inputs of the provider's app, equal for every item.
    inputs: Mapping[str, Input] = field(default_factory=dict, repr=False)
    #: Maximal number of attempts per item.
    max_attempts: int = 3
    #: Maximal number of this task's items that run at once; `None` for no limit but the lanes.
    max_concurrent: int | None = None
    priority: Priority = "normal"
    #: The address that gets a POST when the task has ended; "" for none.
    webhook_url: str = field(default="", repr=False)

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> BatchOptions:
        """Parse options of this or another version, whose unknown fields are ignored."""
        written = json.loads(text)
        return cls(**{name: written[name] for name in cls.__slots__ if name in written})


@dataclass(frozen=True, slots=True)
class Webhook:
    """How the delivery of a task's end stands."""

    state: WebhookState = "none"
    attempts: int = 0
    #: Why the last attempt failed; "" if none did.
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """A task as it was at `seen_at`. Times are aware and in UTC."""

    task_id: str
    #: The principal that submitted the task.
    owner: str
    name: str = field(repr=False)
    description: str = field(repr=False)
    status: TaskStatus
    options: BatchOptions
    total: int
    created_at: datetime
    seen_at: datetime
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    running: int = 0
    started_at: datetime | None = None
    #: When its last item ended; `None` for a cancelled task too.
    completed_at: datetime | None = None
    cancelled_at: datetime | None = None
    #: For a failed task: the sentence of its last item's error.
    error_message: str = ""
    #: Total time of its pauses since its first item began.
    paused: timedelta = timedelta()
    #: The owner's credential, encrypted; "" after the task's end.
    credential: str = field(default="", repr=False)
    #: `{total_tokens, total_price, currency}` for each currency; empty before the task's end, and without figures.
    usage: tuple[Mapping[str, Any], ...] = ()
    webhook: Webhook = Webhook()

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def pending(self) -> int:
        """Number of items that wait."""
        return self.total - self.done - self.cancelled - self.running

    @property
    def done(self) -> int:
        """Number of items that were completed or failed."""
        return self.completed + self.failed

    @property
    def percentage(self) -> float:
        """Percentage of items done, 0 to 100 with one decimal; cancelled items are never done."""
        # 9,999.9 of 10,000 would be rounded to 100.
        return 100.0 if self.done == self.total else min(99.9, round(100 * self.done / self.total, 1))

    @property
    def rate(self) -> float:
        """Items done per second since the start, without pauses; 0 before the start."""
        if self.started_at is None:
            return 0.0
        end = self.completed_at or self.cancelled_at or self.seen_at
        seconds = (end - self.started_at - self.paused).total_seconds()
        return self.done / seconds if seconds > 0 else 0.0

    @property
    def estimated_completion(self) -> datetime | None:
        """The end of the task at its present rate; `None` unless it is running and something is done."""
        if self.status != "running" or not self.rate:
            return None
        return self.seen_at + timedelta(seconds=(self.total - self.done) / self.rate)

    def to_dict(self) -> dict[str, Any]:
        """Return the task in its JSON shape."""
        counts = ("total", "completed", "failed", "cancelled", "running", "pending", "percentage")
        moments = ("created_at", "started_at", "completed_at", "cancelled_at", "estimated_completion")
        return {
            "task_id": self.task_id,
            "name": self.name,
            "description": self.description,
            "status": self.status,
            "priority": self.options.priority,
            "progress": {**{name: getattr(self, name) for name in counts}, "rate": round(self.rate, 3)},
            "total_items": self.total,
            **{name: utc_text(getattr(self, name)) for name in moments},
            "error_message": self.error_message or None,
            "options": asdict(self.options),
            "usage": (self.usage[0] if len(self.usage) == 1 else list(self.usage)) if self.usage else None,
            "webhook": asdict(self.webhook),
        }


@dataclass(frozen=True, slots=True)
class Given:
    """The parts of a submission that belong to one text."""

    #: The submitter's own id of it; "" for none.
    id: str = ""
    #: The other cells of its row in a file, by the names of their columns.
    columns: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Inputs of the provider's app, for this text only.
    inputs: Mapping[str, Input] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are not empty."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Given:
        """Return it from `to_json` of this or another version, whose unknown fields are ignored."""
        return cls(**{name: written[name] for name in cls.__slots__ if name in written})


@dataclass(frozen=True, slots=True)
class Item:
    """One text of a task and its result."""

    #: Index in the input, from 0.
    index: int
    text: str = field(repr=False)
    status: ItemStatus = "pending"
    #: Number of attempts, a running one included.
    attempts: int = 0
    content: str = field(default="", repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    usage: Mapping[str, Any] = field(default_factory=dict)
    #: `{"code", "message"}` of the last failed attempt; `None` after a success.
    error: Mapping[str, str] | None = None
    #: When the last attempt began.
    started_at: datetime | None = None
    #: When it was completed, failed, or stopped by the cancellation of its task.
    completed_at: datetime | None = None
    given: Given = Given()

    def to_dict(self) -> dict[str, Any]:
        """Return the item in its JSON shape."""
        return {
            "index": self.index,
            "id": self.given.id,
            "text": self.text,
            "status": self.status,
            "attempts": self.attempts,
            "content": self.content,
            "metadata": dict(self.metadata),
            "sources": [dict(source) for source in self.sources],
            "usage": dict(self.usage),
            "error": dict(self.error) if self.error else None,
            "started_at": utc_text(self.started_at),
            "completed_at": utc_text(self.completed_at),
            "columns": dict(self.given.columns),
        }

    def to_json(self) -> str:
        """Return the item as one line of JSON, without the line feed."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Order:
    """The fields of a task that asking an item needs."""

    task_id: str
    owner: str
    options: BatchOptions
    credential: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Claimed:
    """An item that one lane has claimed. `attempt` is its fence: results of earlier attempts are rejected."""

    task: Order
    index: int
    text: str = field(repr=False)
    #: 1 for the first attempt.
    attempt: int
    lane: int
    #: Whether it was running in this lane before: its worker is gone, and its stream may exist.
    again: bool = False
    #: Number of attempts that do not count, because the provider was busy and asked to come back.
    waits: int = 0
    #: Inputs of the provider's app for this item, beside those of the task.
    inputs: Mapping[str, Input] = field(default_factory=dict, repr=False)

    @property
    def tries(self) -> int:
        """Number of attempts that count, this one included."""
        return self.attempt - self.waits


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The load of batches over all replicas."""

    #: Processes that work on batches.
    workers: int
    #: Items that may be asked at once, and those that are being asked.
    max_concurrent: int
    running_items: int
    #: Number of tasks by status.
    totals: Mapping[TaskStatus, int]
    #: Number of tasks that may be unfinished.
    max_size: int

    @property
    def is_running(self) -> bool:
        return self.workers > 0

    @property
    def unfinished(self) -> int:
        return sum(self.totals.get(status, 0) for status in UNFINISHED)

    @property
    def available_slots(self) -> int:
        return max(0, self.max_size - self.unfinished)
