"""Adds the running step and the suggested questions to an answer's events, for the bots that want them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass

from services.answers.extras.steps import StepNotes
from services.answers.extras.suggestions import SUGGESTION_SECONDS, suggested_lines
from services.channels import Channel
from services.models import Delta, Identity, Mocked, Past, ProviderIds, Query, Question, Replacement, Step
from services.providers.base import BaseRAGProvider
from services.streams.answer_events import AnswerEvent, AskedBack, Asking, Suggested
from utils.deadline import Deadline


@dataclass(frozen=True, slots=True)
class QuestionContext:
    """A question, where it came through, and the provider that answers it."""

    question: Question
    channel: Channel
    provider: BaseRAGProvider


class AnswerExtras:
    """The extras of all bots."""

    def __init__(
        self,
        *,
        progress: Collection[str] = (),
        suggestions: Collection[str] = (),
        web_suggestions: bool = False,
        language: str = "zh",
        seconds: float = SUGGESTION_SECONDS,
    ) -> None:
        """Take the names of the bots that show the running step, and of those that list suggestions.

        `web_suggestions` tells whether channels on the web show suggestions.
        `language` selects a step's title; suggestions are waited for `seconds` at most.
        """
        self._progress = progress
        self._suggestions = suggestions
        self._web_suggestions = web_suggestions
        self._language = language
        self._seconds = seconds

    def added(
        self, events: Iterator[AnswerEvent], asked: QuestionContext, deadline: Deadline, past: Past | None
    ) -> Iterator[AnswerEvent]:
        """Return an answer's events with its extras; the same iterator where there are none to add."""
        bot = asked.question.bot
        if asked.channel.shows_extras and bot in self._progress:
            events = self._with_steps(events, said=bool(past and past.text))
        if asked.provider.suggest and self._suggests(asked.channel, bot):
            events = self._with_suggestions(events, asked, deadline, past.ids if past else ProviderIds())
        return events

    def _suggests(self, channel: Channel, bot: str) -> bool:
        return (channel.shows_extras and bot in self._suggestions) or (channel.suggests and self._web_suggestions)

    def _with_steps(self, events: Iterator[AnswerEvent], *, said: bool) -> Iterator[AnswerEvent]:
        notes = StepNotes(self._language)
        notes.has_text = said
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
        identity, unfit = Identity("none"), False
        with closing(events):  # type: ignore[type-var]
            for event in events:
                if isinstance(event, ProviderIds):
                    ids = event
                elif isinstance(event, Asking):
                    ids = event.ids
                elif isinstance(event, Identity):
                    identity = event
                unfit = unfit or isinstance(event, Mocked | AskedBack)
                yield event
        if unfit:
            return
        user = identity.user.user_code if identity.user else asked.channel.end_user(asked.question)
        query = Query(asked.question.text, user, identity=identity, channel=asked.channel.name)
        if lines := suggested_lines(asked.provider, query, ids, deadline, self._seconds):
            yield Suggested(lines)
