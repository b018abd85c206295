"""Parses and validates the frames that clients send to the chat channel."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, TypeVar

from channels.asking import FILE_ID, MAX_CONTENT, MAX_CURSOR, MAX_FILES, MAX_ID
from channels.options import ChatReader, ChatView, QuestionOptions
from channels.rating import MAX_WORDS
from channels.web import rest
from channels.web.rest import RestError
from config.errors import LaibaoError
from services.forms import CLICKED_CHOICE

#: Frames that need no reply: WebRTC signalling of old clients, and `pong` and `auth`.
IGNORED = frozenset({"offer", "answer", "ice-candidate", "pong", "auth"})

_STREAM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FILE_ID = re.compile(FILE_ID)
_CHOICE = re.compile(CLICKED_CHOICE)

Options = TypeVar("Options", QuestionOptions, ChatReader, ChatView)


class FrameRefused(LaibaoError):
    """An invalid frame. `code` and `params` select the sentence; `id` is the frame's id, "" for none.

    `error` is what `POST /api/chat` answers where an option is wrong; its sentence and its `errors` are shown.
    """

    status = 400

    def __init__(self, code: str, id: str = "", *, error: RestError | None = None, **params: str) -> None:
        super().__init__(code=code)
        self.id = id
        self.error = error
        self.params = params

    @classmethod
    def of(cls, error: RestError, id: str = "") -> FrameRefused:
        """Return the refusal of a frame with wrong options."""
        return cls(error.data["reason"], id, error=error)


@dataclass(frozen=True, slots=True)
class ChatAsk:
    """A question, without white space around it; "" asks about its files alone."""

    content: str
    #: The id the client gave it, "" for none.
    id: str = ""
    #: Whether it belongs to the client's conversation; otherwise it has no history.
    conversation: bool = False
    html: bool = False
    #: The ids of uploaded files.
    files: tuple[str, ...] = ()
    #: The choice of a form that it answers, as an earlier answer named it; "" for words.
    choice: str = ""
    options: QuestionOptions = field(default_factory=QuestionOptions)


@dataclass(frozen=True, slots=True)
class ChatResume:
    """A request to show a stream from a cursor on."""

    stream_id: str
    cursor: int = 0
    html: bool = False
    view: ChatView = field(default_factory=ChatView)


@dataclass(frozen=True, slots=True)
class ChatStop:
    """A request to cancel a stream; "" means all unfinished ones of this socket."""

    stream_id: str = ""
    reader: ChatReader = field(default_factory=ChatReader)


@dataclass(frozen=True, slots=True)
class ChatFeedback:
    """A rating of an answer; None withdraws an earlier one."""

    stream_id: str
    rating: Literal["like", "dislike"] | None
    #: The reader's comment.
    content: str = field(default="", repr=False)
    reader: ChatReader = field(default_factory=ChatReader)


@dataclass(frozen=True, slots=True)
class ChatPing:
    """A ping; the reply repeats its timestamp."""

    timestamp: str | float | None = None


ChatFrame = ChatAsk | ChatResume | ChatStop | ChatFeedback | ChatPing


def read_frame(text: str) -> ChatFrame | None:
    """Parse a client's message; return None for a frame that needs no reply.

    Raises:
        FrameRefused: it is not JSON, its type is unknown, or a member is missing, too long or of the wrong type.
    """
    frame = read_object(text)
    kind = _string({"type": "chat", **frame}, "type")
    if reader := _READERS.get(kind):
        return reader(frame)
    if kind in IGNORED:
        return None
    raise FrameRefused("unsupported_type", type=kind[:MAX_ID])


def read_object(text: str) -> dict[str, Any]:
    """Parse a message as a JSON object.

    Raises:
        FrameRefused: it is not a JSON object.
    """
    try:
        frame = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as exc:
        raise FrameRefused("invalid_json") from exc
    if not isinstance(frame, dict):
        raise FrameRefused("invalid_message", what="object")
    return frame


def names_of(stream_id: str, id: str) -> dict[str, str]:
    """Return the members that identify an answer: its stream id, and the client's id if there is one."""
    return {"stream_id": stream_id, "id": id} if id else {"stream_id": stream_id}


def _ask(frame: Mapping[str, Any]) -> ChatAsk:
    id = _word(frame, "id", most=MAX_ID)
    try:
        content, files = _string(frame, "content").strip(), _files(frame)
        if not content and not files:
            raise FrameRefused("message_empty")
        if len(content) > MAX_CONTENT:
            raise FrameRefused("message_too_long", limit=str(MAX_CONTENT))
        options = _options(frame, QuestionOptions)
        choice = _choice(frame)
        return ChatAsk(content, id, _flag(frame, "conversation"), _html(frame), files, choice, options)
    except FrameRefused as refused:
        refused.id = id
        raise


