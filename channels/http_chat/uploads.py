"""The endpoint that takes a file for a later question, on this API or on the chat socket."""

from __future__ import annotations

from dataclasses import asdict

from flask import Blueprint, Response, request

from channels.http_chat.models import FileForm, FileTaken
from channels.http_chat.replies import refusal
from channels.web import rest
from channels.web.bodies import UploadSlots
from channels.web.multipart import fields_and_file, form_body, wrong_field
from channels.web.rest import Operation, envelope
from config.texts import Texts
from services.errors import AnswerError
from services.files.uploads import FileUploads
from utils.formats.file_names import plain_name


def uploads_blueprint(files: FileUploads, slots: UploadSlots, callers: rest.ProgramChecker, texts: Texts) -> Blueprint:
    """Return POST /api/files."""
    routes = Blueprint("uploads", __name__)

    @routes.post("/api/files")
    def take() -> Response:
        principal = rest.caller(callers, request).principal
        sent = form_body(files.max_bytes)
        with slots.held(principal, size=len(sent)):
            name, content = _file(sent, files.max_bytes)
            try:
                taken = files.take(principal, request.remote_addr or "", name, content)
            except AnswerError as exc:
                raise refusal(exc.code, texts) from exc
        return envelope(asdict(taken), status=201, headers={"Cache-Control": "no-store"})

    return routes


def _file(sent: bytes, max_bytes: int) -> tuple[str, bytes]:
    """Return the name and the content of a form's file.

    Raises:
        RestError: the body is malformed, has other fields, or its file is empty or larger than `max_bytes`.
    """
    fields, file, content = fields_and_file(sent, max_bytes)
    if fields:
        raise wrong_field("invalid_fields", next(iter(fields)), "Extra inputs are not permitted")
    if not content:
        raise wrong_field("invalid_fields", "file", "is empty")
    return plain_name(file.filename or ""), content


OPERATIONS = (
    Operation(
        "POST",
        "/api/files",
        "Upload a picture or file for a question",
        "files",
        multipart=FileForm,
        answers={201: FileTaken, 413: None, 415: None, 422: None, 429: None, 503: None},
        description=(
            "Name the returned `file_id` in `files` of `POST /api/chat`, or of a frame of the chat socket. Ids belong "
            "to the caller that uploaded them, and may be named in several questions while the file is kept."
        ),
    ),
)
