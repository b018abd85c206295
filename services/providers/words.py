"""Hides the masked words of `WORDS_FILE` in all that a provider says.

It is the outermost wrapper, so that no other part of the product ever sees them: neither Redis, a frame, a socket, a
late message, a history nor a log. What an earlier owner stored is masked, and so is what is looked up: both compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from services.attachments import Attached, MediaFile
from services.forms import FormChoice, PendingForm
from services.models import (
    Complete,
    Delta,
    Metadata,
    ProviderEvent,
    ProviderIds,
    Query,
    Replacement,
    Step,
    Usage,
)
from services.providers.base import BaseForms, BaseRAGProvider, Opening, ProviderWrapper, Recovered, closing_events
from services.rules.words import BotWords, Mask, WordRules, slices
from utils.deadline import Deadline


class MaskedProvider(ProviderWrapper):
    """A provider whose words are masked; files with a forbidden name are refused."""

    def __init__(self, wrapped: BaseRAGProvider, words: BotWords) -> None:
        super().__init__(wrapped)
        self._words = words
        if wrapped.suggest:
            self.suggest = self._suggested
        if wrapped.opening:
            self.opening = self._opened
        if wrapped.forms:
            self.forms = _MaskedForms(wrapped.forms, words)

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        return _masked_events(self._wrapped.stream_query(query, deadline), self._words)

    def check_file(self, file: MediaFile) -> None:
        self._words.check([file.name])
        self._wrapped.check_file(file)

    def recover(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        found, rules = self._wrapped.recover(query, ids, deadline), self._words.rules
        self._words.note_answer(rules, found.text)
        forms = tuple(_masked_form(form, rules) for form in found.forms)
        return replace(found, text=rules.masked(found.text), usage=_masked_usage(found.usage, rules), forms=forms)

    def _suggested(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Sequence[str]:
        assert self._wrapped.suggest
        return [self._words.rules.masked(line) for line in self._wrapped.suggest(query, ids, deadline)]

    def _opened(self) -> Opening:
        assert self._wrapped.opening
        opening, rules = self._wrapped.opening(), self._words.rules
        return Opening(rules.masked(opening.statement), tuple(map(rules.masked, opening.questions)))


class _MaskedForms(BaseForms):
    """The forms of a masked provider."""

    def __init__(self, wrapped: BaseForms, words: BotWords) -> None:
        self._wrapped = wrapped
        self._words = words

    def submit(self, form: PendingForm, choice: FormChoice, query: Query, deadline: Deadline) -> None:
        self._wrapped.submit(form, choice, query, deadline)

    def is_open(self, form: PendingForm, query: Query, deadline: Deadline) -> bool:
        return self._wrapped.is_open(form, query, deadline)

    def resume(self, form: PendingForm, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        return _masked_events(self._wrapped.resume(form, query, deadline), self._words)


def _masked_events(events: Iterator[ProviderEvent], words: BotWords) -> Iterator[ProviderEvent]:
    """Yield an answer's events, all under the rules that are in force when it begins.

    The end of the text is held back until the answer is complete. A broken one loses it: shown, it could be the
    beginning of a word that the rest of the answer completes.
    """
    rules, pieces = words.rules, list[str]()
    mask = Mask(rules)
    with closing_events(events) as heard:
        if not rules:
            yield from heard
            return
        for event in heard:
            match event:
                case Delta(text):
                    pieces.append(text)
                    yield from (Delta(shown) for piece in slices(text) if (shown := mask.feed(piece)))
                case Replacement(text):
                    mask, pieces = Mask(rules), [text]
                    yield Replacement("".join(map(mask.feed, slices(text))))
                case Complete() | PendingForm():
                    yield from _rest(mask)
                    yield _masked_form(event, rules) if isinstance(event, PendingForm) else event
                case _:
                    yield _masked_event(event, rules)
    yield from _rest(mask)
    words.note_answer(rules, "".join(pieces))


def _rest(mask: Mask) -> Iterator[Delta]:
    if shown := mask.rest():
        yield Delta(shown)


def _masked_event(event: ProviderEvent, rules: WordRules) -> ProviderEvent:
    """Return an event that is no text of the answer, with its words masked."""
    match event:
        case Usage():
            return _masked_usage(event, rules)
        case Metadata(fields):
            return Metadata(_masked_value(fields, rules))
        case Step(title, labels):
            return Step(rules.masked(title), _masked_value(labels, rules))
        case Attached(files):
            return Attached(tuple(replace(file, name=rules.masked(file.name)) for file in files))
    return event


def _masked_usage(usage: Usage, rules: WordRules) -> Usage:
    return replace(usage, sources=tuple(_masked_value(source, rules) for source in usage.sources))


def _masked_form(form: PendingForm, rules: WordRules) -> PendingForm:
    """Return a form with its visible text masked; what is submitted stays as it is."""
    actions = tuple(replace(action, title=rules.masked(action.title)) for action in form.actions)
    return replace(form, content=rules.masked(form.content), actions=actions)


def _masked_value(value: Any, rules: WordRules) -> Any:
    """Return a JSON value with all of its texts masked, its keys excepted."""
    if isinstance(value, str):
        return rules.masked(value)
    if isinstance(value, Mapping):
        return {name: _masked_value(each, rules) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_masked_value(each, rules) for each in value]
    return value
