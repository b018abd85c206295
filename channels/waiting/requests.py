"""Requests that wait for an answer over plain HTTP: their slots, their questions, and their end with the replica."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from channels.asking import FindingGateway, FollowedStream, QuestionLimiter
from channels.following import AnswerWait
from channels.web.bodies import release_body
from channels.web.rest import RestError
from services import metrics
from services.attachments import SentFile
from services.models import Question

log = logging.getLogger(__name__)

#: Seconds the last requests have to end when this replica stops.
LAST_SECONDS = 3.0
#: Seconds of `LAST_SECONDS` in which the ends of answers are given before waiting requests are ended.
SHOWN_SECONDS = 2.0


class WaitingRequests:
    """The waiting requests of this process; attached to `bootstrap.container`, which starts and stops it."""

    def __init__(self, *, most: int = 500, timeout: float = 1800.0) -> None:
        """At most `most` requests wait at once; one without updates for `timeout` seconds fails."""
        self._most = most
        self._timeout = timeout
        self._count = 0
        self._changed = threading.Condition()
        self._closing = threading.Event()

    @property
    def count(self) -> int:
        """The number of waiting requests."""
        return self._count

    def enter(self) -> bool:
        """Take a slot, to be released by `exit`; return False when none is free."""
        with self._changed:
            if self._count >= self._most:
                return False
            self._count += 1
        metrics.HTTP_WAITS.inc()
        return True

    def exit(self) -> None:
        """Release a slot."""
        with self._changed:
            self._count -= 1
            self._changed.notify_all()
        metrics.HTTP_WAITS.dec()

    def along(self, following: FollowedStream) -> AnswerWait:
        """Return an `AnswerWait` on a stream."""
        return AnswerWait(following, leaving=self._closing.is_set, timeout=self._timeout, sleep=self._closing.wait)

    def start(self) -> None:
        """Report the limit as a metric."""
        metrics.HTTP_WAITS_MAX.inc(self._most)

    def leave(self) -> None:
        """Do nothing: each request waits for one answer, and letting it finish costs less than resuming elsewhere."""

    def close_all(self) -> None:
        """End all waiting requests: clients resume on another replica.

        Those whose answer has just ended have `SHOWN_SECONDS` to give it. Takes up to `LAST_SECONDS` in all.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._count, SHOWN_SECONDS)
            self._closing.set()
            self._changed.wait_for(lambda: not self._count, LAST_SECONDS - SHOWN_SECONDS)

    def stop(self) -> None:
        """Do nothing: `close_all` has ended all requests."""


class WaitingQuestions:
    """The gateway for channels over plain HTTP. A refused question raises the error reply of its channel."""

    def __init__(
        self,
        *,
        gateway: FindingGateway,
        limiter: QuestionLimiter,
        waits: WaitingRequests,
        ready: Callable[[], bool],
        refusal: Callable[[str], RestError],
    ) -> None:
        """`ready` is false while the process starts or drains; `refusal` returns the error reply of a code."""
        self._gateway = gateway
        self._limiter = limiter
        self._waits = waits
        self._ready = ready
        self._refusal = refusal

    def slot(self) -> ExitStack:
        """Take a slot of a waiting request; closing the stack releases it.

        Raises:
            RestError: `http_full`, none is free.
        """
        if not self._waits.enter():
            raise self._refused("http_full")
        slot = ExitStack()
        slot.callback(self._waits.exit)
        return slot

    def ask(self, question: Question, address: str, media: Sequence[SentFile] = ()) -> str:
        """Ask a question with its files, and return its stream id.

        A repeated question finds its stream also over the limit or while draining.

        Raises:
            RestError: the question was refused; no provider was asked.
        """
        hindrance = self._hindrance(question, address)
        asked = self._gateway.find(question) if hindrance else self._gateway.ask(question, media=media)
        if asked is None:
            refused = self._refused(hindrance)
            refused.for_another = hindrance == "draining"
            raise refused
        # The answer may take long, and nothing but the question is needed for it.
        release_body()
        if not hindrance:
            ids = {"stream_id": asked.stream_id, "bot": question.bot, "person": self._gateway.person(question)}
            log.info("http question", extra={**ids, "outcome": asked.error_code or asked.status})
        if asked.status == "error" and not asked.length:
            # No provider was asked: the client may repeat the same question with this id.
            raise self._refusal(asked.error_code)
        return asked.stream_id

    def follow(self, stream_id: str, cursor: int, *, bot: str, principal: str, text: bool) -> AnswerWait:
        """Return a wait along a stream of this principal, from `cursor` on; without `text` for its end only.

        Raises:
            StreamUnknown: there is no such stream, it has expired, or it belongs to another caller.
        """
        wait = self._waits.along(self._gateway.follow(stream_id, cursor, bot=bot, principal=principal, text=text))
        wait.begin()
        return wait

    def cancel(self, stream_id: str, *, bot: str, principal: str) -> str:
        """Cancel an answer; return the status it had, "" for an unknown one.

        Raises:
            StoreUnavailable: Redis is unavailable.
        """
        return self._gateway.cancel(stream_id, bot=bot, principal=principal)

    def _hindrance(self, question: Question, address: str) -> str:
        """Return the error code for which a new question is refused, "" when it is accepted."""
        if not self._ready():
            return "draining"
        return "" if self._limiter.question(question.principal, address) else "rate_limited"

    def _refused(self, code: str) -> RestError:
        metrics.QUESTIONS_REFUSED.labels(code).inc()
        return self._refusal(code)
