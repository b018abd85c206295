"""The form that uploads a file to Dify, the errors of its reply, and the file in a question."""

from __future__ import annotations

from urllib3 import encode_multipart_formdata

from services.errors import AnswerError
from services.models import MediaFile

#: The sentence for a status of `/files/upload`. A proxy answers 413 without Dify's body.
_CODES = {413: "media_too_large", 415: "media_wrong_type"}


def upload_form(file: MediaFile, user: str) -> tuple[str, bytes]:
    """Return the media type and the bytes of the form. Dify answers 415 to a part without a media type."""
    content, kind = encode_multipart_formdata({"file": (file.name, file.content, file.mime), "user": user})
    return kind, content


def upload_error(status: int) -> AnswerError | None:
    """Return the error of a status that is about the file; None for any other."""
    code = _CODES.get(status)
    return AnswerError(f"HTTP {status} to an upload", code=code) if code else None


def local_file(file: str) -> dict[str, str]:
    """Return Dify's object for an entry of `Query.files`; an id without a type is a custom file."""
    kind, _, file_id = file.rpartition(":")
    return {"type": kind or "custom", "transfer_method": "local_file", "upload_file_id": file_id}
