"""The realtime channel: takes a live transcript and streams answers to its questions, resumable on any replica."""

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
from channels.realtime.rules import REALTIME
from channels.sockets.answer_queue import AnswerCallbacks, AnswerQueue, Shown
from channels.sockets.endpoint import add_socket_rule
from channels.sockets.outbox import Goodbye, Outbox
from channels.sockets.peer import ClosableSocket, Closed, SocketServer
from config.bots import DEFAULT_BOT
from config.texts import Texts
from services import metrics
from services.batches.records import Task
from services.errors import BatchUnknown, StoreUnavailable
from services.identity.callers import Caller
from services.models import Question
from services.realtime.effects import AskQuestion, Cancel, Close, Effect, Follow, SessionAnswer, UnwatchTask, WatchTask
from services.realtime.session import MOST, RealtimeSession
from services.streams.following import News
from services.streams.long_text import Whole
from utils.questions.detection import Detection

log = logging.getLogger(__name__)

#: Close codes of an orderly close: normal closure, or a close frame without a code.
ORDERLY = (1000, 1005)


class RealtimeSocket(ClosableSocket, Protocol):
    """A socket whose heartbeats have further members."""

    heartbeat: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RealtimeOptions:
    """Question detection, texts, and what `stop` does."""

    detect: Callable[[str], Detection]
    texts: Texts
    stop: Literal["idle", "close"] = "idle"


@dataclass(eq=False)
class _QueuedAnswer(Shown):
    """An answer in the queue of those to be shown."""

    answer: SessionAnswer = field(kw_only=True)


