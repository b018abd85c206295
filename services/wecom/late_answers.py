"""Sends late answers: the part that a frame could not carry, through the question's reply address, at most once.

The step that ends the stream in Redis also writes the claim (lua/append.lua), so exactly one owner gets it, before a
byte of the message leaves. If that owner is lost, nothing is sent again: the sweep finds the claim, counts and logs it.
The owner posts in its producer's thread: a drain waits for it, and the replica's slots bound the number of posts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from services import metrics
from services.errors import ProviderError, StoreUnavailable
from services.files.answer_store import FileStore, StoredFile
from services.files.shown import FileOffers
from services.models import Question
from services.streams.access import Access
from services.streams.owned_stream import OwnedStream
from services.streams.records import Appended
from services.streams.store import StreamStore
from services.wecom.frames import EndedAnswer, WeComFrames, ended
from services.wecom.markdown_service import MarkdownService

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Outcome:
    #: sent, refused, or failed.
    name: str
    cause: str = ""
    size: int = 0


class LateAnswers:
    """Sends the late messages of the streams that this replica ends."""

    def __init__(
        self,
        streams: StreamStore,
        access: Access,
        frames: WeComFrames,
        responses: MarkdownService,
        *,
        files: FileStore,
        offers: FileOffers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._streams = streams
        self._access = access
        self._frames = frames
        self._responses = responses
        self._files = files
        self._offers = offers
        self._clock = clock

    def overflows(self, question: Question, stream: OwnedStream, code: str) -> bool:
        """Return whether an answer that ends with this error code ("" for none) is larger than its frame."""
        files = self._files_of(stream)
        return self._frames.overflows(question.bot, stream.text, code, stream_id=stream.stream_id, files=files)

    def deliver(self, question: Question, stream: OwnedStream) -> str:
        """Send the late message of a stream whose end claimed it; store and return the outcome. Never raises."""
        began = self._clock()
        try:
            outcome = self._send(question, stream)
        except Exception:
            log.exception("late answer failed", extra=stream.about)
            outcome = _Outcome("failed", "unexpected")
        metrics.LATE_ANSWERS.labels(outcome.name).inc()
        result: dict[str, Any] = {"outcome": outcome.name, "why": stream.late.cause if stream.late else ""}
        figures = {"bytes": outcome.size, "ms": round((self._clock() - began) * 1000)}
        cause = {"cause": outcome.cause} if outcome.cause else {}
        level = logging.INFO if outcome.name == "sent" else logging.WARNING
        log.log(level, "late answer", extra={**stream.about, **result, **figures, **cause})
        self._note(stream, outcome)
        return outcome.name

    def _send(self, question: Question, stream: OwnedStream) -> _Outcome:
        try:
            url = self._access.unsealed(question, stream.field("reply"))
        except (ValueError, KeyError, StoreUnavailable):
            return _Outcome("failed", "the address cannot be decrypted")
        if not self._responses.allows(url):
            return _Outcome("refused", "WECHAT_RESPONSE_HOSTS does not have the host")
        assert stream.late
        answer = replace(self._answer(stream, stream.late), framed=not question.card)
        content = self._frames.late_message(question.bot, answer)
        size = len(content.encode())
        try:
            self._responses.post(url, content)
        except ProviderError as exc:
            return _Outcome("failed", str(exc), size)
        return _Outcome("sent", size=size)

    def _answer(self, stream: OwnedStream, late: Appended) -> EndedAnswer:
        """Return an ended answer with the snapshot that its readers see, its files, and a link to its full text."""
        left = self._streams.ttl - stream.age
        link = self._offers.whole_text(stream.stream_id, left)
        return replace(answer_of(stream, late), files=self._files_of(stream), full_text_link=link)

    def _files_of(self, stream: OwnedStream) -> tuple[StoredFile, ...]:
        if stream.field("files") != "1":
            return ()
        try:
            return self._files.files(stream.stream_id)
        except StoreUnavailable:
            log.warning("files of an answer not read", extra=stream.about)
            return ()

    def _note(self, stream: OwnedStream, outcome: _Outcome) -> None:
        try:
            self._streams.delivered(stream.stream_id, stream.owner, outcome.name)
        except StoreUnavailable:
            # The sweep then counts it as lost as well; nothing is sent again.
            log.warning("outcome of a late answer not stored", extra=stream.about)


def answer_of(stream: OwnedStream, late: Appended) -> EndedAnswer:
    """Return an owner's ended answer with the snapshot that its readers see."""
    text, code, promised = stream.text, stream.field("error_code"), stream.field("late") == "1"
    seen = {
        "overflow": ended(text, code, late=promised, stream_id=stream.stream_id),
        "frame": replace(ended(late.shown, "", late=promised), frame_over=True),
    }
    cited, note = stream.field("cited"), stream.field("refusal" if code else "suggested")
    return EndedAnswer(text, seen.get(late.cause), code, cited, note, stream.stream_id)
