"""The batch tasks that a realtime client follows, and the frames about them."""

from __future__ import annotations

from collections.abc import Callable

from services.batches.records import Task
from services.realtime.effects import Effect, UnwatchTask, WatchTask
from services.realtime.frames import RealtimeFrames

#: Tasks that one connection may follow at once.
MOST_TASKS = 20


class Subscriptions:
    """The tasks one connection follows, across its sessions. Frames carry the current session's id."""

    def __init__(self, now: Callable[[], str]) -> None:
        """`now` returns the time in the format of frames."""
        self._now = now
        self._task_ids: set[str] = set()

    def begin(self, task_id: str, frames: RealtimeFrames) -> list[Effect]:
        """Follow a task. A repeated subscription reports its progress again."""
        if len(self._task_ids | {task_id}) > MOST_TASKS:
            return [frames.task_error("too_many_subscriptions", task_id)]
        self._task_ids.add(task_id)
        return [WatchTask(task_id)]

    def end(self, task_id: str) -> list[Effect]:
        """Stop following a task."""
        self._task_ids.discard(task_id)
        return [UnwatchTask(task_id)]

    def progressed(self, task: Task, frames: RealtimeFrames) -> list[Effect]:
        """Handle a task's progress. After its end the task is no longer followed."""
        if task.task_id not in self._task_ids:
            return []
        told: list[Effect] = [frames.batch_progress(task, self._now())]
        if task.ended:
            self._task_ids.discard(task.task_id)
        return [*told, frames.task_error("batch_task_failed", task.task_id)] if task.status == "failed" else told

    def failed(self, task_id: str, code: str, frames: RealtimeFrames) -> list[Effect]:
        """Handle that a task cannot be followed (any more)."""
        if task_id not in self._task_ids:
            return []
        self._task_ids.discard(task_id)
        return [frames.task_error(code, task_id)]