class RealtimeChannel:
    """One client's realtime socket: executes the effects that its session returns.

    The reader's thread handles messages, and asks, follows and cancels; the queue's thread shows answers; the
    follower's thread reports batch tasks. The session runs one step at a time, and its frames are sent in that order.
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
        """`client_id` is also the id of the first session; without `news` batches cannot be subscribed to."""
        self._socket = socket
        self._caller = caller
        self._client_id = client_id
        self._gateway = gateway
        self._limiter = limiter
        self._session = RealtimeSession(
            client_id, detect=options.detect, texts=options.texts, now=iso_now, stop=options.stop
        )
        self._receiving = False
        # Serializes the session's steps; held briefly, never during a send or a call to Redis.
        self._step = threading.Lock()
        self._outbox = Outbox(socket)
        self._queue = self._answers()
        self._follower = news.follower(caller.principal, self._progress) if news else None

    @property
    def busy(self) -> bool:
        """Whether a question is being asked or an answer shown."""
        return self._receiving or self._queue.busy

    def opened(self) -> None:
        self._do(self._session.open)

    def received(self, text: str) -> None:
        """Handle one message; takes a few Redis round trips at most."""
        self._receiving = True
        try:
            self._take(text)
        except Exception:
            log.exception("realtime message failed", extra={"client_id": self._client_id})
            self._do(self._session.troubled)
        finally:
            self._receiving = False

    def closed(self, closed: Closed) -> None:
        """Stop showing answers. An orderly close cancels running answers; otherwise they go on and can be resumed."""
        self._queue.close()
        if self._follower:
            self._follower.close()
        self._do(lambda: self._session.closed(orderly=closed.by_peer and closed.code in ORDERLY))

    def _answers(self) -> AnswerQueue[_QueuedAnswer]:
        return AnswerQueue(
            self._gateway,
            self._caller.principal,
            AnswerCallbacks(
                begun=lambda queued: self._tell(lambda: self._session.begun(queued.answer)),
                show=self._show,
                ended=self._ended,
                failed=lambda queued, code: self._tell(lambda: self._session.failed(queued.answer, code)),
                closing=lambda: self._socket.closing,
            ),
            # Answers that the session has just given up may still be in the queue.
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
        """Run a step of the session in the reader's thread: send its frames and execute its commands."""
        for command in self._say(step, wait=False):
            match command:
                case AskQuestion():
                    self._ask(command)
                case Follow():
                    answer = command.answer
                    self._queue.add(_QueuedAnswer(answer.stream_id, answer=answer), answer.cursor)
                case Cancel():
                    self._cancel(command)
                case WatchTask():
                    self._watch(command.task_id)
                case UnwatchTask() if self._follower:
                    self._follower.forget(command.task_id)

    def _tell(self, step: Callable[[], list[Effect]]) -> bool:
        """Run a step in another thread, where it has no commands; return whether the socket is still open."""
        self._say(step, wait=True)
        return not self._socket.closing

    def _say(self, step: Callable[[], list[Effect]], *, wait: bool) -> list[Effect]:
        """Run a step, send its frames, and return its commands."""
        with self._step:
            effects = step()
            self._outbox.put(_said(effect) for effect in effects if isinstance(effect, dict | Close))
            self._socket.heartbeat = {"session_id": self._session.session_id}
        self._outbox.flush(wait=wait)
        return [effect for effect in effects if not isinstance(effect, dict | Close)]

    def _ask(self, ask: AskQuestion) -> None:
        try:
            code, stream_id = self._put(ask)
        except Exception:
            log.exception("realtime question failed", extra={"client_id": self._client_id})
            code, stream_id = "server_error", ""
        if stream_id:
            self._do(lambda: self._session.asked(ask.answer, stream_id))
        else:
            self._do(lambda: self._session.refused(ask.answer, code))

    def _put(self, ask: AskQuestion) -> tuple[str, str]:
        """Ask a question; return an error code ("" for none) and the stream id ("" when no stream was opened)."""
        if not self._limiter.question(self._caller.principal, self._client_id):
            metrics.QUESTIONS_REFUSED.labels("rate_limited").inc()
            return "rate_limited", ""
        asked = self._gateway.ask(self._question(ask))
        ids = {"client_id": self._client_id, "stream_id": asked.stream_id, "kind": ask.answer.kind}
        log.info("realtime question", extra={**ids, "outcome": asked.error_code or asked.status})
        return asked.error_code, "" if asked.error_code == "store_unavailable" else asked.stream_id

    def _question(self, ask: AskQuestion) -> Question:
        return Question(
            ask.text,
            REALTIME.name,
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
        """Report a task in the follower's thread; None means that the task does not exist any more."""
        if task is None:
            return self._tell(lambda: self._session.unfollowed(task_id, "batch_task_not_found"))
        return self._tell(lambda: self._session.progressed(task))

    def _show(self, queued: _QueuedAnswer, news: News) -> bool:
        """Send the news chunk by chunk: the next frame is built after the one before it was sent."""
        chunks = news.chunks
        if not chunks:
            grew = partial(self._session.grew, queued.answer, (), first=news.first, cursor=news.cursor)
            return self._tell(lambda: grew(reset=news.reset))
        for number, chunk in enumerate(chunks):
            after = news.index + number + 1
            cursor = news.cursor if number + 1 == len(chunks) else after
            grew = partial(
                self._session.grew, queued.answer, ((chunk.content, after),), first=news.first, cursor=cursor
            )
            if not self._tell(partial(grew, reset=news.reset and not number)):
                return False
        return True

    def _ended(self, queued: _QueuedAnswer, news: News, whole: Whole) -> None:
        told: dict[str, Any] = {"code": whole.error_code, "sentence": news.sentence, "mock": whole.mock}
        told |= {"usage": whole.usage.known, "sources": whole.sources}
        self._tell(lambda: self._session.ended(queued.answer, whole.status, **told))


def realtime_blueprint(
    sockets: SocketServer,
    path: str,
    *,
    gateway: QuestionGateway,
    limiter: QuestionLimiter,
    options: RealtimeOptions,
    news: BatchNews | None = None,
) -> Blueprint:
    """Return the channel's address; every connection gets a new client id. Without `news` there are no batches."""

    def opened(socket: RealtimeSocket, caller: Caller, client_id: str) -> RealtimeChannel:
        return RealtimeChannel(socket, caller, client_id, gateway=gateway, limiter=limiter, options=options, news=news)

    def listen() -> Response:
        return sockets.serve("realtime", "", opened)

    routes = Blueprint("realtime", __name__)
    add_socket_rule(routes, path, listen)
    return routes


def _said(effect: Effect) -> Mapping[str, Any] | Goodbye:
    if isinstance(effect, Close):
        return Goodbye(effect.code, effect.reason)
    assert isinstance(effect, dict)
    return effect


def _no_number(constant: str) -> None:
    raise ValueError(constant)
