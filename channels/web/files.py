"""The address below which people and programs download the files of an answer, while their signed link lives."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import quote

from flask import Blueprint, Response

from channels.web.rest import Operation, RestError
from services.files.delivery import SAFE_TYPES, Download, FileDelivery

#: A file must not run anything, even where a browser shows it.
POLICY = "default-src 'none'; sandbox"

OPERATIONS = (
    Operation(
        "GET",
        "/files/{token}",
        "Download a file of an answer by its signed link",
        "files",
        answers={404: None},
        auth="none",
        description=(
            "Links come with answers, end with them (`STREAM_TTL`) and need no key; those to pictures in results of "
            "batches work for an hour. A link that is wrong and one that has expired get the same 404. The reply is "
            "always an attachment."
        ),
        media={200: (*sorted(SAFE_TYPES), "application/octet-stream")},
    ),
)


def files_blueprint(delivery: FileDelivery) -> Blueprint:
    """Return GET /files/<token>."""
    routes = Blueprint("files", __name__)

    @routes.get("/files/<token>")
    def download(token: str) -> Response:
        found = delivery.open(token)
        if found is None:
            raise RestError(404, headers={"Cache-Control": "no-store"})
        return attachment(found)

    return routes


def attachment(found: Download) -> Response:
    """Return the reply that sends a file while it is read."""
    media = f"{found.type}; charset=utf-8" if found.type.startswith("text/") else found.type
    reply = Response(found.pieces, content_type=media)
    reply.headers["Content-Length"] = str(found.size)
    reply.headers["Content-Disposition"] = _disposition(found.name)
    reply.headers["Content-Security-Policy"] = POLICY
    reply.headers["Cache-Control"] = "private, no-store"
    reply.headers["X-Content-Type-Options"] = "nosniff"
    return reply


def _disposition(name: str) -> str:
    """Return the header of an attachment: the name as `filename*` (RFC 5987), and one in ASCII for older clients."""
    suffix = PurePosixPath(name).suffix
    plain = f"file{suffix}" if suffix[1:].isascii() and suffix[1:].isalnum() else "file"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
