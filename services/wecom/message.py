"""Reads the message inside a decrypted callback: its files, the message that it quotes, the rating of a feedback event.

Text that is not a message raises `CallbackRefused` with the code `UNUSABLE`. Only a message's own text is checked
strictly: undocumented members, and members of another type than documented, are skipped, so that a message is answered
if any part of it can be read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from services.attachments import Media, MediaKind
from services.errors import CallbackRefused
from services.feedback.records import MOST_CHARS, Kind, Rating

#: A mention by a name without spaces: no other can be recognised without WECHAT_BOT_NAME.
ANY_MENTION = re.compile(r"^\s*@\S+\s*")

#: The code of every failure after the signature check.
UNUSABLE = "bad_ciphertext"
#: The message types that are one file, and its kind.
_FILES: Mapping[str, MediaKind] = {"image": "image", "file": "file", "video": "video"}
#: The most items of a mixed message that are read.
MOST_ITEMS = 100


class Content(NamedTuple):
    """The words and files of a message."""

    words: str = ""
    media: tuple[Media, ...] = ()


def content_of(message: Any, mention: re.Pattern[str] | None = None) -> Content:
    """Return the content of a message, a quote or an item of a mixed message; an empty one for an unknown type.

    `mention` is removed once, from the first text: a group's message mentions the bot there.
    """
    if not isinstance(message, dict):
        return Content()
    msgtype = message.get("msgtype")
    member = message.get(msgtype) if isinstance(msgtype, str) else None
    if not isinstance(member, dict):
        return Content()
    if msgtype in ("text", "voice"):
        return Content(without_mention(_text(member, "content"), mention))
    if msgtype == "mixed":
        return _mixed(member, mention)
    kind, url = _FILES.get(msgtype or ""), _text(member, "url")
    return Content(media=(Media(kind, url, aeskey=_text(member, "aeskey")),)) if kind and url else Content()


def without_mention(words: str, mention: re.Pattern[str] | None) -> str:
    """Return the words without the first mention of the bot; unchanged in a chat without mentions."""
    return mention.sub("", words, count=1).strip() if mention else words


def _mixed(member: Mapping[str, Any], mention: re.Pattern[str] | None) -> Content:
    items = member.get("msg_item")
    words: list[str] = []
    media: list[Media] = []
    for item in items[:MOST_ITEMS] if isinstance(items, list) else ():
        is_text = isinstance(item, dict) and item.get("msgtype") == "text"
        found = content_of(item, mention if is_text else None)
        # Only the first text mentions the bot.
        mention = None if is_text else mention
        words += [found.words] if found.words.strip() else []
        media += found.media
    return Content("\n".join(words), tuple(media))


def _text(member: Mapping[str, Any], name: str) -> str:
    value = member.get(name)
    return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class Message:
    """A callback that passed every check. Its repr shows ids only: no text and no one-time URL."""

    msgid: str
    #: text, image, mixed, voice, file, video, stream, event, or a newer type.
    msgtype: str
    #: "" only for an event that no user caused.
    userid: str
    chattype: str = "single"
    #: The id of the group; "" in a single chat.
    chatid: str = ""
    aibotid: str = ""
    #: The words of a text, voice or mixed message, in a group without the mention of the bot.
    text: str = field(default="", repr=False)
    #: The words of the quoted message; "" for none.
    quoted: str = field(default="", repr=False)
    #: The message's own files.
    media: tuple[Media, ...] = ()
    #: The files of the quoted message.
    quoted_media: tuple[Media, ...] = ()
    #: The stream id of a stream refresh, as this product made it.
    stream_id: str = ""
    #: The eventtype of an event.
    event: str = ""
    #: A credential: it allows one reply to be posted.
    response_url: str = field(default="", repr=False)
    #: The whole decrypted object, with quote, media and event details.
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    #: The number of the token and key that opened it. Pass it to `seal`: the reply must use the same pair.
    pair: int = 0


def unusable() -> CallbackRefused:
    return CallbackRefused(code=UNUSABLE)


def mention_of(name: str) -> re.Pattern[str]:
    """Return a pattern for `@name` and the spaces or U+2005 that clients add after it and inside the name."""
    spaced = r"\s+".join(re.escape(word) for word in name.split())
    return re.compile(rf"@{spaced}(?:\s+|$)")


def json_object(text: str | bytes, *, code: str) -> dict[str, Any]:
    try:
        value = _loads(text)
    except (ValueError, RecursionError) as exc:
        raise CallbackRefused(code=code) from exc
    if not isinstance(value, dict):
        raise CallbackRefused(code=code)
    return value


def _loads(text: str | bytes) -> Any:
    """Parse with orjson, which is several times as fast, and with json for texts that orjson rejects."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def _payload(text: str) -> dict[str, Any]:
    """Return the decrypted object without half surrogate pairs, which neither stores nor sockets can encode."""
    payload = json_object(text, code=UNUSABLE)
    if "\\ud" not in text and "\\uD" not in text:
        return payload
    encoded = json.dumps(payload, ensure_ascii=False).encode("utf-8", "replace")
    return json_object(encoded, code=UNUSABLE)


