"""Answer one question: authenticate, wait for the conversation's turn, stream, remember the conversation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from services import metrics
from services.answers.conversation_store import ConversationStore, Memory
from services.answers.history_store import HistoryStore
from services.answers.memory import PAUSE as TURN_POLL
from services.answers.memory import Recollection, patiently
from services.answers.provider_run import ProviderRun, looked_up
from services.channels import Channel, Channels
from services.errors import AnswerError, AuthError, ConversationGone, ProviderError, Unrecoverable
from services.models import Identity, Past, ProviderIds, Query, Question
from services.providers.base import BaseRAGProvider
from services.redis.store import Call
from services.streams.answer_events import AnswerEvent, Asking, Resumed, Waiting, anew
from services.streams.owned_stream import LEAVING
from services.streams.store import StreamStore
from utils.deadline import Deadline

log = logging.getLogger(__name__)

#: Seconds an answer's end waits until its conversation could be kept.
MEMORY_SECONDS = 5.0
#: How often a question may be put to the provider, over all owners of its stream.
MAX_ASKS = 2
#: Leases for which a waiting question sees its line's head without an owner before that gives way: somebody may be
#: about to take it over.
EVICT_LEASES = 3


class Authenticator(Protocol):
    def authenticate(self, userid: str, corp: str = "") -> Identity: ...


class CallerAuthenticator(Protocol):
    def identity(self, question: Question, *, accepts_api_keys: bool = False) -> Identity: ...


@dataclass(frozen=True, slots=True)
class Backend:
    """What answers one bot's questions."""

    provider: BaseRAGProvider
    corp: str = ""
    #: A group's members share one conversation.
    shared_groups: bool = False
    bot: str = "default"


class Place(NamedTuple):
    """Where a question stands: its conversation's key, "" for none, and its stream."""

    key: str
    stream_id: str


