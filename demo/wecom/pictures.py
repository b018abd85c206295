"""WeCom's rules for the pictures of a frame, `msg_item`."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from demo.wecom.wire import RuleBroken

#: WeCom's limits: pictures of a frame, and bytes of one before base64.
MOST_PICTURES, PICTURE_BYTES = 10, 10 * 1024 * 1024
#: The first bytes of the formats that WeCom shows, and their media types.
FORMATS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def pictures_of(stream: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the pictures of a stream reply.

    Raises:
        RuleBroken: WeCom would not show one of them.
    """
    items = stream.get("msg_item", [])
    if "msg_item" in stream and not stream.get("finish"):
        raise RuleBroken("msg_item in a frame that is not finished")
    if not isinstance(items, list) or not len(items) <= MOST_PICTURES:
        raise RuleBroken(f"msg_item has more than {MOST_PICTURES} pictures, or is no list")
    for item in items:
        yield _picture(item)


def media_type(picture: bytes) -> str:
    """Return a picture's media type, "" for a format that WeCom does not show."""
    return next((media for start, media in FORMATS.items() if picture.startswith(start)), "")


def _picture(item: Any) -> bytes:
    image = item.get("image") if isinstance(item, dict) and item.get("msgtype") == "image" else None
    if not isinstance(image, dict) or set(image) != {"base64", "md5"}:
        raise RuleBroken("an item of msg_item is not an image with base64 and md5")
    try:
        picture = base64.b64decode(image["base64"], validate=True)
    except (binascii.Error, ValueError, TypeError) as exc:
        raise RuleBroken("a picture is not base64") from exc
    if not picture or len(picture) > PICTURE_BYTES:
        raise RuleBroken(f"a picture is empty, or has more than {PICTURE_BYTES} bytes")
    if hashlib.md5(picture, usedforsecurity=False).hexdigest() != image["md5"]:
        raise RuleBroken("a picture's md5 is not that of its bytes")
    if not media_type(picture):
        raise RuleBroken("a picture is neither JPG nor PNG")
    return picture
