"""The chat door: questions in, answers out as they grow, resumable on any replica."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from flask import Blueprint, Response

from channels.asking import FindingGateway, QuestionLimiter, iso_now
from channels.chat.answers import ChatAnswer, ChatDisplay, Html, Sends
from channels.chat.frames import ChatAsk, ChatFrame, ChatPing, ChatResume, ChatStop, FrameRefused, names_of, read_frame
from channels.sockets.answer_queue import AnswerQueue
from channels.sockets.socket import Closed
from config.bots import DEFAULT_BOT
from config.texts import Texts
from services import metrics
from services.errors import StoreUnavailable
from services.identity.callers import Caller
from services.models import Question
from services.streams.records import Snapshot

log = logging.getLogger(__name__)

#: Questions of one socket that may be unanswered.
MOST = 8


class Opens(Protocol):
    """What is used of this replica's sockets."""

    def serve(self, door: str, client_id: str, open: Callable[[Any, Caller, str], ChatChannel]) -> Response: ...


class ChatChannel:
    """One client at its socket.

    A question is put at once, and its answer shown when those before it are. A stream is shown on a socket once at a
    time: a question sent again, or a `resume`, for one that is unfinished here adds nothing to what is on its way; the
    former gets its echo again. Resuming as HTML gets the whole text anew after a `reset`, since a block may begin
    anywhere before the cursor. The socket's end ends no stream.
    """

    def __init__(
        self,
        socket: Sends,
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
            gateway,
            caller.principal,
            begun=self._display.begun,
            show=self._display.show,
            ended=self._display.ended,
            failed=self._display.failed,
            closing=lambda: socket.closing,
            most=MOST,
        )

    @property
    def busy(self) -> bool:
        """Whether a question is being put or its answer shown."""
        return self._receiving or self._answers.busy

    def opened(self) -> None:
        words = self._texts.get("socket_connected")
        self._socket.send({"type": "system", "content": words, **self._now()})

    def received(self, text: str) -> None:
        """Do what a message asks for, in a few exchanges with Redis at the most."""
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
        """Show nothing more; the streams go on for whoever resumes them."""
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
        # One that was opened all the same, and ended later, has that end: it is shown when it is asked for again.
        if asked.error_code == "store_unavailable" and not asked.length:
            self._display.error("service_unavailable", self._texts.error(asked.error_code), id=ask.id)
            return
        self._echo(ask, asked.stream_id)
        if not self._unfinished(stream_id=asked.stream_id):
            self._answers.add(ChatAnswer(asked.stream_id, ask.id, self._display.blocks(ask.html), question=ask.content))

    def _stream_of(self, ask: ChatAsk) -> Snapshot:
        """Return the question's stream, a new one or the one it has: who is sent again is not one too many."""
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
            "chat",
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
        """Cancel; the end is shown as every end is."""
        ids = [stop.stream_id] if stop.stream_id else [shown.stream_id for shown in self._answers.unfinished()]
        for stream_id in ids:
            # One that ended a moment ago needs no stop, and no error either.
            if not self._gateway.cancel(stream_id, bot=DEFAULT_BOT, principal=self._caller.principal):
                self._display.error("stream_unknown", stream_id=stream_id)

    def _unfinished(self, *, stream_id: str = "", id: str = "") -> ChatAnswer | None:
        """Return the answer of that name which is being shown here or waits for it."""
        for shown in self._answers.unfinished():
            if shown.stream_id == stream_id or (id and shown.id == id):
                return shown
        return None

    def _now(self) -> dict[str, str]:
        return {"client_id": self._client_id, "timestamp": iso_now()}


def chat_blueprint(
    sockets: Opens, *, gateway: FindingGateway, limiter: QuestionLimiter, texts: Texts, html: Html
) -> Blueprint:
    """Return the door's two addresses: a client names itself in the path, or gets a name."""

    def opened(socket: Sends, caller: Caller, client_id: str) -> ChatChannel:
        return ChatChannel(socket, caller, client_id, gateway=gateway, limiter=limiter, texts=texts, html=html)

    def chat(client_id: str) -> Response:
        return sockets.serve("chat", client_id, opened)

    routes = Blueprint("chat", __name__)
    for name, rule, defaults in (("", "/ws/chat", {"client_id": ""}), ("_client", "/ws/chat/<client_id>", {})):
        # werkzeug keeps rules for handshakes and for plain requests apart; `serve` has an answer for both.
        for websocket in (True, False):
            endpoint = f"{'socket' if websocket else 'plain'}{name}"
            routes.add_url_rule(rule, endpoint, chat, methods=["GET"], defaults=defaults, websocket=websocket)
    return routes
