"""What clients of the realtime socket send, read and checked."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from services.errors import LaibaoError

#: Characters of a transcript's longest piece, of a session's name, of a stream's, of a batch task's.
MAX_TEXT = 10_000
MAX_SESSION_ID = 128
MAX_STREAM_ID = 64
_STREAM_ID = re.compile(r"[A-Za-z0-9_-]+")
MAX_TASK_ID = 64
#: Characters of a client's own words that are sent back to it: an unknown type, a time stamp.
MAX_ECHO = 64
#: The largest cursor taken: more chunks than any stream may have.
MAX_CURSOR = 2**31 - 1


class MessageRefused(LaibaoError):
    """A message that cannot be taken; `code` and `params` pick the sentence."""

    status = 400

    def __init__(self, code: str, **params: str) -> None:
        super().__init__(code=code)
        self.params = params


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the transcript, as it came."""

    text: str
    is_final: bool = False
    #: Milliseconds of the client's clock; None where it names none.
    timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class Control:
    """What is to be done with the session: pause, resume, stop, instant_query."""

    action: str
    #: With stop: close the connection, too.
    close: bool = False


@dataclass(frozen=True, slots=True)
class Resume:
    """A stream is to be shown from a cursor on."""

    stream_id: str
    cursor: int = 0


@dataclass(frozen=True, slots=True)
class Ping:
    """A sign of life, answered with the client's own time."""

    timestamp: str | float | None = None


@dataclass(frozen=True, slots=True)
class Subscribe:
    """A batch task's progress is to be told."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """It is not to be told any more."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing to do: keepalive, pong, and a credential that came already."""


Incoming = Piece | Control | Resume | Ping | Subscribe | Unsubscribe | Silence


def with_type(message: object) -> Mapping[str, Any]:
    """Return a message that can be acknowledged: an object with a type.

    Raises:
        MessageRefused: it is none.
    """
    if not isinstance(message, dict):
        raise MessageRefused("invalid_message", what="object")
    _string(message, "type")
    return message


def session_of(message: Mapping[str, Any]) -> str:
    """Return the session a message names, "" for none.

    Raises:
        MessageRefused: that is no name of a session.
    """
    if message.get("session_id") is None:
        return ""
    return _string(message, "session_id", least=1, most=MAX_SESSION_ID)


def read_message(message: Mapping[str, Any]) -> Incoming:
    """Return what a message with a type asks for.

    Raises:
        MessageRefused: its type or action is none of ours, or a member is missing, too long or of another type.
    """
    kind = message["type"]
    if kind not in _READERS:
        raise MessageRefused("unsupported_type", type=clipped(kind))
    return _READERS[kind](message)


def clipped(words: str) -> str:
    """Return a client's words as they may be said back to it."""
    return words[:MAX_ECHO]


def _piece(message: Mapping[str, Any]) -> Piece:
    text = _string(message, "text")
    piece = Piece(text, _flag(message, "is_final"), _integer(message, "timestamp"))
    if len(text) > MAX_TEXT:
        raise MessageRefused("message_too_long", limit=str(MAX_TEXT))
    return piece


def _control(message: Mapping[str, Any]) -> Control:
    action = message.get("action")
    if action not in ("pause", "resume", "stop", "instant_query"):
        raise MessageRefused("unknown_action", action=clipped(action) if isinstance(action, str) else "")
    return Control(action, _flag(message, "close"))


def _resume(message: Mapping[str, Any]) -> Resume:
    cursor = 0 if message.get("cursor") is None else _integer(message, "cursor") or 0
    if not 0 <= cursor <= MAX_CURSOR:
        raise MessageRefused("invalid_message", what="cursor")
    stream_id = _string(message, "stream_id", least=1, most=MAX_STREAM_ID)
    if not _STREAM_ID.fullmatch(stream_id):
        raise MessageRefused("invalid_message", what="stream_id")
    return Resume(stream_id, cursor)


def _ping(message: Mapping[str, Any]) -> Ping:
    timestamp = message.get("timestamp")
    if timestamp is None or isinstance(timestamp, str):
        return Ping(timestamp and _string(message, "timestamp", most=MAX_ECHO))
    if isinstance(timestamp, float) and math.isfinite(timestamp):
        return Ping(timestamp)
    return Ping(_integer(message, "timestamp"))


def _task_id(message: Mapping[str, Any]) -> str:
    return _string(message, "task_id", least=1, most=MAX_TASK_ID)


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Incoming]] = {
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
        # JSON can write half a character (\ud83d), UTF-8 cannot: it could be neither stored nor sent back.
        raise MessageRefused("invalid_message", what=name) from exc
    return value


def _flag(message: Mapping[str, Any], name: str) -> bool:
    value = message.get(name, False)
    if not isinstance(value, bool):
        raise MessageRefused("invalid_message", what=name)
    return value


def _integer(message: Mapping[str, Any], name: str) -> int | None:
    """Return a member that may be missing, but is a whole number when it is there."""
    if name not in message:
        return None
    value = message[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise MessageRefused("invalid_message", what=name)
    return value
