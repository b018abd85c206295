"""The messages that are no bubble, as the page's script gets them."""

from __future__ import annotations

import base64
import mimetypes
from typing import Any

from demo.page.cards import shown_card
from demo.wecom.long_connection.screen import ShownMessage, UploadedFile
from demo.wecom.simulator import ResponsePost
from services.wecom.cards import card_words
from utils.markdown.blocks import render_markdown


def message_json(message: ResponsePost | ShownMessage) -> dict[str, Any]:
    """Return a message: `html`, `bytes` of its text, the rules that it `broken`, its `file` and its `card`.

    The last two are null where it has none; a card's `html` has its words, for a message that is below no bubble.
    """
    shown = message if isinstance(message, ShownMessage) else None
    words = card_words(dict(shown.card)) if shown and shown.card else message.content
    broken = () if isinstance(message, ShownMessage) else message.broken
    return {
        "html": render_markdown(words),
        "bytes": len(message.content.encode()),
        "broken": list(broken),
        "file": _file(shown.file) if shown and shown.file else None,
        "card": shown_card(shown.card) if shown else None,
    }


def _file(file: UploadedFile) -> dict[str, Any]:
    media = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    url = f"data:{media};base64,{base64.b64encode(file.content).decode()}"
    return {"kind": file.kind, "name": file.name, "bytes": len(file.content), "url": url}
