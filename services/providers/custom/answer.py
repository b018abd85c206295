"""The state machine of one answer of a company's own service, without I/O.

A single body and the records of a stream are read alike. The first field with text is the field of the answer's pieces.
Text in another field later is the complete answer, repeated by the last record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from services.errors import ProviderError
from services.models import Delta, Metadata, ProviderEvent, ProviderIds, Replacement, Usage
from services.providers.client.errors import stream_error
from services.providers.client.json_fields import mapping, mappings, text, usage_of
from services.providers.client.record_stream import RecordState
from utils.formats.json_records import Record

#: Fields that may hold text; if a record has several, the first counts.
_TEXTS = ("delta", "answer", "content", "response")
#: Names of an SSE event, and boolean fields, that mark the end of a stream.
_LAST_EVENTS = ("done", "end")
_LAST_FIELDS = ("done", "is_final", "final")


class CustomAnswer:
    """Call `take` with each record, and `close` at the stream's end."""

    def __init__(self) -> None:
        self.state: RecordState = "running"
        self.usage = Usage()
        self._text = ""
        self._field = ""
        self._metadata: Mapping[str, Any] = {}
        self._sources: list[Mapping[str, Any]] = []
        self._has_records = False
        self._message_id = ""

    def take(self, record: Record) -> Iterator[ProviderEvent]:
        """Yield the events of a record. Unknown fields are ignored.

        Raises:
            ProviderError: the record reports an error.
        """
        fields = record.fields
        self._has_records = self._has_records or bool(fields) or record.last
        if record.event == "error" or fields.get("error"):
            raise stream_error(fields)
        message_id = text(fields.get("message_id"))
        if message_id and message_id != self._message_id:
            self._message_id = message_id
            yield ProviderIds(message_id=message_id)
        yield from self._take_text(fields)
        self._take_rest(fields)
        if record.last:
            self.state = "done"
        elif self.state == "running" and _is_last(record):
            self.state = "finishing"

    def close(self, *, cut_off: bool) -> Iterator[ProviderEvent]:
        """Yield the remaining events after the stream has ended; `cut_off` is whether the connection broke.

        Raises:
            ProviderError: the answer was cut off, has no text, or the reply had no JSON object.
        """
        yield from self.leave()
        if cut_off and self.state == "running":
            code = "provider_truncated" if self._text else "provider_error"
            raise ProviderError("the connection broke before the answer's end", code=code)
        if not self._has_records:
            raise ProviderError("the reply holds no JSON object", code="provider_error")
        if not self._text.strip():
            raise ProviderError("the answer has no text", code="provider_empty")

    def leave(self) -> Iterator[ProviderEvent]:
        """Yield the metadata and usage known so far, also for an answer that broke off."""
        if self._metadata:
            yield Metadata(self._metadata)
        if self.usage != Usage():
            yield self.usage

    def _take_text(self, fields: Mapping[str, Any]) -> Iterator[ProviderEvent]:
        found = {name: value for name in _TEXTS if (value := text(fields.get(name)))}
        if not found:
            return
        self._field = self._field or next(iter(found))
        if self._field in found:
            self._text += found[self._field]
            yield Delta(found[self._field])
        elif (complete := next(iter(found.values()))) != self._text:
            self._text = complete
            yield Replacement(complete)

    def _take_rest(self, fields: Mapping[str, Any]) -> None:
        """Store metadata, sources and usage; later records override earlier ones."""
        self._metadata = mapping(fields.get("metadata")) or self._metadata
        self._sources = _sources(fields.get("sources")) or self._sources
        spent = usage_of(mapping(fields.get("usage")))
        self.usage = replace(spent if spent != Usage() else self.usage, sources=tuple(self._sources))


def _is_last(record: Record) -> bool:
    return record.event in _LAST_EVENTS or any(record.fields.get(name) is True for name in _LAST_FIELDS)


def _sources(value: Any) -> list[Mapping[str, Any]]:
    """Return the sources as dicts; a source that is a string becomes `{"title": …}`."""
    rows = value if isinstance(value, list) else []
    return mappings([{"title": text(row)} if isinstance(row, str) else row for row in rows])
