"""The endpoints of one question over plain HTTP; answers come as JSON or server-sent events, from any replica."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

from flask import Blueprint, Response, request

from channels.asking import MAX_ID, FindingGateway, QuestionLimiter
from channels.http_chat.ends import answered, failed, refusal
from channels.http_chat.line import ClientConnection
from channels.http_chat.models import ChatAnswered, ChatCancelled, ChatFailed, ChatPlace, ChatQuestion
from channels.http_chat.requests import checked, client_id, last_event, question_of, wants_events
from channels.http_chat.stream import END, HEADERS, MEDIA_TYPE, EventStream
from channels.http_chat.waits import AnswerWait, Ended, WaitingRequests
from channels.web import rest
from channels.web.envelope import SlicedResponse, envelope
from channels.web.errors import refused
from channels.web.rest import Operation, RestError, RestModel
from config.bots import DEFAULT_BOT
from config.texts import Texts
from services import metrics
from services.identity.callers import Caller
from services.models import Question

log = logging.getLogger(__name__)

#: Bytes of the largest request body.
MAX_BYTES = 1024 * 1024


class HttpChat:
    """Asks questions and returns their answers. An answer goes on when its client disconnects."""

    def __init__(
        self,
        *,
        gateway: FindingGateway,
        limiter: QuestionLimiter,
        waits: WaitingRequests,
        texts: Texts,
        ready: Callable[[], bool],
    ) -> None:
        """`ready` is false while the process starts or drains."""
        self._gateway = gateway
        self._limiter = limiter
        self._waits = waits
        self._texts = texts
        self._ready = ready

    def ask(self, caller: Caller, question: Question, *, address: str, cursor: int | None, events: bool) -> Response:
        """Ask a question, or find the one with the same id, and return its answer from `cursor` on.

        A `cursor` of None means that the client has the whole answer.

        Raises:
            RestError: the question was refused, or its answer was not completed.
        """
        if cursor is None:
            return nothing_more()
        with self._slot() as slot:
            return self._answer(self._asked(question, address), caller, cursor, events, slot)

    def show(self, caller: Caller, stream_id: str, *, cursor: int | None, events: bool) -> Response:
        """Return the answer of a stream from `cursor` on; None means that the client has all of it.

        Raises:
            StreamUnknown: there is no such stream.
            RestError: the answer was not completed.
        """
        if cursor is None and events:
            return nothing_more()
        with self._slot() as slot:
            return self._answer(stream_id, caller, cursor or 0, events, slot)

    def cancel(self, caller: Caller, stream_id: str) -> Response:
        """Cancel an answer; one that has ended stays as it is.

        Raises:
            RestError: there is no such stream.
            StoreUnavailable: Redis is unavailable.
        """
        status = self._gateway.cancel(stream_id, bot=DEFAULT_BOT, principal=caller.principal)
        if not status:
            raise refusal("stream_unknown", self._texts)
        return envelope({"stream_id": stream_id, "status": "cancelled" if status == "processing" else status})

    def _slot(self) -> ExitStack:
        if not self._waits.enter():
            raise self._refused("http_full")
        slot = ExitStack()
        slot.callback(self._waits.exit)
        return slot

    def _asked(self, question: Question, address: str) -> str:
        """Return a stream id. A repeated question finds its stream also over the limit or while draining."""
        hindrance = self._hindrance(question, address)
        asked = self._gateway.find(question) if hindrance else self._gateway.ask(question)
        if asked is None:
            raise self._refused(hindrance)
        if not hindrance:
            ids = {"stream_id": asked.stream_id, "bot": question.bot, "person": self._gateway.person(question)}
            log.info("http question", extra={**ids, "outcome": asked.error_code or asked.status})
        if asked.status == "error" and not asked.length:
            # No provider was asked: the client may repeat the same question with this id.
            raise refusal(asked.error_code, self._texts)
        return asked.stream_id

    def _hindrance(self, question: Question, address: str) -> str:
        """Return the error code for which a new question is refused, "" when it is accepted."""
        if not self._ready():
            return "draining"
        return "" if self._limiter.question(question.principal, address) else "rate_limited"

    def _refused(self, code: str) -> RestError:
        metrics.QUESTIONS_REFUSED.labels(code).inc()
        return refusal(code, self._texts)

    def _answer(self, stream_id: str, caller: Caller, cursor: int, events: bool, slot: ExitStack) -> Response:
        connection = ClientConnection(request.environ)
        person = caller.principal
        following = self._gateway.follow(stream_id, cursor, bot=DEFAULT_BOT, principal=person, text=events)
        wait = self._waits.along(following)
        wait.begin()
        if not events:
            return self._whole(stream_id, wait, connection, slot)
        stream = EventStream(stream_id, cursor, wait, connection, self._texts)
        reply = Response(stream, headers=HEADERS, mimetype=MEDIA_TYPE)
        # The server closes every reply, also a broken one, and this releases the slot.
        reply.call_on_close(slot.pop_all().close)
        return reply

    def _whole(self, stream_id: str, wait: AnswerWait, connection: ClientConnection, slot: ExitStack) -> Response:
        for step in wait.steps():
            if step is None and connection.gone:
                # The client has disconnected; this reply is not read.
                return Response(status=400)
            if isinstance(step, Ended):
                reply = self._ended(stream_id, step)
                if isinstance(reply, SlicedResponse):
                    reply.response = paced(reply.iter_encoded(), connection)
                    reply.call_on_close(slot.pop_all().close)
                return reply
        raise refusal("draining", self._texts, stream_id=stream_id)

    def _ended(self, stream_id: str, end: Ended) -> Response:
        if end.whole.status == "completed":
            return envelope(answered(stream_id, end.whole), headers={"Cache-Control": "no-store"})
        return refused(failed(stream_id, end.whole, end.sentence, self._texts))


def http_chat_blueprint(chat: HttpChat, callers: rest.ProgramChecker) -> Blueprint:
    """Return POST /api/chat, and GET and DELETE /api/chat/<stream_id>."""
    routes = Blueprint("http_chat", __name__)

    @routes.post("/api/chat")
    def ask() -> Response:
        caller = rest.caller(callers, request)
        asked = rest.body(ChatQuestion, max_bytes=MAX_BYTES)
        msgid = client_id(asked)
        events = wants_events() if asked.stream is None else asked.stream
        # A cursor only makes sense for an existing answer; a question without an id is always new.
        last = last_event()
        cursor = last if msgid and events else 0
        question = question_of(asked, caller, msgid)
        return chat.ask(caller, question, address=request.remote_addr or "", cursor=cursor, events=events)

    @routes.get("/api/chat/<stream_id>")
    def show(stream_id: str) -> Response:
        caller = rest.caller(callers, request)
        shown = rest.params(ChatPlace)
        cursor = last_event() if "Last-Event-ID" in request.headers else shown.cursor
        # A HEAD request must not wait for the answer.
        events = wants_events() or request.method == "HEAD"
        return chat.show(caller, checked(stream_id), cursor=cursor, events=events)

    @routes.delete("/api/chat/<stream_id>")
    def cancel(stream_id: str) -> Response:
        return chat.cancel(rest.caller(callers, request), checked(stream_id))

    return routes


def paced(pieces: Iterable[bytes], connection: ClientConnection) -> Iterator[bytes]:
    """Yield the pieces of a long reply as fast as the client reads them."""
    for piece in connection.unless_missing(pieces):
        yield from connection.paced(piece)


def nothing_more() -> Response:
    """Return 204, which makes a browser's EventSource stop reconnecting."""
    return Response(status=204, headers=HEADERS)


