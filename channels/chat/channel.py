"""The chat channel: takes questions over a WebSocket and streams answers, which can be resumed on any replica."""

from __future__ import annotations

import logging

from flask import Blueprint, Response

from channels.asking import FindingGateway, QuestionLimiter, iso_now
from channels.chat.answers import ChatAnswer, ChatDisplay, Html
from channels.chat.frames import ChatAsk, ChatFrame, ChatPing, ChatResume, ChatStop, FrameRefused, names_of, read_frame
from channels.chat.rules import CHAT
from channels.sockets.answer_queue import AnswerQueue
from channels.sockets.endpoint import add_socket_rule
from channels.sockets.peer import Closed, FrameSocket, SocketServer
from config.bots import DEFAULT_BOT
from config.texts import Texts
from services import metrics
from services.errors import StoreUnavailable
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
    repeated question gets its echo again. Resuming as HTML sends a `reset` and the whole text, because a block may
    begin anywhere before the cursor. Streams go on when the socket ends.
    """

    def __init__(
        self,
        socket: FrameSocket,
        caller: Caller,
        client_id: str,
        *,
        gateway: FindingGateway,
        limiter: QuestionLimiter,
        texts: Texts,
        html: Html,
    ) -> None:
        self._socket = socket
        self._caller = caller
        self._client_id = client_id
        self._gateway = gateway
        self._limiter = limiter
        self._texts = texts
        self._display = ChatDisplay(socket, client_id, texts=texts, html=html)
        self._receiving = False
        self._answers: AnswerQueue[ChatAnswer] = AnswerQueue(
            gateway, caller.principal, self._display.callbacks, most=MOST
        )

    @property
    def busy(self) -> bool:
        """Whether a question is being asked or an answer shown."""
        return self._receiving or self._answers.busy

    def opened(self) -> None:
        words = self._texts.get("socket_connected")
        self._socket.send({"type": "system", "content": words, **self._now()})

    def received(self, text: str) -> None:
        """Handle one message; takes a few Redis round trips at most."""
        self._receiving = True
        try:
            if incoming := read_frame(text):
                self._do(incoming)
        except FrameRefused as refused:
            self._display.error(refused.code, self._texts.get(refused.code, **refused.params), id=refused.id)
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
            case ChatPing():
                self._socket.send({"type": "pong", "timestamp": incoming.timestamp, "server_time": iso_now()})

    def _ask(self, ask: ChatAsk) -> None:
        if known := self._unfinished(id=ask.id):
            if known.question != ask.content:
                raise self._refused("id_conflict", ask)
            self._echo(ask, known.stream_id)
            return
        asked = self._stream_of(ask)
        ids = {"client_id": self._client_id, "stream_id": asked.stream_id}
        about = {"bot": DEFAULT_BOT, "person": self._gateway.person(self._question(ask))}
        log.info("chat question", extra={**ids, **about, "outcome": asked.error_code or asked.status})
        if asked.error_code == "id_conflict":
            raise FrameRefused(asked.error_code, ask.id)
        # A stream that was opened in spite of the error has its own end, which is shown when the question is repeated.
        if asked.error_code == "store_unavailable" and not asked.length:
            self._display.error("service_unavailable", self._texts.error(asked.error_code), id=ask.id)
            return
        self._echo(ask, asked.stream_id)
        if not self._unfinished(stream_id=asked.stream_id):
            self._answers.add(ChatAnswer(asked.stream_id, ask.id, self._display.blocks(ask.html), question=ask.content))

    def _stream_of(self, ask: ChatAsk) -> Snapshot:
        """Return the question's stream. Over the rate limit, a repeated question still finds its existing stream."""
        if self._answers.full:
            raise self._refused("too_many_questions", ask)
        question = self._question(ask)
        if self._limiter.question(self._caller.principal, self._client_id):
            return self._gateway.ask(question)
        if known := self._gateway.find(question):
            return known
        raise self._refused("rate_limited", ask)

    def _refused(self, code: str, ask: ChatAsk) -> FrameRefused:
        metrics.QUESTIONS_REFUSED.labels(code).inc()
        return FrameRefused(code, ask.id)

    def _question(self, ask: ChatAsk) -> Question:
        return Question(
            ask.content,
            CHAT.name,
            DEFAULT_BOT,
            self._caller.principal,
            msgid=f"{self._client_id}/{ask.id}" if ask.id else "",
            session=self._client_id if ask.conversation else "",
            credential=self._caller.credential,
        )

    def _echo(self, ask: ChatAsk, stream_id: str) -> None:
        said = {"type": "chat", "role": "user", "content": ask.content, **names_of(stream_id, ask.id)}
        self._socket.send({**said, **self._now()})

    def _resume(self, resume: ChatResume) -> None:
        if self._unfinished(stream_id=resume.stream_id):
            return
        anew = resume.html and resume.cursor > 0
        shown = ChatAnswer(resume.stream_id, blocks=self._display.blocks(resume.html), anew=anew)
        if not self._answers.add(shown, 0 if anew else resume.cursor):
            self._display.error("too_many_questions", stream_id=resume.stream_id)

    def _stop(self, stop: ChatStop) -> None:
        """Cancel one answer, or all unfinished ones; their end is shown like every other."""
        ids = [stop.stream_id] if stop.stream_id else [shown.stream_id for shown in self._answers.unfinished()]
        for stream_id in ids:
            # `cancel` returns "" only for an unknown stream; one that has just ended is no error.
            if not self._gateway.cancel(stream_id, bot=DEFAULT_BOT, principal=self._caller.principal):
                self._display.error("stream_unknown", stream_id=stream_id)

    def _unfinished(self, *, stream_id: str = "", id: str = "") -> ChatAnswer | None:
        """Return the answer with this stream id or client id that is being shown here or waiting."""
        for shown in self._answers.unfinished():
            if shown.stream_id == stream_id or (id and shown.id == id):
                return shown
        return None

    def _now(self) -> dict[str, str]:
        return {"client_id": self._client_id, "timestamp": iso_now()}


def chat_blueprint(
    sockets: SocketServer, *, gateway: FindingGateway, limiter: QuestionLimiter, texts: Texts, html: Html
) -> Blueprint:
    """Return the channel's two addresses: with a client id in the path, and without (one is generated)."""

    def opened(socket: FrameSocket, caller: Caller, client_id: str) -> ChatChannel:
        return ChatChannel(socket, caller, client_id, gateway=gateway, limiter=limiter, texts=texts, html=html)

    def chat(client_id: str) -> Response:
        return sockets.serve("chat", client_id, opened)

    routes = Blueprint("chat", __name__)
    add_socket_rule(routes, "/ws/chat", chat, defaults={"client_id": ""})
    add_socket_rule(routes, "/ws/chat/<client_id>", chat, suffix="_client")
    return routes
