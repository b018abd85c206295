"""Reads a task from an uploaded file. A separate process parses the file, so that this one can go on serving."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import ValidationError

from channels.batch.models import MAX_NAME, FilePreview, FileSubmission
from channels.web.multipart import fields_and_file, wrong_part
from channels.web.rest import RestError, wrong_fields
from utils.questions.files.process import request as reading_request
from utils.questions.files.reading import FileRow, Reading
from utils.questions.files.rows import FileRefused, Wanted, kind_of

F = TypeVar("F", bound=FilePreview)

log = logging.getLogger(__name__)

#: The program of the reading process. It blocks numpy, which openpyxl imports if installed, because numpy's memory
#: would count against `MEMORY`.
_READER = (
    "import runpy, sys; sys.modules['numpy'] = None; "
    "runpy.run_module('utils.questions.files.process', run_name='__main__')"
)

ROOT = Path(__file__).parents[2]
#: Limits of the reading process: seconds of wall clock, seconds of CPU, bytes of memory.
READ_SECONDS = 30.0
CPU_SECONDS = 10
MEMORY = 512 * 1024 * 1024


def uploaded(sent: bytes, *, max_bytes: int) -> tuple[FileSubmission, Reading]:
    """Return the fields of the Flask request's body, a form, and the texts of its file.

    Raises:
        RestError: 413 the file is longer than `max_bytes`, 400 the body is malformed, 415 the file's type is not
            supported, 422 a field or the file is invalid.
    """
    form, path, content = _fields_and_file(FileSubmission, sent, max_bytes)
    summary, *rows = _read(path.name, content, form, max_bytes, column=form.column, id_column=form.id_column)
    return form, Reading([FileRow(*row) for row in rows], summary["unvalued"])


def previewed(sent: bytes, *, max_bytes: int) -> dict[str, Any]:
    """Return the preview of the file of the Flask request, as `reading.preview` does. Raises as `uploaded` does."""
    form, path, content = _fields_and_file(FilePreview, sent, max_bytes)
    shown: dict[str, Any] = _read(path.name, content, form, max_bytes, previewed=True)[0]
    return shown


def _fields_and_file(model: type[F], sent: bytes, max_bytes: int) -> tuple[F, PurePosixPath, bytes]:
    """Return the body's other fields, and the name and the content of its file."""
    fields, file, content = fields_and_file(sent, max_bytes)
    path = PurePosixPath(file.filename or "")
    named = {"name": path.stem[:MAX_NAME]} if "name" in model.model_fields else {}
    try:
        return model.model_validate({**named, **fields, "file": b""}), path, content
    except ValidationError as exc:
        raise wrong_fields(exc.errors(include_url=False, include_context=False, include_input=False)) from exc


def _read(
    name: str, content: bytes, form: FilePreview, max_bytes: int, *, previewed: bool = False, **columns: str
) -> list[Any]:
    """Return the lines of the reading process, parsed."""
    file = {"header": form.header, "sheet": form.sheet, "encoding": form.encoding, "max_bytes": max_bytes}
    try:
        wanted = Wanted(kind_of(name, content), **columns, **file)  # type: ignore[arg-type]
        return _read_apart(reading_request(wanted, previewed=previewed), content)
    except FileRefused as refused:
        raise _refused(refused) from refused


def _read_apart(line: bytes, content: bytes) -> list[Any]:
    command = [sys.executable, "-c", _READER, str(CPU_SECONDS), str(MEMORY)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, input=line + content, capture_output=True, timeout=READ_SECONDS, check=True
        )
    except subprocess.SubprocessError as exc:
        log.warning("file not read", extra={"bytes": len(content), "cause": type(exc).__name__})
        raise FileRefused("file_too_complex", "Reading it takes more time or memory than there is for it.") from exc
    read = list(_parsed(done.stdout.splitlines()))
    if "reason" in read[0]:
        raise FileRefused(**read[0])
    return read


def _parsed(lines: list[bytes]) -> Iterator[Any]:
    for number, line in enumerate(lines):
        # Yield to other greenlets: a file may have many lines.
        if number % 2000 == 0:
            time.sleep(0)
        yield json.loads(line)


def _refused(refused: FileRefused) -> RestError:
    if refused.reason == "unsupported_file":
        return RestError(415, refused.problem, code=10000, reason=refused.reason)
    return wrong_part(refused.reason, refused.field, refused.problem)
