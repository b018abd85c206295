"""Polls a provider for the answer of a run whose stream broke off, with growing pauses and within timeouts.

For the method `recover` of any provider whose service keeps answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from services.errors import ProviderError, Unrecoverable
from services.http.retries import pause
from services.http.service import check_deadline
from utils.deadline import Deadline
from utils.running_time import running_time

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RecoveryTimeouts:
    """The timeouts of a recovery, in seconds."""

    #: Total time without a sign that an answer will come: the provider is unreachable, or its record has no text.
    #: Waiting longer is useless: Dify up to 1.12 leaves such a record for ever when its client dies.
    unknown: float = 15.0
    #: Time a run may report `running` if there is no event stream that proves it, for the same reason.
    running: float = 60.0
    #: Time without an event before the run's result is requested again: Dify's event bus may lose its last event.
    listening: float = 10.0
    #: Time for the history once a run's outputs have the answer: Dify saves the message a moment after the run's end.
    saving: float = 3.0
    #: First pause between two polls, doubled up to `longest_pause`. Most runs have already ended at the first poll.
    pause: float = 0.5
    longest_pause: float = 4.0

    def pauses(self) -> Iterator[float]:
        """Yield the pauses between polls, without end."""
        seconds = self.pause
        while True:
            yield seconds
            seconds = min(2 * seconds, self.longest_pause)


RECOVERY_TIMEOUTS = RecoveryTimeouts()


class Poller:
    """Polls for results. The time without a result is counted over all calls of `poll`."""

    def __init__(
        self,
        deadline: Deadline,
        timeouts: RecoveryTimeouts = RECOVERY_TIMEOUTS,
        *,
        clock: Callable[[], float] = running_time,
        sleep: Callable[[float, Deadline], None] = pause,
    ) -> None:
        """Set the limits. `sleep` gets the seconds, and the deadline whose abort wakes it."""
        self._deadline = deadline
        self._timeouts = timeouts
        self._clock = clock
        self._sleep = sleep
        self._left = timeouts.unknown

    def shorten(self, seconds: float) -> None:
        """Lower the remaining timeout to this many seconds, because the caller has a fallback."""
        self._left = min(self._left, seconds)

    def poll(self, fetch: Callable[[], T | None]) -> T:
        """Call `fetch` until it returns a value, and return that. None and passing errors are tried again.

        Raises:
            Unrecoverable: the provider replied with a permanent error, or the timeout is over.
            ProviderError: `interrupted` or `answer_timeout`, by the deadline.
        """
        pauses = self._timeouts.pauses()
        while True:
            check_deadline(self._deadline)
            began, why = self._clock(), "the provider has no answer"
            try:
                if (result := fetch()) is not None:
                    return result
            except ProviderError as exc:
                check_deadline(self._deadline)
                if not may_pass(exc):
                    raise Unrecoverable(str(exc)) from exc
                why = str(exc)
            self.wait(min(next(pauses), began + self._left - self._clock()))
            self._left -= self._clock() - began
            if self._left <= 0.0:
                raise Unrecoverable(why)

    def wait(self, seconds: float) -> None:
        """Sleep for this many seconds, or until the deadline passes or is aborted; then check the deadline."""
        self._sleep(max(0.0, min(seconds, self._deadline.remaining())), self._deadline)
        check_deadline(self._deadline)


def may_pass(error: ProviderError) -> bool:
    """Return whether a repeated call may succeed: no reply, a busy provider, a damaged reply."""
    return error.http_status in (0, 200, 429) or error.http_status >= 500
