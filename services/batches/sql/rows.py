"""Rows of the batch tables, turned into the values of `records.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from services.batches.records import (
    ENDED,
    TASK_STATUSES,
    BatchOptions,
    Claimed,
    Given,
    Item,
    ItemStatus,
    Order,
    Task,
    Webhook,
)
from services.batches.sql.tables import ITEMS, TASKS
from utils.citations import typed_source

#: Statuses of items that are counted for an unfinished task; all others are pending.
COUNTED = ("running", "completed", "failed")

Row = sa.Row[Any]


def by_status(asked: sa.Select[Any]) -> sa.Select[Any]:
    """Make MySQL read the items by the index of their status, whatever its optimizer prefers."""
    return asked.with_hint(ITEMS, "FORCE INDEX (laibao_batch_items_next)")


def tasks_of(connection: sa.Connection, rows: Collection[Row], now: datetime) -> list[Task]:
    """Return tasks as they are now; items of unfinished tasks are counted."""
    counts = count(connection, [row.task_id for row in rows if row.status not in ENDED])
    return [_task(row, counts, now) for row in rows]


def count(connection: sa.Connection, task_ids: Collection[str]) -> Counter[tuple[str, str]]:
    """Return the number of running, completed and failed items by task and status."""
    found: Counter[tuple[str, str]] = Counter()
    if task_ids:
        columns = (ITEMS.c.task_id, ITEMS.c.status)
        asked = by_status(sa.select(*columns, sa.func.count())).group_by(*columns)
        counted = asked.where(columns[0].in_(task_ids), columns[1].in_(COUNTED))
        for task_id, status, number in connection.execute(counted):
            found[task_id, status] = number
    return found


def _task(row: Row, counts: Counter[tuple[str, str]], now: datetime) -> Task:
    ended = row.status in ENDED
    completed = row.completed if ended else counts[row.task_id, "completed"]
    failed = row.failed if ended else counts[row.task_id, "failed"]
    cancelled = row.status == "cancelled"
    return Task(
        task_id=row.task_id,
        owner=row.owner,
        name=row.name,
        description=row.description,
        status=row.status,
        options=BatchOptions.from_json(row.options),
        total=row.total,
        created_at=row.created_at,
        seen_at=now,
        completed=completed,
        failed=failed,
        cancelled=row.total - completed - failed if cancelled else 0,
        running=0 if ended else counts[row.task_id, "running"],
        started_at=row.started_at,
        completed_at=None if cancelled else row.ended_at,
        cancelled_at=row.ended_at if cancelled else None,
        paused=_paused(row, now),
        error_message=row.error_message,
        credential=row.credential,
        usage=tuple(row.spent) if ended else (),
        webhook=Webhook(row.hook_state, row.hook_tries, row.hook_error or ""),
    )


def _paused(row: Row, now: datetime) -> timedelta:
    """Return the total time of a task's pauses, also of one that it is in or ended in."""
    present = (row.ended_at or now) - row.paused_at if row.paused_at else timedelta()
    return timedelta(microseconds=row.paused) + max(present, timedelta())


def items_of(
    connection: sa.Connection, task_id: str, first: int, size: int, *, status: ItemStatus | None = None, skip: int = 0
) -> list[Item]:
    """Return up to `size` items from index `first` on, in order; none if the task is being removed.

    With a `status`, only items of it, without the first `skip` of them.
    """
    of_task = connection.scalar(sa.select(TASKS.c.status).where(TASKS.c.task_id == task_id))
    if of_task not in TASK_STATUSES:
        return []
    cancelled = of_task == "cancelled"
    asked = sa.select(ITEMS).where(ITEMS.c.task_id == task_id, ITEMS.c.item_index >= first).order_by(ITEMS.c.item_index)
    if status:
        asked = by_status(asked).where(ITEMS.c.status.in_(_stored(status, cancelled))).limit(size).offset(skip)
    else:
        asked = asked.where(ITEMS.c.item_index < first + size)
    return list(_items(connection.execute(asked), cancelled))


def _stored(status: ItemStatus, cancelled: bool) -> tuple[str, ...]:
    """Return the statuses of rows whose items are shown with a status."""
    if not cancelled or status not in ("pending", "cancelled"):
        return (status,)
    return ("pending", "cancelled") if status == "cancelled" else ()


def answer_values(
    content: str = "",
    metadata: Mapping[str, Any] | None = None,
    sources: Sequence[Mapping[str, Any]] = (),
    usage: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the columns of an answer, which may be partial."""
    return {"answer": content, "metadata": dict(metadata or {}), "sources": [*sources], "spent": dict(usage or {})}


def waits(count: int) -> dict[str, Any]:
    """Return the metadata of an unfinished item: the number of attempts that do not count."""
    return {"metadata": {"waits": count}}


def _waits(item: Row) -> int:
    answered = item.status in ("completed", "failed")
    return 0 if answered else int(item.metadata.get("waits", 0))


def _items(rows: Iterable[Row], cancelled: bool) -> Iterator[Item]:
    for row in rows:
        unspent = _waits(row)
        yield Item(
            index=row.item_index,
            text=row.question,
            status="cancelled" if cancelled and row.status == "pending" else row.status,
            attempts=row.attempts - unspent,
            content=row.answer or "",
            metadata={} if unspent else row.metadata,
            sources=tuple(map(typed_source, row.sources)),
            usage=row.spent,
            error={"code": row.error_code, "message": row.error_message or ""} if row.error_code else None,
            started_at=row.started_at,
            completed_at=row.ended_at,
            given=Given.from_json(row.given),
        )


def claimed_of(task: Row, item: Row, *, attempt: int, lane: int, again: bool) -> Claimed:
    """Return a row as the item that a lane has claimed."""
    order = Order(task.task_id, task.owner, BatchOptions.from_json(task.options), task.credential)
    return Claimed(
        order, item.item_index, item.question, attempt, lane, again, _waits(item), Given.from_json(item.given).inputs
    )
