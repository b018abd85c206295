"""Reads a streamed reply as JSON records, with a timeout on the time between records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from services.errors import ProviderError
from services.http.service import Exchange
from services.providers.client.bounded_stream import BoundedStream
from utils.formats.json_records import BrokenRecord, JSONRecords, Record
from utils.formats.sse import EventTooLong

log = logging.getLogger(__name__)


class RecordStream(BoundedStream[Record]):
    """Iterates over the records of one reply. A record with a field resets the timeout, and so does a comment."""

    def __init__(self, exchange: Exchange, *, timeout: float, started: float, clock: Callable[[], float]) -> None:
        super().__init__(exchange, timeout=timeout, started=started, clock=clock)
        self._decoder = JSONRecords()
        self._broke = False

    @property
    def cut_off(self) -> bool:
        """Whether the body ended before its declared length or final chunk, or in the middle of a record."""
        return self._broke or self._exchange.broken

    def _read(self) -> Iterator[Record]:
        try:
            while chunk := self._next_chunk():
                comments = self._decoder.comments
                for record in self._decoder.feed(chunk):
                    yield record
                    if record.fields:
                        # Set after the yield, so the time the caller spends on a record does not count.
                        self._silent_since = self._clock()
                if self._decoder.comments > comments:
                    # DeepSeek sends `: keep-alive` and OpenRouter `: OPENROUTER PROCESSING` while a request is queued.
                    self._silent_since = self._clock()
            yield from self._rest()
        except (BrokenRecord, EventTooLong) as exc:
            raise ProviderError(str(exc), code="provider_error") from exc
        if self._decoder.unreadable:
            log.warning("the provider sent %d pieces that are no JSON objects", self._decoder.unreadable)

    def _rest(self) -> Iterator[Record]:
        try:
            yield from self._decoder.flush()
        except BrokenRecord:
            self._broke = True
