"""The rules of `msg_item`, the pictures of the last frame."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from demo.wecom.violation import Violation

#: Pictures of a frame at most, and bytes of one picture before Base64.
MOST_PICTURES = 10
PICTURE_BYTES = 10 * 1024 * 1024
#: The first bytes of JPG and PNG.
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


def picture_violations(items: Any, *, finish: bool) -> Iterator[Violation]:
    """Yield the rules that a frame's `msg_item` breaks."""
    if not isinstance(items, list):
        yield Violation("msg_item", "msg_item is no list")
        return
    if items and not finish:
        yield Violation("msg_item", "msg_item is allowed only in the frame with finish")
    if len(items) > MOST_PICTURES:
        yield Violation("msg_item", f"msg_item has more than {MOST_PICTURES} pictures: {len(items)}")
    for item in items:
        yield from _item_violations(item)


def _item_violations(item: Any) -> Iterator[Violation]:
    image = item.get("image") if isinstance(item, Mapping) and item.get("msgtype") == "image" else None
    if not isinstance(image, Mapping):
        yield Violation("msg_item", "an item of msg_item is no image")
        return
    try:
        raw = base64.b64decode(image.get("base64", ""), validate=True)
    except (TypeError, ValueError):
        yield Violation("msg_item", "a picture is no Base64")
        return
    if len(raw) > PICTURE_BYTES:
        yield Violation("msg_item", f"a picture of more than {PICTURE_BYTES} bytes: {len(raw)}")
    if not raw.startswith(_MAGIC):
        yield Violation("msg_item", "a picture is neither JPG nor PNG")
    if image.get("md5") != hashlib.md5(raw, usedforsecurity=False).hexdigest():
        yield Violation("msg_item", "the md5 of a picture is not that of its bytes")
