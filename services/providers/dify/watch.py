"""Waiting for what Dify may have later: looks with growing pauses, and the bounds of it all."""

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
class Patience:
    """How long a recovery waits for what, in seconds."""

    #: In all, while nothing tells that an answer will come: Dify is away, or the history has a row without text. More
    #: would be a person's wait for nothing: Dify up to 1.12 leaves such a row for ever when its client dies.
    unknown: float = 15.0
    #: For a run that says `running` where Dify has no event stream to prove it, for the same reason.
    running: float = 60.0
    #: Without an event before the run is looked at again: Dify's event bus may lose the last one.
    listening: float = 10.0
    #: For the history, once a run's outputs have the answer: Dify saves the message a moment after the run's end.
    saving: float = 3.0
    #: Between two looks, doubled each time: most answers that ended while nobody watched are there at once.
    pause: float = 0.5
    longest_pause: float = 4.0

    def pauses(self) -> Iterator[float]:
        """Yield the pauses between looks, without end."""
        seconds = self.pause
        while True:
            yield seconds
            seconds = min(2 * seconds, self.longest_pause)


PATIENCE = Patience()


class Watch:
    """Looks until there is something to see; how long there was nothing counts over all its looks."""

    def __init__(
        self,
        deadline: Deadline,
        patience: Patience,
        clock: Callable[[], float],
        sleep: Callable[[float, Deadline], None],
    ) -> None:
        self._deadline = deadline
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._left = patience.unknown

    def hurry(self, seconds: float) -> None:
        """Be patient for so long at most: there is something to fall back on."""
        self._left = min(self._left, seconds)

    def poll(self, look: Callable[[], T | None]) -> T:
        """Look again and again while there is None to see, or Dify is away, and return what is seen at last.

        Raises:
            Unrecoverable: Dify refuses, or patience is at its end.
            ProviderError: `interrupted` and `answer_timeout` by the deadline.
        """
        pauses = self._patience.pauses()
        while True:
            self.end_if_over()
            looked, why = self._clock(), "no answer in the history"
            try:
                if (seen := look()) is not None:
                    return seen
            except ProviderError as exc:
                self.end_if_over()
                if not may_pass(exc):
                    raise Unrecoverable(str(exc)) from exc
                why = str(exc)
            self.rest(min(next(pauses), looked + self._left - self._clock()))
            self._left -= self._clock() - looked
            if self._left <= 0.0:
                raise Unrecoverable(why)

    def rest(self, seconds: float) -> None:
        """Sleep, no longer than the deadline."""
        self._sleep(max(0.0, min(seconds, self._deadline.remaining())), self._deadline)
        self.end_if_over()

    def end_if_over(self) -> None:
        """Raise what the deadline says."""
        if self._deadline.aborted:
            raise aborted_error(self._deadline)
        if self._deadline.over:
            raise ProviderError("the total time is over", code="answer_timeout")
