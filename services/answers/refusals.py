"""Questions that get a sentence of ours instead of a provider's answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from config.texts import Texts
from services import metrics
from services.channels import Channels
from services.errors import AnswerError, StoreUnavailable
from services.models import Question
from services.redis.store import Call
from services.streams.access import Access
from services.streams.manager import StreamManager
from services.streams.records import NewStream, Snapshot, Write, born_finished, final_chunk
from services.streams.store import StreamStore
from services.usage.ended_store import EndedStore
from utils.stream_utils import is_longer

#: Characters of a question that are stored when it is refused because of its length.
KEPT = 1000


class QuestionRefusals:
    """Opens streams that are finished from the start, and ends opened streams that get no producer."""

    def __init__(
        self,
        store: StreamStore,
        manager: StreamManager,
        access: Access,
        channels: Channels,
        *,
        ended: EndedStore,
        texts: Texts,
        max_bytes: int,
    ) -> None:
        """Take the size of the longest question in `max_bytes` of UTF-8."""
        self._store = store
        self._manager = manager
        self._access = access
        self._channels = channels
        self._ended = ended
        self._texts = texts
        self._max_bytes = max_bytes

    def open(self, question: Question, stream_id: str, key: str, *others: Call, error: bool = True) -> Snapshot:
        """Open a finished stream with the sentence `key`, unless the message has a stream; return its snapshot.

        `others` are sent before it, in the same pipeline.

        Raises:
            StoreUnavailable: Redis is away.
        """
        snapshot = self._finished(question, stream_id, self._texts.get(key), key if error else "", *others)
        if error and not snapshot.found:
            metrics.QUESTIONS_REFUSED.labels(key).inc()
        return snapshot

    def tell(self, question: Question, stream_id: str, sentence: str, *others: Call) -> Snapshot:
        """Open a finished stream as `open` does, with a sentence that is no refusal.

        Raises:
            StoreUnavailable: Redis is away.
        """
        return self._finished(question, stream_id, sentence, "", *others)

    def compared(self, question: Question, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot, or `id_conflict` where the stream is another question's.

        Only a stream that existed before is compared: a new question costs no round trip more.
        """
        if not (snapshot.found and self._channels.rules(question).compares_ids):
            return snapshot
        return snapshot if self._is_of(question, snapshot.stream_id) else refused(snapshot.stream_id, "id_conflict")

    def no_room(self, question: Question, stream_id: str, code: str, *others: Call) -> Snapshot:
        """Return the snapshot of the question's stream, where the message came before; else refuse it with `code`.

        `others` are sent with a refusal that is kept.
        """
        if self._channels.rules(question).keeps_refusals:
            return self.open(question, stream_id, code, *others)
        known = self._store.read(stream_id) if question.msgid else None
        return refused(stream_id, code) if known is None else replace(known, found=True)

    def is_too_large(self, question: Question) -> bool:
        """Return whether the question's text is longer than questions may be."""
        return is_longer(question.text, self._max_bytes)

    def too_large(self, question: Question, stream_id: str) -> Snapshot:
        """Refuse a question for its length; a kept refusal stores the first `KEPT` characters."""
        if self._channels.rules(question).keeps_refusals:
            return self.open(replace(question, text=question.text[:KEPT]), stream_id, "question_too_large")
        return refused(stream_id, "question_too_large")

    def end(self, new: NewStream, question: Question, error: AnswerError, leave: Sequence[Call]) -> Snapshot:
        """End an opened stream with the error's sentence and send the calls `leave`; return its snapshot.

        Where Redis is away this is done later: without an end the stream would be taken over, and its question asked. A
        client that may ask again under the same id can do so after `retry_after`.
        """
        ending = self._ending(new, error)
        if error.retry_after and not self._channels.rules(question).keeps_refusals:
            leave = (*leave, *self._store.expire_calls(new.stream_id, error.retry_after))
        try:
            (reply,) = self._store.write([ending], *leave)
            lost = isinstance(reply, StoreUnavailable)
        except StoreUnavailable:
            lost = True
        if lost:
            self._manager.end_later(ending, leave)
        shown = refused(new.stream_id, error.code)
        # A stream with a sentence of its own is followed to its end.
        return replace(shown, access=new.fields["access"], note=error.sentence, length=1) if error.sentence else shown

    def end_later(self, new: NewStream, code: str, leave: Sequence[Call]) -> None:
        """End a stream whose opening Redis may have carried out without a reply, as soon as Redis answers again.

        `leave` are the calls without the one that queues the stream for the log: one that was not opened is not logged.
        """
        self._manager.end_later(self._ending(new, AnswerError(code=code)), leave, self._ended.add_calls(new.stream_id))

    def fields(self, question: Question) -> dict[str, str]:
        """Return the documented fields of a new stream; the others are written when their values become known."""
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
            "asker": self._asker(question),
        }

    def _asker(self, question: Question) -> str:
        """Return the facts of the question that a rating of its answer needs, as JSON; "" if it cannot be rated."""
        channel = self._channels.of(question)
        if not channel.rated:
            return ""
        asker = {"bot": question.bot, "channel": channel.name, "user": channel.end_user(question)}
        asker |= {"traceparent": question.traceparent} if question.traceparent else {}
        return json.dumps(asker, ensure_ascii=False)

    def _finished(self, question: Question, stream_id: str, sentence: str, code: str, *others: Call) -> Snapshot:
        fields = {**self.fields(question), "error_code": code}
        new = born_finished(stream_id, self._manager.new_owner(), fields, sentence, error=bool(code))
        # A refused question is logged; the answer to a command is none to a question.
        hints = self._ended.add_calls(stream_id) if code else ()
        created, snapshot, _ = self._store.open(new, *others, hints=hints)
        return replace(snapshot, found=not created)

    def _is_of(self, question: Question, stream_id: str) -> bool:
        """Tell whether a stream was opened for this text with these options; True where it has expired meanwhile."""
        stored = self._store.question(stream_id)
        if not stored:
            return True
        asked = Question.from_json(stored)
        kept = question.text[:KEPT] if self.is_too_large(question) else question.text
        same = asked.text in (question.text, kept)
        return same and asked.options == question.options

    def _ending(self, new: NewStream, error: AnswerError) -> Write:
        fields = {"status": "error", "error_code": error.code, "dify_finished": "1", **error.fields}
        chunk = final_chunk(error.sentence or self._texts.get(error.code), error=True)
        return Write(new.stream_id, new.epoch, new.owner, new.start, 0, (chunk,), fields, "finish")


def refused(stream_id: str, code: str) -> Snapshot:
    """Count a refused question; return the snapshot of a stream that failed with `code` and is not stored."""
    metrics.QUESTIONS_REFUSED.labels(code).inc()
    return Snapshot(stream_id, "error", error_code=code)
