"""Fields that every log line of one piece of work carries, such as the stream that a thread writes.

    with log_fields(stream_id=…, bot=…, person=…):
        …          # each line that this thread (under gevent: this greenlet) logs here has them

A field that a line has of its own stays as it is.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_fields: ContextVar[Mapping[str, object]] = ContextVar("log_fields", default=MappingProxyType({}))

HOST = socket.gethostname()


@contextmanager
def log_fields(**fields: object) -> Iterator[None]:
    """Give every line of the block these fields."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


class FieldsFilter(logging.Filter):
    """Adds the fields of the thread that logs, and to lines about a stream the replica: `host:pid`, as owners begin."""

    def filter(self, record: logging.LogRecord) -> bool:
        given = vars(record)
        given.update({name: value for name, value in _fields.get().items() if name not in given})
        if "stream_id" in given:
            given.setdefault("replica", f"{HOST}:{record.process}")
        return True
