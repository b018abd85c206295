"""Extras of an app: its opening before the first question, the running step before the text, suggestions after it.

Step and suggestions are not part of the answer's text. Both are fields of the stream's hash, so that every replica
shows the same and a new owner finds what the former one stored. The step is one plain line, written at most once a
second; suggested questions are a few plain lines, waited for a bounded time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass

from services import metrics
from services.channels import Channel
from services.errors import ProviderError
from services.models import Attempt, Delta, Mocked, ProviderIds, Query, Question, Replacement, Step
from services.providers.base import BaseRAGProvider, Opening
from services.streams.answer_events import AnswerEvent, AskedBack, Asking, StepNote, Suggested
from utils.deadline import Deadline
from utils.markdown.plain_text import plain_line

log = logging.getLogger(__name__)

#: Suggestions that are kept of an answer, and the characters of each.
MAX_SUGGESTIONS = 3
SUGGESTION_CHARACTERS = 100
#: Seconds by which an answer's end is delayed at most.
SUGGESTION_SECONDS = 2.0
#: Characters of a step's title.
TITLE_CHARACTERS = 40
#: Seconds between two writes that are made for a step alone; WeCom polls about as often.
STEP_SECONDS = 1.0
#: Seconds for which an opening counts, and until a provider that failed is asked again.
KEPT_SECONDS, FAILED_SECONDS = 300.0, 30.0
#: Characters of a statement; questions, and the characters of each.
STATEMENT_CHARACTERS, MAX_QUESTIONS, QUESTION_CHARACTERS = 4000, 10, 200


def suggested_lines(
    provider: BaseRAGProvider, query: Query, ids: ProviderIds, deadline: Deadline, seconds: float = SUGGESTION_SECONDS
) -> str:
    """Return the suggestions after the answer with these ids, one per line; "" for none, and where it fails."""
    if provider.suggest is None or deadline.over:
        return ""
    bounded = Deadline(min(seconds, deadline.remaining()))
    try:
        with deadline.interrupting(lambda: bounded.abort(deadline.aborted)):
            found = provider.suggest(query, ids, bounded)
    except ProviderError as exc:
        # The answer is complete without them.
        log.info("no suggestions", extra={"provider": provider.name, "code": exc.code, "cause": str(exc)})
        metrics.SUGGESTIONS.labels(provider.name, "failed").inc()
        return ""
    except Exception:  # a plug-in may raise any exception
        log.exception("no suggestions", extra={"provider": provider.name})
        metrics.SUGGESTIONS.labels(provider.name, "failed").inc()
        return ""
    lines = dict.fromkeys(line for each in found if (line := plain_line(each, SUGGESTION_CHARACTERS)))
    metrics.SUGGESTIONS.labels(provider.name, "found" if lines else "none").inc()
    return "\n".join(list(lines)[:MAX_SUGGESTIONS])


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
        """Yield the note to store for a step; nothing for a title that is stored already, or is empty."""
        title = plain_line(step.labels.get(self._language) or step.title, TITLE_CHARACTERS)
        if not title or title == self._title:
            return
        self._title = title
        soon = not self.has_text and self._clock() - self._written >= STEP_SECONDS
        if soon:
            self._written = self._clock()
        yield StepNote(title, soon)

    def begin_anew(self) -> Iterator[StepNote]:
        """Yield the note to store when the question is asked again: the steps so far belong to another run."""
        self._title = ""
        yield StepNote("")


@dataclass(frozen=True, slots=True)
class QuestionContext:
    """A question, where it came through, the provider that answers it, and what that is asked."""

    question: Question
    channel: Channel
    provider: BaseRAGProvider
    query: Query


class AnswerExtras:
    """The extras of all bots."""

    def __init__(
        self,
        *,
        progress: Collection[str] = (),
        suggestions: Collection[str] = (),
        web_progress: bool = False,
        web_suggestions: bool = False,
        language: str = "zh",
        seconds: float = SUGGESTION_SECONDS,
    ) -> None:
        """Take the names of the bots that show the running step, and of those that list suggestions.

        `web_progress` and `web_suggestions` tell whether channels on the web show the step, and suggestions.
        `language` selects a step's title; suggestions are waited for `seconds` at most.
        """
        self._progress = progress
        self._suggestions = suggestions
        self._web_progress = web_progress
        self._web_suggestions = web_suggestions
        self._language = language
        self._seconds = seconds

    def added(
        self, events: Iterator[AnswerEvent], asked: QuestionContext, deadline: Deadline, attempt: Attempt | None
    ) -> Iterator[AnswerEvent]:
        """Return an answer's events with its extras; the same iterator where there are none to add."""
        bot = asked.question.bot
        if self._shows_steps(asked.channel, bot):
            events = self._with_steps(events, has_text=bool(attempt and attempt.text))
        if asked.provider.suggest and self._suggests(asked.channel, bot):
            events = self._with_suggestions(events, asked, deadline, attempt.ids if attempt else ProviderIds())
        return events

    def _shows_steps(self, channel: Channel, bot: str) -> bool:
        return (channel.shows_extras and bot in self._progress) or (channel.shows_steps and self._web_progress)

    def _suggests(self, channel: Channel, bot: str) -> bool:
        return (channel.shows_extras and bot in self._suggestions) or (channel.suggests and self._web_suggestions)

    def _with_steps(self, events: Iterator[AnswerEvent], *, has_text: bool) -> Iterator[AnswerEvent]:
        notes = StepNotes(self._language)
        notes.has_text = has_text
        with closing(events):  # type: ignore[type-var]
            for event in events:
                if isinstance(event, Step):
                    yield from notes.note(event)
                    continue
                if isinstance(event, Asking) and event.cause:
                    yield from notes.begin_anew()
                notes.has_text = notes.has_text or isinstance(event, Delta | Replacement)
                yield event

    def _with_suggestions(
        self, events: Iterator[AnswerEvent], asked: QuestionContext, deadline: Deadline, ids: ProviderIds
    ) -> Iterator[AnswerEvent]:
        """Yield the events, then the suggestions.

        An answer that failed, that the built-in mock gave, or that ends with a form to be answered has none.
        """
        unfit = False
        with closing(events):  # type: ignore[type-var]
            for event in events:
                if isinstance(event, ProviderIds):
                    ids = event
                elif isinstance(event, Asking):
                    ids = event.ids
                unfit = unfit or isinstance(event, Mocked | AskedBack)
                yield event
        if unfit:
            return
        if lines := suggested_lines(asked.provider, asked.query, ids, deadline, self._seconds):
            yield Suggested(lines)


