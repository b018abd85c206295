"""The rows of the batches as values: what a task and an item look like to those who read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from services.batches.records import ENDED, TASK_STATUSES, BatchOptions, Claimed, Item, Order, Task
from services.batches.sql.tables import ITEMS, TASKS

#: What is counted of an unfinished task; all others are pending.
COUNTED = ("running", "completed", "failed")

Row = sa.Row[Any]


def by_status(asked: sa.Select[Any]) -> sa.Select[Any]:
    """Have MySQL read the items by the index of their status, whatever it thinks of it."""
    return asked.with_hint(ITEMS, "FORCE INDEX (laibao_batch_items_next)")


def tasks_of(connection: sa.Connection, rows: Collection[Row], now: datetime) -> list[Task]:
    """Return tasks as they are now, with the items of those that have not ended counted."""
    counts = count(connection, [row.task_id for row in rows if row.status not in ENDED])
    return [_task(row, counts, now) for row in rows]


def count(connection: sa.Connection, task_ids: Collection[str]) -> Counter[tuple[str, str]]:
    """Return how many items are running, completed and failed, by task and status."""
    found: Counter[tuple[str, str]] = Counter()
    if task_ids:
        columns = (ITEMS.c.task_id, ITEMS.c.status)
        asked = by_status(sa.select(*columns, sa.func.count())).group_by(*columns)
        for row in connection.execute(asked.where(columns[0].in_(task_ids), columns[1].in_(COUNTED))):
            found[row[0], row[1]] = row[2]
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
    )


def _paused(row: Row, now: datetime) -> timedelta:
    """Return how long a task was paused in all, the pause it is or ended in included."""
    present = (row.ended_at or now) - row.paused_at if row.paused_at else timedelta()
    return timedelta(microseconds=row.paused) + max(present, timedelta())


def items_of(connection: sa.Connection, task_id: str, first: int, size: int) -> Iterator[Item]:
    """Return the items of `size` places from `first` on, in order; none of a task that is being removed."""
    mine = (ITEMS.c.task_id == task_id, ITEMS.c.item_index >= first, ITEMS.c.item_index < first + size)
    status = connection.scalar(sa.select(TASKS.c.status).where(TASKS.c.task_id == task_id))
    if status not in TASK_STATUSES:
        return iter(())
    rows = connection.execute(sa.select(ITEMS).where(*mine).order_by(ITEMS.c.item_index)).all()
    return _items(rows, cancelled=status == "cancelled")


def answer_values(
    content: str = "",
    metadata: Mapping[str, Any] | None = None,
    sources: Sequence[Mapping[str, Any]] = (),
    usage: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the columns of what there is of an answer."""
    return {"answer": content, "metadata": dict(metadata or {}), "sources": [*sources], "spent": dict(usage or {})}


def waits(count: int) -> dict[str, Any]:
    """Return what an unfinished item keeps where its answer's metadata will be: the attempts that do not count."""
    return {"metadata": {"waits": count}}


def _waits(item: Row) -> int:
    answered = item.status in ("completed", "failed")
    return 0 if answered else int(item.metadata.get("waits", 0))


def _items(rows: Iterable[Row], *, cancelled: bool) -> Iterator[Item]:
    for row in rows:
        unspent = _waits(row)
        yield Item(
            index=row.item_index,
            text=row.question,
            status="cancelled" if cancelled and row.status == "pending" else row.status,
            attempts=row.attempts - unspent,
            content=row.answer or "",
            metadata={} if unspent else row.metadata,
            sources=tuple(row.sources),
            usage=row.spent,
            error={"code": row.error_code, "message": row.error_message or ""} if row.error_code else None,
            started_at=row.started_at,
            completed_at=row.ended_at,
        )


def claimed_of(task: Row, item: Row, *, attempt: int, lane: int, again: bool) -> Claimed:
    """Return an item as the lane that has it now sees it."""
    order = Order(task.task_id, task.owner, BatchOptions.from_json(task.options), task.credential)
    return Claimed(order, item.item_index, item.question, attempt, lane, again, _waits(item))
