"""Answer one question: authenticate, wait for the conversation's turn, ask the provider, remember the conversation."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from config.apps import OWN_APP
from services import metrics
from services.answers.askers import Askers, speaker_of
from services.answers.extras import AnswerExtras, QuestionContext
from services.answers.forms.conversation_forms import AnswerForms, ConversationForms
from services.answers.provider_run import ProviderRun, looked_up, may_ask
from services.answers.queue import ConversationQueue
from services.answers.quotas import OpeningQuotas, QuestionQuotas
from services.channels import Channel, Channels
from services.conversations.earlier import read, with_earlier
from services.conversations.memory import ConversationMemory, MemoryStores
from services.conversations.store import Memory
from services.errors import AnswerError, ConversationGone, ProviderError, Unrecoverable
from services.feedback.rating_store import note_call
from services.files.intake import MediaIntake
from services.models import Asker, Attempt, Identity, ProviderIds, Query, Question
from services.providers.base import BaseRAGProvider
from services.redis.store import Call
from services.rules.words import BotWords
from services.streams.answer_events import AnswerEvent, AppChosen, Asking, Resumed, anew
from services.streams.owned_stream import LEAVING
from services.streams.store import leave_call
from services.usage.ended_store import EndedStore
from utils.deadline import Deadline

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backend:
    """The provider of one bot, and how its questions are asked."""

    provider: BaseRAGProvider
    corp: str = ""
    #: Whether the members of a group share one conversation.
    shared_groups: bool = False
    bot: str = "default"
    #: The words that its questions must not have; None where no file names any.
    words: BotWords | None = None
    #: The providers of other apps by name, which the company's rules may choose instead.
    apps: Mapping[str, BaseRAGProvider] = field(default_factory=dict)

    def at(self, app: str) -> Backend:
        """Return the same with the provider of an app; "" is the bot's own.

        Raises:
            KeyError: there is no such app.
        """
        return self if app in ("", OWN_APP) else replace(self, provider=self.apps[app])


@dataclass(frozen=True, slots=True)
class Places:
    """What a question takes up until its answer's end, and where its end is noted."""

    queue: ConversationQueue
    quotas: QuestionQuotas
    #: Has the files that came with questions.
    intake: MediaIntake
    ended: EndedStore


class QueueEntry(NamedTuple):
    """A question's stream, the key of its app's conversation ("" for none), and its forms."""

    key: str
    stream_id: str
    forms: ConversationForms


