"""Batches of every caller, for administrators: their progress; an operator pauses, resumes and cancels."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

from flask import Blueprint, Response
from pydantic import Field

from channels.admin.endpoints import MOST, TAG, USUAL
from channels.web.guarded import Administrators, admin_errors
from channels.web.rest import Operation, RestError, RestModel, envelope, params
from services.batches.records import Task, TaskStatus


class BatchesAsked(RestModel):
    """Which tasks."""

    status: TaskStatus | None = None
    limit: int = Field(USUAL, ge=1, le=MOST, description="Tasks at most, the newest first.")


class AdminTask(RestModel):
    """A batch task, without its name and its words."""

    task_id: str
    owner: str = Field(description="`key:<fingerprint>`, `user:<user_code>`, or `admin:<name>`.")
    status: TaskStatus
    priority: Literal["low", "normal", "high"]
    total: int = Field(description="Questions.")
    completed: int
    failed: int
    running: int
    created_at: str


class AdminTasks(RestModel):
    """Batch tasks of all callers."""

    total: int
    tasks: list[AdminTask]


class TaskChanged(RestModel):
    """A task that an administrator changed."""

    task_id: str
    was: TaskStatus = Field(description="Its status before.")
    status: TaskStatus


_ACTS = (
    ("pause", "Pause a batch", "Running questions may end; no more are asked."),
    ("resume", "Resume a paused batch", ""),
    ("cancel", "Cancel a batch", "Its running questions too. It cannot be resumed."),
)
OPERATIONS = (
    Operation(
        "GET",
        "/api/admin/batches",
        "Batches of all callers",
        TAG,
        query=BatchesAsked,
        answers={200: AdminTasks},
        auth="viewer",
        description="Without a database there are none: 404.",
    ),
    *(
        Operation(
            "POST",
            f"/api/admin/batches/{{task_id}}/{act}",
            summary,
            TAG,
            answers={200: TaskChanged, 409: None},
            auth="operator",
            description=f"{words} Audited as `batch.{act}`.".strip(),
        )
        for act, summary, words in _ACTS
    ),
)


class Manager(Protocol):
    """What changes tasks, as `BatchManager` does."""

    def pause(self, task_id: str, owner: str) -> Task: ...

    def resume(self, task_id: str, owner: str) -> Task: ...

    def cancel(self, task_id: str, owner: str) -> Task: ...


class TaskStore(Protocol):
    """The tasks of every owner, as `SqlBatchStore` reads them."""

    def get(self, task_id: str) -> Task: ...

    def list(self, owner: None, status: TaskStatus | None, *, size: int) -> tuple[list[Task], int]: ...


class Batches(NamedTuple):
    """Batches with a database."""

    manager: Manager
    store: TaskStore


def batches_blueprint(administrators: Administrators, batches: Batches | None) -> Blueprint:
    """Return the addresses of batches below /api/admin/; `batches` is None without a database."""
    routes = Blueprint("admin_batches", __name__)
    admin_errors(routes)

    def there() -> Batches:
        if batches is None:
            raise RestError(404)
        return batches

    @routes.get("/api/admin/batches")
    def tasks() -> Response:
        administrators.check("viewer")
        asked = params(BatchesAsked)
        found, total = there().store.list(None, asked.status, size=asked.limit)
        return envelope({"total": total, "tasks": [_task(one) for one in found]})

    def change(task_id: str, act: Literal["pause", "resume", "cancel"]) -> Response:
        who = administrators.check("operator")
        manager, store = there()
        task = store.get(task_id)
        administrators.record(who, f"batch.{act}", task_id, before=task.status)
        changed: Task = getattr(manager, act)(task_id, task.owner)
        return envelope({"task_id": task_id, "was": task.status, "status": changed.status})

    for act, *_ in _ACTS:
        routes.add_url_rule(f"/api/admin/batches/<task_id>/{act}", act, change, defaults={"act": act}, methods=["POST"])
    return routes


def _task(task: Task) -> dict[str, Any]:
    return {
        **{name: getattr(task, name) for name in AdminTask.model_fields if hasattr(task, name)},
        "priority": task.options.priority,
        "created_at": task.created_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
