"""The mock Dify's uploaded files: Dify's own errors, and the check that a question's files are its user's."""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from werkzeug.datastructures import FileStorage
from werkzeug.formparser import parse_form_data

from demo.mocks.dify.error_replies import INVALID_USER, MockErrorReply

#: Dify's default limits in bytes, and the endings of each type.
_MIB = 1024 * 1024
LIMITS = {"image": 10 * _MIB, "audio": 50 * _MIB, "video": 100 * _MIB, "document": 15 * _MIB, "custom": 15 * _MIB}
_ENDINGS = {
    "image": "jpg jpeg png webp gif svg",
    "document": "txt md mdx markdown pdf html htm xlsx xls doc docx csv eml msg pptx ppt xml epub vtt properties",
    "audio": "mp3 m4a wav amr mpga",
    "video": "mp4 mov mpeg webm",
}
_SHOWN = {"image": "图片", "document": "文档", "audio": "音频", "video": "视频", "custom": "文件"}

NO_FILE = MockErrorReply.api(400, "no_file_uploaded", "Please upload your file.")
TOO_MANY = MockErrorReply.api(400, "too_many_files", "Only one file is allowed.")
NO_NAME = MockErrorReply.api(400, "filename_not_exists_error", "The specified filename does not exist.")
NO_TYPE = MockErrorReply.api(415, "unsupported_file_type", "File type not allowed.")
TOO_LARGE = MockErrorReply.api(413, "file_too_large", "")
UNKNOWN_FILE = MockErrorReply.api(400, "invalid_param", "Invalid upload file")
WRONG_TYPE = MockErrorReply.api(400, "invalid_param", "Detected file type does not match the specified type.")


@dataclass(frozen=True)
class MockUpload:
    """One uploaded file."""

    user: str
    name: str
    mime: str
    content: bytes = field(repr=False)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def ending(self) -> str:
        return self.name.rpartition(".")[2].lower() if "." in self.name else ""

    @property
    def type(self) -> str:
        return next((kind for kind, endings in _ENDINGS.items() if self.ending in endings.split()), "custom")

    def reply(self) -> dict[str, Any]:
        """Return Dify's object of the file."""
        about = {"name": self.name, "size": len(self.content), "extension": self.ending, "mime_type": self.mime}
        made = {"created_by": self.user, "created_at": int(time.time()), "source_url": None, "preview_url": None}
        return {"id": self.id, **about, **made}


def read_upload(content_type: str, body: bytes) -> MockUpload | MockErrorReply:
    """Return the file of a form, or Dify's error."""
    environ = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": content_type}
    _, form, files = parse_form_data(environ)
    sent = files.getlist("file")
    try:
        return _checked(sent, form.get("user", ""))
    finally:
        for file in sent:
            file.close()


def _checked(sent: Sequence[FileStorage], user: str) -> MockUpload | MockErrorReply:
    if len(sent) != 1:
        return TOO_MANY if sent else NO_FILE
    name, mime = sent[0].filename or "", sent[0].mimetype
    if not name:
        return NO_NAME
    if not mime:
        return NO_TYPE
    if not user:
        return INVALID_USER
    upload = MockUpload(user, name, mime, sent[0].read())
    return TOO_LARGE if len(upload.content) > LIMITS[upload.type] else upload


def files_of(body: Mapping[str, Any], uploads: Sequence[MockUpload]) -> list[MockUpload] | MockErrorReply:
    """Return the files of a question, or the error for one that its user did not upload or that has another type."""
    found: list[MockUpload] = []
    for file in body.get("files") or ():
        # Dify fetches such a file itself.
        if file.get("transfer_method") == "remote_url" and file.get("url"):
            continue
        known = next((each for each in uploads if each.id == file.get("upload_file_id")), None)
        if known is None or known.user != body["user"] or file.get("transfer_method") != "local_file":
            return UNKNOWN_FILE
        if file.get("type") not in (known.type, "custom"):
            return WRONG_TYPE
        found.append(known)
    return found


def seen(files: Sequence[MockUpload]) -> str:
    """Return how an answer to a question with files begins; "" without any."""
    lines = [f"- {_SHOWN[file.type]} `{file.name}`（{len(file.content):,} 字节）" for file in files]
    return "\n".join(["我看到了：", "", *lines, "", ""]) if lines else ""
