"""The one path of a question, whatever door it came through: ask, read, cancel."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from services import metrics
from services.answers.answer import Answerer
from services.answers.conversation_store import ConversationStore, Memory, Place
from services.answers.takeover import TakeoverManager
from services.errors import StoreUnavailable
from services.models import Question
from services.redis.store import Call
from services.streams.access import Access
from services.streams.following import Following, Misses
from services.streams.manager import StreamManager
from services.streams.readers import StreamReaders
from services.streams.records import NewStream, Snapshot, Write, born_finished, final_chunk
from services.streams.shared_reads import SharedReads
from services.streams.store import OPEN_SECONDS, StreamStore
from utils.keyring import Keyring
from utils.sizes import is_longer

log = logging.getLogger(__name__)

#: Characters that are kept of a question that is too long.
KEPT = 1000


@dataclass(frozen=True, slots=True)
class Door:
    """What a channel allows its people."""

    #: Questions one person may have under way; None where the channel itself bounds them.
    places: int | None = None
    #: Seconds after which a stream's frame ends for its readers; None for never.
    frame_seconds: float | None = None
    #: What people say to begin a conversation anew.
    resets: frozenset[str] = frozenset()
    #: Seconds for which opening a stream is tried: WeCom has two for its reply, a socket has time.
    patience: float = OPEN_SECONDS
    #: Whether clients send a question again, by their own id of it, until they know its stream.
    resends: bool = False
    #: Whether an id stands for one question: other words under it are refused.
    compares: bool = False
    #: Whether a question that finds no place here keeps its refusal; else the same id is a new chance.
    keeps_refusals: bool = True


class Gateway:
    """Opens streams, reads them, cancels them; Redis is its only outside party, two round trips at the most."""

    def __init__(
        self,
        *,
        streams: StreamStore,
        manager: StreamManager,
        takeovers: TakeoverManager,
        answerer: Answerer,
        conversations: ConversationStore,
        keys: Mapping[str, Keyring],
        doors: Mapping[tuple[str, str], Door],
        sentence: Callable[[str], str],
        readers: StreamReaders,
        max_bytes: int = 65536,
        log_content: bool = False,
    ) -> None:
        """Take its parts; `max_bytes` are those of the longest question."""
        self._streams = streams
        self._reads = SharedReads(streams)
        self._manager = manager
        self._takeovers = takeovers
        # An owner writes with every renewal, and tries again twice a second.
        self._misses = Misses(streams.lease / 3 + 2)
        self._answerer = answerer
        self._conversations = conversations
        #: Of each bot's keys: its stream ids, readers' fingerprints, and what lies sealed in Redis.
        self._access = Access(keys)
        self._doors = doors
        self._sentence = sentence
        self._readers = readers
        self._max_bytes = max_bytes
        self._log_content = log_content

    def ask(self, question: Question, *, reply: str = "") -> Snapshot:
        """Open the question's stream, or find it when the message came before; return what it shows now.

        `reply` is where a late answer may go, a secret: it is stored sealed. A question that cannot be taken gets a
        stream that is finished and says why. Other words under a client's own id are refused with `id_conflict`.
        """
        stream_id = ""
        try:
            stream_id = self._access.stream_id(question)
            return self._compared(question, self._open(question, stream_id, reply))
        except StoreUnavailable as exc:
            metrics.QUESTIONS_REFUSED.labels(exc.code).inc()
            return Snapshot(stream_id, "error", error_code=exc.code)

    def person(self, question: Question) -> str:
        """Return what the log calls the person who asks: a fingerprint, and the id itself under `LOG_CONTENT`."""
        if self._log_content:
            return question.principal
        try:
            return self._access.person(question)
        except StoreUnavailable:
            return ""

    def find(self, question: Question) -> Snapshot | None:
        """Return what the message's stream shows, when it came before; None when it has none.

        Other words under the same id are refused as `ask` refuses them.

        Raises:
            StoreUnavailable: Redis is away.
        """
        known = self._streams.read(self._access.stream_id(question)) if question.msgid else None
        return self._compared(question, replace(known, found=True)) if known else None

    def say(self, question: Question, key: str) -> Snapshot:
        """Answer a message with a sentence of ours: a stream born finished with `key`'s words."""
        stream_id = ""
        try:
            stream_id = self._access.stream_id(question)
            return self._refuse(question, stream_id, key, error=False)
        except StoreUnavailable as exc:
            return Snapshot(stream_id, "error", error_code=exc.code)

    def read(self, stream_id: str, *, bot: str, principal: str, chat: str = "") -> Snapshot | None:
        """Return what the stream shows to this reader; None where it is unknown, expired, or not theirs.

        While Redis is away, or came back a moment ago, a running stream is shown by its owner alone: another replica
        might show less than its reader has seen. One that Redis lacks is unknown only when its owner has had the time
        to write it again.

        Raises:
            StoreUnavailable: there is nothing to be shown now; ask again.
        """
        try:
            snapshot = self._reads.read(stream_id)
        except StoreUnavailable:
            snapshot = self._owned(stream_id)
        else:
            snapshot = self._checked(stream_id, snapshot) if snapshot else self._missed(stream_id)
        if snapshot and snapshot.lapsed:
            with suppress(StoreUnavailable):
                self._takeovers.attempt(stream_id)
        if snapshot and self._access.allows(snapshot.access, bot, principal, chat):
            return snapshot
        return None

    def _owned(self, stream_id: str) -> Snapshot:
        """Return a stream that this replica writes as it knows it, or raise `StoreUnavailable`."""
        snapshot = self._manager.known(stream_id)
        if snapshot is None:
            raise StoreUnavailable("only the stream's owner can say what it shows")
        return snapshot

    def _checked(self, stream_id: str, snapshot: Snapshot) -> Snapshot:
        """Return what Redis has of a stream, unless it may have less than was shown."""
        self._misses.forget(stream_id)
        growing = snapshot.status == "processing" and not snapshot.frame_over
        if not growing or not self._streams.away(stream_id):
            return snapshot
        return max(snapshot, self._owned(stream_id), key=lambda seen: seen.size)

    def _missed(self, stream_id: str) -> Snapshot | None:
        """Return a stream that Redis lacks as its owner knows it; None only when it stays away."""
        snapshot = self._manager.known(stream_id)
        if snapshot is None and self._misses.note(stream_id):
            raise StoreUnavailable("the stream's owner may be writing it again", code="stream_missing")
        return snapshot

    def cancel(self, stream_id: str, *, bot: str, principal: str, chat: str = "") -> str:
        """End a running stream of this reader; the provider is told by whoever asks it.

        Return the status it had: only "processing" was ended by this. "" where there is none, or it is not theirs.

        Raises:
            StoreUnavailable: Redis is away.
        """
        snapshot = self._streams.read(stream_id) or self._manager.known(stream_id)
        if not snapshot or not self._access.allows(snapshot.access, bot, principal, chat):
            return ""
        status = self._streams.cancel(stream_id)
        if status == "processing" and (owned := self._manager.owned(stream_id)):
            owned.touch()
        return status

    def follow(self, stream_id: str, cursor: int = 0, *, bot: str, principal: str, text: bool = True) -> Following:
        """Return this reader's way along a stream from `cursor` on, an absolute list index; nothing is read yet.

        Whoever waits for the end alone wants no `text` on the way.
        """
        return Following(
            self._readers,
            stream_id,
            cursor,
            allows=lambda readers: self._access.allows(readers, bot, principal, ""),
            misses=self._misses,
            text=text,
        )

    def _open(self, question: Question, stream_id: str, reply: str) -> Snapshot:
        if not question.text.strip():
            return self._refuse(question, stream_id, "empty_question")
        if is_longer(question.text, self._max_bytes):
            return self._too_large(question, stream_id)
        if not question.independent and question.text.strip() in self._doors[question.channel, question.bot].resets:
            return self._reset(question, stream_id)
        no_place = self._manager.reserve()
        if no_place:
            return self._no_place(question, stream_id, no_place)
        started = False
        try:
            snapshot, started = self._start(question, stream_id, reply)
            return snapshot
        finally:
            if not started:
                self._manager.give_back()

    def _compared(self, question: Question, snapshot: Snapshot) -> Snapshot:
        """Return what a question's stream shows, or `id_conflict` where it is the stream of another question.

        Only a stream that existed before is compared: a new question costs no exchange more.
        """
        door = self._doors[question.channel, question.bot]
        if not (snapshot.found and door.compares) or self._is_of(question, snapshot.stream_id):
            return snapshot
        metrics.QUESTIONS_REFUSED.labels("id_conflict").inc()
        return Snapshot(snapshot.stream_id, "error", error_code="id_conflict")

    def _is_of(self, question: Question, stream_id: str) -> bool:
        """Tell whether a stream has this question's words; one that has expired meanwhile contradicts nothing."""
        content = self._streams.content(stream_id)
        too_long = is_longer(question.text, self._max_bytes)
        return content in (None, question.text, question.text[:KEPT] if too_long else None)

    def _no_place(self, question: Question, stream_id: str, code: str) -> Snapshot:
        """Return what the question's stream shows, if it came before; else its refusal."""
        if self._doors[question.channel, question.bot].keeps_refusals:
            return self._refuse(question, stream_id, code)
        known = self._streams.read(stream_id) if question.msgid else None
        if known is None:
            metrics.QUESTIONS_REFUSED.labels(code).inc()
            return Snapshot(stream_id, "error", error_code=code)
        return replace(known, found=True)

    def _too_large(self, question: Question, stream_id: str) -> Snapshot:
        """Refuse a question; its record keeps the beginning of it."""
        if self._doors[question.channel, question.bot].keeps_refusals:
            return self._refuse(replace(question, text=question.text[:KEPT]), stream_id, "question_too_large")
        metrics.QUESTIONS_REFUSED.labels("question_too_large").inc()
        return Snapshot(stream_id, "error", error_code="question_too_large")

    def _reset(self, question: Question, stream_id: str) -> Snapshot:
        """Begin the conversation anew, in the step that says so."""
        resets = self._conversations.reset_calls(self._answerer.conversation(question), stream_id)
        return self._refuse(question, stream_id, "reset_done", *resets, error=False)

    def _start(self, question: Question, stream_id: str, reply: str) -> tuple[Snapshot, bool]:
        """Open the stream and stand in the lines it needs, in one round trip; a second one only to step back.

        Return what it shows, and whether a producer was started.
        """
        door = self._doors[question.channel, question.bot]
        key = "" if question.independent else self._answerer.conversation(question)
        fields = {**self._fields(question), "reply": self._access.sealed(question, reply)}
        new = NewStream(stream_id, self._manager.new_owner(), fields, frame_seconds=door.frame_seconds)
        leave = self._answerer.leave_calls(question, stream_id, key)
        try:
            notes = self._streams.running_calls([stream_id])
            lines = self._lines(question, door, stream_id, key)
            ours, snapshot, replies = self._streams.open(new, *lines.values(), hints=notes, insist=door.patience)
        except StoreUnavailable as exc:
            if not (door.resends and question.msgid):
                self._manager.end_later(self._ending(new, exc.code), leave)
            # Else it is left to whoever takes it over: it is asked for again by its id, and finds its answer.
            raise
        said = dict(zip(lines, replies, strict=True))
        entered, place = said.get("places", 2), self._place(stream_id, key, said)
        if ours and entered == 0:
            metrics.QUESTIONS_REFUSED.labels("user_full").inc()
            self._end(self._ending(new, "user_full"), leave)
            return Snapshot(stream_id, "error", error_code="user_full"), False
        if ours:
            # A full line is the producer's to tell: those who stand in it may be gone.
            waiting = place.place != 0
            answer = partial(self._answerer.answer, turn=None if waiting else place.memory)
            self._manager.produce(new, question, answer=answer, waiting=waiting, after=leave)
            return replace(snapshot, waiting=waiting), True
        # What a redelivery took of a running stream is that stream's: its end gives it back.
        if snapshot.status != "processing" and (entered == 1 or place.entered):
            self._streams.write([], *leave)
        return replace(snapshot, found=True), False

    def _lines(self, question: Question, door: Door, stream_id: str, key: str) -> dict[str, Call]:
        """Return the calls that stand a question in the lines it needs: a person's places, a conversation's turns.

        `key` is the conversation's, "" for none.
        """
        lines = {}
        if door.places is not None:
            seconds = door.frame_seconds or self._streams.max_seconds
            person = (question.bot, question.principal, stream_id)
            lines["places"] = self._streams.enter_call(*person, slots=door.places, seconds=seconds)
        if key:
            lines["turns"] = self._conversations.turn_call(key, stream_id)
            lines |= self._conversations.former_calls(key)
        return lines

    def _place(self, stream_id: str, key: str, said: Mapping[str, Any]) -> Place:
        """Return the question's place in its conversation's line, out of the replies to `_lines`."""
        if not key:
            return Place(0, False, stream_id, Memory("", ""))
        return Place.from_replies(said["turns"], {one: said[one] for one in self._conversations.former_calls(key)})

    def _end(self, ending: Write, leave: Sequence[Call]) -> None:
        """End a stream that gets no producer, later where Redis is away: nobody is to take it over and ask."""
        try:
            (reply,) = self._streams.write([ending], *leave)
            lost = isinstance(reply, StoreUnavailable)
        except StoreUnavailable:
            lost = True
        if lost:
            self._manager.end_later(ending, leave)

    def _ending(self, new: NewStream, code: str) -> Write:
        """Return the end of a stream that gets a sentence instead of a producer."""
        fields = {"status": "error", "error_code": code, "dify_finished": "1"}
        chunk = final_chunk(self._sentence(code), error=True)
        return Write(new.stream_id, new.epoch, new.owner, new.start, 0, (chunk,), fields, "finish")

    def _refuse(self, question: Question, stream_id: str, key: str, *others: Call, error: bool = True) -> Snapshot:
        """Open a stream that is born finished with a sentence, unless the message has one already.

        `others` are sent before it; return what it shows.
        """
        fields = {**self._fields(question), "error_code": key if error else ""}
        new = born_finished(stream_id, self._manager.new_owner(), fields, self._sentence(key), error=error)
        created, snapshot, _ = self._streams.open(new, *others)
        if created and error:
            metrics.QUESTIONS_REFUSED.labels(key).inc()
        return replace(snapshot, found=not created)

    def _fields(self, question: Question) -> dict[str, str]:
        """Return the documented fields of a new stream; the others come with what they tell."""
        return {
            "status": "processing",
            "content": question.text,
            "question": question.to_json(),
            "access": self._access.readers(question),
            "created_time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "auth_state": "",
            "error_code": "",
            "delivered": "",
            "reply": "",
            "message_id": "",
            "task_id": "",
            "run_id": "",
            "asks": "0",
            "token": "",
            "user_info": "",
            "conversation_id": "",
        }
