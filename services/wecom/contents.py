"""Reads the words and the media of a message of any type, and of the message that it quotes.

Only the message's own text is checked strictly. Members that the documentation does not list, and members of another
type than documented, are skipped: a message that has anything readable is answered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from services.attachments import Media, MediaKind

#: The message types that are one file, and its kind.
_FILES: Mapping[str, MediaKind] = {"image": "image", "file": "file", "video": "video"}
#: The most items of a mixed message that are read.
MOST_ITEMS = 100


class Content(NamedTuple):
    """What a message says and shows; its addresses are secret, and `Media` does not show them."""

    words: str = ""
    media: tuple[Media, ...] = ()


def content_of(message: Any, mention: re.Pattern[str] | None = None) -> Content:
    """Return the content of a message, a quote or an item of a mixed message; nothing for an unknown type.

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
