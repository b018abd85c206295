"""What a batch is made of, as values: a task, its options, its items, and an item a lane has claimed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

TaskStatus = Literal["pending", "running", "paused", "completed", "failed", "cancelled"]
ItemStatus = Literal["pending", "running", "completed", "failed", "cancelled"]

TASK_STATUSES: tuple[TaskStatus, ...] = get_args(TaskStatus)
ITEM_STATUSES: tuple[ItemStatus, ...] = get_args(ItemStatus)
#: A task that has one of these never gets another.
ENDED: tuple[TaskStatus, ...] = ("completed", "failed", "cancelled")
#: What counts against the bound of the queue.
UNFINISHED: tuple[TaskStatus, ...] = ("pending", "running", "paused")

Input = str | int | float | bool


def utc_text(moment: datetime | None) -> str | None:
    """Return a time as JSON has it: ISO 8601 in UTC, with milliseconds and a Z."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What whoever submits a task may say about it; nothing else reaches the provider."""

    #: Inputs of the provider's app, the same for every item.
    inputs: Mapping[str, Input] = field(default_factory=dict, repr=False)
    #: How often an item is asked at most.
    max_attempts: int = 3
    #: How many of this task's items may be asked at once; `None`: as many as there are lanes.
    max_concurrent: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> BatchOptions:
        """Return the options this or another version wrote; what is new there is passed over."""
        written = json.loads(text)
        return cls(**{name: written[name] for name in cls.__slots__ if name in written})


@dataclass(frozen=True, slots=True)
class Task:
    """A task as it was at `seen_at`. Times are aware and in UTC."""

    task_id: str
    #: The principal whose task it is.
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
    #: When its last item ended; `None` also for a cancelled task.
    completed_at: datetime | None = None
    cancelled_at: datetime | None = None
    #: Of a failed task: the sentence its last item failed with.
    error_message: str = ""
    #: How long it has been paused in all, since its first item began.
    paused: timedelta = timedelta()
    #: The owner's credential, sealed; "" when the task has ended.
    credential: str = field(default="", repr=False)

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def pending(self) -> int:
        """Items that wait for their turn."""
        return self.total - self.done - self.cancelled - self.running

    @property
    def done(self) -> int:
        """Items that were asked to the end, well or not."""
        return self.completed + self.failed

    @property
    def percentage(self) -> float:
        """How much is done, 0 to 100 with one decimal; what is cancelled is never done."""
        # 100 only when it is: 9,999.9 of 10,000 would be rounded to it.
        return 100.0 if self.done == self.total else min(99.9, round(100 * self.done / self.total, 1))

    @property
    def rate(self) -> float:
        """Items done per second since the start, pauses left out; 0 before the start."""
        if self.started_at is None:
            return 0.0
        end = self.completed_at or self.cancelled_at or self.seen_at
        seconds = (end - self.started_at - self.paused).total_seconds()
        return self.done / seconds if seconds > 0 else 0.0

    @property
    def estimated_completion(self) -> datetime | None:
        """When it ends if it goes on at this rate; `None` unless it runs and something is done."""
        if self.status != "running" or not self.rate:
            return None
        return self.seen_at + timedelta(seconds=(self.total - self.done) / self.rate)


@dataclass(frozen=True, slots=True)
class Item:
    """One text of a task and what became of it."""

    #: Its place in the input, from 0.
    index: int
    text: str = field(repr=False)
    status: ItemStatus = "pending"
    #: How often it was asked, the running time included.
    attempts: int = 0
    content: str = field(default="", repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    usage: Mapping[str, Any] = field(default_factory=dict)
    #: `{"code", "message"}` of the last attempt that failed; `None` once an attempt went well.
    error: Mapping[str, str] | None = None
    #: When the last attempt began.
    started_at: datetime | None = None
    #: When it was completed, failed, or stopped because its task was cancelled.
    completed_at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "index": self.index,
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
        }


@dataclass(frozen=True, slots=True)
class Order:
    """What asking an item needs to know of its task."""

    task_id: str
    owner: str
    options: BatchOptions
    credential: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Claimed:
    """An item that one lane has to ask now. `attempt` is its fence: what an earlier attempt reports is refused."""

    task: Order
    index: int
    text: str = field(repr=False)
    #: 1 for the first time.
    attempt: int
    lane: int
    #: It was running in this lane already: a worker that is gone had claimed it, and its stream may exist.
    again: bool = False
    #: How many of its attempts do not count: the provider was busy, and said when to come back.
    waits: int = 0

    @property
    def tries(self) -> int:
        """How many of its attempts count, this one included."""
        return self.attempt - self.waits
