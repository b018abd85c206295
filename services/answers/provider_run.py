"""One question sent to its provider: its events, and the look-up of an answer whose stream broke off."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from services.attachments import Attached
from services.conversations.memory import ConversationMemory
from services.errors import AnswerError, ProviderError, RunFailed, StreamBroken, Unrecoverable
from services.forms import PendingForm
from services.models import (
    Attempt,
    Complete,
    Delta,
    Mocked,
    ProviderEvent,
    ProviderIds,
    Query,
    Replacement,
    Usage,
)
from services.providers.base import BaseRAGProvider, closing_events
from services.streams.answer_events import AnswerEvent, AskedBack, Resumed, difference
from services.streams.owned_stream import LEAVING
from utils.deadline import Deadline

#: Stores the forms of a run, and returns their choices and the text for them that goes after the answer so far.
ShowForms = Callable[[str, Sequence[PendingForm]], tuple[AskedBack, Delta]]


#: How often a question may be sent to the provider, over all owners of its stream.
MAX_ASKS = 2


def may_ask(attempt: Attempt | None) -> bool:
    """Return whether the provider may be asked, for the first time or once more."""
    return attempt is None or (attempt.asks < MAX_ASKS and attempt.may_ask)


def looked_up(
    provider: BaseRAGProvider, query: Query, ids: ProviderIds, deadline: Deadline, reason: str, show: ShowForms
) -> Iterator[AnswerEvent]:
    """Yield the part of the provider's answer that `query.stored_text` lacks; a paused run's ends with its forms.

    Raises:
        Unrecoverable: the provider has no answer; nothing was yielded.
        ProviderError: as `BaseRAGProvider.recover` does.
    """
    found = provider.recover(replace(query, conversation_id=ids.conversation_id), ids, deadline)
    asked, ending = show(found.text, found.forms) if found.forms else (None, Delta(""))
    rest = difference(query.stored_text, found.text + ending.text, reason)
    if found.ids.name_run and not ids.name_run:
        yield found.ids
    yield from rest
    if asked:
        yield asked
    yield found.usage


def with_forms(events: Iterator[AnswerEvent], show: ShowForms) -> Iterator[AnswerEvent]:
    """Yield an answer's events with the text of its forms in their place, after the text of the answer."""
    before, forms = "", list[PendingForm]()
    for event in events:
        match event:
            case PendingForm():
                forms.append(event)
                continue
            case Delta(text):
                # Only whether there is any text matters.
                before = before or text.strip()
            case Replacement(text):
                before = text
            case Complete() if forms:
                yield from show(before, forms)
                forms = []
        yield event
    if forms:
        yield from show(before, forms)


class ProviderRun:
    """One run at a provider, used once. Its conversation id is stored with the first event that has it."""

    def __init__(
        self,
        provider: BaseRAGProvider,
        query: Query,
        memory: ConversationMemory,
        stream_id: str,
        deadline: Deadline,
        *,
        show: ShowForms,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the query, the memory of its conversation and its stream; `clock` returns seconds since 1970."""
        self._show = show
        self._provider = provider
        self._query = query
        self._memory = memory
        self._stream_id = stream_id
        self._deadline = deadline
        self._clock = clock
        self._asked_at = 0.0
        self._ids = ProviderIds()
        # Joined at the end: adding each delta to one string may copy the whole string.
        self._pieces: list[str] = []
        self._sources: tuple[Mapping[str, Any], ...] = ()
        self._remembered = True
        self._mocked = False
        self._attached = False

    def events(self) -> Iterator[AnswerEvent]:
        """Yield the run's events; closing the iterator cancels the run.

        Raises:
            ConversationGone: the provider does not know the conversation; ask once more without it.
            AnswerError: the answer failed.
        """
        memory, ended = self._memory, False
        self._asked_at = self._clock()
        try:
            with closing(self._heard()) as heard:
                for event in with_forms(heard, self._show):
                    self._take(event)
                    yield event
            if not self._pieces and not self._attached:
                raise ProviderError("not a word, and no error either", code="provider_empty")
            ended = True
            if not self._remembered:
                memory.note(self._ids.conversation_id, wait=True)
            if not self._mocked and self._pieces:
                memory.keep(self._query.question, "".join(self._pieces), self._stream_id)
        except AnswerError as exc:
            # After a broken stream the run may still go on at the provider.
            ended = not self._deadline.over and not isinstance(exc, StreamBroken)
            raise
        finally:
            self._leave(ended)

    def _leave(self, ended: bool) -> None:
        if self._deadline.aborted in LEAVING:
            return
        if not ended:
            self._provider.cancel(self._ids, self._query.user)
        if not self._pieces and not self._memory.conversation_id:
            self._memory.note("")

    def _heard(self) -> Generator[AnswerEvent]:
        """Yield the provider's events; where its stream breaks off, look the rest of the answer up, once."""
        try:
            with closing_events(self._provider.stream_query(self._query, self._deadline)) as events:
                yield from events
        except StreamBroken as exc:
            yield from self._rest(exc)

    def _rest(self, broken: StreamBroken) -> Iterator[AnswerEvent]:
        text = "".join(self._pieces)
        query = replace(self._query, stored_text=text, sources=self._sources, asked_at=self._asked_at)
        ids = replace(self._ids, conversation_id=self._ids.conversation_id or self._query.conversation_id)
        try:
            yield from looked_up(self._provider, query, ids, self._deadline, "stream_broken", self._show)
        except Unrecoverable as exc:
            yield Resumed("lost", str(exc), "stream_broken")
            if isinstance(exc, RunFailed):
                raise ProviderError(str(exc), code="provider_error") from exc
            raise broken from exc

    def _take(self, event: ProviderEvent | AnswerEvent) -> None:
        match event:
            case Delta(text):
                self._pieces += [text] if text else []
            case ProviderIds():
                if not self._remembered or event.conversation_id != self._ids.conversation_id:
                    self._remembered = self._memory.note(event.conversation_id)
                self._ids = event
            case Replacement(text):
                self._pieces = [text] if text else []
            case Usage():
                self._sources = event.sources
            case Attached(files):
                self._attached = bool(files)
            case Mocked():
                self._mocked = True
