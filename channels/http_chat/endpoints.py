"""The endpoints of one question over plain HTTP, and of a file for a later one.

Answers come as JSON or server-sent events, from any replica.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict

from flask import Blueprint, Response, request

from channels.asking import MAX_FILES, MAX_ID, UploadedFiles
from channels.following import AnswerWait, Ended
from channels.http_chat.models import (
    ChatAnswered,
    ChatCancelled,
    ChatFailed,
    ChatOpening,
    ChatPiece,
    ChatPlace,
    ChatQuestion,
    ChatRated,
    ChatRating,
    ChatStarted,
    FileForm,
    FileTaken,
)
from channels.http_chat.replies import END, HEADERS, MEDIA_TYPE, EventStream, answered, failed, refusal
from channels.options import AnswerReader, AskableBots, ChatReader, ThinkingMode
from channels.rating import RatingInbox
from channels.rating import rate as take
from channels.registry import HTTP
from channels.waiting.connection import ClientConnection
from channels.waiting.requests import WaitingQuestions
from channels.web import rest
from channels.web.bodies import UploadSlots
from channels.web.errors import refused
from channels.web.multipart import fields_and_file, form_body, wrong_part
from channels.web.rest import Operation, RestError, RestModel, SlicedResponse, envelope, wrong_field
from config.texts import Texts
from services.answers.extras import KeptOpening
from services.attachments import SentFile
from services.errors import AnswerError
from services.files.uploads import FileUploads
from services.identity.callers import Caller
from services.models import Question
from utils.formats.file_names import plain_name
from utils.markdown.blocks import render_markdown

#: Bytes of the largest body of a question.
MAX_BYTES = 1024 * 1024
#: Bytes of the largest body of a rating: the longest words, escaped.
MAX_RATING_BYTES = 64 * 1024

_STREAM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: As documented; no stream has more chunks.
_CURSOR = re.compile(r"[0-9]{1,9}")


class HttpChat:
    """Asks questions and returns their answers. An answer goes on when its client disconnects."""

    def __init__(self, questions: WaitingQuestions, texts: Texts, files: UploadedFiles) -> None:
        self._questions = questions
        self._texts = texts
        self._files = files

    def uploaded(self, caller: Caller, file_ids: Sequence[str]) -> Sequence[SentFile]:
        """Return the files that this caller has uploaded for its question.

        Raises:
            RestError: one has expired, or is not this caller's.
        """
        try:
            return self._files.claim(caller.principal, file_ids)
        except AnswerError as exc:
            raise refusal(exc.code, self._texts) from exc

    def ask(
        self,
        question: Question,
        *,
        media: Sequence[SentFile],
        address: str,
        cursor: int | None,
        events: bool,
        thinking: ThinkingMode,
    ) -> Response:
        """Ask a question with its files, or find the one with the same id, and return its answer from `cursor` on.

        A `cursor` of None means that the client has the whole answer. The question is counted by `address`, by its
        principal alone where that is "".

        Raises:
            RestError: the question was refused, or its answer was not completed.
        """
        if cursor is None:
            return nothing_more()
        with self._questions.slot() as slot:
            reader = AnswerReader(bot=question.bot, principal=question.principal)
            return self._answer(self._questions.ask(question, address, media), reader, cursor, events, thinking, slot)

    def show(
        self, stream_id: str, reader: AnswerReader, *, cursor: int | None, events: bool, thinking: ThinkingMode
    ) -> Response:
        """Return the answer of a stream from `cursor` on; None means that the client has all of it.

        Raises:
            StreamUnknown: there is no such stream.
            RestError: the answer was not completed.
        """
        if cursor is None and events:
            return nothing_more()
        with self._questions.slot() as slot:
            return self._answer(stream_id, reader, cursor or 0, events, thinking, slot)

    def cancel(self, stream_id: str, reader: AnswerReader) -> Response:
        """Cancel an answer; one that has ended stays as it is.

        Raises:
            RestError: there is no such stream.
            StoreUnavailable: Redis is unavailable.
        """
        status = self._questions.cancel(stream_id, **reader)
        if not status:
            raise refusal("stream_unknown", self._texts)
        return envelope({"stream_id": stream_id, "status": "cancelled" if status == "processing" else status})

    def _answer(
        self, stream_id: str, reader: AnswerReader, cursor: int, events: bool, thinking: ThinkingMode, slot: ExitStack
    ) -> Response:
        connection = ClientConnection(request.environ)
        # Where the thinking is separated, an event need not end where a chunk does: the text is sent again.
        anew = cursor > 0 and thinking != "show"
        wait = self._questions.follow(stream_id, 0 if anew else cursor, **reader, text=events)
        if not events:
            return self._whole(stream_id, wait, connection, thinking, slot)
        stream = EventStream(stream_id, cursor, wait, connection, self._texts, thinking=thinking, anew=anew)
        reply = Response(stream, headers=HEADERS, mimetype=MEDIA_TYPE)
        # The server closes every reply, also a broken one, and this releases the slot.
        reply.call_on_close(slot.pop_all().close)
        return reply

    def _whole(
        self, stream_id: str, wait: AnswerWait, connection: ClientConnection, thinking: ThinkingMode, slot: ExitStack
    ) -> Response:
        for step in wait.steps():
            if step is None and connection.gone:
                # The client has disconnected; this reply is not read.
                return Response(status=400)
            if isinstance(step, Ended):
                reply = self._ended(stream_id, step, thinking)
                if isinstance(reply, SlicedResponse):
                    reply.response = connection.unless_missing(reply.iter_encoded())
                    reply.call_on_close(slot.pop_all().close)
                return reply
        raise refusal("draining", self._texts, stream_id=stream_id)

    def _ended(self, stream_id: str, end: Ended, thinking: ThinkingMode) -> Response:
        if end.full.status == "completed":
            whole = answered(stream_id, end.full, thinking=thinking)
            return envelope(whole, headers={"Cache-Control": "no-store"})
        return refused(failed(stream_id, end.full, end.sentence, self._texts, thinking=thinking))


def http_chat_blueprint(chat: HttpChat, bots: AskableBots, callers: rest.ProgramChecker) -> Blueprint:
    """Return POST /api/chat, and GET and DELETE /api/chat/<stream_id>."""
    routes = Blueprint("http_chat", __name__)

    @routes.post("/api/chat")
    def ask() -> Response:
        caller = rest.caller(callers, request)
        asked = rest.body(ChatQuestion, max_bytes=MAX_BYTES)
        ids = {"channel": HTTP.name, "msgid": client_id(asked), "session": asked.conversation or ""}
        question, counted = bots.question(asked.query, asked, caller, request.remote_addr or "", **ids)
        events = wants_events() if asked.stream is None else asked.stream
        # A cursor only makes sense for an existing answer; a question without an id is always new.
        last = last_event()
        cursor = last if question.msgid and events else 0
        media = chat.uploaded(caller, asked.files)
        return chat.ask(question, media=media, address=counted, cursor=cursor, events=events, thinking=asked.thinking)

    @routes.get("/api/chat/<stream_id>")
    def show(stream_id: str) -> Response:
        caller = rest.caller(callers, request)
        shown = rest.params(ChatPlace)
        cursor = last_event() if "Last-Event-ID" in request.headers else shown.cursor
        # A HEAD request must not wait for the answer.
        events = wants_events() or request.method == "HEAD"
        reader = bots.reader(shown, caller)
        return chat.show(checked(stream_id), reader, cursor=cursor, events=events, thinking=shown.thinking)

    @routes.delete("/api/chat/<stream_id>")
    def cancel(stream_id: str) -> Response:
        caller = rest.caller(callers, request)
        return chat.cancel(checked(stream_id), bots.reader(rest.params(ChatReader), caller))

    @routes.after_request
    def negotiated(reply: Response) -> Response:
        reply.vary.add("Accept")
        return reply

    return routes


def opening_blueprint(opening: KeptOpening, uploads: FileUploads, callers: rest.ProgramChecker) -> Blueprint:
    """Return GET /api/chat/opening."""
    routes = Blueprint("http_chat_opening", __name__)

    # Its address matches that of an answer too: an automatic reply to OPTIONS would list the methods of both.
    @routes.get("/api/chat/opening", provide_automatic_options=False)
    def show() -> Response:
        rest.caller(callers, request)
        shown = opening.current()
        words = {"opening": shown.statement, "html": render_markdown(shown.statement)}
        files = {"allowed": uploads.takes_files, "max_bytes": uploads.max_bytes, "max_files": MAX_FILES}
        return envelope({**words, "suggested_questions": list(shown.questions), "files": files})

    @routes.route("/api/chat/opening", methods=["OPTIONS"])
    def options() -> Response:
        return Response(headers={"Allow": "GET, HEAD, OPTIONS"})

    return routes


def feedback_blueprint(inbox: RatingInbox, bots: AskableBots, callers: rest.ProgramChecker, texts: Texts) -> Blueprint:
    """Return POST /api/chat/<stream_id>/feedback."""
    routes = Blueprint("http_chat_feedback", __name__)

    @routes.post("/api/chat/<stream_id>/feedback")
    def rate(stream_id: str) -> Response:
        caller = rest.caller(callers, request)
        asked = rest.body(ChatRating, max_bytes=MAX_RATING_BYTES)
        reader = bots.reader(rest.params(ChatReader), caller)
        if code := take(inbox, checked(stream_id), asked.rating, asked.content, **reader):
            raise refusal(code, texts)
        return envelope({"stream_id": stream_id, "rating": asked.rating})

    return routes


def uploads_blueprint(files: FileUploads, slots: UploadSlots, callers: rest.ProgramChecker, texts: Texts) -> Blueprint:
    """Return POST /api/files."""
    routes = Blueprint("uploads", __name__)

    @routes.post("/api/files")
    def take() -> Response:
        principal = rest.caller(callers, request).principal
        sent = form_body(files.max_bytes)
        with slots.held(principal, size=len(sent)):
            name, content = _file(sent, files.max_bytes)
            try:
                taken = files.take(principal, request.remote_addr or "", name, content)
            except AnswerError as exc:
                raise refusal(exc.code, texts) from exc
        return envelope(asdict(taken), status=201, headers={"Cache-Control": "no-store"})

    return routes


def _file(sent: bytes, max_bytes: int) -> tuple[str, bytes]:
    """Return the name and the content of a form's file.

    Raises:
        RestError: the body is malformed, has other fields, or its file is empty or larger than `max_bytes`.
    """
    fields, file, content = fields_and_file(sent, max_bytes)
    if fields:
        raise wrong_part("invalid_fields", next(iter(fields)), "Extra inputs are not permitted")
    if not content:
        raise wrong_part("invalid_fields", "file", "is empty")
    return plain_name(file.filename or ""), content


def client_id(asked: ChatQuestion) -> str:
    """Return the id the client gave its question, in the body or the header Idempotency-Key; "" for none.

    Raises:
        RestError: both are given and differ, or the header is too long or empty.
    """
    named = request.headers.get("Idempotency-Key")
    if named is None:
        return asked.id or ""
    if not 1 <= len(named) <= MAX_ID:
        raise wrong_field("Idempotency-Key", f"1 to {MAX_ID} characters are taken")
    if asked.id is not None and asked.id != named:
        raise wrong_field("id", "differs from the header Idempotency-Key")
    return named


def wants_events() -> bool:
    """Tell whether the Accept header prefers events; the default is JSON."""
    return request.accept_mimetypes.best_match(["application/json", MEDIA_TYPE]) == MEDIA_TYPE


def last_event() -> int | None:
    """Return the cursor in Last-Event-ID: 0 without the header, None after the answer's last event.

    Raises:
        RestError: it is not an event's id.
    """
    shown = request.headers.get("Last-Event-ID", "0")
    if shown == END:
        return None
    if not _CURSOR.fullmatch(shown):
        raise wrong_field("Last-Event-ID", "is the id of no event")
    return int(shown)


def checked(stream_id: str) -> str:
    """Return the stream id of an address.

    Raises:
        RestError: 404 it is malformed.
    """
    if not _STREAM_ID.fullmatch(stream_id):
        raise RestError(404, reason="stream_unknown")
    return stream_id


def nothing_more() -> Response:
    """Return 204, which makes a browser's EventSource stop reconnecting."""
    return Response(status=204, headers=HEADERS)


