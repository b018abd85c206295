"""The running step of an answer, as it is stored: one plain line, written at most once a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from services.models import Step
from services.streams.answer_events import StepNote
from utils.markdown.plain import plain_line

#: Characters of a step's title.
TITLE_CHARACTERS = 40
#: Seconds between two writes that are made for a step alone; WeCom polls about as often.
STEP_SECONDS = 1.0


class StepNotes:
    """The steps of one answer. Steps that follow each other faster go along with the stream's next write."""

    def __init__(self, language: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._language = language
        self._clock = clock
        self._title = ""
        self._written = -float("inf")
        #: Whether text has arrived: then a step is hardly seen any more, and is not worth a write.
        self.has_text = False

    def note(self, step: Step) -> Iterator[StepNote]:
        """Yield what is to be stored for a step; nothing for a title that is stored already, or is empty."""
        title = plain_line(step.labels.get(self._language) or step.title, TITLE_CHARACTERS)
        if not title or title == self._title:
            return
        self._title = title
        soon = not self.has_text and self._clock() - self._written >= STEP_SECONDS
        if soon:
            self._written = self._clock()
        yield StepNote(title, soon)

    def begin_anew(self) -> Iterator[StepNote]:
        """Yield what is to be stored when the question is asked again: the steps so far belong to another run."""
        self._title = ""
        yield StepNote("")
