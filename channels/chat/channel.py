"""The chat channel: takes questions over a WebSocket and streams answers, which can be resumed on any replica."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from flask import Blueprint, Response

from channels.asking import FindingGateway, QuestionLimiter, UploadedFiles
from channels.chat.answers import ChatAnswer, ChatDisplay
from channels.chat.frames import (
    ChatAsk,
    ChatFeedback,
    ChatFrame,
    ChatPing,
    ChatResume,
    ChatStop,
    FrameRefused,
    read_frame,
)
from channels.options import AnswerReader, AskableBots, ChatReader
from channels.rating import RatingInbox, rate
from channels.registry import CHAT
from channels.sockets.answer_queue import AnswerQueue
from channels.sockets.endpoint import add_socket_rule
from channels.sockets.peer import Closed, FrameSocket, SocketServer
from channels.web.rest import RestError
from services import metrics
from services.attachments import SentFile
from services.errors import STORE_CODES, AnswerError, StoreUnavailable
from services.identity.callers import Caller
from services.models import Question
from services.streams.records import Snapshot

log = logging.getLogger(__name__)

#: Maximum unanswered questions of one socket.
MOST = 8


class ChatChannel:
    """One client's chat socket.

    A question is asked at once; its answer is shown after those before it. A stream is shown on a socket only once at
    a time: repeating a question, or sending `resume`, for an answer that is unfinished here adds nothing, but a
    repeated question gets its echo again. Resuming as HTML sends a `reset` and all of the text, because a block may
    begin anywhere before the cursor. Streams go on when the socket ends.
    """

    def __init__(
        self,
        display: ChatDisplay,
        caller: Caller,
        *,
        gateway: FindingGateway,
        limiter: QuestionLimiter,
        ratings: RatingInbox,
        bots: AskableBots,
        files: UploadedFiles,
    ) -> None:
        self._display = display
        self._caller = caller
        self._client_id = display.client_id
        self._gateway = gateway
        self._limiter = limiter
        self._ratings = ratings
        self._files = files
        self._bots = bots
        self._receiving = False
        self._answers: AnswerQueue[ChatAnswer] = AnswerQueue(gateway, display.callbacks, most=MOST)

    @property
    def busy(self) -> bool:
        """Whether a question is being asked or an answer shown."""
        return self._receiving or self._answers.busy

    def opened(self) -> None:
        self._display.connected()

    def received(self, text: str) -> None:
        """Handle one message; takes a few Redis round trips at most."""
        self._receiving = True
        try:
            if incoming := read_frame(text):
                self._do(incoming)
        except FrameRefused as refused:
            self._display.refused(refused)
        except StoreUnavailable:
            self._display.error("service_unavailable")
        except Exception:
            log.exception("chat message failed", extra={"client_id": self._client_id})
            self._display.error("server_error")
        finally:
            self._receiving = False

    def closed(self, closed: Closed) -> None:
        """Stop showing answers; the streams go on and can be resumed."""
        self._answers.close()

    def _do(self, incoming: ChatFrame) -> None:
        match incoming:
            case ChatAsk():
                self._ask(incoming)
            case ChatResume():
                self._resume(incoming)
            case ChatStop():
                self._stop(incoming)
            case ChatFeedback():
                self._rate(incoming)
            case ChatPing():
                self._display.pong(incoming)

    def _ask(self, ask: ChatAsk) -> None:
        question, counted = self._question(ask)
        if known := next((shown for shown in self._answers.unfinished() if shown.has_id_of(question)), None):
            if not known.equals(question):
                raise self._refused("id_conflict", ask)
            self._display.echo(ask, known.stream_id)
            return
        asked = self._stream_of(ask, question, counted)
        ids = {"client_id": self._client_id, "stream_id": asked.stream_id}
        about = {"bot": question.bot, "person": self._gateway.person(question)}
        log.info("chat question", extra={**ids, **about, "outcome": asked.error_code or asked.status})
        if asked.error_code == "id_conflict":
            raise FrameRefused(asked.error_code, ask.id)
        # A stream that was opened in spite of the error has its own end, which is shown when the question is repeated.
        if asked.error_code in STORE_CODES and not asked.length:
            self._display.error("service_unavailable", of=asked.error_code, id=ask.id)
            return
        self._display.echo(ask, asked.stream_id)
        if not self._unfinished(asked.stream_id):
            shown = ChatAnswer(
                asked.stream_id,
                question.bot,
                question.principal,
                ask.id,
                self._display.blocks(ask.html),
                thinking=ask.options.thinking,
                question=question,
            )
            self._answers.add(shown)

    def _stream_of(self, ask: ChatAsk, question: Question, counted: str) -> Snapshot:
        """Return the question's stream. Over the rate limit, a repeated question still finds its existing stream."""
        if self._answers.full:
            raise self._refused("too_many_questions", ask)
        if self._limiter.question(question.principal, counted):
            return self._gateway.ask(question, media=self._uploaded(ask))
        if known := self._gateway.find(question):
            return known
        raise self._refused("rate_limited", ask)

    def _uploaded(self, ask: ChatAsk) -> Sequence[SentFile]:
        try:
            return self._files.claim(self._caller.principal, ask.files)
        except AnswerError as exc:
            raise self._refused(exc.code, ask) from exc

    def _refused(self, code: str, ask: ChatAsk) -> FrameRefused:
        metrics.QUESTIONS_REFUSED.labels(code).inc()
        return FrameRefused(code, ask.id)

    def _question(self, ask: ChatAsk) -> tuple[Question, str]:
        """Return the question, and the client id by which it is counted: "" for one of an end user.

        Raises:
            FrameRefused: an option is wrong.
        """
        ids = {
            "channel": CHAT.name,
            "msgid": f"{self._client_id}/{ask.id}" if ask.id else "",
            # A form is answered in the conversation that it was asked in.
            "session": self._client_id if ask.conversation or ask.choice else "",
        }
        try:
            question, counted = self._bots.question(ask.content, ask.options, self._caller, self._client_id, **ids)
        except RestError as exc:
            raise FrameRefused.of(exc, ask.id) from exc
        return replace(question, choice=ask.choice), counted

    def _reader(self, asked: ChatReader) -> AnswerReader:
        try:
            return self._bots.reader(asked, self._caller)
        except RestError as exc:
            raise FrameRefused.of(exc) from exc

    def _resume(self, resume: ChatResume) -> None:
        if self._unfinished(resume.stream_id):
            return
        reader, thinking = self._reader(resume.view), resume.view.thinking
        anew = (resume.html or thinking != "show") and resume.cursor > 0
        blocks = self._display.blocks(resume.html)
        shown = ChatAnswer(resume.stream_id, **reader, blocks=blocks, anew=anew, thinking=thinking)
        if not self._answers.add(shown, 0 if anew else resume.cursor):
            self._display.error("too_many_questions", stream_id=resume.stream_id)

    def _stop(self, stop: ChatStop) -> None:
        """Cancel one answer, or all unfinished ones; their end is shown like every other."""
        shown = self._answers.unfinished()
        readers = {one.stream_id: AnswerReader(bot=one.bot, principal=one.principal) for one in shown}
        if stop.stream_id:
            readers = {stop.stream_id: readers.get(stop.stream_id) or self._reader(stop.reader)}
        for stream_id, reader in readers.items():
            # `cancel` returns "" only for an unknown stream; one that has just ended is no error.
            if not self._gateway.cancel(stream_id, **reader):
                self._display.error("stream_unknown", stream_id=stream_id)

    def _rate(self, feedback: ChatFeedback) -> None:
        """Take a rating, and confirm it."""
        reader = self._reader(feedback.reader)
        try:
            code = rate(self._ratings, feedback.stream_id, feedback.rating, feedback.content, **reader)
        except StoreUnavailable:
            code = "service_unavailable"
        if code:
            self._display.error(code, stream_id=feedback.stream_id)
        else:
            self._display.rated(feedback)

    def _unfinished(self, stream_id: str) -> ChatAnswer | None:
        """Return the answer with this stream id that is being shown here or waiting."""
        return next((shown for shown in self._answers.unfinished() if shown.stream_id == stream_id), None)


def chat_blueprint(sockets: SocketServer, open: Callable[[FrameSocket, Caller, str], ChatChannel]) -> Blueprint:
    """Return the channel's two addresses: with a client id in the path, and without (one is generated)."""

    def chat(client_id: str) -> Response:
        return sockets.serve("chat", client_id, open)

    routes = Blueprint("chat", __name__)
    add_socket_rule(routes, "/ws/chat", chat, defaults={"client_id": ""})
    add_socket_rule(routes, "/ws/chat/<client_id>", chat, suffix="_client")
    return routes
