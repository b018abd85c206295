"""Reads a multipart body (multipart/form-data) with one file from the Flask request, in memory and within bounds."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from flask import request
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header

from channels.web.rest import RestError, raw_body, too_large

MULTIPART = "multipart/form-data"
#: Maximum bytes of a body besides its file, and maximum parts of a body.
FIELDS_BYTES = 256 * 1024
MOST_PARTS = 20


def form_body(max_bytes: int) -> bytes:
    """Return the raw body of the Flask request, a form with a file of `max_bytes` at most.

    Raises:
        RestError: those of `raw_body`.
    """
    return raw_body(max_bytes=max_bytes, around=FIELDS_BYTES)


def fields_and_file(sent: bytes, max_bytes: int) -> tuple[dict[str, str], FileStorage, bytes]:
    """Return the fields of a form that are not empty, the file, and its content.

    Raises:
        RestError: 413 the file is longer than `max_bytes`, 400 the body is malformed, 422 a field is given twice, or
            there is not exactly one file.
    """
    parser = FormDataParser(
        _in_memory,
        max_form_memory_size=FIELDS_BYTES,
        max_form_parts=MOST_PARTS,
        silent=False,
    )
    try:
        mimetype, options = parse_options_header(request.content_type)
        _, fields, files = parser.parse(BytesIO(sent), mimetype, len(sent), options)
    except RequestEntityTooLarge as exc:
        raise too_large(max_bytes) from exc
    except ValueError as exc:
        raise RestError(400, "The form is broken.", code=10000, reason="broken_form") from exc
    # A browser's form sends fields that were left empty.
    given = {name: value for name, value in _once(fields).items() if value}
    file = _only(files)
    content = file.stream.read()
    if len(content) > max_bytes:
        raise too_large(max_bytes)
    return given, file, content


def wrong_part(reason: str, field: str, problem: str) -> RestError:
    """Return the error for one wrong part of a form, whose problem is the message too."""
    errors = [{"field": field, "problem": problem}]
    return RestError(422, problem, reason=reason, data={"errors": errors})


def _in_memory(*_: Any, **__: Any) -> BytesIO:
    """Keep an uploaded file in memory, because the file system may be read-only."""
    return BytesIO()


def _once(fields: MultiDict[str, str]) -> dict[str, str]:
    if twice := [name for name, values in fields.lists() if len(values) > 1]:
        raise wrong_part("invalid_fields", twice[0], "was given more than once")
    return dict(fields.items())


def _only(files: MultiDict[str, FileStorage]) -> FileStorage:
    found = list(files.items(multi=True))
    if len(found) != 1 or found[0][0] != "file":
        raise wrong_part("invalid_fields", "file", "One file is needed, under this name")
    return found[0][1]
