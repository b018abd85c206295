"""Reads a multipart body (multipart/form-data) with one file from the Flask request, into memory and within bounds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from flask import request
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from channels.web.rest import RestError, too_large

MULTIPART = "multipart/form-data"
#: Maximum bytes of a body besides its file, and maximum parts of a body.
FIELDS_BYTES = 256 * 1024
MOST_PARTS = 20
#: Bodies of more bytes than this take a slot, and the slots of this replica: a body takes several times its memory.
LARGE_BYTES, SLOTS = 256 * 1024, 2
#: Seconds that a request waits for a slot.
SLOT_SECONDS = 15.0


class LargeBodies:
    """Bounds the large bodies of one address that this replica reads and stores at the same time."""

    def __init__(self, reason: str, message: str) -> None:
        """Take the reason and the sentence for people of a request that waited in vain."""
        self._reason = reason
        self._message = message
        self._slots = threading.BoundedSemaphore(SLOTS)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a slot while the body of the Flask request is read and stored, if it is a large one.

        Raises:
            RestError: 503, there was no slot in time.
        """
        if request.content_length is not None and request.content_length <= LARGE_BYTES:
            yield
            return
        if not self._slots.acquire(timeout=SLOT_SECONDS):
            raise RestError(503, self._message, reason=self._reason, headers={"Retry-After": "10"})
        try:
            yield
        finally:
            self._slots.release()


def fields_and_file(max_bytes: int) -> tuple[dict[str, str], FileStorage, bytes]:
    """Return the fields that are not empty, the file, and its content.

    Raises:
        RestError: 413 the file is longer than `max_bytes`, 400 the body is malformed, 422 a field is given twice, or
            there is not exactly one file.
    """
    parser = FormDataParser(
        _in_memory,
        max_form_memory_size=FIELDS_BYTES,
        max_content_length=max_bytes + FIELDS_BYTES,
        max_form_parts=MOST_PARTS,
        silent=False,
    )
    try:
        _, fields, files = parser.parse_from_environ(request.environ)
    except RequestEntityTooLarge as exc:
        raise too_large(max_bytes) from exc
    except (ClientDisconnected, ValueError, OSError) as exc:
        raise RestError(400, "The form is broken.", code=10000, reason="broken_form") from exc
    # A browser's form sends fields that were left empty.
    given = {name: value for name, value in _once(fields).items() if value}
    file = _only(files)
    content = file.stream.read()
    if len(content) > max_bytes:
        raise too_large(max_bytes)
    return given, file, content


def wrong_field(reason: str, field: str, problem: str) -> RestError:
    """Return the error for one wrong field."""
    errors = [{"field": field, "problem": problem}]
    return RestError(422, problem, reason=reason, data={"errors": errors})


def _in_memory(*_: Any, **__: Any) -> BytesIO:
    """Keep an uploaded file in memory, because the file system may be read-only."""
    return BytesIO()


def _once(fields: MultiDict[str, str]) -> dict[str, str]:
    if twice := [name for name, values in fields.lists() if len(values) > 1]:
        raise wrong_field("invalid_fields", twice[0], "was given more than once")
    return dict(fields.items())


def _only(files: MultiDict[str, FileStorage]) -> FileStorage:
    found = list(files.items(multi=True))
    if len(found) != 1 or found[0][0] != "file":
        raise wrong_field("invalid_fields", "file", "One file is needed, under this name")
    return found[0][1]
