"""The pictures of a question: addresses, which the gateway fetches, and `data:` URLs, which bring the picture along."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from channels.openai.errors import invalid
from channels.openai.models import ContentPart
from services.attachments import Media, MediaFile, SentFile
from services.media.kinds import file_of, recognized

#: Pictures of one question, and characters of an address.
MAX_PICTURES = 10
MAX_ADDRESS = 8192


def sent_pictures(parts: Sequence[ContentPart], param: str, *, max_bytes: int) -> tuple[SentFile, ...]:
    """Return the pictures among a question's parts; those of `data:` URLs have `max_bytes` together at most.

    Raises:
        RestError: there are too many, or one of them is no picture and no http address.
    """
    found: list[SentFile] = []
    for number, part in enumerate(parts):
        if part.type == "image_url":
            url = part.image_url.url if part.image_url else ""
            found.append(_picture(url, f"{param}[{number}].image_url"))
    if len(found) > MAX_PICTURES:
        raise invalid(f"A question has {MAX_PICTURES} pictures at most.", param)
    if sum(len(file.content) for file in found if isinstance(file, MediaFile)) > max_bytes:
        message = f"The pictures are too large: {max_bytes} bytes are taken at most in one question."
        raise invalid(message, param, code="image_file_too_large")
    return tuple(found)


def _picture(url: str, param: str) -> SentFile:
    scheme, _, rest = url.partition(":")
    if scheme.lower() == "data":
        return _from_data(rest, param)
    if scheme.lower() not in ("http", "https") or len(url) > MAX_ADDRESS:
        message = f"A picture is an https address of {MAX_ADDRESS} characters at most, or a data: URL."
        raise invalid(message, param, code="invalid_image_url")
    return Media("image", url, place="web")


def _from_data(data: str, param: str) -> MediaFile:
    """Return the picture of a `data:` URL without its scheme. Its bytes tell the type, not what the URL says."""
    head, _, encoded = data.partition(",")
    try:
        content = base64.b64decode(encoded, validate=True) if head.lower().endswith(";base64") else b""
    except ValueError:
        content = b""
    if not content:
        raise invalid("It is no data: URL with base64.", param, code="invalid_base64_image")
    if not recognized("", content, "image").is_picture:
        raise invalid("It is no picture.", param, code="unsupported_image_media_type")
    return file_of("image", "", content)
