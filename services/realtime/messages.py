"""Parses and validates the messages of realtime clients."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from config.errors import LaibaoError

#: Maximum characters of a piece of the transcript, a session id, a stream id and a batch task id.
MAX_TEXT = 10_000
MAX_SESSION_ID = 128
MAX_STREAM_ID = 64
_STREAM_ID = re.compile(r"[A-Za-z0-9_-]+")
MAX_TASK_ID = 64
#: Maximum characters of client input that is sent back: an unknown type, a timestamp.
MAX_ECHO = 64
#: The largest accepted cursor: more chunks than any stream may have.
MAX_CURSOR = 2**31 - 1


class MessageRefused(LaibaoError):
    """A message that is not valid. `code` and `params` pick the sentence."""

    status = 400

    def __init__(self, code: str, **params: str) -> None:
        super().__init__(code=code)
        self.params = params


@dataclass(frozen=True, slots=True)
class TranscriptPiece:
    """A piece of the transcript."""

    text: str
    is_final: bool = False
    #: Milliseconds of the client's clock; None if not sent.
    timestamp: int | None = None
    #: Whether the answer to a question in it is sent as HTML too.
    html: bool = False


@dataclass(frozen=True, slots=True)
class Control:
    """An order for the session: pause, resume, stop or instant_query."""

    action: str
    #: With stop: also close the connection.
    close: bool = False
    #: With instant_query: also send the answer as HTML.
    html: bool = False


@dataclass(frozen=True, slots=True)
class ResumeStream:
    """Show a stream from a cursor on."""

    stream_id: str
    cursor: int = 0
    html: bool = False


@dataclass(frozen=True, slots=True)
class PingMessage:
    """A ping, answered by a pong with the client's own timestamp."""

    timestamp: str | float | None = None


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Report the progress of a batch task."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Stop reporting the progress of a batch task."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Silence:
    """A message without effect: keepalive, pong, or a second credential."""


SessionMessage = TranscriptPiece | Control | ResumeStream | PingMessage | Subscribe | Unsubscribe | Silence


def with_type(message: object) -> Mapping[str, Any]:
    """Return the message if it can be acknowledged: a JSON object with a type.

    Raises:
        MessageRefused: it is not.
    """
    if not isinstance(message, dict):
        raise MessageRefused("invalid_message", what="object")
    _string(message, "type")
    return message


def session_of(message: Mapping[str, Any]) -> str:
    """Return the session id of a message, "" if it has none.

    Raises:
        MessageRefused: the id is not valid.
    """
    if message.get("session_id") is None:
        return ""
    return _string(message, "session_id", least=1, most=MAX_SESSION_ID)


def read_message(message: Mapping[str, Any]) -> SessionMessage:
    """Parse a message with a type.

    Raises:
        MessageRefused: its type or action is unknown, or a member is missing, too long or of the wrong type.
    """
    kind = message["type"]
    if kind not in _READERS:
        raise MessageRefused("unsupported_type", type=clipped(kind))
    return _READERS[kind](message)


def clipped(words: str) -> str:
    """Shorten client input to the length that may be sent back."""
    return words[:MAX_ECHO]


def _piece(message: Mapping[str, Any]) -> TranscriptPiece:
    text = _string(message, "text")
    piece = TranscriptPiece(text, _flag(message, "is_final"), _integer(message, "timestamp"), _html(message))
    if len(text) > MAX_TEXT:
        raise MessageRefused("message_too_long", limit=str(MAX_TEXT))
    return piece


def _control(message: Mapping[str, Any]) -> Control:
    action = message.get("action")
    if action not in ("pause", "resume", "stop", "instant_query"):
        raise MessageRefused("unknown_action", action=clipped(action) if isinstance(action, str) else "")
    return Control(action, _flag(message, "close"), _html(message))


def _resume(message: Mapping[str, Any]) -> ResumeStream:
    cursor = 0 if message.get("cursor") is None else _integer(message, "cursor") or 0
    if not 0 <= cursor <= MAX_CURSOR:
        raise MessageRefused("invalid_message", what="cursor")
    stream_id = _string(message, "stream_id", least=1, most=MAX_STREAM_ID)
    if not _STREAM_ID.fullmatch(stream_id):
        raise MessageRefused("invalid_message", what="stream_id")
    return ResumeStream(stream_id, cursor, _html(message))


def _ping(message: Mapping[str, Any]) -> PingMessage:
    timestamp = message.get("timestamp")
    if timestamp is None or isinstance(timestamp, str):
        return PingMessage(timestamp and _string(message, "timestamp", most=MAX_ECHO))
    if isinstance(timestamp, float) and math.isfinite(timestamp):
        return PingMessage(timestamp)
    return PingMessage(_integer(message, "timestamp"))


def _task_id(message: Mapping[str, Any]) -> str:
    return _string(message, "task_id", least=1, most=MAX_TASK_ID)


_READERS: Mapping[str, Callable[[Mapping[str, Any]], SessionMessage]] = {
    "asr_chunk": _piece,
    "control": _control,
    "resume": _resume,
    "ping": _ping,
    "subscribe": lambda message: Subscribe(_task_id(message)),
    "unsubscribe": lambda message: Unsubscribe(_task_id(message)),
    "keepalive": lambda _: Silence(),
    "pong": lambda _: Silence(),
    "auth": lambda _: Silence(),
}


def _string(message: Mapping[str, Any], name: str, *, least: int = 0, most: int | None = None) -> str:
    value = message.get(name)
    if not isinstance(value, str) or len(value) < least or (most is not None and len(value) > most):
        raise MessageRefused("invalid_message", what=name)
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        # JSON allows half a surrogate pair (\ud83d), UTF-8 does not: it could be neither stored nor sent back.
        raise MessageRefused("invalid_message", what=name) from exc
    return value


def _flag(message: Mapping[str, Any], name: str) -> bool:
    value = message.get(name, False)
    if not isinstance(value, bool):
        raise MessageRefused("invalid_message", what=name)
    return value


def _html(message: Mapping[str, Any]) -> bool:
    """Return whether the answer is to be sent as HTML too."""
    if message.get("render") in (None, "html"):
        return message.get("render") == "html"
    raise MessageRefused("invalid_message", what="render")


def _integer(message: Mapping[str, Any], name: str) -> int | None:
    """Return an integer member, None if it is missing."""
    if name not in message:
        return None
    value = message[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise MessageRefused("invalid_message", what=name)
    return value
