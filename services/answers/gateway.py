"""The one interface of all channels: ask a question, read or follow its stream, cancel it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from services.answers.answer import Answerer
from services.answers.commands import ChatCommands, ChatNotes
from services.answers.refusals import QuestionRefusals, refused
from services.answers.takeover import TakeoverManager
from services.attachments import SentFile, media_to_json
from services.channels import ChannelRules, Channels
from services.conversations.store import QueuePosition
from services.errors import AnswerError, StoreUnavailable
from services.files.sent_store import SentFileStore
from services.files.shown import AnswerLinks, LinkedFollowing
from services.identity.callers import owner_of
from services.models import Question
from services.redis.store import Call
from services.streams.access import Access
from services.streams.following import Following
from services.streams.manager import StreamManager
from services.streams.polls import StreamPolls
from services.streams.readers import StreamReaders
from services.streams.records import NewStream, Snapshot
from services.streams.store import StreamStore
from services.streams.traces import Emit, refusal_span
from utils.tracing import begun_trace, current_trace

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplicaStreams:
    """How this replica stores, writes, takes over and follows streams, and checks access to them."""

    store: StreamStore
    access: Access
    manager: StreamManager
    takeovers: TakeoverManager
    readers: StreamReaders


class ReplyAddresses(Protocol):
    """The addresses to which late messages may be sent."""

    def allows(self, url: str) -> bool: ...


class Gateway:
    """Opens, reads and cancels streams. It waits for nothing but Redis, for two round trips at most."""

    def __init__(
        self,
        *,
        streams: ReplicaStreams,
        answerer: Answerer,
        channels: Channels,
        refusals: QuestionRefusals,
        notes: ChatNotes,
        links: AnswerLinks,
        sent: SentFileStore,
        replies: ReplyAddresses,
        spans: Emit | None = None,
    ) -> None:
        """With `spans` a question that comes without a trace begins one; a refused question is a span of its own."""
        self._streams = streams.store
        self._polls = StreamPolls(streams.store, streams.manager)
        self._manager = streams.manager
        self._takeovers = streams.takeovers
        self._answerer = answerer
        self._access = streams.access
        self._channels = channels
        self._refusals = refusals
        stores = (streams.store, streams.manager, notes)
        self.commands = ChatCommands(*stores, self._access, self._refusals, channels, start=self._start)
        self._readers = streams.readers
        self._links = links
        self._sent = sent
        self._replies = replies
        self._spans = spans

    def ask(self, question: Question, *, reply: str = "", media: Sequence[SentFile] = ()) -> Snapshot:
        """Open the question's stream, or find it when the message came before; return its snapshot.

        `reply` is the secret address for a late answer, `media` are the message's files; both are stored sealed, files
        with their content in round trips of their own. A question that cannot be answered gets a finished stream with
        the reason. Another text under a client's own id is refused with `id_conflict`.
        """
        stream_id = ""
        try:
            stream_id = self._access.stream_id(question)
            question = self._traced(question, stream_id)
            snapshot = self._ask(question, stream_id, reply, media)
        except StoreUnavailable as exc:
            snapshot = refused(stream_id, exc.code)
        if self._spans and snapshot.status == "error" and not snapshot.found and question.trace.is_sampled:
            self._spans(refusal_span(question, snapshot))
        return snapshot

    def _traced(self, question: Question, stream_id: str) -> Question:
        """Return the question with the ids of its request, or of a trace that it begins."""
        trace, begun = current_trace(), begun_trace(stream_id) if self._spans else ""
        if not (any(trace) or begun):
            return question
        return replace(question, request_id=trace.request_id, traceparent=trace.traceparent or begun)

    def _ask(self, question: Question, stream_id: str, reply: str, media: Sequence[SentFile]) -> Snapshot:
        try:
            kept = self._sent.keep(question.bot, owner_of(question.principal), media)
        except AnswerError as exc:
            return self._refusals.compared(question, self._refusals.no_room(question, stream_id, exc.code))
        question = replace(question, media=self._access.sealed(question, media_to_json(kept)))
        opened = self._open(question, stream_id, reply)
        if opened.found or opened.status != "processing":
            self._sent.remove(kept)
        return self._refusals.compared(question, opened)

    def can_reply_to(self, address: str) -> bool:
        """Return whether a late message may be sent to this address."""
        return self._replies.allows(address)

    def quotas_left(self, question: Question) -> str:
        """Return what is left of quotas to the person who asks, as Markdown.

        Raises:
            StoreUnavailable: Redis is away.
        """
        return self._answerer.quotas_left(question)

    def person(self, question: Question) -> str:
        """Return the log's name of the user: a fingerprint, or the id itself under `LOG_CONTENT`."""
        try:
            return self._manager.person(question, lambda: self._access.person(question))
        except StoreUnavailable:
            return ""

    def find(self, question: Question) -> Snapshot | None:
        """Return the snapshot of a message's stream; None if the message did not come before.

        Another text under the same id is refused as by `ask`.

        Raises:
            StoreUnavailable: Redis is away.
        """
        known = self._streams.read(self._access.stream_id(question)) if question.msgid else None
        return self._refusals.compared(question, replace(known, found=True)) if known else None

    def say(self, question: Question, key: str) -> Snapshot:
        """Answer a message with the sentence `key`: open a finished stream, and return its snapshot."""
        stream_id = ""
        try:
            stream_id = self._access.stream_id(question)
            return self._refusals.open(question, stream_id, key, error=False)
        except StoreUnavailable as exc:
            return Snapshot(stream_id, "error", error_code=exc.code)

    def read(self, stream_id: str, *, bot: str, principal: str, chat: str = "") -> Snapshot | None:
        """Return the stream's snapshot for this reader; None where it is unknown, expired, or not readable for them.

        Raises:
            StoreUnavailable: nothing can be shown now; read again later.
        """
        snapshot = self._polls.snapshot(stream_id)
        if snapshot and snapshot.lapsed:
            with suppress(StoreUnavailable):
                self._takeovers.attempt(stream_id)
        if snapshot and self._access.allows(snapshot.access, bot, principal, chat):
            return snapshot
        return None

    def cancel(self, stream_id: str, *, bot: str, principal: str, chat: str = "") -> str:
        """End a running stream of this reader; its owner cancels the run at the provider.

        Return the status before: only a stream that was "processing" is changed. "" for an unknown stream, and for one
        that this reader may not read.

        Raises:
            StoreUnavailable: Redis is away.
        """
        snapshot = self._streams.read(stream_id) or self._manager.known(stream_id)
        if not snapshot or not self._access.allows(snapshot.access, bot, principal, chat):
            return ""
        return self.cancel_any(stream_id)

    def cancel_any(self, stream_id: str) -> str:
        """End a running stream for an administrator, as `cancel` does for its reader."""
        status = self._streams.cancel(stream_id)
        if status == "processing" and (owned := self._manager.owned(stream_id)):
            owned.touch()
        return status

    def follow(
        self, stream_id: str, cursor: int = 0, *, bot: str, principal: str, text: bool = True
    ) -> LinkedFollowing:
        """Return a reader of the stream that begins at `cursor`, an absolute list index. Nothing is read yet.

        It shows links to the gateway in the place of signed addresses. With `text` False it reports the stream's end
        without the text on the way.
        """
        return LinkedFollowing(self._following(stream_id, cursor, bot, principal, text=text), self._links)

    def follow_end(self, stream_id: str, *, bot: str, principal: str) -> Following:
        """Return a reader that waits for the stream's end; its whole text is the provider's."""
        return self._following(stream_id, 0, bot, principal, text=False)

    def _following(self, stream_id: str, cursor: int, bot: str, principal: str, *, text: bool) -> Following:
        return Following(
            self._readers,
            stream_id,
            cursor,
            allows=lambda readers: self._access.allows(readers, bot, principal, ""),
            misses=self._polls.misses,
            text=text,
        )

    def _open(self, question: Question, stream_id: str, reply: str) -> Snapshot:
        if not question.text.strip():
            return self._refusals.open(question, stream_id, "empty_question")
        if self._refusals.is_too_large(question):
            return self._refusals.too_large(question, stream_id)
        # The text of a form's choice is no command.
        is_command = question.text.strip() in self._channels.rules(question).resets and not question.choice
        if is_command and (keys := self._answerer.conversations(question)):
            # In the pipeline that opens the stream with the sentence about it.
            resets = [call for key in keys for call in self._answerer.queue.reset_calls(key, stream_id)]
            return self._refusals.open(question, stream_id, "reset_done", *resets, error=False)
        if code := self._manager.reserve():
            return self._refusals.no_room(question, stream_id, code, *self.commands.note_calls(question, stream_id))
        started = False
        try:
            snapshot, started = self._start(question, stream_id, reply)
            return snapshot
        finally:
            if not started:
                self._manager.give_back()

    def _start(self, question: Question, stream_id: str, reply: str) -> tuple[Snapshot, bool]:
        """Open the stream, and enter the user's slots and the conversation's queue, in one round trip.

        A second round trip is needed only to leave them again. Return the snapshot, and whether a producer
        was started.
        """
        rules = self._channels.rules(question)
        key = self._answerer.conversation(question)
        fields = {**self._refusals.fields(question), "reply": self._access.sealed(question, reply)}
        fields |= {"late": "1"} if self.can_reply_to(reply) else {}
        quotas = self._answerer.opening_quotas(question, stream_id)
        fields |= {"quotas": quotas.field} if quotas.places else {}
        # WeCom does not poll the answer to a click: its late message carries all of it.
        frame_seconds = 0.0 if question.card else rules.frame_seconds
        new = NewStream(stream_id, self._manager.new_owner(), fields, frame_seconds=frame_seconds)
        leave = self._answerer.leave_calls(question, stream_id, key)
        try:
            calls = {**self._enter_calls(question, rules, stream_id, key), **quotas.calls}
            notes = self._streams.running_calls([stream_id])
            ours, snapshot, replies = self._streams.open(
                new, *calls.values(), hints=notes, retry_seconds=rules.open_timeout
            )
        except StoreUnavailable as exc:
            # A client that resends its id finds the stream later: a takeover answers it. Any other stream has to end.
            if not (rules.resends and question.msgid):
                leave = self._answerer.leave_calls(question, stream_id, key, logs=False)
                self._refusals.end_later(new, exc.code, (*leave, *quotas.free_calls()))
            raise
        known = dict(zip(calls, replies, strict=True))
        slot, position = known.get("slots", 2), self._answerer.queue.position(key, stream_id, known)
        if ours:
            if error := AnswerError(code="user_full") if slot == 0 else quotas.refusal(known):
                forget = self.commands.forget_calls(question, stream_id)
                return self._refusals.end(new, question, error, (*leave, *forget, *quotas.free_calls())), False
            return self._produce(new, question, snapshot, position, leave)
        if quotas.takes(known):
            # The period has changed since the stream was opened, or the rules have.
            taken = self._streams.fields(stream_id, "quotas")["quotas"]
            self._streams.write([], *quotas.free_calls(taken))
        # A redelivery may have entered again for a running stream; that stream's end leaves for both.
        if snapshot.status != "processing" and (slot == 1 or position.entered):
            self._streams.write([], *leave)
        return replace(snapshot, found=True, is_answer=snapshot.status in ("processing", "completed")), False

    def _produce(
        self,
        new: NewStream,
        question: Question,
        snapshot: Snapshot,
        position: QueuePosition,
        leave: Sequence[Call],
    ) -> tuple[Snapshot, bool]:
        """Start the producer of a stream that was opened just now."""
        # The producer refuses a question whose queue is full: streams in the queue may have lost their owners.
        waiting = position.position != 0
        turn, quotas = None if waiting else position.memory, new.fields.get("quotas", "")
        answer = partial(self._answerer.answer, turn=turn, quotas=quotas)
        self._manager.produce(new, question, answer=answer, waiting=waiting, after=leave)
        return replace(snapshot, waiting=waiting, is_answer=True), True

    def _enter_calls(self, question: Question, rules: ChannelRules, stream_id: str, key: str) -> dict[str, Call]:
        """Return the calls that enter the user's slots, and the queue of the conversation `key`, "" for none."""
        calls = {}
        if rules.slots is not None:
            seconds = rules.frame_seconds or self._streams.max_seconds
            user = (question.bot, question.principal, stream_id)
            calls["slots"] = self._streams.enter_call(*user, slots=rules.slots, seconds=seconds)
        for call in self.commands.note_calls(question, stream_id):
            calls["asked"] = call
        return calls | self._answerer.queue.enter_calls(key, stream_id)
