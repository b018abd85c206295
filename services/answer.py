"""Answer one question: authenticate, wait for the conversation's turn, stream, remember the conversation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from services.conversation_store import ConversationStore, Memory
from services.errors import AnswerError, ConversationGone, StoreUnavailable
from services.models import Delta, Identity, ProviderEvent, ProviderIds, Query, Question, Replacement
from services.providers.base import BaseRAGProvider
from services.stream_store import StreamStore
from utils.deadline import Deadline

log = logging.getLogger(__name__)

#: Seconds between looks at a conversation's line.
TURN_POLL = 0.2
#: Seconds of outage a producer waits through.
OUTAGE_SECONDS = 20.0
#: Reasons of a deadline under which the run at the provider goes on: somebody else will want its answer.
LEAVING = ("fenced", "released")


@dataclass(frozen=True, slots=True)
class Waiting:
    """The question waits for the conversation's earlier ones, or no longer does."""

    waiting: bool


AnswerEvent = ProviderEvent | Identity | Waiting


class Authenticator(Protocol):
    def authenticate(self, userid: str, corp: str = "") -> Identity: ...


@dataclass(frozen=True, slots=True)
class Backend:
    """What answers one bot's questions."""

    provider: BaseRAGProvider
    corp: str = ""
    #: A group's members share one conversation.
    shared_groups: bool = False


class Answerer:
    """Knows the way from a question to the provider's events; one for the process, safe in many threads."""

    def __init__(
        self,
        *,
        auth: Authenticator,
        backends: Mapping[str, Backend],
        conversations: ConversationStore,
        streams: StreamStore,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._auth = auth
        self._backends = backends
        self._conversations = conversations
        self._streams = streams
        self._sleep = sleep

    def conversation(self, question: Question) -> str:
        """Return the key of the conversation a question belongs to."""
        backend = self._backends[question.bot]
        return self._conversations.key(backend.provider.app, question, shared=backend.shared_groups)

    def answer(self, question: Question, stream_id: str, deadline: Deadline) -> Iterator[AnswerEvent]:
        """Yield what becomes known, ending with the provider's last word. Closing it tells the provider to stop.

        Raises:
            AnswerError: the answer failed; its code picks the sentence for the user.
        """
        backend = self._backends[question.bot]
        key = self.conversation(question)
        identity = self._auth.authenticate(question.principal, backend.corp)
        yield identity
        yield from self._wait_for_turn(key, stream_id, deadline)
        user = identity.user.user_code if identity.user else question.principal
        query = Query(question.text, user, "", question.inputs, question.files, identity)
        yield from self._ask(backend.provider, query, key, deadline)

    def _wait_for_turn(self, key: str, stream_id: str, deadline: Deadline) -> Iterator[Waiting]:
        """Wait until the stream heads its conversation's line; a head that is no longer written gives way."""
        tried = False
        while (place := patiently(lambda: self._conversations.place(key, stream_id))).place != 0:
            if place.place < 0 and tried:
                raise AnswerError(code="turns_full")
            if deadline.over:
                raise AnswerError(code="answer_timeout")
            gone = patiently(lambda: self._evict(key, place.head))
            # A full line is told only where none of it gives way.
            tried = place.place < 0 and not gone
            if not tried:
                yield Waiting(True)
                self._sleep(0.0 if gone else TURN_POLL)
        yield Waiting(False)

    def _evict(self, key: str, head: str) -> bool:
        """Take the head out of the line if nobody writes it any more; return whether it was."""
        status, late = self._streams.standing(head)
        gone = status != "processing" or late > 2 * self._streams.lease
        if gone:
            self._conversations.leave(key, head)
        return gone

    def _ask(self, provider: BaseRAGProvider, query: Query, key: str, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Ask within the remembered conversation; once more as a new one when the provider has forgotten it."""
        memory = patiently(lambda: self._conversations.load(key))
        try:
            yield from self._run(
                provider, replace(query, conversation_id=memory.conversation_id), key, memory, deadline
            )
        except ConversationGone:
            if not memory.conversation_id:
                raise
            log.warning("conversation gone, asking as a new one", extra={"provider": provider.name})
            memory = memory._replace(conversation_id="")
            self._remember(key, memory, "")
            yield from self._run(provider, query, key, memory, deadline)

    def _run(
        self, provider: BaseRAGProvider, query: Query, key: str, memory: Memory, deadline: Deadline
    ) -> Iterator[ProviderEvent]:
        """Stream one run; keep its conversation from the first event on, unless its first turn brings no text."""
        ids, spoke, ended = ProviderIds(), False, False
        events = provider.stream_query(query, deadline)
        try:
            for event in events:
                match event:
                    case ProviderIds():
                        ids = event
                        self._remember(key, memory, ids.conversation_id)
                    case Delta() | Replacement():
                        spoke = True
                yield event
            ended = True
        except AnswerError:
            ended = not deadline.over
            raise
        finally:
            events.close() if hasattr(events, "close") else None
            if not ended and deadline.aborted not in LEAVING:
                provider.cancel(ids, query.user)
            if not spoke and not memory.conversation_id and deadline.aborted not in LEAVING:
                self._remember(key, memory, "")

    def _remember(self, key: str, memory: Memory, conversation_id: str) -> None:
        """Keep the id; a memory that cannot be written costs the conversation, not the answer."""
        try:
            self._conversations.remember(key, memory._replace(conversation_id=conversation_id))
        except StoreUnavailable:
            log.warning("conversation not remembered")


T = TypeVar("T")


def patiently(call: Callable[[], T]) -> T:
    """Return what a store says, waiting through an outage of Redis that a producer survives."""
    retrying = Retrying(
        retry=retry_if_exception_type(StoreUnavailable),
        stop=stop_after_delay(OUTAGE_SECONDS),
        wait=wait_fixed(TURN_POLL),
        reraise=True,
    )
    return retrying(call)
