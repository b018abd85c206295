"""Reads a task from an uploaded file. A separate process parses the file, so that this one can go on serving."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from flask import request
from pydantic import ValidationError
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from channels.batch.models import MAX_NAME, FileSubmission
from channels.web.rest import RestError, too_large, wrong_fields
from utils.questions.files import FileRefused, Reading, Wanted, kind_of
from utils.questions.files import request as asked

log = logging.getLogger(__name__)

#: The program of the reading process. It blocks numpy, which openpyxl imports if installed, because numpy's memory
#: would count against `MEMORY`.
_READER = (
    "import runpy, sys; sys.modules['numpy'] = None; runpy.run_module('utils.questions.files', run_name='__main__')"
)

FORM = "multipart/form-data"
ROOT = Path(__file__).parents[2]
#: Maximum bytes of a form besides its file, and maximum parts of a form.
FORM_BYTES = 256 * 1024
FORM_PARTS = 20
#: Files read at once by this replica, and seconds a further one waits.
READERS = 2
TURN_SECONDS = 15.0
#: Limits of the reading process: seconds of wall clock, seconds of CPU, bytes of memory.
READ_SECONDS = 30.0
CPU_SECONDS = 10
MEMORY = 512 * 1024 * 1024

_readers = threading.BoundedSemaphore(READERS)


def uploaded(*, max_bytes: int) -> tuple[FileSubmission, Reading]:
    """Return the form of the Flask request and the texts of its file.

    Raises:
        RestError: 413 the file is longer than `max_bytes`, 400 the form is malformed, 415 the file's type is not
            supported, 422 a field or the file is invalid, 503 too many files are being read.
    """
    fields, file = _form(max_bytes)
    content = file.stream.read()
    if len(content) > max_bytes:
        raise too_large(max_bytes)
    path = PurePosixPath(file.filename or "")
    try:
        form = FileSubmission.model_validate({"name": path.stem[:MAX_NAME], **fields, "file": b""})
    except ValidationError as exc:
        raise wrong_fields(exc.errors(include_url=False, include_context=False, include_input=False)) from exc
    try:
        return form, _reading(path.name, content, form, max_bytes)
    except FileRefused as refused:
        raise _refused(refused) from refused


def _form(max_bytes: int) -> tuple[dict[str, str], FileStorage]:
    """Return the form's fields and its one file."""
    parser = FormDataParser(
        _in_memory,
        max_form_memory_size=FORM_BYTES,
        max_content_length=max_bytes + FORM_BYTES,
        max_form_parts=FORM_PARTS,
        silent=False,
    )
    try:
        _, fields, files = parser.parse_from_environ(request.environ)
    except RequestEntityTooLarge as exc:
        raise too_large(max_bytes) from exc
    except (ClientDisconnected, ValueError, OSError) as exc:
        raise RestError(400, "The form is broken.", code=10000, reason="broken_form") from exc
    # A browser's form sends fields that were left empty.
    return {name: value for name, value in _once(fields).items() if value}, _only(files)


def _in_memory(*_: Any, **__: Any) -> BytesIO:
    """Keep an uploaded file in memory, because the file system may be read-only."""
    return BytesIO()


def _once(fields: MultiDict[str, str]) -> dict[str, str]:
    if twice := [name for name, values in fields.lists() if len(values) > 1]:
        raise _wrong("invalid_fields", twice[0], "was given more than once")
    return dict(fields.items())


def _only(files: MultiDict[str, FileStorage]) -> FileStorage:
    found = list(files.items(multi=True))
    if len(found) != 1 or found[0][0] != "file":
        raise _wrong("invalid_fields", "file", "One file is needed, under this name")
    return found[0][1]


def _reading(name: str, content: bytes, form: FileSubmission, max_bytes: int) -> Reading:
    kind = kind_of(name, content)
    wanted = Wanted(kind, form.column, form.header, form.sheet, form.encoding, max_bytes)
    if not _readers.acquire(timeout=TURN_SECONDS):
        raise RestError(503, "Too many files are being read.", reason="busy", headers={"Retry-After": "10"})
    try:
        return _read_apart(wanted, content)
    finally:
        _readers.release()


def _read_apart(wanted: Wanted, content: bytes) -> Reading:
    command = [sys.executable, "-c", _READER, str(CPU_SECONDS), str(MEMORY)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, input=asked(wanted) + content, capture_output=True, timeout=READ_SECONDS, check=True
        )
    except subprocess.SubprocessError as exc:
        log.warning("file not read", extra={"kind": wanted.kind, "bytes": len(content), "cause": type(exc).__name__})
        raise FileRefused("file_too_complex", "Reading it takes more time or memory than there is for it.") from exc
    told, *texts = _parsed(done.stdout.splitlines())
    if "reason" in told:
        raise FileRefused(**told)
    return Reading(texts, told["unvalued"])


def _parsed(lines: list[bytes]) -> Iterator[Any]:
    for number, line in enumerate(lines):
        # Yield to other greenlets: a file may have many lines.
        if number % 2000 == 0:
            time.sleep(0)
        yield json.loads(line)


def _refused(refused: FileRefused) -> RestError:
    if refused.reason == "unsupported_file":
        return RestError(415, refused.problem, code=10000, reason=refused.reason)
    return _wrong(refused.reason, refused.field, refused.problem)


def _wrong(reason: str, field: str, problem: str) -> RestError:
    errors = [{"field": field, "problem": problem}]
    return RestError(422, problem, reason=reason, data={"errors": errors})
