"""Commands about a person's questions in one chat. Each waits for two round trips to Redis at most.

A command has a stream like a question, so a redelivery finds the sentence that was shown. Except for `/retry`, a
command takes no slot of the person and is not sent to a provider. The first round trip adds the command to the chat's
list of streams (`lua/asked.lua`). The command applies to the entries before its own, also when it is delivered again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from services.answers.asked_store import Asked, AskedStore
from services.answers.refusals import QuestionRefusals, refused
from services.channels import Channels
from services.errors import StoreUnavailable
from services.identity.name_store import NameStore
from services.models import Question
from services.redis.store import Call
from services.streams.access import Access
from services.streams.manager import StreamManager
from services.streams.records import Snapshot
from services.streams.store import StreamStore, leave_call

#: Open a question's stream and start its producer: its snapshot, and whether a producer was started.
Start = Callable[[Question, str, str], tuple[Snapshot, bool]]


class ChatNotes(NamedTuple):
    """The stored notes about a person, for commands."""

    asked: AskedStore
    names: NameStore


class LastQuestion(NamedTuple):
    """A person's last question in a chat, the stream of its last answer, and the person's name; "" for none."""

    text: str = ""
    stream_id: str = ""
    name: str = ""


class ChatCommands:
    """Carries out commands. A command is a `Question` whose text is the person's words."""

    def __init__(
        self,
        streams: StreamStore,
        manager: StreamManager,
        notes: ChatNotes,
        access: Access,
        refusals: QuestionRefusals,
        channels: Channels,
        *,
        start: Start,
    ) -> None:
        self._streams = streams
        self._manager = manager
        self._asked, self._names = notes
        self._access = access
        self._refusals = refusals
        self._channels = channels
        self._start = start

    def tell(self, command: Question, sentence: str) -> Snapshot:
        """Answer a command with a sentence; return its stream's snapshot."""
        stream_id = ""
        try:
            stream_id = self._access.stream_id(command)
            return self._refusals.tell(command, stream_id, sentence)
        except StoreUnavailable as exc:
            return refused(stream_id, exc.code)

    def name(self, command: Question) -> str:
        """Return the person's name as the user directory had it at a question of the last week; "" if unknown.

        Raises:
            StoreUnavailable: Redis is away.
        """
        return self._names.name(command)

    def stop(self, command: Question, sentence: str) -> Snapshot:
        """Cancel the person's running answers in this chat that began before the command, and answer with a sentence.

        Their owners, on any replica, cancel the runs at the provider. Their slots are free at once.
        """
        stream_id = ""
        try:
            stream_id = self._access.stream_id(command)
            asked, known, _ = self._note(command, stream_id)
            if known and not asked.seen:
                # The command's entry was dropped from the list: the entries before it are no longer known.
                return replace(known, found=True)
            snapshot = self._refusals.tell(command, stream_id, sentence, *self._cancel_calls(command, asked))
        except StoreUnavailable as exc:
            return refused(stream_id, exc.code)
        for running in asked.stream_ids:
            if owned := self._manager.owned(running):
                owned.touch()
        return snapshot

    def retry(self, command: Question, *, reply: str = "") -> Snapshot:
        """Ask the person's last question in this chat again, in the command's own stream, as any question is asked.

        `reply` is the secret address for a late answer. Without such a question the sentence is `retry_nothing`.
        """
        stream_id, started = "", False
        code = self._manager.reserve()
        try:
            stream_id = self._access.stream_id(command)
            snapshot, started = self._ask_again(command, stream_id, reply, code)
            return snapshot
        except StoreUnavailable as exc:
            return refused(stream_id, exc.code)
        finally:
            if not (started or code):
                self._manager.give_back()

    def hand_over(self, command: Question, sentence: str) -> tuple[Snapshot, LastQuestion]:
        """Answer a command with a sentence; return also the person's last question in this chat.

        `found` of the snapshot is False exactly once per command message, over all replicas.
        """
        stream_id = ""
        try:
            stream_id = self._access.stream_id(command)
            asked, _, (name,) = self._note(command, stream_id, self._names.call(command))
            last = self._last(command, asked)
            snapshot = self._refusals.tell(command, stream_id, sentence)
        except StoreUnavailable as exc:
            return replace(refused(stream_id, exc.code), found=True), LastQuestion()
        return snapshot, LastQuestion(last.text if last else "", asked.stream_id, name or "")

    def note_calls(self, question: Question, stream_id: str) -> list[Call]:
        """Return the call that notes a question for later commands; none in chats without such commands."""
        if not self._channels.rules(question).notes_questions:
            return []
        sealed = self._access.sealed(question, question.to_json())
        return [self._asked.question_call(self._access.chat_names(question)[0], stream_id, sealed)]

    def forget_calls(self, question: Question, stream_id: str) -> list[Call]:
        """Return the call that forgets the stream of a refused question: it must not displace running ones."""
        if not self._channels.rules(question).notes_questions:
            return []
        return [self._asked.forget_call(self._access.chat_names(question)[0], stream_id)]

    def _ask_again(self, command: Question, stream_id: str, reply: str, code: str) -> tuple[Snapshot, bool]:
        """Open the stream of another answer, unless `code` refuses it."""
        slots = [] if code else self._slot_calls(command, stream_id)
        asked, known, replies = self._note(command, stream_id, *slots, answered=True)
        taken = replies[0] == 1 if replies else False
        leave = [self._leave_call(command, stream_id)] if taken else []
        if known:
            if leave and known.status != "processing":
                self._streams.write([], *leave)
            return replace(known, found=True), False
        if (question := self._last(command, asked)) is None:
            return self._refusals.open(command, stream_id, "retry_nothing", *leave, error=False), False
        if code or (replies and replies[0] == 0):
            return self._refusals.open(question, stream_id, code or "user_full"), False
        return self._start(question, stream_id, reply)

    def _note(
        self, command: Question, stream_id: str, *others: Call, answered: bool = False
    ) -> tuple[Asked, Snapshot | None, list[Any]]:
        """Note the command; return the notes before it, its stream's snapshot, and the replies to `others`."""
        names, read = self._access.chat_names(command), self._streams.read_call(stream_id)
        asked, (shown, *replies) = self._asked.note(names, stream_id, read, *others, answered=answered)
        return asked, Snapshot.from_reply(stream_id, shown) if shown else None, replies

    def _last(self, command: Question, asked: Asked) -> Question | None:
        """Return the last question under the command's message id; None where there is none that can be read."""
        if not asked.question:
            return None
        try:
            question = Question.from_json(self._access.unsealed(command, asked.question))
        except (ValueError, KeyError, TypeError):
            return None
        return replace(question, msgid=command.msgid)

    def _cancel_calls(self, command: Question, asked: Asked) -> list[Call]:
        cancels = [self._streams.cancel_call(stream_id) for stream_id in asked.stream_ids]
        return [*cancels, *(self._leave_call(command, stream_id) for stream_id in asked.stream_ids)]

    def _slot_calls(self, command: Question, stream_id: str) -> list[Call]:
        rules = self._channels.rules(command)
        if rules.slots is None:
            return []
        seconds = rules.frame_seconds or self._streams.max_seconds
        return [self._streams.enter_call(command.bot, command.principal, stream_id, slots=rules.slots, seconds=seconds)]

    def _leave_call(self, command: Question, stream_id: str) -> Call:
        return leave_call(command.bot, command.principal, stream_id)
