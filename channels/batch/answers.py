"""The answer models of the batch API for the OpenAPI document, and functions that build data in their shape."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from pydantic import Field

from channels.batch.models import Options
from channels.web.rest import RestModel
from services.batches.records import UNFINISHED, ItemStatus, QueueStatus, Task, TaskStatus, utc_text


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
    text: str
    status: ItemStatus
    attempts: int
    content: str
    metadata: dict[str, Any]
    sources: list[dict[str, Any]]
    usage: dict[str, Any]
    error: ItemError | None = Field(description="The error of the last attempt.")
    started_at: datetime | None
    completed_at: datetime | None


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


def submitted_json(task: Task, unvalued: int) -> dict[str, Any]:
    """Return the data of `Submitted`; `unvalued` is the number of formulas without a value."""
    told = {"task_id": task.task_id, "status": task.status, "created_at": utc_text(task.created_at)}
    return {**told, "formulas_without_value": unvalued}


def task_json(task: Task) -> dict[str, Any]:
    """Return the data of `TaskState`."""
    counts = ("total", "completed", "failed", "cancelled", "running", "pending", "percentage")
    moments = ("created_at", "started_at", "completed_at", "cancelled_at", "estimated_completion")
    return {
        "task_id": task.task_id,
        "name": task.name,
        "description": task.description,
        "status": task.status,
        "progress": {**{name: getattr(task, name) for name in counts}, "rate": round(task.rate, 3)},
        "total_items": task.total,
        **{name: utc_text(getattr(task, name)) for name in moments},
        "error_message": task.error_message or None,
        "options": asdict(task.options),
    }


def summary_json(task: Task) -> dict[str, int]:
    """Return the data of `Summary`."""
    return {"total": task.total, "success": task.completed, "failed": task.failed}


def processor_json(status: QueueStatus) -> dict[str, Any]:
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
    }
