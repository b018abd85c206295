"""Answer one question: authenticate, wait for the conversation's turn, stream, remember the conversation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from services import metrics
from services.answer_events import AnswerEvent, Asking, Resumed, Waiting, anew, difference
from services.conversation_store import ConversationStore, Memory
from services.errors import AnswerError, AuthError, ConversationGone, ProviderError, StoreUnavailable, Unrecoverable
from services.models import (
    SOCKET_CHANNELS,
    Delta,
    Identity,
    Past,
    ProviderEvent,
    ProviderIds,
    Query,
    Question,
    Replacement,
)
from services.owned_stream import LEAVING
from services.providers.base import BaseRAGProvider
from services.redis_store import Call
from services.stream_store import StreamStore
from utils.deadline import Deadline

log = logging.getLogger(__name__)

#: Seconds between looks at a conversation's line.
TURN_POLL = 0.2
#: Seconds of outage a producer waits through.
OUTAGE_SECONDS = 20.0
#: Seconds an answer's end waits until its conversation could be kept.
MEMORY_SECONDS = 5.0
#: How often a question may be put to the provider, over all owners of its stream.
MAX_ASKS = 2
#: Leases for which a waiting question sees its line's head without an owner before that gives way: somebody may be
#: about to take it over.
EVICT_LEASES = 3


class Authenticator(Protocol):
    def authenticate(self, userid: str, corp: str = "") -> Identity: ...


class SocketAuthenticator(Protocol):
    def identity(self, question: Question) -> Identity: ...


@dataclass(frozen=True, slots=True)
class Backend:
    """What answers one bot's questions."""

    provider: BaseRAGProvider
    corp: str = ""
    #: A group's members share one conversation.
    shared_groups: bool = False
    bot: str = "default"


