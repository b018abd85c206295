"""Kills members of a fleet one after the other."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from tests.scenarios.stage.chaos_fleet import Fleet
from tests.support.replicas import Replica

#: Seconds from a replica's kill to its successor's start.
MOMENT = 1.0


class Killer:
    """Kill one member after the other with SIGKILL, master and workers at once; each gets a successor a moment later.

    A context manager: the kills end with the block, which waits for the last successor.
    """

    def __init__(self, fleet: Fleet, every: float, most: int | None = None) -> None:
        self._fleet = fleet
        self._every = every
        self._most = most
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True)]
        self.kills = 0

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads if exc is None else ():
            thread.join()

    def _run(self) -> None:
        while self.kills != self._most and not self._over.wait(self._every):
            victim = self._fleet.members[self.kills % len(self._fleet.members)]
            if victim.process.poll() is not None:
                # It was killed before, and its successor is still starting.
                continue
            victim.kill()
            self.kills += 1
            self._threads.append(threading.Thread(target=self._succeed, args=(victim,), daemon=True))
            self._threads[-1].start()

    def _succeed(self, victim: Replica) -> None:
        time.sleep(MOMENT)
        self._fleet.succeed(victim)