_FAILURES: dict[int, type[RestModel] | None] = dict.fromkeys((403, 409, 413, 415, 422, 429, 502, 503, 504), ChatFailed)
_MEDIA: dict[int, str | tuple[str, ...]] = {200: MEDIA_TYPE}
_LAST = {
    "Last-Event-ID": {
        "description": "The id of the last event received; the events after it are sent.",
        "pattern": f"^([0-9]{{1,9}}|{END})$",
    }
}
_KEY = {"description": "The same as `id`, as a header.", "minLength": 1, "maxLength": MAX_ID}
_EVENTS = (
    "As `text/event-stream`: `start` {stream_id}, any number of `delta` {content} and, if `thinking` is `separate`, "
    "`reasoning` {content}, possibly `reset` (discard the text received so far), and at the end `done` with the data "
    "of the JSON answer, or `error` with an envelope. An event's id is a cursor: if the stream ends without `done` or "
    "`error`, send it as Last-Event-ID to continue; the text comes again, after a `reset`, unless `thinking` is `show`."
    "\n\nOf two questions with one id the second is refused with 409 if its text, `inputs`, `model` or `temperature` "
    "differ. Ids of different bots and users are different ids."
)

_EVENT_MODELS: dict[str, type[RestModel] | None] = {
    "start": ChatStarted,
    "delta": ChatPiece,
    "reasoning": ChatPiece,
    "reset": None,
    "done": ChatAnswered,
    "error": ChatFailed,
}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST",
        "/api/chat",
        "Ask a question, and wait for the answer or stream it",
        "chat",
        body=ChatQuestion,
        answers={200: ChatAnswered, 204: None, 404: None, **_FAILURES},
        media=_MEDIA,
        events=_EVENT_MODELS,
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
        events=_EVENT_MODELS,
        headers=_LAST,
        description=_EVENTS,
    ),
    Operation(
        "DELETE",
        "/api/chat/{stream_id}",
        "Cancel an answer, also at the provider",
        "chat",
        query=ChatReader,
        answers={200: ChatCancelled, 404: None},
    ),
    Operation(
        "POST",
        "/api/chat/{stream_id}/feedback",
        "Rate an answer, or withdraw the rating, also when the answer itself has expired",
        "chat",
        body=ChatRating,
        query=ChatReader,
        answers={200: ChatRated, 404: None, 409: None, 503: None},
    ),
    Operation(
        "GET",
        "/api/chat/opening",
        "Show how the app opens a chat, and which files it takes",
        "chat",
        answers={200: ChatOpening},
        description="Kept for five minutes. The opening is empty for providers without one, and while they fail.",
    ),
    Operation(
        "POST",
        "/api/files",
        "Upload a picture or file for a question",
        "files",
        multipart=FileForm,
        answers={201: FileTaken, 413: None, 415: None, 422: None, 429: None, 503: None},
        description=(
            "Name the returned `file_id` in `files` of `POST /api/chat`, or of a frame of the chat socket. Ids belong "
            "to the caller that uploaded them, and may be named in several questions while the file is kept."
        ),
    ),
)
