"""Reads the headers and addresses of /api/chat requests."""

from __future__ import annotations

import re

from flask import request

from channels.asking import MAX_ID
from channels.http_chat.models import ChatQuestion
from channels.http_chat.stream import END, MEDIA_TYPE
from channels.web.rest import RestError, wrong_field

_STREAM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: As documented; no stream has more chunks.
_CURSOR = re.compile(r"[0-9]{1,9}")


def client_id(asked: ChatQuestion) -> str:
    """Return the id the client gave its question, in the body or the header Idempotency-Key; "" for none.

    Raises:
        RestError: both are given and differ, or the header is too long or empty.
    """
    named = request.headers.get("Idempotency-Key")
    if named is None:
        return asked.id or ""
    if not 1 <= len(named) <= MAX_ID:
        raise wrong_field("Idempotency-Key", f"1 to {MAX_ID} characters are taken")
    if asked.id is not None and asked.id != named:
        raise wrong_field("id", "differs from the header Idempotency-Key")
    return named


def wants_events() -> bool:
    """Tell whether the Accept header prefers events; the default is JSON."""
    return request.accept_mimetypes.best_match(["application/json", MEDIA_TYPE]) == MEDIA_TYPE


def last_event() -> int | None:
    """Return the cursor in Last-Event-ID: 0 without the header, None after the answer's last event.

    Raises:
        RestError: it is not an event's id.
    """
    shown = request.headers.get("Last-Event-ID", "0")
    if shown == END:
        return None
    if not _CURSOR.fullmatch(shown):
        raise wrong_field("Last-Event-ID", "is the id of no event")
    return int(shown)


def checked(stream_id: str) -> str:
    """Return the stream id of an address.

    Raises:
        RestError: 404 it is malformed.
    """
    if not _STREAM_ID.fullmatch(stream_id):
        raise RestError(404, reason="stream_unknown")
    return stream_id