class KeptOpening:
    """The opening of one provider. Thread-safe."""

    def __init__(self, provider: BaseRAGProvider, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._provider = provider
        self._clock = clock
        self._lock = threading.Lock()
        self._opening = Opening()
        self._asks_from = -float("inf")

    def current(self) -> Opening:
        """Return the opening, bounded; the last known one, or an empty one, where the provider fails."""
        if self._provider.opening is None:
            return self._opening
        # The provider's own timeout bounds the wait; callers that waited get the fresh opening.
        with self._lock:
            if self._clock() >= self._asks_from:
                self._opening, kept = self._asked(self._provider.opening)
                self._asks_from = self._clock() + kept
            return self._opening

    def _asked(self, opening: Callable[[], Opening]) -> tuple[Opening, float]:
        """Return the opening, and the seconds for which it counts."""
        try:
            return _bounded(opening()), KEPT_SECONDS
        except ProviderError as exc:
            log.info("no opening", extra={"provider": self._provider.name, "code": exc.code, "cause": str(exc)})
        except Exception:  # a plug-in may raise any exception
            log.exception("no opening", extra={"provider": self._provider.name})
        return self._opening, FAILED_SECONDS


def _bounded(opening: Opening) -> Opening:
    lines = dict.fromkeys(line for one in opening.questions if (line := plain_line(one, QUESTION_CHARACTERS)))
    return Opening(opening.statement.strip()[:STATEMENT_CHARACTERS], tuple(lines)[:MAX_QUESTIONS])
