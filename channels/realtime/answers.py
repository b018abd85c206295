"""Asks a realtime session's questions at the gateway, passes it their answers, and cancels them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from channels.asking import QuestionGateway, QuestionLimiter
from channels.registry import REALTIME
from channels.sockets.answer_queue import AnswerCallbacks, AnswerQueue, Shown
from config.bots import DEFAULT_BOT
from services import metrics
from services.errors import STORE_CODES, StoreUnavailable
from services.identity.callers import Caller
from services.models import Question
from services.realtime.answers import MOST, SessionAnswers
from services.realtime.effects import AskQuestion, Effect, SessionAnswer
from services.streams.following import Update
from services.streams.long_text import FullAnswer

log = logging.getLogger(__name__)

#: Runs a step of the session and sends its frames; returns whether the socket is still open.
RunStep = Callable[[Callable[[], list[Effect]]], bool]


@dataclass(eq=False)
class _QueuedAnswer(Shown):
    """An answer in the queue of those to be shown."""

    answer: SessionAnswer = field(kw_only=True)


class ShownAnswers:
    """The answers of one client. The queue's thread calls the steps of the session's answers through `run`."""

    def __init__(
        self,
        gateway: QuestionGateway,
        limiter: QuestionLimiter,
        caller: Caller,
        client_id: str,
        *,
        session: SessionAnswers,
        run: RunStep,
        closing: Callable[[], bool],
    ) -> None:
        self._gateway = gateway
        self._limiter = limiter
        self._caller = caller
        self._client_id = client_id
        self._session = session
        self._run = run
        # Answers that the session has just given up may still be in the queue.
        self._queue = AnswerQueue(gateway, self._callbacks(closing), most=2 * MOST)

    @property
    def busy(self) -> bool:
        return self._queue.busy

    def close(self) -> None:
        """Show nothing more; the streams go on."""
        self._queue.close()

    def ask(self, ask: AskQuestion) -> tuple[str, str]:
        """Ask a question; return an error code ("" for none) and the stream id ("" when no stream was opened)."""
        try:
            return self._put(ask)
        except Exception:
            log.exception("realtime question failed", extra={"client_id": self._client_id})
            return "server_error", ""

    def follow(self, answer: SessionAnswer) -> None:
        """Show an answer from its cursor on, after all earlier ones."""
        shown = _QueuedAnswer(answer.stream_id, DEFAULT_BOT, self._caller.principal, answer=answer)
        self._queue.add(shown, answer.cursor)

    def cancel(self, answer: SessionAnswer) -> None:
        """Stop showing an answer, and cancel its stream."""
        self._queue.drop(answer.stream_id)
        try:
            self._gateway.cancel(answer.stream_id, bot=DEFAULT_BOT, principal=self._caller.principal)
        except StoreUnavailable:
            log.warning("answer not cancelled", extra={"stream_id": answer.stream_id})

    def _put(self, ask: AskQuestion) -> tuple[str, str]:
        if not self._limiter.question(self._caller.principal, self._client_id):
            metrics.QUESTIONS_REFUSED.labels("rate_limited").inc()
            return "rate_limited", ""
        asked = self._gateway.ask(self._question(ask))
        ids = {"client_id": self._client_id, "stream_id": asked.stream_id, "kind": ask.answer.kind}
        log.info("realtime question", extra={**ids, "outcome": asked.error_code or asked.status})
        return asked.error_code, "" if asked.error_code in STORE_CODES else asked.stream_id

    def _question(self, ask: AskQuestion) -> Question:
        return Question(
            ask.text,
            REALTIME.name,
            DEFAULT_BOT,
            self._caller.principal,
            session=ask.answer.session_id,
            credential=self._caller.credential,
        )

    def _callbacks(self, closing: Callable[[], bool]) -> AnswerCallbacks[_QueuedAnswer]:
        return AnswerCallbacks(
            begun=lambda queued: self._run(lambda: self._session.begun(queued.answer)),
            show=self._show,
            ended=self._ended,
            failed=lambda queued, code: self._run(lambda: self._session.failed(queued.answer, code)),
            closing=closing,
        )

    def _show(self, queued: _QueuedAnswer, update: Update) -> bool:
        """Send the update piece by piece: the next frame is built after the one before it was sent."""
        pieces = _pieces(update, joined=queued.answer.blocks is not None)
        grew = partial(self._session.grew, queued.answer, first=update.first)
        if not pieces:
            return self._run(partial(grew, (), cursor=update.cursor, reset=update.reset))
        for number, piece in enumerate(pieces):
            cursor = update.cursor if number + 1 == len(pieces) else piece[1]
            if not self._run(partial(grew, (piece,), cursor=cursor, reset=update.reset and not number)):
                return False
        return True

    def _ended(self, queued: _QueuedAnswer, update: Update, full: FullAnswer) -> None:
        known: dict[str, Any] = {"code": full.error_code, "sentence": update.sentence, "mock": full.mock}
        known |= {"usage": full.usage.known, "sources": full.sources, "files": full.files}
        self._run(lambda: self._session.ended(queued.answer, full.status, **known))


def _pieces(update: Update, *, joined: bool) -> list[tuple[str, int]]:
    """Return the new pieces of text, each with the cursor after it.

    They are `joined` to one for a client that gets HTML, so that an answer of many chunks is rendered once.
    """
    if joined and update.chunks:
        return [("".join(chunk.content for chunk in update.chunks), update.index + len(update.chunks))]
    return [(chunk.content, after) for after, chunk in enumerate(update.chunks, start=update.index + 1)]
