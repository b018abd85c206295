"""Items of batches in SQL: which one a lane asks next, what came of it, and their reading.

Tasks are changed in `store.py`, whose class extends this one. No state of tasks is kept between calls. Every method
raises `StoreUnavailable` while the database is away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import cycle
from typing import Any

import sqlalchemy as sa

from services.batches.records import UNFINISHED, Claimed, Item, ItemStatus, Priority
from services.batches.sql import claims
from services.batches.sql.rows import answer_values, items_of, waits
from services.batches.sql.tables import TASKS
from services.sql.database import SqlDatabase

#: How often a claim is retried after another worker was faster.
TRIES = 50


class SqlItemStore:
    """Items, and which lane has which, in MySQL or SQLite.

    Timeouts as in `SqlDatabase`; `clock` returns seconds since 1970.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 5,
        pool_timeout: float = 5.0,
        connect_timeout: float = 3.0,
        read_timeout: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = SqlDatabase(
            url,
            pool_size=pool_size,
            pool_timeout=pool_timeout,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            writes=True,
        )
        self._clock = clock
        #: The claims of this process take turns between priorities.
        self._turns = cycle(claims.TURNS)

    def check(self) -> None:
        """Check that the database answers."""
        self._database.read(lambda connection: connection.scalar(sa.select(1)))

    def close(self) -> None:
        """Close the idle connections."""
        self._database.close()

    def results(self, task_id: str, *, page: int = 1, size: int = 100) -> list[Item]:
        """Return one page of a task's items in input order, with any status."""
        return self.rows(task_id, (page - 1) * size - 1, size)

    def rows(
        self, task_id: str, after: int = -1, limit: int = 100, *, status: ItemStatus | None = None, skip: int = 0
    ) -> list[Item]:
        """Return up to `limit` items with an index above `after`, in order; none at the end.

        With a `status`, only items of it, without the first `skip` of them.
        """
        return self._database.read(lambda c: items_of(c, task_id, after + 1, limit, status=status, skip=skip))

    def ended(self, task_ids: Collection[str]) -> set[str]:
        """Return those of the tasks that have ended or no longer exist."""
        going = sa.select(TASKS.c.task_id).where(TASKS.c.task_id.in_(task_ids), TASKS.c.status.in_(UNFINISHED))
        return {*task_ids} - {*self._database.read(lambda connection: connection.scalars(going).all())}

    def claim(self, lane: int, *, lanes: int | None = None) -> Claimed | None:
        """Return the item that this lane must ask now, `None` if there is none.

        First an item that is already running in the lane, or in a lane of number `lanes` or above, which no longer
        exists and has no worker. Then the next item of the task that was served longest ago, among those whose priority
        takes part in this claim (`TURNS` of `sql/claims.py`).
        """
        return self._claimed(lane, lanes, turn=next(self._turns))

    def claim_again(self, lane: int, *, lanes: int | None = None) -> Claimed | None:
        """Do as `claim` does, but return only an item that is already running."""
        return self._claimed(lane, lanes, turn=None)

    def complete(
        self,
        claimed: Claimed,
        *,
        content: str,
        metadata: Mapping[str, Any] | None = None,
        sources: Sequence[Mapping[str, Any]] = (),
        usage: Mapping[str, Any] | None = None,
    ) -> bool:
        """Store an item's answer; `False` if the item has ended or another attempt has begun."""
        return self._end(claimed, "completed", answer_values(content, metadata, sources, usage))

    def fail(self, claimed: Claimed, code: str, message: str, **said: Any) -> bool:
        """Mark the item as failed, with a code and a sentence for the user; `False` as in `complete`.

        `said` is the partial answer, with the keywords of `complete`.
        """
        return self._end(claimed, "failed", {**answer_values(**said), **_error(code, message)})

    def retry(self, claimed: Claimed, after: float, code: str, message: str) -> bool:
        """Ask the item again in `after` seconds, as its next attempt; `False` as in `complete`.

        The caller limits the number of attempts. Items that were never asked come before those to be asked again.
        """
        due = claims.micros(self._now() + timedelta(seconds=after))
        return self._settle(claimed, {"status": "pending", "due": due, **_error(code, message)})

    def wait(self, claimed: Claimed, after: float, code: str, message: str) -> bool:
        """Do as `retry` does, without counting this attempt."""
        due = claims.micros(self._now() + timedelta(seconds=after))
        values = {"status": "pending", "due": due, **waits(claimed.waits + 1), **_error(code, message)}
        return self._settle(claimed, values)

    def runnable(self) -> tuple[bool, float | None]:
        """Return whether a claim would find a waiting item and, if not, the seconds until the first retry is due.

        Running items do not count here: see `running_lanes`.
        """
        now = self._now()

        def look(connection: sa.Connection) -> tuple[bool, float | None]:
            found = claims.next_task(connection, claims.held(connection), now) is not None
            return found, None if found else claims.next_due(connection, now)

        return self._database.read(look)

    def running_lanes(self) -> frozenset[int]:
        """Return the lanes that have a running item, each of which needs a worker."""
        return frozenset(item.lane for item in self._database.read(claims.held))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _claimed(self, lane: int, lanes: int | None, *, turn: Priority | None) -> Claimed | None:
        for _ in range(TRIES):
            look = partial(claims.candidate, lane=lane, lanes=lanes, now=self._now(), turn=turn)
            attempt = self._database.read(look)
            if attempt is None:
                break
            with suppress(claims.Overtaken):
                if claimed := self._database.transact(attempt):
                    return claimed
        return None

    def _end(self, claimed: Claimed, status: ItemStatus, values: Mapping[str, Any]) -> bool:
        end = {"status": status, "attempts": claimed.tries, "ended_at": self._now()}
        return self._settle(claimed, {**end, **_error(), **values})

    def _settle(self, claimed: Claimed, values: Mapping[str, Any]) -> bool:
        now = self._now()
        return self._database.transact(lambda connection: claims.settle(connection, claimed, values, now))


def _error(code: str | None = None, message: str | None = None) -> dict[str, str | None]:
    return {"error_code": code, "error_message": message}
