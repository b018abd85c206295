"""The batch tasks a client of the realtime socket wants to hear of, and the frames it gets about them."""

from __future__ import annotations

from collections.abc import Callable

from services.batches.records import Task
from services.realtime.effects import Effect, Unwatch, Watch
from services.realtime.frames import RealtimeFrames

#: Tasks one connection may follow at once.
MOST_TASKS = 20


class Subscriptions:
    """What one connection follows. It belongs to no session: the frames have the one of their moment."""

    def __init__(self, now: Callable[[], str]) -> None:
        """Take the time as frames say it."""
        self._now = now
        self._task_ids: set[str] = set()

    def begin(self, task_id: str, frames: RealtimeFrames) -> list[Effect]:
        """Follow a task; said again, it is told anew how that is."""
        if len(self._task_ids | {task_id}) > MOST_TASKS:
            return [frames.task_error("too_many_subscriptions", task_id)]
        self._task_ids.add(task_id)
        return [Watch(task_id)]

    def end(self, task_id: str) -> list[Effect]:
        """Follow it no more."""
        self._task_ids.discard(task_id)
        return [Unwatch(task_id)]

    def progressed(self, task: Task, frames: RealtimeFrames) -> list[Effect]:
        """Take in how a task is now; its end is the last that is told of it."""
        if task.task_id not in self._task_ids:
            return []
        told: list[Effect] = [frames.batch_progress(task, self._now())]
        if task.ended:
            self._task_ids.discard(task.task_id)
        return [*told, frames.task_error("batch_task_failed", task.task_id)] if task.status == "failed" else told

    def failed(self, task_id: str, code: str, frames: RealtimeFrames) -> list[Effect]:
        """Take in that a task cannot be followed, or not any more."""
        if task_id not in self._task_ids:
            return []
        self._task_ids.discard(task_id)
        return [frames.task_error(code, task_id)]
