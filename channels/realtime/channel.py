"""The realtime channel: takes a live transcript and streams answers to its questions, resumable on any replica."""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

from flask import Blueprint, Response

from channels.asking import QuestionGateway, QuestionLimiter, iso_now
from channels.realtime.task_updates import TaskUpdates
from channels.registry import REALTIME
from channels.sockets.answer_queue import AnswerCallbacks, AnswerQueue, Shown
from channels.sockets.endpoint import add_socket_rule
from channels.sockets.peer import ClosableSocket, Closed, SocketServer
from config.bots import DEFAULT_BOT
from config.texts import Texts
from services import metrics
from services.batches.records import Task
from services.errors import STORE_CODES, BatchUnknown, StoreUnavailable
from services.identity.callers import Caller
from services.models import Question
from services.realtime.answers import MOST, SessionAnswers
from services.realtime.effects import AskQuestion, Cancel, Close, Effect, Follow, SessionAnswer, UnwatchTask, WatchTask
from services.realtime.session import RealtimeSession
from services.streams.following import Update
from services.streams.long_text import FullAnswer
from utils.markdown.blocks import BlockRenderer
from utils.questions.detection import Detection

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


#: Frames that may wait behind a slow send, and bytes of their texts; beyond that every caller of `flush` waits.
MOST_FRAMES = 100
MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Closes the socket after the frames before it are sent."""

    code: int
    reason: str = ""


class Outbox:
    """A queue of outgoing frames; one thread at a time sends those of all threads."""

    def __init__(self, socket: ClosableSocket) -> None:
        self._socket = socket
        self._waiting: deque[Mapping[str, Any] | Goodbye] = deque()
        self._bytes = 0
        self._sending = threading.Lock()
        # Guards the count of bytes; held briefly.
        self._guard = threading.Lock()

    def put(self, frames: Iterable[Mapping[str, Any] | Goodbye]) -> None:
        """Append frames; they are sent in the order of these calls."""
        for one in frames:
            self._count(_size(one))
            self._waiting.append(one)

    def flush(self, *, wait: bool) -> None:
        """Send the queued frames, unless another thread is sending; with `wait`, wait for that thread first.

        Without `wait` nothing is lost: a sender checks the queue once more after it has released the lock.
        """
        while self._waiting and self._sending.acquire(blocking=wait or self._is_full):
            try:
                self._send()
            finally:
                self._sending.release()

    @property
    def _is_full(self) -> bool:
        return len(self._waiting) > MOST_FRAMES or self._bytes > MOST_BYTES

    def _count(self, size: int) -> None:
        with self._guard:
            self._bytes += size

    def _send(self) -> None:
        while self._waiting:
            frame = self._waiting.popleft()
            self._count(-_size(frame))
            if isinstance(frame, Goodbye):
                self._socket.close(frame.code, frame.reason)
            elif not self._socket.send(frame):
                while self._waiting:
                    self._count(-_size(self._waiting.popleft()))


def _size(frame: Mapping[str, Any] | Goodbye) -> int:
    """Return the approximate size in bytes: that of the texts."""
    if isinstance(frame, Goodbye):
        return 0
    return sum(len(value.encode(errors="replace")) for value in frame.values() if isinstance(value, str))


#: Close codes of an orderly close: normal closure, or a close frame without a code.
ORDERLY = (1000, 1005)


class RealtimeSocket(ClosableSocket, Protocol):
    """A socket whose heartbeats have further members."""

    heartbeat: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RealtimeOptions:
    """Question detection, texts, what `stop` does, and how answers become HTML."""

    detect: Callable[[str], Detection]
    texts: Texts
    stop: Literal["idle", "close"]
    #: Makes the renderer of an answer for a client that wants HTML.
    blocks: Callable[[], BlockRenderer]
    #: Returns the link to the gateway's copy of a picture, by the answer's stream and the picture's address.
    picture: Callable[[str, str], str]


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
        updates: TaskUpdates | None = None,
    ) -> None:
        """`client_id` is also the id of the first session; without `updates` batches cannot be subscribed to."""
        self._socket = socket
        self._caller = caller
        self._client_id = client_id
        self._session = RealtimeSession(
            client_id,
            detect=options.detect,
            texts=options.texts,
            now=iso_now,
            stop=options.stop,
            blocks=options.blocks,
            picture=options.picture,
        )
        self._receiving = False
        # Serializes the session's steps; held briefly, e.g. while a block is rendered, never during I/O.
        self._step = threading.Lock()
        self._outbox = Outbox(socket)
        self._answers = ShownAnswers(
            gateway,
            limiter,
            caller,
            client_id,
            session=self._session.answers,
            run=self._run_apart,
            closing=lambda: socket.closing,
        )
        self._follower = updates.follower(caller.principal, self._progress) if updates else None

    @property
    def busy(self) -> bool:
        """Whether a question is being asked or an answer shown."""
        return self._receiving or self._answers.busy

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
        self._answers.close()
        if self._follower:
            self._follower.close()
        self._do(lambda: self._session.closed(orderly=closed.by_peer and closed.code in ORDERLY))

    def _take(self, text: str) -> None:
        try:
            message = json.loads(text, parse_constant=_no_number)
        except (ValueError, RecursionError):
            self._do(self._session.unreadable)
            return
        self._do(lambda: self._session.received(message))

    def _do(self, step: Callable[[], list[Effect]]) -> None:
        """Run a step of the session in the reader's thread: send its frames and execute its commands."""
        for command in self._run(step, wait=False):
            match command:
                case AskQuestion():
                    self._ask(command)
                case Follow():
                    self._answers.follow(command.answer)
                case Cancel():
                    for answer in command.answers:
                        self._answers.cancel(answer)
                case WatchTask():
                    self._watch(command.task_id)
                case UnwatchTask() if self._follower:
                    self._follower.forget(command.task_id)

    def _run_apart(self, step: Callable[[], list[Effect]]) -> bool:
        """Run a step in another thread, where it has no commands; return whether the socket is still open."""
        self._run(step, wait=True)
        return not self._socket.closing

    def _run(self, step: Callable[[], list[Effect]], *, wait: bool) -> list[Effect]:
        """Run a step, send its frames, and return its commands."""
        with self._step:
            effects = step()
            self._outbox.put(_sendable(effect) for effect in effects if isinstance(effect, dict | Close))
            self._socket.heartbeat = {"session_id": self._session.session_id}
        self._outbox.flush(wait=wait)
        return [effect for effect in effects if not isinstance(effect, dict | Close)]

    def _ask(self, ask: AskQuestion) -> None:
        code, stream_id = self._answers.ask(ask)
        if stream_id:
            self._do(lambda: self._session.asked(ask.answer, stream_id))
        else:
            self._do(lambda: self._session.answers.refused(ask.answer, code))

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
            return self._run_apart(lambda: self._session.unfollowed(task_id, "batch_task_not_found"))
        return self._run_apart(lambda: self._session.progressed(task))


def realtime_blueprint(
    sockets: SocketServer,
    path: str,
    *,
    gateway: QuestionGateway,
    limiter: QuestionLimiter,
    options: RealtimeOptions,
    updates: TaskUpdates | None = None,
) -> Blueprint:
    """Return the channel's address; every connection gets a new client id. Without `updates` there are no batches."""

    def opened(socket: RealtimeSocket, caller: Caller, client_id: str) -> RealtimeChannel:
        return RealtimeChannel(
            socket, caller, client_id, gateway=gateway, limiter=limiter, options=options, updates=updates
        )

    def listen() -> Response:
        return sockets.serve("realtime", "", opened)

    routes = Blueprint("realtime", __name__)
    add_socket_rule(routes, path, listen)
    return routes


def _sendable(effect: Effect) -> Mapping[str, Any] | Goodbye:
    if isinstance(effect, Close):
        return Goodbye(effect.code, effect.reason)
    assert isinstance(effect, dict)
    return effect


def _no_number(constant: str) -> None:
    raise ValueError(constant)
