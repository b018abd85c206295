"""The realtime door: a live transcript in, answers to the questions in it out, resumable on any replica."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

from flask import Blueprint, Response

from channels.asking import QuestionGateway, QuestionLimiter, iso_now
from channels.realtime.batch_news import BatchNews
from channels.sockets.answer_queue import AnswerQueue, Shown
from channels.sockets.outbox import Goodbye, Outbox, Wire
from config.bots import DEFAULT_BOT
from config.texts import Texts
from services import metrics
from services.batches.records import Task
from services.errors import BatchUnknown, StoreUnavailable
from services.identity.callers import Caller
from services.models import Question
from services.realtime.effects import Answer, Ask, Cancel, Close, Effect, Follow, Unwatch, Watch
from services.realtime.session import MOST, Detected, RealtimeSession
from services.streams.following import News
from services.streams.records import Whole

log = logging.getLogger(__name__)

#: How a client takes its leave: the code for that, or a close frame without any.
ORDERLY = (1000, 1005)


class RealtimeSocket(Wire, Protocol):
    """What is used of a socket."""

    #: What heartbeats say besides their type and time.
    heartbeat: Mapping[str, Any]


class End(Protocol):
    """How a socket ended."""

    @property
    def code(self) -> int: ...

    @property
    def by_peer(self) -> bool: ...


class Opens(Protocol):
    """What is used of this replica's sockets."""

    def serve(self, door: str, client_id: str, open: Callable[[Any, Caller, str], RealtimeChannel]) -> Response: ...


@dataclass(frozen=True, slots=True)
class RealtimeOptions:
    """How the door understands and speaks: who tells questions, its sentences, and what `stop` does."""

    detect: Callable[[str], Detected]
    texts: Texts
    stop: Literal["idle", "close"] = "idle"


@dataclass(eq=False)
class _QueuedAnswer(Shown):
    """An answer's place in the line of those to be shown."""

    answer: Answer = field(kw_only=True)