def _resume(frame: Mapping[str, Any]) -> ChatResume:
    cursor = 0 if frame.get("cursor") is None else frame["cursor"]
    if isinstance(cursor, bool) or not isinstance(cursor, int) or not 0 <= cursor <= MAX_CURSOR:
        raise FrameRefused("invalid_message", what="cursor")
    return ChatResume(_stream_id(_string(frame, "stream_id")), cursor, _html(frame), _options(frame, ChatView))


def _stop(frame: Mapping[str, Any]) -> ChatStop:
    if frame.get("stream_id") is None:
        return ChatStop()
    return ChatStop(_stream_id(_string(frame, "stream_id")), _options(frame, ChatReader))


def _feedback(frame: Mapping[str, Any]) -> ChatFeedback:
    rating = frame.get("rating")
    if "rating" not in frame or rating not in ("like", "dislike", None):
        raise FrameRefused("invalid_message", what="rating")
    content = "" if frame.get("content") is None else _string(frame, "content")
    if len(content) > MAX_WORDS:
        raise FrameRefused("invalid_message", what="content")
    return ChatFeedback(_stream_id(_string(frame, "stream_id")), rating, content, _options(frame, ChatReader))


def _ping(frame: Mapping[str, Any]) -> ChatPing:
    timestamp = frame.get("timestamp")
    if timestamp is None or isinstance(timestamp, int | float):
        # JSON has no infinity, but a number such as 1e999 is parsed as one; an integer may have thousands of digits.
        if timestamp is not None and not abs(timestamp) <= sys.float_info.max:
            raise FrameRefused("invalid_message", what="timestamp")
        return ChatPing(timestamp)
    return ChatPing(_string(frame, "timestamp"))


_READERS: Mapping[str, Callable[[Mapping[str, Any]], ChatFrame]] = {
    "chat": _ask,
    "resume": _resume,
    "stop": _stop,
    "feedback": _feedback,
    "ping": _ping,
}


def _options(frame: Mapping[str, Any], model: type[Options]) -> Options:
    """Return the options among a frame's members; null is none, and members that are no options are left out."""
    given = {name: frame[name] for name in model.model_fields if frame.get(name) is not None}
    try:
        # As JSON again, so that the same rules find the same faults in the same words.
        return rest.parsed(model, json.dumps(given).encode())
    except RestError as exc:
        raise FrameRefused.of(exc) from exc


def _string(frame: Mapping[str, Any], name: str) -> str:
    value = frame.get(name)
    if not isinstance(value, str):
        raise FrameRefused("invalid_message", what=name)
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        # JSON can contain half of a surrogate pair (\ud83d), UTF-8 cannot: it could neither be stored nor sent back.
        raise FrameRefused("invalid_message", what=name) from exc
    return value


def _word(frame: Mapping[str, Any], name: str, *, most: int) -> str:
    """Return an optional string of 1 to `most` characters; "" when it is missing."""
    if frame.get(name) is None:
        return ""
    value = _string(frame, name)
    if not 1 <= len(value) <= most:
        raise FrameRefused("invalid_message", what=name)
    return value


def _flag(frame: Mapping[str, Any], name: str) -> bool:
    value = frame.get(name)
    if value is not None and not isinstance(value, bool):
        raise FrameRefused("invalid_message", what=name)
    return bool(value)


def _files(frame: Mapping[str, Any]) -> tuple[str, ...]:
    named = [] if frame.get("files") is None else frame["files"]
    if not isinstance(named, list) or not all(isinstance(one, str) and _FILE_ID.fullmatch(one) for one in named):
        raise FrameRefused("invalid_message", what="files")
    if len(named) > MAX_FILES:
        raise FrameRefused("media_too_many")
    return tuple(named)


def _choice(frame: Mapping[str, Any]) -> str:
    named = "" if frame.get("choice") is None else _string(frame, "choice")
    if named and not _CHOICE.fullmatch(named):
        raise FrameRefused("invalid_message", what="choice")
    return named


def _html(frame: Mapping[str, Any]) -> bool:
    if frame.get("render") in (None, "html"):
        return frame.get("render") == "html"
    raise FrameRefused("invalid_message", what="render")


def _stream_id(value: str) -> str:
    if not _STREAM_ID.fullmatch(value):
        raise FrameRefused("invalid_message", what="stream_id")
    return value


def _no_number(constant: str) -> NoReturn:
    raise ValueError(constant)