class Answerer:
    """Turns questions into the provider's events. One object serves the process, from many threads."""

    def __init__(
        self,
        *,
        backends: Mapping[str, Backend],
        channels: Channels,
        askers: Askers,
        places: Places,
        memory: MemoryStores,
        forms: AnswerForms,
        extras: AnswerExtras,
    ) -> None:
        """Take the backend of each bot."""
        self._backends = backends
        self._channels = channels
        self._askers = askers
        self._intake, self._ended = places.intake, places.ended
        self.queue, self.quotas = places.queue, places.quotas
        self._stores = memory
        self._forms = forms
        self._extras = extras

    def conversation(self, question: Question) -> str:
        """Return the key of a question's conversation with the bot's own app, "" for none.

        The question waits in its queue, whichever app answers: that is known only when the person is.
        """
        return self._key(self._backends[question.bot], question)

    def conversations(self, question: Question) -> list[str]:
        """Return the keys of the question's conversations with all apps of its bot; none for an independent one."""
        backend = self._backends[question.bot]
        keys = (self._key(backend.at(app), question) for app in (OWN_APP, *backend.apps))
        return list(dict.fromkeys(filter(None, keys)))

    def _key(self, backend: Backend, question: Question) -> str:
        """Return the key of the question's conversation with an app, "" for none."""
        channel = self._channels.of(question)
        if channel.is_independent(question):
            return ""
        bot, shared = channel.key_bot(question), backend.shared_groups
        return self._stores.conversations.key(backend.provider.app, question, bot=bot, shared=shared)

    def opening_quotas(self, question: Question, stream_id: str) -> OpeningQuotas:
        """Return what the question's stream takes of quotas while it is opened."""
        visitor, known = self._askers.stranger(question, self._channels.of(question))
        return self.quotas.opening(visitor, stream_id, departments_known=known)

    def quotas_left(self, question: Question) -> str:
        """Return what is left to the person who asks, as Markdown.

        Raises:
            StoreUnavailable: Redis is away.
        """
        visitor, known = self._askers.stranger(question, self._channels.of(question))
        return self.quotas.left_text(visitor, departments_known=known)

    def knows(self, question: Question, app: str = "") -> bool:
        """Tell whether this replica has the question's channel, bot and app, so that it can answer it."""
        backend = self._backends.get(question.bot) if question.channel in self._channels else None
        return backend is not None and app in ("", OWN_APP, *backend.apps)

    def leave_calls(self, question: Question, stream_id: str, key: str = "", *, logs: bool = True) -> tuple[Call, ...]:
        """Return the calls that leave the user's slots and the conversation's queue, and note the answer for ratings.

        They also remove the files that came with the question, and with `logs` queue the stream for the log and the
        usage. `key` is the queue's key, where the caller has it already.
        """
        ended = self._ended.add_calls(stream_id) if logs else ()
        if not self.knows(question):
            return ended
        slot = leave_call(question.bot, question.principal, stream_id)
        noted = (note_call(stream_id),) if self._channels.of(question).rated else ()
        files = self._intake.leave_calls(question) if question.media else ()
        return (slot, *self.queue.leave_calls(key or self.conversation(question), stream_id), *noted, *files, *ended)

    def answer(
        self,
        question: Question,
        stream_id: str,
        deadline: Deadline,
        attempt: Attempt | None = None,
        *,
        turn: Memory | None = None,
        quotas: str = "",
    ) -> Iterator[AnswerEvent]:
        """Yield the events of an answer, up to the provider's last. Closing the iterator cancels the run there.

        With `attempt` the work of earlier owners is continued: their answer is looked up, or asked for once more. The
        conversation's memory is `turn`, where the stream heads its queue already; None waits for the turn. `quotas` is
        what the stream has taken of them.

        Raises:
            AnswerError: the answer failed; its code selects the sentence for the user.
        """
        channel = self._channels.of(question)
        backend, identity, asker = yield from self._admitted(question, channel, stream_id, deadline, attempt, quotas)
        query = _query(question, identity, channel, asker)
        events = self._events(backend, question, query, stream_id, deadline, attempt, turn)
        asked = QuestionContext(question, channel, backend.provider, query)
        yield from self._extras.added(events, asked, deadline, attempt)

    def _admitted(
        self,
        question: Question,
        channel: Channel,
        stream_id: str,
        deadline: Deadline,
        attempt: Attempt | None,
        quotas: str,
    ) -> Generator[AnswerEvent, None, tuple[Backend, Identity, Asker]]:
        """Authenticate the person, check the question, and choose its app, and take the rest of its quotas.

        A chosen app stays under later rules.

        Return the app's backend and who asks.
        """
        backend = self._backends[question.bot]
        if backend.words and may_ask(attempt):
            backend.words.check(_asked_texts(question))
        begun = attempt is not None and attempt.asks > 0
        identity = self._askers.identity(question, channel, backend.corp, deadline, begun=begun)
        yield identity
        # Before the wait for the conversation's turn: a look-up in the directory takes no time of it then, and files'
        # addresses are valid for minutes.
        asker = self._askers.asker(question, identity, channel, _user(question, identity, channel))
        app = attempt.app if attempt else ""
        if not begun:
            visitor = self._askers.visitor(question, channel, asker)
            judged = self._askers.admit(visitor)
            taken = attempt.quotas if attempt else quotas
            yield from self.quotas.reserve(visitor, stream_id, taken, confirm=attempt is not None)
            if backend.apps and not app:
                app = self._app_of_form(backend, question) or judged
                yield AppChosen(app)
        return backend.at(app), identity, asker

    def _app_of_form(self, backend: Backend, question: Question) -> str:
        """Return the app whose form was clicked, also under rules that choose another one now; "" for no click."""
        if not question.choice:
            return ""
        keys = {app: self._key(backend.at(app), question) for app in (OWN_APP, *backend.apps)}
        return next((app for app, key in keys.items() if key and self._forms.has(question, key)), "")

    def _events(
        self,
        backend: Backend,
        question: Question,
        query: Query,
        stream_id: str,
        deadline: Deadline,
        attempt: Attempt | None,
        turn: Memory | None,
    ) -> Iterator[AnswerEvent]:
        """Yield the events of `answer` after the app was chosen, without extras."""
        if question.media and may_ask(attempt):
            query = yield from self._intake.take_in(question, backend.provider, query, deadline)
        begun = attempt is not None and attempt.asks > 0
        queue, key = self.conversation(question), self._key(backend, question)
        if queue and turn is None:
            turn = yield from self.queue.wait(queue, stream_id, deadline, begun=begun)
        if key != queue:
            turn = self.queue.memory(key)
        forms = self._forms.of(question, stream_id, key)
        entry = QueueEntry(key, stream_id, forms)
        if question.chat and backend.shared_groups:
            query = _spoken(query, attempt.speaker if attempt and attempt.asks else speaker_of(query.asker))
        rest = forms.continued(backend.provider, query, deadline, attempt, any_open=bool(turn and turn.forms))
        if rest:
            yield from rest
        elif attempt and attempt.asks:
            yield from self._go_on(backend, query, entry, deadline, attempt)
        else:
            memory = self._memory(backend, entry, known=turn)
            asked_in = memory.conversation_id
            yield Asking(1, "", backend.provider.name, memory.resets, asked_in, query.speaker)
            yield from self._ask(backend, query, memory, entry, deadline)

    def _go_on(
        self, backend: Backend, query: Query, entry: QueueEntry, deadline: Deadline, attempt: Attempt
    ) -> Iterator[AnswerEvent]:
        """Yield the rest of an answer that was asked for; ask once more where the provider has none."""
        asked = with_earlier(query, backend.provider, known=bool(attempt.ids.conversation_id))
        named = replace(asked, stored_text=attempt.text, sources=attempt.sources, asked_at=attempt.asked_at)
        try:
            for event in looked_up(backend.provider, named, attempt.ids, deadline, "owner_lost", entry.forms.show):
                if isinstance(event, ProviderIds):
                    # The first owner was lost before the provider named the conversation.
                    self._memory(backend, entry, attempt.resets).note(event.conversation_id, wait=True)
                yield event
        except Unrecoverable as exc:
            yield Resumed("lost", str(exc), "owner_lost")
            if not may_ask(attempt):
                raise AnswerError(f"asked {attempt.asks} times: {exc}", code="interrupted") from exc
            memory = self._memory(backend, entry, attempt.resets)
            asked_in = memory.conversation_id
            yield Asking(attempt.asks + 1, str(exc), backend.provider.name, memory.resets, asked_in, query.speaker)
            # Only now is it certain that this replica owns the stream: another owner could be reading the run.
            backend.provider.cancel(attempt.ids, query.user)
            yield from anew(self._ask(backend, query, memory, entry, deadline), attempt.text)
        except ProviderError:
            if deadline.over and deadline.aborted not in LEAVING:
                backend.provider.cancel(attempt.ids, query.user)
            raise

    def _ask(
        self, backend: Backend, query: Query, memory: ConversationMemory, entry: QueueEntry, deadline: Deadline
    ) -> Iterator[AnswerEvent]:
        """Ask in the remembered conversation; once more in a new one when the provider has forgotten it."""
        try:
            yield from self._run(backend, memory.recalled(query), memory, entry, deadline)
        except ConversationGone:
            if not memory.conversation_id:
                raise
            log.warning("conversation gone, asking as a new one", extra={"provider": backend.provider.name})
            memory.forget()
            yield from self._run(backend, memory.recalled(query), memory, entry, deadline)

    def _memory(
        self, backend: Backend, entry: QueueEntry, resets: str = "", known: Memory | None = None
    ) -> ConversationMemory:
        return ConversationMemory(entry.key, self._stores, provider=backend.provider, resets=resets, memory=known)

    def _run(
        self, backend: Backend, query: Query, memory: ConversationMemory, entry: QueueEntry, deadline: Deadline
    ) -> Iterator[AnswerEvent]:
        metrics.PROVIDER_CALLS.labels(backend.bot, backend.provider.name).inc()
        run = ProviderRun(backend.provider, query, memory, entry.stream_id, deadline, show=entry.forms.show)
        return run.events()


def _user(question: Question, identity: Identity, channel: Channel) -> str:
    """Return the provider's name of the user."""
    return identity.user.user_code if identity.user else channel.end_user(question)


def _asked_texts(question: Question) -> list[str]:
    """Return the texts that a question has of its person: its words and what was entered beside them."""
    return [question.text, *(value for value in question.inputs.values() if isinstance(value, str))]


def _spoken(query: Query, speaker: str) -> Query:
    """Return a query that begins with its speaker's name; unchanged without a name."""
    return replace(query, text=f"{speaker}: {query.text}", speaker=speaker) if speaker else query


def _query(question: Question, identity: Identity, channel: Channel, asker: Asker) -> Query:
    """Return the query without the memory of its conversation."""
    instructions, earlier = read(question.earlier)
    return Query(
        question.text,
        _user(question, identity, channel),
        instructions=instructions,
        earlier=earlier,
        inputs=question.inputs,
        model=question.model,
        temperature=question.temperature,
        files=question.files,
        identity=identity,
        channel=channel.name,
        waits_for_provider=channel.waits_for_provider,
        mock_language=channel.mock_language,
        asker=asker,
    )
