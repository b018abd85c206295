"""The realtime channel: takes a live transcript and streams answers to its questions, resumable on any replica."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from flask import Blueprint, Response

from channels.asking import QuestionGateway, QuestionLimiter, iso_now
from channels.realtime.answers import ShownAnswers
from channels.realtime.task_updates import TaskUpdates
from channels.sockets.endpoint import add_socket_rule
from channels.sockets.outbox import Goodbye, Outbox
from channels.sockets.peer import ClosableSocket, Closed, SocketServer
from config.texts import Texts
from services.batches.records import Task
from services.errors import BatchUnknown, StoreUnavailable
from services.identity.callers import Caller
from services.realtime.effects import AskQuestion, Cancel, Close, Effect, Follow, UnwatchTask, WatchTask
from services.realtime.session import RealtimeSession
from utils.markdown.blocks import BlockRenderer
from utils.questions.detection import Detection

log = logging.getLogger(__name__)

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
