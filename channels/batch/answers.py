"""The answer models of the batch API for the OpenAPI document, and functions that build data in their shape."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field, RootModel

from channels.batch.models import Options
from channels.options import AnswerSource
from channels.web.rest import RestModel
from services.batches.records import (
    UNFINISHED,
    ItemStatus,
    Priority,
    QueueStatus,
    Task,
    TaskStatus,
    WebhookState,
    utc_text,
)


class Submitted(RestModel):
    task_id: str = Field(examples=["3f0c1c9e-5d5b-4c43-9d0a-2f6f6d1f2a34"])
    status: TaskStatus
    created_at: datetime
    formulas_without_value: int = Field(
        description="Formulas of the file's column that have no stored value and so are not asked, because the file "
        "was not saved by a spreadsheet. Opening and saving it in one stores the values."
    )


class Progress(RestModel):
    """The progress of a task. Each item is in exactly one of completed, failed, cancelled, running, pending."""

    total: int
    completed: int
    failed: int
    cancelled: int
    running: int
    pending: int
    percentage: float = Field(description="Percentage of items completed or failed: 0 to 100.")
    rate: float = Field(description="Items per second since the start, without pauses.")


class UsageSum(RestModel):
    total_tokens: int
    total_price: str = Field(description="A decimal number; empty if the provider reported no price.")
    currency: str


class WebhookDelivery(RestModel):
    state: WebhookState
    attempts: int
    last_error: str = Field(description="Why the last attempt failed; empty if none did.")


class TaskState(RestModel):
    """A task. completed, failed and cancelled are final; failed means that it ended without a completed item."""

    task_id: str
    name: str
    description: str
    status: TaskStatus
    progress: Progress
    total_items: int
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    cancelled_at: datetime | None
    estimated_completion: datetime | None
    error_message: str | None
    options: Options
    priority: Priority
    usage: UsageSum | list[UsageSum] | None = Field(
        description="The sums of all results once the task has ended; a list if they have several currencies, null "
        "without figures."
    )
    webhook: WebhookDelivery


class Purged(RestModel):
    task_id: str
    purged: Literal[True]


class Removed(RootModel[TaskState | Purged]):
    """The cancelled task or, with `purge=true`, the removed one."""


class Tasks(RestModel):
    tasks: list[TaskState]
    total: int
    page: int
    size: int


class ItemError(RestModel):
    code: str = Field(description="A stable error code.", examples=["provider_timeout"])
    message: str


class Result(RestModel):
    """One text and its result so far."""

    index: int = Field(description="Position in the submission, from 0.")
    id: str = Field(description="Your own id of the text; empty without one.")
    text: str
    status: ItemStatus
    attempts: int
    content: str
    metadata: dict[str, Any]
    sources: list[AnswerSource]
    usage: dict[str, Any]
    error: ItemError | None = Field(description="The error of the last attempt.")
    started_at: datetime | None
    completed_at: datetime | None
    columns: dict[str, str] = Field(description="The other cells of the text's row in the file, by their columns.")
    html: str | None = Field(None, description="The content as safe HTML; only with `render=html`.")


class Column(RestModel):
    index: int = Field(description="Its number from 1, which `column` and `id_column` take.")
    name: str = Field(description="Its name in the header, or its number; no two are equal.")
    samples: list[str] = Field(description="Up to five cells, each cut at 200 characters.")


class Preview(RestModel):
    """A file before it is submitted. Columns without any cell are left out."""

    sheets: list[str] = Field(description="The visible sheets of a workbook; empty for other files.")
    columns: list[Column]
    rows: int = Field(description="Rows below the header that have any text.")
    column: int | None = Field(description="The column that would be asked, null if it has to be chosen.")
    id_column: int | None = Field(description="A column that looks like ids. It has to be chosen to count as such.")
    header: bool = Field(description="Whether the first row is a header.")
    max_bytes: int = Field(description="The largest file that is taken.")


class Summary(RestModel):
    total: int
    success: int
    failed: int


class Results(RestModel):
    """Results in the order of the submission; also available while the task runs."""

    task_id: str
    status: TaskStatus
    results: list[Result]
    total: int
    page: int
    size: int
    summary: Summary


class Queue(RestModel):
    total_tasks: int
    pending: int
    running: int
    paused: int
    max_size: int
    available_slots: int


class Processor(RestModel):
    """The batch processor, over all replicas and callers."""

    is_running: bool
    workers: int
    max_concurrent: int
    running_items: int
    queue: Queue
    max_bytes: int = Field(description="The largest submission that is taken, file or JSON.")


def submitted_json(task: Task, unvalued: int) -> dict[str, Any]:
    """Return the data of `Submitted`; `unvalued` is the number of formulas without a value."""
    told = {"task_id": task.task_id, "status": task.status, "created_at": utc_text(task.created_at)}
    return {**told, "formulas_without_value": unvalued}


def summary_json(task: Task) -> dict[str, int]:
    """Return the data of `Summary`."""
    return {"total": task.total, "success": task.completed, "failed": task.failed}


def processor_json(status: QueueStatus, max_bytes: int) -> dict[str, Any]:
    """Return the data of `Processor`."""
    waiting = {name: status.totals.get(name, 0) for name in UNFINISHED}
    return {
        "is_running": status.is_running,
        "workers": status.workers,
        "max_concurrent": status.max_concurrent,
        "running_items": status.running_items,
        "queue": {
            "total_tasks": sum(status.totals.values()),
            **waiting,
            "max_size": status.max_size,
            "available_slots": status.available_slots,
        },
        "max_bytes": max_bytes,
    }
