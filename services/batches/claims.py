"""Claims: the item that a lane gets next, and the end of its attempt; the frequent transactions of batches.

A candidate is searched without a lock; claiming it locks its task's row and checks again. Statements that could read
every row of a task name their index: servers were seen to read the texts instead, which took half a second. The cost of
a task is the sum of its items' tokens and prices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from services.batches.records import BatchOptions, Claimed, Given, Order, Priority
from services.batches.tables import ITEMS, TASKS, by_status

Row = sa.Row[Any]
Usage = Mapping[str, Any]

#: Statuses of items that are counted for an unfinished task; all others are pending.
COUNTED = ("running", "completed", "failed")

#: Statuses of tasks that items are claimed from. Tasks never served come first, then those served longest ago.
WORKED = ("pending", "running")
#: When the first waiting item of a task may be asked: a read of one index entry.
_FIRST_DUE = (
    by_status(sa.select(ITEMS.c.due))
    .where(ITEMS.c.task_id == TASKS.c.task_id, ITEMS.c.status == "pending")
    .order_by(ITEMS.c.due)
    .limit(1)
    .correlate(TASKS)
    .scalar_subquery()
)
#: The lowest priority that takes part in each of ten claims of a process. So a task of low priority that waits gets its
#: share of every tenth claim, and the tasks that take part get theirs in the order of `served`.
LOWEST: tuple[Priority, ...] = ("high", "low", "high", "normal", "high", "high", "normal", "high", "high", "normal")
#: By the lowest priority of a claim, the lowest values of `priority` to search for work, in this order.
_TAKING_PART: Mapping[Priority, tuple[int, ...]] = {"high": (1, 0, -1), "normal": (0, -1), "low": (-1,)}


def usage_sums(usages: Iterable[Usage]) -> list[dict[str, Any]]:
    """Return `{total_tokens, total_price, currency}` for each currency, that of the most tokens first.

    A price is a decimal string, "" where no item has one.
    """
    tokens: dict[str, int] = {}
    prices: dict[str, Decimal] = {}
    for usage in usages:
        currency = str(usage.get("currency") or "")
        tokens[currency] = tokens.get(currency, 0) + int(usage.get("total_tokens") or 0)
        if (price := _price(usage.get("total_price"))) is not None:
            prices[currency] = prices.get(currency, Decimal()) + price
    by_tokens = sorted(tokens, key=lambda currency: (-tokens[currency], currency))
    return [
        {"total_tokens": tokens[one], "total_price": f"{prices[one]:f}" if one in prices else "", "currency": one}
        for one in by_tokens
    ]


def _price(text: Any) -> Decimal | None:
    try:
        price = Decimal(str(text or ""))
    except InvalidOperation:
        return None
    return price if price.is_finite() else None


class Overtaken(Exception):
    """Another worker claimed for the same lane: search again."""


class Held(NamedTuple):
    """A running item and its lane."""

    task_id: str
    item_index: int
    lane: int


def held(connection: sa.Connection) -> list[Held]:
    """Return the running items: at most one per lane."""
    columns = (ITEMS.c.task_id, ITEMS.c.item_index, ITEMS.c.lane)
    return [Held(*row) for row in connection.execute(sa.select(*columns).where(ITEMS.c.lane >= 0))]


def left_behind(running: Collection[Held], lane: int, lanes: int | None) -> Held | None:
    """Return the item that is running in this lane, or else one of a lane that no longer exists."""
    gone = (item for item in running if lanes is not None and item.lane >= lanes)
    return next((item for item in running if item.lane == lane), None) or next(gone, None)


def candidate(
    connection: sa.Connection, lane: int, lanes: int | None, now: datetime, *, lowest: Priority | None
) -> Callable[[sa.Connection], Claimed | None] | None:
    """Return the transaction that claims an item for a lane, found without a lock; None if there is none.

    `lowest` is the lowest priority that takes part, as in `next_task`; None for running items only.
    """
    running = held(connection)
    if found := left_behind(running, lane, lanes):
        return lambda c: take_again(c, found, lane)
    if lowest and (task_id := next_task(connection, running, now, lowest)):
        return lambda c: take(c, task_id, lane, now)
    return None


def next_task(
    connection: sa.Connection, running: Collection[Held], now: datetime, lowest: Priority = "low"
) -> str | None:
    """Return the task that was served longest ago, None if no item is due.

    Tasks below the priority `lowest` come only where those of it and above have no item.
    """
    open_tasks = TASKS.c.task_id.not_in(_full(connection, running))
    for level in _TAKING_PART[lowest]:
        for status in WORKED:
            ready = sa.select(TASKS.c.task_id).where(TASKS.c.status == status, micros(now) >= _FIRST_DUE, open_tasks)
            first = ready.where(TASKS.c.priority >= level).order_by(TASKS.c.served, TASKS.c.task_id).limit(1)
            if (task_id := connection.scalar(first)) is not None:
                return str(task_id)
    return None


def next_due(connection: sa.Connection, now: datetime) -> float | None:
    """Return the seconds until the first retry is due; `None` if none waits."""
    first = sa.select(_FIRST_DUE.label("due")).where(TASKS.c.status.in_(WORKED)).subquery()
    due = connection.scalar(sa.select(sa.func.min(first.c.due)).where(first.c.due > micros(now)))
    return None if due is None else (due - micros(now)) / 1e6


def _full(connection: sa.Connection, running: Collection[Held]) -> list[str]:
    """Return the tasks that have `max_concurrent` items running."""
    counts = Counter(item.task_id for item in running)
    bounds = sa.select(TASKS.c.task_id, TASKS.c.max_concurrent)
    bounded = bounds.where(TASKS.c.task_id.in_(counts), TASKS.c.max_concurrent.is_not(None))
    found = connection.execute(bounded) if counts else ()
    return [task_id for task_id, most in found if counts[task_id] >= most]


def locked(connection: sa.Connection, task_id: str) -> Row | None:
    """Return a task, and lock it and its items until the transaction ends."""
    return connection.execute(sa.select(TASKS).where(TASKS.c.task_id == task_id).with_for_update()).first()


def take(connection: sa.Connection, task_id: str, lane: int, now: datetime) -> Claimed | None:
    """Claim the next item of a task; `None` if others were faster.

    Raises:
        Overtaken: the lane has an item by now.
    """
    task = locked(connection, task_id)
    if task is None or task.status not in WORKED or _is_full(connection, task):
        return None
    item = _next_item(connection, task_id, now)
    if item is None:
        return None
    attempt = item.attempts + 1
    mine = {"status": "running", "lane": lane, "attempts": attempt, "started_at": now}
    _put(connection, _key(task_id, item.item_index), mine)
    # To the end of the queue, also if the clock stands still or another replica's is behind.
    served = max(micros(now), task.served + 1)
    values = {"status": "running", "served": served, "started_at": task.started_at or now}
    connection.execute(TASKS.update().where(TASKS.c.task_id == task.task_id).values(values))
    return _claimed(task, item, attempt=attempt, lane=lane, again=False)


def take_again(connection: sa.Connection, found: Held, lane: int) -> Claimed | None:
    """Claim an item whose worker is gone; `None` if it is no longer running. Raises as `take` does."""
    task = locked(connection, found.task_id)
    if task is None or found not in held(connection):
        return None
    mine = _key(found.task_id, found.item_index)
    item = connection.execute(sa.select(ITEMS).where(*mine)).one()
    _put(connection, mine, {"lane": lane})
    return _claimed(task, item, attempt=item.attempts, lane=lane, again=True)


def settle(connection: sa.Connection, claimed: Claimed, values: Mapping[str, Any], now: datetime) -> bool:
    """Store the result of an attempt, and end the task with its last item; `False` if the attempt is over."""
    task = locked(connection, claimed.task.task_id)
    running = (ITEMS.c.status == "running", ITEMS.c.attempts == claimed.attempt)
    change = ITEMS.update().where(*_key(claimed.task.task_id, claimed.index), *running)
    if task is None or not connection.execute(change.values(lane=None, **values)).rowcount:
        return False
    left = by_status(sa.select(ITEMS.c.item_index)).where(ITEMS.c.task_id == task.task_id, ITEMS.c.status.in_(WORKED))
    if connection.scalar(left.limit(1)) is None:
        _end(connection, task, values.get("error_message") or "", now)
    return True


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


def waits(count: int) -> dict[str, Any]:
    """Return the metadata of an unfinished item: the number of attempts that do not count."""
    return {"metadata": {"waits": count}}


def waits_of(item: Row) -> int:
    """Return the number of an unfinished item's attempts that do not count."""
    answered = item.status in ("completed", "failed")
    return 0 if answered else int(item.metadata.get("waits", 0))