class RealtimeChannel:
    """One client at its socket: does what its session says.

    The reader's thread takes messages, and asks, follows and cancels for them; the queue's thread shows the answers,
    that of the follower tells of batch tasks.
    The session takes one step at a time, and its frames go out in the order it made them.
    """

    def __init__(
        self,
        socket: RealtimeSocket,
        caller: Caller,
        client_id: str,
        *,
        gateway: QuestionGateway,
        limiter: QuestionLimiter,
        options: RealtimeOptions,
        news: BatchNews | None = None,
    ) -> None:
        """Take the client's name, which is also that of its first session; without `news` there are no batches."""
        self._socket = socket
        self._caller = caller
        self._client_id = client_id
        self._gateway = gateway
        self._limiter = limiter
        self._session = RealtimeSession(
            client_id, detect=options.detect, texts=options.texts, now=iso_now, stop=options.stop
        )
        self._receiving = False
        # One step of the session at a time; held for moments only, never over a send or a wait for Redis.
        self._step = threading.Lock()
        self._outbox = Outbox(socket)
        self._queue = self._answers()
        self._follower = news.follower(caller.principal, self._progress) if news else None

    @property
    def busy(self) -> bool:
        """Whether a question is being put or its answer shown."""
        return self._receiving or self._queue.busy

    def opened(self) -> None:
        self._do(self._session.open)

    def received(self, text: str) -> None:
        """Do what a message asks for, in a few exchanges with Redis at the most."""
        self._receiving = True
        try:
            self._take(text)
        except Exception:
            log.exception("realtime message failed", extra={"client_id": self._client_id})
            self._do(self._session.troubled)
        finally:
            self._receiving = False

    def closed(self, closed: End) -> None:
        """Show nothing more; an orderly leave also ends what runs, after any other it goes on for a resume."""
        self._queue.close()
        if self._follower:
            self._follower.close()
        self._do(lambda: self._session.closed(orderly=closed.by_peer and closed.code in ORDERLY))

    def _answers(self) -> AnswerQueue[_QueuedAnswer]:
        return AnswerQueue(
            self._gateway,
            self._caller.principal,
            begun=lambda line: self._tell(lambda: self._session.begun(line.answer)),
            show=self._show,
            ended=self._ended,
            failed=lambda line, code: self._tell(lambda: self._session.failed(line.answer, code)),
            closing=lambda: self._socket.closing,
            # Those just given up may still be in the line.
            most=2 * MOST,
        )

    def _take(self, text: str) -> None:
        try:
            message = json.loads(text, parse_constant=_no_number)
        except (ValueError, RecursionError):
            self._do(self._session.unreadable)
            return
        self._do(lambda: self._session.received(message))

    def _do(self, step: Callable[[], list[Effect]]) -> None:
        """Take a step in the reader's thread: its frames are sent, and what it commands is done."""
        for command in self._say(step, patient=False):
            match command:
                case Ask():
                    self._ask(command)
                case Follow():
                    answer = command.answer
                    self._queue.add(_QueuedAnswer(answer.stream_id, answer=answer), answer.cursor)
                case Cancel():
                    self._cancel(command)
                case Watch():
                    self._watch(command.task_id)
                case Unwatch() if self._follower:
                    self._follower.forget(command.task_id)

    def _tell(self, step: Callable[[], list[Effect]]) -> bool:
        """Take a step in the queue's thread, which commands nothing; return whether anybody still listens."""
        self._say(step, patient=True)
        return not self._socket.closing

    def _say(self, step: Callable[[], list[Effect]], *, patient: bool) -> list[Effect]:
        """Take a step, send its frames, and return its commands."""
        with self._step:
            effects = step()
            self._outbox.put(_said(effect) for effect in effects if isinstance(effect, dict | Close))
            self._socket.heartbeat = {"session_id": self._session.session_id}
        self._outbox.flush(patient=patient)
        return [effect for effect in effects if not isinstance(effect, dict | Close)]

    def _ask(self, ask: Ask) -> None:
        try:
            code, stream_id = self._put(ask)
        except Exception:
            log.exception("realtime question failed", extra={"client_id": self._client_id})
            code, stream_id = "server_error", ""
        if stream_id:
            self._do(lambda: self._session.asked(ask.answer, stream_id))
        else:
            self._do(lambda: self._session.refused(ask.answer, code))

    def _put(self, ask: Ask) -> tuple[str, str]:
        """Put a question; return its stream, which is "" where there is none, for the reason of the code."""
        if not self._limiter.question(self._caller.principal, self._client_id):
            metrics.QUESTIONS_REFUSED.labels("rate_limited").inc()
            return "rate_limited", ""
        asked = self._gateway.ask(self._question(ask))
        ids = {"client_id": self._client_id, "stream_id": asked.stream_id, "kind": ask.answer.kind}
        log.info("realtime question", extra={**ids, "outcome": asked.error_code or asked.status})
        return asked.error_code, "" if asked.error_code == "store_unavailable" else asked.stream_id

    def _question(self, ask: Ask) -> Question:
        return Question(
            ask.text,
            "realtime",
            DEFAULT_BOT,
            self._caller.principal,
            session=ask.answer.session_id,
            credential=self._caller.credential,
        )

    def _cancel(self, cancel: Cancel) -> None:
        for answer in cancel.answers:
            self._queue.drop(answer.stream_id)
            try:
                self._gateway.cancel(answer.stream_id, bot=DEFAULT_BOT, principal=self._caller.principal)
            except StoreUnavailable:
                log.warning("answer not cancelled", extra={"stream_id": answer.stream_id})

    def _watch(self, task_id: str) -> None:
        code = "unsupported"
        try:
            if self._follower:
                self._follower.follow(task_id)
                return
        except BatchUnknown:
            code = "batch_task_not_found"
        except StoreUnavailable:
            code = "store_unavailable"
        self._do(lambda: self._session.unfollowed(task_id, code))

    def _progress(self, task_id: str, task: Task | None) -> bool:
        """Tell how a task is, in the follower's thread; one that is gone was not there."""
        if task is None:
            return self._tell(lambda: self._session.unfollowed(task_id, "batch_task_not_found"))
        return self._tell(lambda: self._session.progressed(task))

    def _show(self, line: _QueuedAnswer, news: News) -> bool:
        """Show the news chunk by chunk: the next frame is made when the connection has taken the one before it."""
        chunks = news.chunks
        if not chunks:
            grew = partial(self._session.grew, line.answer, (), first=news.first, cursor=news.cursor)
            return self._tell(lambda: grew(reset=news.reset))
        for number, chunk in enumerate(chunks):
            after = news.place + number + 1
            place = news.cursor if number + 1 == len(chunks) else after
            grew = partial(self._session.grew, line.answer, ((chunk.content, after),), first=news.first, cursor=place)
            if not self._tell(partial(grew, reset=news.reset and not number)):
                return False
        return True

    def _ended(self, line: _QueuedAnswer, news: News, whole: Whole) -> None:
        told: dict[str, Any] = {"code": whole.error_code, "sentence": news.sentence, "mock": whole.mock}
        told |= {"usage": whole.usage.known, "sources": whole.sources}
        self._tell(lambda: self._session.ended(line.answer, whole.status, **told))


def realtime_blueprint(
    sockets: Opens,
    path: str,
    *,
    gateway: QuestionGateway,
    limiter: QuestionLimiter,
    options: RealtimeOptions,
    news: BatchNews | None = None,
) -> Blueprint:
    """Return the door's address; every connection gets a name of its own. Without `news` there are no batches."""

    def opened(socket: RealtimeSocket, caller: Caller, client_id: str) -> RealtimeChannel:
        return RealtimeChannel(socket, caller, client_id, gateway=gateway, limiter=limiter, options=options, news=news)

    def listen() -> Response:
        return sockets.serve("realtime", "", opened)

    routes = Blueprint("realtime", __name__)
    # werkzeug keeps rules for handshakes and for plain requests apart; `serve` has an answer for both.
    routes.add_url_rule(path, "socket", listen, methods=["GET"], websocket=True)
    routes.add_url_rule(path, "plain", listen, methods=["GET"], websocket=False)
    return routes


def _said(effect: Effect) -> Mapping[str, Any] | Goodbye:
    if isinstance(effect, Close):
        return Goodbye(effect.code, effect.reason)
    assert isinstance(effect, dict)
    return effect


def _no_number(constant: str) -> None:
    raise ValueError(constant)