_FAILURES: dict[int, type[RestModel] | None] = dict.fromkeys((403, 409, 429, 502, 503, 504), ChatFailed)
_MEDIA: dict[int, str | tuple[str, ...]] = {200: MEDIA_TYPE}
_LAST = {
    "Last-Event-ID": {
        "description": "The id of the last event received; the events after it are sent.",
        "pattern": f"^([0-9]{{1,9}}|{END})$",
    }
}
_KEY = {"description": "The same as `id`, as a header.", "minLength": 1, "maxLength": MAX_ID}
_EVENTS = (
    "As `text/event-stream`: `start` {stream_id}, any number of `delta` {content}, possibly `reset` (discard the text "
    "received so far), and at the end `done` with the data of the JSON answer, or `error` with an envelope. "
    "An event's id is a cursor: if the stream ends without `done` or `error`, send it as Last-Event-ID to continue."
)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST",
        "/api/chat",
        "Ask a question, and wait for the answer or stream it",
        "chat",
        body=ChatQuestion,
        answers={200: ChatAnswered, 204: None, **_FAILURES},
        media=_MEDIA,
        headers={"Idempotency-Key": _KEY, **_LAST},
        description=_EVENTS,
    ),
    Operation(
        "GET",
        "/api/chat/{stream_id}",
        "Read or resume an answer, on any replica",
        "chat",
        query=ChatPlace,
        answers={200: ChatAnswered, 204: None, 404: None, **_FAILURES},
        media=_MEDIA,
        headers=_LAST,
        description=_EVENTS,
    ),
    Operation(
        "DELETE",
        "/api/chat/{stream_id}",
        "Cancel an answer, also at the provider",
        "chat",
        answers={200: ChatCancelled, 404: None},
    ),
)