def micros(moment: datetime) -> int:
    """Return a time as whole microseconds since 1970."""
    # Computed in integers: a float of the present time has no digits left for microseconds.
    return int(moment.astimezone(UTC).replace(microsecond=0).timestamp()) * 1_000_000 + moment.microsecond


def _claimed(task: Row, item: Row, *, attempt: int, lane: int, again: bool) -> Claimed:
    order = Order(task.task_id, task.owner, BatchOptions.from_json(task.options), task.credential)
    inputs = Given.from_json(item.given).inputs
    return Claimed(order, item.item_index, item.question, attempt, lane, again, waits_of(item), inputs)


def _key(task_id: str, item_index: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (ITEMS.c.task_id == task_id, ITEMS.c.item_index == item_index)


def _is_full(connection: sa.Connection, task: Row) -> bool:
    if task.max_concurrent is None:
        return False
    mine = sum(item.task_id == task.task_id for item in held(connection))
    return bool(mine >= task.max_concurrent)


def _put(connection: sa.Connection, item: tuple[sa.ColumnElement[bool], ...], values: Mapping[str, Any]) -> None:
    """Assign an item to a lane; the unique index on lanes rejects a second one."""
    try:
        connection.execute(ITEMS.update().where(*item).values(values))
    except IntegrityError as exc:
        raise Overtaken from exc


def _next_item(connection: sa.Connection, task_id: str, now: datetime) -> Row | None:
    waiting = by_status(sa.select(ITEMS)).where(ITEMS.c.task_id == task_id, ITEMS.c.status == "pending")
    ready = waiting.where(ITEMS.c.due <= micros(now)).order_by(ITEMS.c.due, ITEMS.c.item_index)
    return connection.execute(ready.limit(1)).first()


def _end(connection: sa.Connection, task: Row, message: str, now: datetime) -> None:
    counts = count(connection, [task.task_id])
    completed, failed = counts[task.task_id, "completed"], counts[task.task_id, "failed"]
    failure = {"status": "failed", "error_message": message}
    values = {"status": "completed"} if completed else failure
    ended = TASKS.update().where(TASKS.c.task_id == task.task_id)
    done = {"completed": completed, "failed": failed, "spent": spent(connection, task.task_id)}
    # No more items are asked, so the submitter's credential is deleted.
    connection.execute(ended.values(ended_at=now, credential="", **done, **values))


def spent(connection: sa.Connection, task_id: str) -> list[dict[str, Any]]:
    """Return the sums of a locked task's usage."""
    usages = sa.select(ITEMS.c.spent).where(ITEMS.c.task_id == task_id, ITEMS.c.spent.is_not(None))
    return usage_sums(connection.scalars(usages))
