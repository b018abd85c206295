"""Reads Dify's event stream as dicts, with a timeout on the time between events."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from services.errors import ProviderError
from services.http.service import HTTPReply
from services.providers.client.record_stream import BoundedStream
from utils.formats.sse import EventTooLong, SSEDecoder

log = logging.getLogger(__name__)


class ChatStream(BoundedStream[Mapping[str, Any]]):
    """Iterates over the events of one run. Only an event with data resets the timeout; a ping does not."""

    def __init__(self, exchange: HTTPReply, *, timeout: float, started: float, clock: Callable[[], float]) -> None:
        super().__init__(exchange, timeout=timeout, started=started, clock=clock)
        self._decoder = SSEDecoder()
        self._damaged = 0
        #: Number of events without data. They prove that Dify's HTTP server is alive, not that the run is.
        self.pings = 0
        #: Whether an event with data has arrived: from then on the question must not be sent again.
        self.began = False

    # One generator instead of one per step: every delta suspends and resumes each generator of a chain.
    def _read(self) -> Iterator[Mapping[str, Any]]:
        chunk = b"more"
        try:
            while chunk:
                chunk = self._next_chunk()
                for event in self._decoder.feed(chunk) if chunk else self._decoder.flush():
                    if not event.data:
                        self.pings += 1
                        continue
                    for payload in self._objects(event.data):
                        self.began = True
                        yield payload
                        # Set after the yield, so the time the caller spends on an event does not count.
                        self._silent_since = self._clock()
        except EventTooLong as exc:
            raise ProviderError(str(exc), code="provider_error") from exc
        if self._damaged:
            log.warning("Dify sent %d events that are not UTF-8", self._damaged)

    def _objects(self, data: bytes) -> list[Mapping[str, Any]]:
        """Return the JSON objects of an event's data: one, unless a proxy joined several events."""
        try:
            parsed = orjson.loads(data)
        except ValueError:
            return self._odd_objects(data)
        return [parsed] if isinstance(parsed, dict) else []

    def _odd_objects(self, data: bytes) -> list[Mapping[str, Any]]:
        """Parse data that is not strict JSON: invalid UTF-8, half surrogate pairs, or one object per line."""
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._damaged += 1
            text = data.decode(errors="replace")
        parsed = _parsed(text)
        # Dify writes one object per line, so events that a proxy joined can be split at line breaks.
        parts = [parsed] if parsed is not None or "\n" not in text else [_parsed(line) for line in text.split("\n")]
        if None in parts:
            log.warning("Dify sent %d characters of data that are not JSON", len(text))
        return [part for part in parts if isinstance(part, dict)]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
