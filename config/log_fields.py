"""Add fields to every log line that a block of code writes, such as the stream that a producer thread works on.

    with log_fields(stream_id=…, bot=…, person=…):
        …          # every line that this thread (under gevent: this greenlet) logs here has the fields

Fields that a log call passes itself take precedence.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

from utils.tracing import current_trace

_fields: ContextVar[Mapping[str, object]] = ContextVar("log_fields", default=MappingProxyType({}))

HOST = socket.gethostname()


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