class Answerer:
    """Knows the way from a question to the provider's events; one for the process, safe in many threads."""

    def __init__(
        self,
        *,
        auth: Authenticator,
        backends: Mapping[str, Backend],
        conversations: ConversationStore,
        streams: StreamStore,
        channels: Channels,
        callers: CallerAuthenticator | None = None,
        history: HistoryStore | None = None,
        memory_seconds: float = MEMORY_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._auth = auth
        self._callers = callers
        self._backends = backends
        self._conversations = conversations
        self._history = history
        self._streams = streams
        self._channels = channels
        self._memory_seconds = memory_seconds
        self._sleep = sleep
        self._clock = clock

    def conversation(self, question: Question) -> str:
        """Return the key of the conversation a question belongs to."""
        backend = self._backends[question.bot]
        bot = self._channels.of(question).key_bot(question)
        return self._conversations.key(backend.provider.app, question, bot=bot, shared=backend.shared_groups)

    def knows(self, question: Question) -> bool:
        """Tell whether this replica has the question's channel and bot, so that it can answer it."""
        return question.channel in self._channels and question.bot in self._backends

    def leave_calls(self, question: Question, stream_id: str, key: str = "") -> tuple[Call, ...]:
        """Return the calls that give the person's place and the conversation's turn back.

        `key` is the conversation's, where it is known already.
        """
        place = self._streams.leave_call(question.bot, question.principal, stream_id)
        if self._channels.of(question).is_independent(question):
            return (place,)
        return (place, self._conversations.leave_call(key or self.conversation(question), stream_id))

    def answer(
        self,
        question: Question,
        stream_id: str,
        deadline: Deadline,
        past: Past | None = None,
        *,
        turn: Memory | None = None,
    ) -> Iterator[AnswerEvent]:
        """Yield what becomes known, ending with the provider's last word. Closing it tells the provider to stop.

        With a `past`, earlier owners' work is gone on with: what they asked for is fetched, or asked for once more.
        `turn` is what the conversation remembers, where the stream has its turn already; None where it is to be waited
        for.

        Raises:
            AnswerError: the answer failed; its code picks the sentence for the user.
        """
        backend, channel = self._backends[question.bot], self._channels.of(question)
        identity = self._identity(question, backend, channel)
        yield identity
        key = "" if channel.is_independent(question) else self.conversation(question)
        if key and turn is None:
            turn = yield from self._wait_for_turn(key, stream_id, deadline, begun=bool(past and past.asks))
        query = _query(question, identity, channel)
        place = Place(key, stream_id)
        if past and past.asks:
            yield from self._go_on(backend, query, place, deadline, past)
        else:
            memory = self._recollection(backend, place, known=turn)
            asked_in = memory.conversation_id
            yield Asking(provider=backend.provider.name, resets=memory.resets, conversation_id=asked_in)
            yield from self._ask(backend, query, memory, place, deadline)

    def _identity(self, question: Question, backend: Backend, channel: Channel) -> Identity:
        if channel.authenticates == "directory":
            return self._auth.authenticate(question.principal, backend.corp)
        if self._callers is None:
            raise AuthError("nobody checks credentials here")
        return self._callers.identity(question, accepts_api_keys=channel.accepts_api_keys)

    def _go_on(
        self, backend: Backend, query: Query, place: Place, deadline: Deadline, past: Past
    ) -> Iterator[AnswerEvent]:
        """Have the answer that was asked for; ask once more where there is none."""
        named = replace(query, said=past.text, sources=past.sources, asked_at=past.asked_at)
        try:
            for event in looked_up(backend.provider, named, past.ids, deadline, "owner_lost"):
                if isinstance(event, ProviderIds):
                    # Its first owner had not heard of the conversation.
                    self._recollection(backend, place, past.resets).note(event.conversation_id, patient=True)
                yield event
        except Unrecoverable as exc:
            yield Resumed("lost", str(exc), "owner_lost")
            if past.asks >= MAX_ASKS or not past.may_ask:
                raise AnswerError(f"asked {past.asks} times: {exc}", code="interrupted") from exc
            memory = self._recollection(backend, place, past.resets)
            yield Asking(past.asks + 1, str(exc), backend.provider.name, memory.resets, memory.conversation_id)
            # Not before it is sure that the stream is ours: its present owner may be reading that run.
            backend.provider.cancel(past.ids, query.user)
            yield from anew(self._ask(backend, query, memory, place, deadline), past.text)
        except ProviderError:
            if deadline.over and deadline.aborted not in LEAVING:
                backend.provider.cancel(past.ids, query.user)
            raise

    def _wait_for_turn(
        self, key: str, stream_id: str, deadline: Deadline, *, begun: bool
    ) -> Generator[Waiting, None, Memory]:
        """Wait until the stream heads its conversation's line; a head that is no longer written gives way.

        Return what the conversation remembers then. A full line refuses a question, not an answer that has `begun`.
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
        return place.memory

    def _evict(self, key: str, head: str, watch: LateHead) -> bool:
        """Take the head out of the line if nobody writes it any more; return whether it was."""
        status, late = self._streams.standing(head)
        gone = status != "processing" or watch.over(head, late)
        if gone:
            self._conversations.leave(key, head)
        return gone

    def _ask(
        self, backend: Backend, query: Query, memory: Recollection, place: Place, deadline: Deadline
    ) -> Iterator[AnswerEvent]:
        """Ask within the remembered conversation; once more as a new one when the provider has forgotten it."""
        try:
            yield from self._run(backend, memory.recalled(query), memory, place.stream_id, deadline)
        except ConversationGone:
            if not memory.conversation_id:
                raise
            log.warning("conversation gone, asking as a new one", extra={"provider": backend.provider.name})
            memory.forget()
            yield from self._run(backend, memory.recalled(query), memory, place.stream_id, deadline)

    def _recollection(
        self, backend: Backend, place: Place, resets: str = "", known: Memory | None = None
    ) -> Recollection:
        return Recollection(
            place.key,
            conversations=self._conversations,
            history=None if backend.provider.keeps_conversations else self._history,
            seconds=self._memory_seconds,
            resets=resets,
            memory=known,
        )

    def _run(
        self, backend: Backend, query: Query, memory: Recollection, stream_id: str, deadline: Deadline
    ) -> Iterator[AnswerEvent]:
        metrics.PROVIDER_CALLS.labels(backend.bot, backend.provider.name).inc()
        return ProviderRun(backend.provider, query, memory, stream_id, deadline).events()


def _query(question: Question, identity: Identity, channel: Channel) -> Query:
    """Return what the provider is asked, before anything of the conversation is known."""
    return Query(
        question.text,
        identity.user.user_code if identity.user else channel.end_user(question),
        inputs=question.inputs,
        files=question.files,
        identity=identity,
        channel=channel.name,
        waits_for_provider=channel.waits_for_provider,
        mock_language=channel.mock_language,
    )


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
