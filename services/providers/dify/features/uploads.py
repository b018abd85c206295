"""Uploads a file to Dify, and names it in a question."""

from __future__ import annotations

from collections.abc import Mapping

from urllib3 import encode_multipart_formdata

from services.attachments import MediaFile
from services.errors import AnswerError, ProviderError
from services.http.service import Exchange, HTTPService
from services.providers.client.json_fields import json_object, text
from services.providers.client.retries import attempts
from services.providers.dify.errors import http_error
from utils.deadline import Deadline

#: The sentence for a status of `/files/upload`. A proxy answers 413 without Dify's body.
_CODES = {413: "media_too_large", 415: "media_wrong_type"}


#: Bytes of a reply, and seconds to read it.
_MOST_REPLY, _REPLY_SECONDS = 1024 * 1024, 5.0


def upload(
    http: HTTPService,
    url: str,
    headers: Mapping[str, str],
    file: MediaFile,
    user: str,
    *,
    deadline: Deadline,
    timeout: float,
    tries: tuple[int, float],
) -> str:
    """Upload a file as this user and return its id. `tries` are the number of retries and their backoff in seconds.

    Raises:
        AnswerError: `media_too_large`, `media_wrong_type`, or a `ProviderError`.
    """
    # Dify answers 415 to a part without a media type.
    content, kind = encode_multipart_formdata({"file": (file.name, file.content, file.mime), "user": user})
    for attempt in attempts(deadline, retries=tries[0], backoff=tries[1]):
        with (
            attempt,
            http.exchange(
                "POST", url, deadline=deadline, timeout=timeout, headers=headers, body=(kind, content)
            ) as exchange,
        ):
            found = _file_id(exchange)
    return found


def _file_id(exchange: Exchange) -> str:
    body = exchange.read_all(limit=_MOST_REPLY, timeout=_REPLY_SECONDS)
    if exchange.status in _CODES:
        raise AnswerError(f"HTTP {exchange.status} to an upload", code=_CODES[exchange.status])
    if exchange.status not in (200, 201):
        raise http_error(exchange.status, body, exchange.retry_after)
    file_id = text((json_object(body) or {}).get("id"))
    if not file_id:
        raise ProviderError("an upload without an id", code="provider_error", http_status=exchange.status)
    return file_id


def local_file(file: str) -> dict[str, str]:
    """Return Dify's object for an entry of `Query.files`; an id without a type is a custom file."""
    kind, _, file_id = file.rpartition(":")
    return {"type": kind or "custom", "transfer_method": "local_file", "upload_file_id": file_id}
