"""Writes a message's files as text, to be sealed, and reads them again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple

from services.attachments import Media


def written(media: Sequence[Media]) -> str:
    """Return the files as JSON, "" for none. It holds their addresses and keys: seal it before it is stored.

    Members at the end that have their default are left out, as earlier versions read them.
    """
    return json.dumps([_members(each) for each in media]) if media else ""


def read(text: str) -> tuple[Media, ...]:
    """Return the files that `written` wrote.

    Raises:
        ValueError, TypeError: the text is something else.
    """
    return tuple(Media(*each) for each in json.loads(text)) if text else ()


def _members(media: Media) -> tuple[str, ...]:
    if media.place != "wecom":
        return astuple(media)
    return astuple(media)[: 4 if media.aeskey else 3]
