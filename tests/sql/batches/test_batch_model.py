"""The batch store against a model: after any sequence of operations both have the same state."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.batches.records import ENDED, Claimed
from services.errors import BatchFinished, BatchQueueFull
from tests.support.batches.shelf import Shelf
from tests.support.properties import examples
from tests.support.servers.processes import FakeClock

MAX_UNFINISHED = 3
LANES = st.integers(0, 2)
ENDS = st.sampled_from(["complete", "fail", "retry"])


@dataclass
class ModelItem:
    status: str = "pending"
    attempts: int = 0
    due: float = 0.0


@dataclass
class ModelTask:
    bound: int | None
    items: list[ModelItem]
    status: str = "pending"
    started: bool = False

    def count(self, *statuses: str) -> int:
        return sum(item.status in statuses for item in self.items)

    def settle(self) -> None:
        if not self.count("pending", "running"):
            self.status = "completed" if self.count("completed") else "failed"

    def gives(self, now: float) -> bool:
        room = self.bound is None or self.count("running") < self.bound
        ready = any(item.status == "pending" and item.due <= now for item in self.items)
        return self.status in ("pending", "running") and room and ready


@dataclass
class Model:
    tasks: dict[str, ModelTask] = field(default_factory=dict)
    #: The item of each lane, as it was claimed.
    lanes: dict[int, Claimed] = field(default_factory=dict)

    def unfinished(self) -> int:
        return sum(task.status not in ENDED for task in self.tasks.values())


class BatchMachine(RuleBasedStateMachine):
    """Submit, work, fail, pause and cancel tasks; every claim is kept, so that it may be reported late."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        self.shelf = Shelf(
            f"sqlite:///{Path(self.folder.name) / 'batches.db'}", clock=self.clock, max_unfinished=MAX_UNFINISHED
        )
        self.shelf.__enter__()
        self.model = Model()
        self.claims: list[Claimed] = []

    def teardown(self) -> None:
        self.shelf.store.close()
        self.folder.cleanup()

    @rule(size=st.integers(1, 2), bound=st.sampled_from([None, 1]))
    def submit(self, size: int, bound: int | None) -> None:
        self._tick()
        full = self.model.unfinished() >= MAX_UNFINISHED
        try:
            task = self.shelf.submits(size, max_concurrent=bound)
        except BatchQueueFull:
            assert full
        else:
            assert not full
            self.model.tasks[task.task_id] = ModelTask(bound, [ModelItem() for _ in range(size)])

    @rule(lane=LANES)
    def claim(self, lane: int) -> None:
        self._claim(lane)

    def _claim(self, lane: int) -> None:
        self._tick()
        held = self.model.lanes.get(lane)
        able = {task_id for task_id, task in self.model.tasks.items() if task.gives(self.clock.now)}
        now, _ = self.shelf.store.runnable()
        claimed = self.shelf.store.claim(lane)
        assert now == bool(able)
        if claimed is None:
            assert not held
            assert not able
        elif held:
            assert claimed.again
            assert (claimed.task, claimed.index, claimed.attempt) == (held.task, held.index, held.attempt)
        else:
            assert claimed.task.task_id in able
            self._begin(lane, claimed)

    def _tick(self) -> None:
        """Give every task its own time: between equal times the order would depend on random ids."""
        self.clock.advance(0.001)

    def _begin(self, lane: int, claimed: Claimed) -> None:
        task = self.model.tasks[claimed.task.task_id]
        item = task.items[claimed.index]
        assert (item.status, item.attempts) == ("pending", claimed.attempt - 1)
        assert item.due <= self.clock.now
        item.status, item.attempts = "running", claimed.attempt
        task.status, task.started = "running", True
        self.model.lanes[lane] = claimed
        self.claims.append(claimed)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), end=ENDS, after=st.sampled_from([0, 0, 9]))
    def report(self, data: st.DataObject, end: str, after: int) -> None:
        self._report(data.draw(st.sampled_from(self.claims)), end, after)

    @rule(lane=LANES)
    def stumble(self, lane: int) -> None:
        """Have an item asked again at once, which makes its earlier claims late."""
        self._claim(lane)
        if held := self.model.lanes.get(lane):
            self._report(held, "retry", 0)
        self._claim(lane)

    def _report(self, claimed: Claimed, end: str, after: int) -> None:
        task = self.model.tasks[claimed.task.task_id]
        item = task.items[claimed.index]
        counts = (item.status, item.attempts) == ("running", claimed.attempt)
        assert self._reported(claimed, end, after) == counts
        if not counts:
            return
        self._forget(claimed)
        item.status = {"complete": "completed", "fail": "failed"}.get(end, "pending")
        item.due = self.clock.now + after if end == "retry" else 0.0
        task.settle()

    def _reported(self, claimed: Claimed, end: str, after: int) -> bool:
        store = self.shelf.store
        match end:
            case "complete":
                return store.complete(claimed, content="答")
            case "fail":
                return store.fail(claimed, "provider_error", "出错了")
        return store.retry(claimed, after, "provider_error", "出错了")

    def _forget(self, claimed: Claimed) -> None:
        same = (claimed.task.task_id, claimed.index)
        lanes = self.model.lanes
        self.model.lanes = {lane: one for lane, one in lanes.items() if (one.task.task_id, one.index) != same}

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data(), change=st.sampled_from(["pause", "resume", "cancel"]))
    def change(self, data: st.DataObject, change: str) -> None:
        task_id = data.draw(st.sampled_from([*self.model.tasks]))
        task = self.model.tasks[task_id]
        try:
            getattr(self.shelf.store, change)(task_id)
        except BatchFinished:
            assert task.status in ENDED
            return
        assert task.status not in ENDED
        if change == "pause":
            task.status = "paused"
        elif change == "resume":
            task.status = "running" if task.started else "pending"
        else:
            self._cancel(task_id, task)

    def _cancel(self, task_id: str, task: ModelTask) -> None:
        task.status = "cancelled"
        self.model.lanes = {lane: one for lane, one in self.model.lanes.items() if one.task.task_id != task_id}
        for item in task.items:
            if item.status in ("pending", "running"):
                item.status = "cancelled"

    @rule()
    def wait(self) -> None:
        self.clock.advance(5.0)

    @invariant()
    def both_say_the_same(self) -> None:
        found = {task.task_id: task for task in self.shelf.store.list(size=100)[0]}
        assert {task_id: task.status for task_id, task in found.items()} == {
            task_id: task.status for task_id, task in self.model.tasks.items()
        }
        for task_id, task in self.model.tasks.items():
            items = self.shelf.store.rows(task_id)
            seen = found[task_id]
            assert [(item.status, item.attempts) for item in items] == [(i.status, i.attempts) for i in task.items]
            counts = Counter(item.status for item in items)
            assert (seen.pending, seen.running) == (counts["pending"], counts["running"])
            assert (seen.completed, seen.failed, seen.cancelled) == (
                counts["completed"], counts["failed"], counts["cancelled"],
            )  # fmt: skip
        assert self.shelf.store.running_lanes() == set(self.model.lanes)


# In seconds: Hypothesis shrinks a failing run before it shows it.
TestBatchStore = pytest.mark.timeout(400)(BatchMachine.TestCase)
#: The same runs every time, and one failure per run.
TestBatchStore.settings = settings(
    # Half as many as for other properties: an example is thirty steps with a dozen queries each.
    max_examples=examples(50) // 2,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
