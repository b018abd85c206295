"""Makes the feedback ids with which WeCom lets people rate answers, and reads the events with their ratings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from services.feedback.records import MOST_CHARS, Kind, Rating
from services.wecom.message import Message

#: The prefix of every `feedback.id`; the answer's stream id follows. Only people of the answer's chat can use it.
PREFIX = "fb-"
#: WeCom's number of a rating and what it means.
KINDS: Mapping[int, Kind] = {1: "like", 2: "dislike", 3: ""}
#: The most reasons that are kept; WeCom has four.
MOST_REASONS = 8
_ID = re.compile(rf"{PREFIX}([0-9a-f]{{32}})")


class FeedbackEvent(NamedTuple):
    """The answer and the rating of a `feedback_event`."""

    stream_id: str
    rating: Rating


def feedback_id(stream_id: str) -> str:
    """Return the `feedback.id` of an answer."""
    return f"{PREFIX}{stream_id}"


def read_feedback(message: Message) -> FeedbackEvent:
    """Return the content of a `feedback_event`.

    Raises:
        ValueError: it is malformed, or its id was not made by `feedback_id`.
    """
    event = message.payload.get("event")
    details = event.get("feedback_event") if isinstance(event, Mapping) else None
    if not isinstance(details, Mapping) or not message.userid:
        raise ValueError("no feedback_event")
    known = _ID.fullmatch(details["id"]) if isinstance(details.get("id"), str) else None
    kind = details.get("type")
    if known is None or type(kind) is not int or kind not in KINDS:
        raise ValueError("an unknown id or type")
    # WeCom documents words and reasons for this type only.
    words, reasons = (details.get("content"), details.get("inaccurate_reason_list")) if kind == 2 else ("", [])
    rating = Rating(
        KINDS[kind],
        words[:MOST_CHARS] if isinstance(words, str) else "",
        _reasons(reasons),
        at=_seconds(message.payload.get("create_time")),
        event_id=_event_id(message.msgid or json.dumps(message.payload, sort_keys=True)),
    )
    return FeedbackEvent(known[1], rating)


def _reasons(given: Any) -> tuple[int, ...]:
    listed = given if isinstance(given, list) else []
    return tuple(number for number in listed if type(number) is int and 0 < number < 100)[:MOST_REASONS]


def _seconds(given: Any) -> int:
    """Return the event's time; 0, which stands for now, if it has none."""
    return given if type(given) is int and 0 < given < 2**40 else 0


def _event_id(text: str) -> str:
    """Return a short id of fixed length: a msgid may be any text."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
