"""Polls Dify for a result with growing pauses, within the timeouts of a recovery."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from services.errors import ProviderError, Unrecoverable
from services.http.service import aborted_error
from services.providers.dify.errors import may_pass
from utils.deadline import Deadline

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RecoveryTimeouts:
    """The timeouts of a recovery, in seconds."""

    #: Total time without a sign that an answer will come: Dify is unreachable, or the history has a row without text.
    #: Waiting longer is useless: Dify up to 1.12 leaves such a row for ever when its client dies.
    unknown: float = 15.0
    #: Time a run may report `running` if Dify has no event stream that proves it, for the same reason.
    running: float = 60.0
    #: Time without an event before the run's result is requested again: Dify's event bus may lose the last event.
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
        timeouts: RecoveryTimeouts,
        clock: Callable[[], float],
        sleep: Callable[[float, Deadline], None],
    ) -> None:
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
            Unrecoverable: Dify replied with a permanent error, or the timeout is over.
            ProviderError: `interrupted` or `answer_timeout`, by the deadline.
        """
        pauses = self._timeouts.pauses()
        while True:
            self.check_deadline()
            began, why = self._clock(), "no answer in the history"
            try:
                if (result := fetch()) is not None:
                    return result
            except ProviderError as exc:
                self.check_deadline()
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
        self.check_deadline()

    def check_deadline(self) -> None:
        """Raise `interrupted` if the deadline was aborted, `answer_timeout` if it has passed."""
        if self._deadline.aborted:
            raise aborted_error(self._deadline)
        if self._deadline.over:
            raise ProviderError("the total time is over", code="answer_timeout")
