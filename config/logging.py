"""Configure logging: JSON or plain lines on standard output, and optionally rotating files.

Callers log `log.info("stream", extra={"stream_id": …})`: the extra fields become JSON keys, or `key=value` after the
pid at the end of a plain line. Times are UTC in JSON and local in plain lines. Both formats escape characters that
control a terminal, break a line or change the text direction as `\\uXXXX`.

`log_fields` adds fields to every line that a block of code writes, such as the stream that a producer thread works on:

    with log_fields(stream_id=…, bot=…, person=…):
        …          # every line that this thread (under gevent: this greenlet) logs here has the fields

Fields that a log call passes itself take precedence.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from concurrent_log_handler import ConcurrentRotatingFileHandler

from config.errors import SettingsError
from utils.tracing import current_trace

#: Size in bytes at which a log file is rotated, and the number of old files kept.
MAX_BYTES = 10 * 1024 * 1024
BACKUPS = 5
#: Shortest secret, in characters, that is masked: masking a short word such as "root" would garble many lines.
SHORTEST_SECRET = 8
MASK = "***"

#: C0 except tab and line feed, DEL, C1 (including NEL), direction marks and overrides, line and paragraph separators,
#: zero-width characters, and lone surrogates, which cannot be encoded.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff]"
)

HOST = socket.gethostname()

_fields: ContextVar[Mapping[str, object]] = ContextVar("log_fields", default=MappingProxyType({}))

_PLAIN = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
_OURS = "wechatlaibao."
#: The attributes of every record. All others were given as `extra`.
_STANDARD = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"))
_encoder = json.JSONEncoder(ensure_ascii=False, default=str)
#: Loggers limited to WARNING: their INFO and DEBUG lines repeat our own, and some contain addresses and payloads.
_QUIET = ("urllib3", "redis", "sqlalchemy", "werkzeug", "concurrent_log_handler", "gunicorn.access", "alembic")
#: Loggers whose gunicorn handlers are removed, so that their lines have our format.
_ADOPTED = ("gunicorn.error", "gunicorn.access")


class _Masked(logging.Formatter):
    """Wraps another formatter; masks every known secret and escapes control characters in its output."""

    def __init__(self, formatter: logging.Formatter, secrets: Iterable[str]) -> None:
        super().__init__()
        self._formatter = formatter
        long = {secret for secret in secrets if len(secret) >= SHORTEST_SECRET}
        # JSON escapes quotes and backslashes, so a secret has two spellings. Longest first: one may contain another.
        spelled = {*long, *(json.dumps(secret, ensure_ascii=False)[1:-1] for secret in long)}
        self._secrets = sorted(spelled, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        line = self._formatter.format(record)
        for secret in self._secrets:
            line = line.replace(secret, MASK)
        # The quick look knows more characters than those, such as the line breaks of a traceback.
        return line if line.isprintable() else _CONTROL.sub(_escaped, line)


class _Plain(logging.Formatter):
    """Formats `time - logger - level - message pid=… key=value …`; line breaks are escaped, so a record is one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is the standard library's
        extras = {"pid": record.process, **_extras(record)}
        fields = " ".join(f"{key}={_word(value)}" for key, value in extras.items())
        return f"{super().formatMessage(record)} {fields}".replace("\r", "\\r").replace("\n", "\\n")


class _Json(logging.Formatter):
    """Formats one JSON object per line: time, level, logger, pid, message, and the extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        first = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        line = {**first, **_extras(record), **first}
        if record.exc_info:
            line["exc_info"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack_info"] = self.formatStack(record.stack_info)
        return _encoder.encode(line)


def configure_logging(
    level: str = "INFO",
    fmt: str = "json",
    log_dir: str | None = None,
    *,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
    max_bytes: int = MAX_BYTES,
    backups: int = BACKUPS,
) -> None:
    """Send the process's logs to `stream` (`None`: standard output) and to info.log and error.log in `log_dir`.

    A second call replaces the configuration of the first. Several processes may share a folder.

    Raises:
        SettingsError: `log_dir` is not writable.
    """
    formatter = _Masked(_Json() if fmt == "json" else _Plain(_PLAIN), secrets)
    handlers: list[logging.Handler] = [logging.StreamHandler(stream or sys.stdout)]
    if log_dir:
        handlers += _files(Path(log_dir), max_bytes, backups)
    _install(handlers, formatter)
    logging.getLogger().setLevel(level)
    for name in _ADOPTED:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def _install(handlers: list[logging.Handler], formatter: logging.Formatter) -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if (handler.name or "").startswith(_OURS)]:
        root.removeHandler(handler)
        handler.close()
    for number, handler in enumerate(handlers):
        handler.set_name(f"{_OURS}{number}")
        handler.setFormatter(formatter)
        handler.addFilter(FieldsFilter())
        root.addHandler(handler)


def _files(folder: Path, max_bytes: int, backups: int) -> list[logging.Handler]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [
            _file(folder / "info.log", logging.INFO, max_bytes, backups),
            _file(folder / "error.log", logging.ERROR, max_bytes, backups),
        ]
    except OSError as exc:
        raise SettingsError(
            f"LOG_DIR={str(folder)!r} is wrong: expected a folder to write to ({exc.strerror})"
        ) from exc


def _file(path: Path, level: int, max_bytes: int, backups: int) -> logging.Handler:
    path.open("a").close()  # the handler opens its file only for the first line, too late to report an error at start
    handler: logging.Handler = ConcurrentRotatingFileHandler(
        str(path), maxBytes=max_bytes, backupCount=backups, encoding="utf-8"
    )
    handler.setLevel(level)
    return handler


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD and not key.startswith("_")}


def _word(value: Any) -> str:
    text = str(value)
    return text if text and not re.search(r'[\s"=]', text) else json.dumps(text, ensure_ascii=False)


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


@contextmanager
def log_fields(**fields: object) -> Iterator[None]:
    """Add `fields` to every line that the current thread logs inside the block."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


class FieldsFilter(logging.Filter):
    """Adds the current thread's fields and its request's ids, and to lines with a `stream_id` the `replica`.

    The replica is `host:pid`, the prefix of the stream's `owner` field in Redis.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        given = vars(record)
        known = {**current_trace().log_fields, **_fields.get()}
        given.update({name: value for name, value in known.items() if name not in given})
        if "stream_id" in given:
            given.setdefault("replica", f"{HOST}:{record.process}")
        return True
