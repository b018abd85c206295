"""The pictures of the last frame, `msg_item`, and their rules."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from demo.wecom.violation import RuleViolation

#: Pictures of a frame at most, and bytes of one picture before Base64.
MOST_PICTURES = 10
PICTURE_BYTES = 10 * 1024 * 1024
#: The first bytes of the formats that WeCom shows, and their media types.
_FORMATS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def pictures_of(stream: Mapping[str, Any]) -> tuple[bytes, ...]:
    """Return the pictures of a stream reply that breaks no rule."""
    return tuple(base64.b64decode(item["image"]["base64"]) for item in stream.get("msg_item", ()))


def media_type(picture: bytes) -> str:
    """Return a picture's media type, "" for a format that WeCom does not show."""
    return next((media for start, media in _FORMATS.items() if picture.startswith(start)), "")


def picture_violations(items: Any, *, finish: bool) -> Iterator[RuleViolation]:
    """Yield the rules that a frame's `msg_item` breaks."""
    if not isinstance(items, list):
        yield RuleViolation("msg_item", "msg_item is no list")
        return
    if items and not finish:
        yield RuleViolation("msg_item", "msg_item is allowed only in the frame with finish")
    if len(items) > MOST_PICTURES:
        yield RuleViolation("msg_item", f"msg_item has more than {MOST_PICTURES} pictures: {len(items)}")
    for item in items:
        yield from _item_violations(item)


def _item_violations(item: Any) -> Iterator[RuleViolation]:
    image = item.get("image") if isinstance(item, Mapping) and item.get("msgtype") == "image" else None
    if not isinstance(image, Mapping):
        yield RuleViolation("msg_item", "an item of msg_item is no image")
        return
    try:
        raw = base64.b64decode(image.get("base64", ""), validate=True)
    except (TypeError, ValueError):
        yield RuleViolation("msg_item", "a picture is no Base64")
        return
    if len(raw) > PICTURE_BYTES:
        yield RuleViolation("msg_item", f"a picture of more than {PICTURE_BYTES} bytes: {len(raw)}")
    if not media_type(raw):
        yield RuleViolation("msg_item", "a picture is neither JPG nor PNG")
    if image.get("md5") != hashlib.md5(raw, usedforsecurity=False).hexdigest():
        yield RuleViolation("msg_item", "the md5 of a picture is not that of its bytes")
