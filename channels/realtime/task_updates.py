"""Reports the progress of batch tasks to subscribed sockets.

One query a second serves all sockets of this process; without subscriptions nothing is queried.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from services.batches.records import Task
from services.errors import StoreUnavailable

log = logging.getLogger(__name__)

#: Seconds between two queries, and after a failed one.
INTERVAL = 1.0
PAUSE = 2.0
#: Maximum tasks of one query.
MOST_QUERIED = 500
#: Seconds `stop` waits for a running query.
STOP_SECONDS = 2.0

#: Reports a task's state to a client; `None` means that the task is gone. Returns whether the socket is still open.
Report = Callable[[str, Task | None], bool]


class TaskSource(Protocol):
    """The manager of batches, as it is used here. Both methods may raise `StoreUnavailable`."""

    def get(self, task_id: str, owner: str) -> Task:
        """Return the owner's task; raises `BatchUnknown`."""

    def look_up(self, task_ids: Collection[str]) -> Sequence[Task]:
        """Return those of these tasks that exist."""


class TaskUpdates:
    """The followers of this process, and the thread that queries their tasks."""

    def __init__(self, batches: TaskSource, *, interval: float = INTERVAL) -> None:
        self._batches = batches
        self._interval = interval
        self._lock = threading.Lock()
        self._followers: set[Follower] = set()
        self._followed = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="task-updates", daemon=True)

    def follower(self, owner: str, report: Report) -> Follower:
        """Return a new follower without subscriptions; it calls `report` in a thread of its own."""
        return Follower(self, owner, report)

    def start(self) -> None:
        self._thread.start()

    def leave(self) -> None:
        """Do nothing: followers end with their sockets."""

    def close_all(self) -> None:
        """Do nothing, as `leave`."""

    def stop(self) -> None:
        """Stop the thread."""
        self._stopping.set()
        self._followed.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def get(self, task_id: str, owner: str) -> Task:
        """Return the owner's task; raises `BatchUnknown`, `StoreUnavailable`."""
        return self._batches.get(task_id, owner)

    def add(self, follower: Follower) -> None:
        """Add a follower and wake the thread."""
        with self._lock:
            self._followers.add(follower)
        self._followed.set()

    def remove(self, follower: Follower) -> None:
        with self._lock:
            self._followers.discard(follower)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._followed.wait()
            pause = self._interval
            try:
                self._query()
            except StoreUnavailable:
                pause = PAUSE
            except Exception:
                log.exception("batch tasks not queried")
                pause = PAUSE
            self._stopping.wait(pause)

    def _query(self) -> None:
        with self._lock:
            followers = list(self._followers)
        wanted = [(follower, follower.task_ids) for follower in followers]
        task_ids = sorted({task_id for _, followed in wanted for task_id in followed})
        if not task_ids:
            self._wait_for_subscriptions()
            return
        found: dict[str, Task] = {}
        for first in range(0, len(task_ids), MOST_QUERIED):
            found |= {task.task_id: task for task in self._batches.look_up(task_ids[first : first + MOST_QUERIED])}
        for follower, followed in wanted:
            follower.take({task_id: found.get(task_id) for task_id in followed})

    def _wait_for_subscriptions(self) -> None:
        """Wait until a task is followed."""
        self._followed.clear()
        with self._lock:
            followers = list(self._followers)
        if self._stopping.is_set() or any(follower.task_ids for follower in followers):
            self._followed.set()


class Follower:
    """The subscriptions of one client, with a thread of its own so that a slow client delays no other.

    Only the latest state of each task is sent; a client that reads slowly misses the states in between.
    """

    def __init__(self, updates: TaskUpdates, owner: str, report: Report) -> None:
        self._updates = updates
        self._owner = owner
        self._report = report
        self._lock = threading.Lock()
        #: The latest known state of each followed task, sent or about to be sent.
        self._last: dict[str, Task | None] = {}
        #: The states still to be sent.
        self._due: dict[str, Task | None] = {}
        self._changed = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def task_ids(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._last)

    def follow(self, task_id: str) -> None:
        """Report a task now and whenever its counts change, until it ends.

        Raises:
            BatchUnknown: there is no such task, or it belongs to another caller.
            StoreUnavailable: the database is unavailable.
        """
        task = self._updates.get(task_id, self._owner)
        with self._lock:
            if self._closed:
                return
            self._due[task_id] = task
            if not task.ended:
                self._last[task_id] = task
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="task-follower", daemon=True)
                self._thread.start()
        self._changed.set()
        self._updates.add(self)

    def forget(self, task_id: str) -> None:
        """Stop reporting a task."""
        with self._lock:
            self._last.pop(task_id, None)
            self._due.pop(task_id, None)

    def close(self) -> None:
        """Stop reporting all tasks."""
        self._updates.remove(self)
        with self._lock:
            self._closed = True
        self._changed.set()

    def take(self, seen: Mapping[str, Task | None]) -> None:
        """Take the result of a query; only tasks whose counts changed are reported."""
        with self._lock:
            for task_id, task in seen.items():
                if task_id in self._last and _counts(task) != _counts(self._last[task_id]):
                    self._due[task_id] = self._last[task_id] = task
                    if task is None or task.ended:
                        del self._last[task_id]
            changed = bool(self._due)
        if changed:
            self._changed.set()

    def _run(self) -> None:
        try:
            while not self._closed:
                self._changed.wait()
                self._changed.clear()
                with self._lock:
                    due, self._due = self._due, {}
                if not all(self._report(task_id, task) for task_id, task in due.items()):
                    self.close()
        except Exception:
            log.exception("batch tasks not reported")
            self.close()


def _counts(task: Task | None) -> tuple[object, ...] | None:
    """Return the values whose change is reported."""
    if task is None:
        return None
    return (task.status, task.total, task.completed, task.failed, task.cancelled, task.running)
