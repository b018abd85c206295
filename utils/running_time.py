"""A monotonic clock that stands still while the process does: stopped by a signal, or frozen with its host.

Waits for another party use it (`running_time`), so that a pause of this process is not taken for the party's silence.
Leases and other promises to replicas do not: their time runs on for everybody else.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds between two ticks.
TICK = 0.5
#: Seconds after the last tick at which the clock stands still. Longer than a tick is late on a busy machine.
MOST = 2.0


class RunningClock:
    """Returns the seconds of a monotonic clock without the process's pauses, of each of which `MOST` seconds count.

    Before `start` it is the monotonic clock. Thread-safe.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._starting = threading.Lock()
        #: The last tick, infinite before the first one, and the seconds of pauses before it that do not count.
        self._ticked = (math.inf, 0.0)
        #: The first tick after the last pause.
        self._resumed = -math.inf

    def __call__(self) -> float:
        ticked, paused = self._ticked
        return min(self._clock(), ticked + MOST) - paused

    @property
    def paused(self) -> float:
        """Seconds of pauses that did not count so far."""
        ticked, paused = self._ticked
        return max(0.0, self._clock() - ticked - MOST) + paused

    @property
    def since_pause(self) -> float:
        """Seconds since the last pause ended, to a tick; infinite without one."""
        now, (ticked, _) = self._clock(), self._ticked
        return 0.0 if now - ticked > MOST else now - self._resumed

    def tick(self) -> None:
        """Note that the process runs."""
        now, (ticked, paused) = self._clock(), self._ticked
        if now - ticked > MOST:
            self._resumed = now
        self._ticked = (now, paused + max(0.0, now - ticked - MOST))

    def start(self) -> None:
        """Tick in a thread from now on; a second call does nothing."""
        with self._starting:
            if self._ticked[0] == math.inf:
                self.tick()
                os.register_at_fork(after_in_child=self._forked)
                threading.Thread(target=self._run, name="running-clock", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(TICK)
            self.tick()

    def _forked(self) -> None:
        """Return to the monotonic clock: the child of a fork has no thread that ticks."""
        self._starting = threading.Lock()
        self._ticked = (math.inf, self._ticked[1])


#: The clock of this process.
running_time = RunningClock()


def wait_running(wait: Callable[[float], T], seconds: float) -> T:
    """Call `wait` with the seconds left until it returns a true value, or `seconds` of running time have passed.

    For waits of `threading`: what they wait for may need this process, and a pause lasts longer than their timeout.
    Return the last value of `wait`.
    """
    end = running_time() + seconds
    while not (happened := wait(max(0.0, end - running_time()))) and running_time() < end:
        continue
    return happened
