"""The mock Dify's recent runs, limited in number and age."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Literal

from demo.mocks.dify.wire import Run

#: Maximum age of a run in seconds, and maximum number of runs: a load test asks thousands of questions.
MAX_AGE = 600.0
MAX_RUNS = 5000

#: The fate of a run whose client is gone: since Dify 1.13 a chatflow's run goes on, in the newest version every app's;
#: up to 1.12 it dies and reports `running` for ever; 1.16.0 aborts it. Text that was not saved is lost.
AfterDisconnect = Literal["runs on", "dies", "aborts"]


class Runs:
    """Runs by their ids and by conversation. Thread-safe."""

    def __init__(self, *, max_age: float = MAX_AGE, max_runs: int = MAX_RUNS) -> None:
        self._max_age = max_age
        self._max_runs = max_runs
        self._lock = threading.Lock()
        self._in_order: deque[tuple[float, Run]] = deque()
        self._by_id: dict[str, Run] = {}
        self._conversations: dict[str, list[Run]] = {}

    def __len__(self) -> int:
        return len(self._in_order)

    def add(self, run: Run) -> None:
        now = time.monotonic()
        with self._lock:
            self._in_order.append((now, run))
            self._by_id |= {run.task_id: run, run.run_id: run, run.message_id: run}
            self._conversations.setdefault(run.conversation_id, []).append(run)
            while len(self._in_order) > self._max_runs or now - self._in_order[0][0] > self._max_age:
                self._forget(self._in_order.popleft()[1])

    def _forget(self, run: Run) -> None:
        for name in (run.task_id, run.run_id, run.message_id):
            del self._by_id[name]
        turns = self._conversations[run.conversation_id]
        turns.remove(run)
        if not turns:
            del self._conversations[run.conversation_id]

    def all(self) -> list[Run]:
        """Return all of them, oldest first."""
        with self._lock:
            return [run for _, run in self._in_order]

    def find(self, name: str, user: str = "") -> Run | None:
        """Return the run with this task, run or message id; with a user, only if it is the user's own."""
        with self._lock:
            run = self._by_id.get(name)
        return run if run is not None and user in ("", run.user) else None

    def turns(self, conversation_id: str) -> list[Run]:
        """Return the runs of a conversation, oldest first."""
        with self._lock:
            return list(self._conversations.get(conversation_id, ()))