class Answerer:
    """Knows the way from a question to the provider's events; one for the process, safe in many threads."""

    def __init__(
        self,
        *,
        auth: Authenticator,
        backends: Mapping[str, Backend],
        conversations: ConversationStore,
        streams: StreamStore,
        callers: SocketAuthenticator | None = None,
        memory_seconds: float = MEMORY_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._auth = auth
        self._callers = callers
        self._backends = backends
        self._conversations = conversations
        self._streams = streams
        self._memory_seconds = memory_seconds
        self._sleep = sleep
        self._clock = clock

    def conversation(self, question: Question) -> str:
        """Return the key of the conversation a question belongs to."""
        backend = self._backends[question.bot]
        return self._conversations.key(backend.provider.app, question, shared=backend.shared_groups)

    def knows(self, question: Question) -> bool:
        """Tell whether the question's bot is one of this replica's."""
        return question.bot in self._backends

    def leave_calls(self, question: Question, stream_id: str) -> tuple[Call, ...]:
        """Return the calls that give the person's place and the conversation's turn back."""
        place = self._streams.leave_call(question.bot, question.principal, stream_id)
        if question.independent:
            return (place,)
        return (place, self._conversations.leave_call(self.conversation(question), stream_id))

    def answer(
        self, question: Question, stream_id: str, deadline: Deadline, past: Past | None = None
    ) -> Iterator[AnswerEvent]:
        """Yield what becomes known, ending with the provider's last word. Closing it tells the provider to stop.

        With a `past`, earlier owners' work is gone on with: what they asked for is fetched, or asked for once more.

        Raises:
            AnswerError: the answer failed; its code picks the sentence for the user.
        """
        backend = self._backends[question.bot]
        identity = self._identity(question, backend)
        yield identity
        key = "" if question.independent else self.conversation(question)
        if key:
            yield from self._wait_for_turn(key, stream_id, deadline, begun=bool(past and past.asks))
        user = end_user(question, identity)
        query = Query(question.text, user, "", question.inputs, question.files, identity, question.channel)
        if past and past.asks:
            yield from self._go_on(backend, query, key, deadline, past)
        else:
            yield Asking()
            yield from self._ask(backend, query, key, deadline)

    def _identity(self, question: Question, backend: Backend) -> Identity:
        if question.channel in SOCKET_CHANNELS:
            if self._callers is None:
                raise AuthError("nobody checks sockets here")
            return self._callers.identity(question)
        return self._auth.authenticate(question.principal, backend.corp)

    def _go_on(self, backend: Backend, query: Query, key: str, deadline: Deadline, past: Past) -> Iterator[AnswerEvent]:
        """Have the answer that was asked for; ask once more where there is none."""
        try:
            named = replace(query, conversation_id=past.ids.conversation_id)
            recovered = backend.provider.recover(named, past.ids, deadline)
            rest = difference(past.text, recovered.text)
        except Unrecoverable as exc:
            yield Resumed("lost", str(exc))
            if past.asks >= MAX_ASKS:
                raise AnswerError(f"asked {past.asks} times: {exc}", code="interrupted") from exc
            yield Asking(past.asks + 1, str(exc))
            # Not before it is sure that the stream is ours: its present owner may be reading that run.
            backend.provider.cancel(past.ids, query.user)
            yield from anew(self._ask(backend, query, key, deadline), past.text)
        except ProviderError:
            if deadline.over and deadline.aborted not in LEAVING:
                backend.provider.cancel(past.ids, query.user)
            raise
        else:
            yield from rest
            yield recovered.usage

    def _wait_for_turn(self, key: str, stream_id: str, deadline: Deadline, *, begun: bool) -> Iterator[Waiting]:
        """Wait until the stream heads its conversation's line; a head that is no longer written gives way.

        A full line refuses a question, not an answer that has `begun`.
        """
        tried, watch = False, LateHead(EVICT_LEASES * self._streams.lease, self._clock)
        while (place := patiently(lambda: self._conversations.place(key, stream_id))).place != 0:
            if place.place < 0 and tried and not begun:
                raise AnswerError(code="turns_full")
            if deadline.over:
                raise AnswerError(code="answer_timeout")
            gone = patiently(lambda: self._evict(key, place.head, watch))
            # A full line is told only where none of it gives way.
            tried = place.place < 0 and not gone
            if not tried or begun:
                yield Waiting(True)
                self._sleep(0.0 if gone else TURN_POLL)
        yield Waiting(False)

    def _evict(self, key: str, head: str, watch: LateHead) -> bool:
        """Take the head out of the line if nobody writes it any more; return whether it was."""
        status, late = self._streams.standing(head)
        gone = status != "processing" or watch.over(head, late)
        if gone:
            self._conversations.leave(key, head)
        return gone

    def _ask(self, backend: Backend, query: Query, key: str, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Ask within the remembered conversation; once more as a new one when the provider has forgotten it."""
        memory = patiently(lambda: self._conversations.load(key)) if key else Memory("", "")
        try:
            named = replace(query, conversation_id=memory.conversation_id)
            yield from self._run(backend, named, key, memory, deadline)
        except ConversationGone:
            if not memory.conversation_id:
                raise
            log.warning("conversation gone, asking as a new one", extra={"provider": backend.provider.name})
            memory = memory._replace(conversation_id="")
            self._remember(key, memory, "")
            yield from self._run(backend, query, key, memory, deadline)

    def _run(
        self, backend: Backend, query: Query, key: str, memory: Memory, deadline: Deadline
    ) -> Iterator[ProviderEvent]:
        """Stream one run; keep its conversation from the first event on, unless its first turn brings no text."""
        provider, ids, spoke, ended, remembered = backend.provider, ProviderIds(), False, False, True
        metrics.PROVIDER_CALLS.labels(backend.bot, provider.name).inc()
        events = provider.stream_query(query, deadline)
        try:
            for event in events:
                match event:
                    case ProviderIds():
                        ids = event
                        remembered = self._remember(key, memory, ids.conversation_id)
                    case Delta() | Replacement():
                        spoke = True
                yield event
            ended = True
            if not remembered:
                self._remember(key, memory, ids.conversation_id, patient=True)
        except AnswerError:
            ended = not deadline.over
            raise
        finally:
            events.close() if hasattr(events, "close") else None
            if not ended and deadline.aborted not in LEAVING:
                provider.cancel(ids, query.user)
            if not spoke and not memory.conversation_id and deadline.aborted not in LEAVING:
                self._remember(key, memory, "")

    def _remember(self, key: str, memory: Memory, conversation_id: str, *, patient: bool = False) -> bool:
        """Keep the id, and return whether it was: what cannot be written costs the conversation, not the answer."""
        if not key:
            return True
        memory = memory._replace(conversation_id=conversation_id)
        try:
            if patient:
                patiently(lambda: self._conversations.remember(key, memory), self._memory_seconds)
            else:
                self._conversations.remember(key, memory)
        except StoreUnavailable:
            log.warning("conversation not remembered")
            return False
        return True


def end_user(question: Question, identity: Identity) -> str:
    """Return the provider's name for who asks; "" where no person is known: the provider has a name for nobody."""
    if identity.user:
        return identity.user.user_code
    if question.channel in SOCKET_CHANNELS:
        return f"ws-user-{question.session}" if question.channel == "realtime" else ""
    return question.principal


class LateHead:
    """How long one waiting question has seen the head of its line without a lease."""

    def __init__(self, patience: float, clock: Callable[[], float]) -> None:
        self._patience = patience
        self._clock = clock
        self._head = ""
        self._since = 0.0

    def over(self, head: str, late: float) -> bool:
        """Take in that the head's lease has been over for `late` seconds; tell whether that was seen for too long."""
        if late <= 0.0 or head != self._head:
            self._head, self._since = head if late > 0.0 else "", self._clock()
        return bool(self._head) and self._clock() - self._since > self._patience


T = TypeVar("T")


def patiently(call: Callable[[], T], seconds: float = OUTAGE_SECONDS) -> T:
    """Return what a store says, waiting through an outage of Redis that a producer survives."""
    retrying = Retrying(
        retry=retry_if_exception_type(StoreUnavailable),
        stop=stop_after_delay(seconds),
        wait=wait_fixed(TURN_POLL),
        reraise=True,
    )
    return retrying(call)
