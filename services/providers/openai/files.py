"""A question with files as the content of a chat message: pictures as data URLs, text files as text."""

from __future__ import annotations

import base64
from typing import Any

from services.attachments import MediaFile
from services.errors import AnswerError
from services.models import Query
from utils.formats.encodings import decoded

#: The pictures that the API documents.
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
#: Media types beside text/* that are text.
_TEXTS = ("application/xml", "application/octet-stream", "message/rfc822", "image/svg+xml")
#: Characters of the longest text file: it goes into the model's context as a whole.
MOST_TEXT = 200_000


def asked_content(query: Query) -> str | list[dict[str, Any]]:
    """Return the content of the question's message: its text alone, or the text and its files."""
    if not query.media:
        return query.text
    return [{"type": "text", "text": query.text}, *map(file_part, query.media)]


def file_part(file: MediaFile) -> dict[str, Any]:
    """Return one file as a part of a message.

    Raises:
        AnswerError: `media_wrong_type`: neither such a picture nor a text; `media_too_large`: a text that is too long.
    """
    if file.mime in _PICTURES:
        data = base64.b64encode(file.content).decode()
        return {"type": "image_url", "image_url": {"url": f"data:{file.mime};base64,{data}"}}
    if not (file.mime.startswith("text/") or file.mime in _TEXTS):
        raise AnswerError("neither a picture nor a text", code="media_wrong_type")
    return {"type": "text", "text": f"{file.name}:\n\n{_text(file.content)}"}


def _text(content: bytes) -> str:
    # Checked before it is decoded, which takes long for a large file: a character has four bytes at most.
    if len(content) > 4 * MOST_TEXT:
        raise AnswerError("a text that is too long", code="media_too_large")
    text = decoded(content)
    if text is None:
        raise AnswerError("no text", code="media_wrong_type")
    if len(text) > MOST_TEXT:
        raise AnswerError("a text that is too long", code="media_too_large")
    return text