def read_message(text: str, *, mention: re.Pattern[str], pair: int) -> Message:
    """Return the message of a callback's decrypted text; `pair` is the number of the token and key that opened it.

    Raises:
        CallbackRefused: `UNUSABLE`.
    """
    payload = _payload(text)
    msgtype = _required(payload, "msgtype")
    chattype = _optional(payload, "chattype") or "single"
    chatid = _optional(payload, "chatid") if msgtype == "event" else _chatid(payload, chattype)
    own, quoted = _contents(payload, msgtype, mention if chatid else None)
    return Message(
        # Refreshes and events are never deduplicated, so they need no id.
        msgid=(_optional if msgtype in ("stream", "event") else _required)(payload, "msgid"),
        msgtype=msgtype,
        userid=_userid(payload, msgtype),
        chattype=chattype,
        chatid=chatid,
        aibotid=_optional(payload, "aibotid"),
        text=own.words,
        quoted=quoted.words,
        media=own.media,
        quoted_media=quoted.media,
        stream_id=_required(_member(payload, "stream"), "id") if msgtype == "stream" else "",
        event=_required(_member(payload, "event"), "eventtype") if msgtype == "event" else "",
        response_url=_optional(payload, "response_url"),
        payload=payload,
        pair=pair,
    )


def _chatid(payload: dict[str, Any], chattype: str) -> str:
    if chattype == "group":
        return _required(payload, "chatid")
    if chattype != "single":
        raise unusable()
    return ""


def _userid(payload: dict[str, Any], msgtype: str) -> str:
    """Return the sender; "" for an event of WeCom itself, which has no user to answer."""
    if msgtype != "event":
        return _required(_member(payload, "from"), "userid")
    userid = _optional(_member(payload, "from"), "userid") if "from" in payload else ""
    return "" if userid == "sys" else userid


def _contents(payload: dict[str, Any], msgtype: str, mention: re.Pattern[str] | None) -> tuple[Content, Content]:
    """Return the content of the message and of the one it quotes."""
    if msgtype in ("stream", "event"):
        return Content(), Content()
    if msgtype == "text":
        # The type of nearly all messages is the only one whose members are checked.
        own = Content(without_mention(_optional(_member(payload, "text"), "content"), mention))
    else:
        own = content_of(payload, mention)
    return own, content_of(payload["quote"]) if "quote" in payload else Content()


def _member(payload: dict[str, Any], name: str) -> dict[str, Any]:
    value = payload.get(name)
    if not isinstance(value, dict):
        raise unusable()
    return value


def _required(payload: dict[str, Any], name: str) -> str:
    value = _optional(payload, name)
    if not value:
        raise unusable()
    return value


def _optional(payload: dict[str, Any], name: str) -> str:
    """Return a string member, "" if it is missing or null. Any other type is refused."""
    value = payload.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise unusable()
    return value


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
