"""The envelope of REST replies: {"code", "message", "data"} with a code of the documented table and an HTTP status."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flask import Response

from utils.formats.json_slices import is_sliced, json_pieces

#: All codes and their default messages.
CODES = {
    200: "Success",
    400: "Request Error",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    10000: "Parameter Error",
    20000: "Business Error",
    30000: "Third-party Error",
    40000: "Database Error",
    90000: "Unknown Error",
}
#: The default code by HTTP status, where it is not the status itself.
OF_STATUS = {409: 20000, 413: 10000, 415: 10000, 422: 10000, 429: 20000, 502: 30000, 504: 30000}


class SlicedResponse(Response):
    """A reply that is built while it is sent. It is not compressed: each open reply would need a compressor."""


def enveloped(data: Any = None, *, status: int = 200, code: int = 0, message: str = "") -> dict[str, Any]:
    """Return a reply's body; `code` and `message` default to those of the HTTP status."""
    code = code or OF_STATUS.get(status) or (status if status in CODES else _nearest(status))
    return {"code": code, "message": message or CODES[code], "data": data}


def envelope(
    data: Any = None, *, status: int = 200, code: int = 0, message: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    """Return a reply; a text in `data` that comes in slices is read while it is sent."""
    body = enveloped(data, status=status, code=code, message=message)
    if is_sliced(body):
        return SlicedResponse(json_pieces(body), status, headers, mimetype="application/json")
    return Response(json.dumps(body, ensure_ascii=False), status, headers, mimetype="application/json")


def _nearest(status: int) -> int:
    return 200 if status < 400 else 400 if status < 500 else 500
