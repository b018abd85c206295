"""A streamed reply while it is read: its JSON records as they arrive, the silence between them bounded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress

from services.errors import ProviderError
from services.http_service import Exchange
from utils.json_records import BrokenRecord, JSONRecords, Record
from utils.sse import EventTooLong

log = logging.getLogger(__name__)


class RecordStream:
    """The records of one reply, as they arrive. Iterating again goes on where it stopped."""

    def __init__(self, exchange: Exchange, *, timeout: float, started: float, clock: Callable[[], float]) -> None:
        self._exchange = exchange
        self._timeout = timeout
        self._clock = clock
        self._silent_since = started
        self._ends: float | None = None
        self._decoder = JSONRecords()
        self._broke = False
        self._records = self._read()

    def __iter__(self) -> Iterator[Record]:
        """Yield each record.

        Raises:
            ProviderError: `provider_timeout` when neither a record with a field nor a comment came for `timeout`
                seconds.
        """
        return self._records

    @property
    def cut_off(self) -> bool:
        """Whether the body ended before its own end, or within a record."""
        return self._broke or self._exchange.broken

    def end_within(self, seconds: float) -> None:
        """Let the stream end by itself after this many seconds, as if the server had closed it."""
        ends = self._clock() + seconds
        self._ends = ends if self._ends is None else min(self._ends, ends)

    def drain(self, seconds: float) -> None:
        """Read to the end, for a moment: a connection that is read out can be used again."""
        self.end_within(seconds)
        with suppress(ProviderError):
            for _ in self._records:
                pass

    def _read(self) -> Iterator[Record]:
        try:
            while chunk := self._next_chunk():
                comments = self._decoder.comments
                for record in self._decoder.feed(chunk):
                    yield record
                    if record.fields:
                        # Now, not before the yield: the time the caller took is not the server's silence.
                        self._silent_since = self._clock()
                if self._decoder.comments > comments:
                    # DeepSeek's `: keep-alive` and OpenRouter's `: OPENROUTER PROCESSING`: the request waits there.
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

    def _next_chunk(self) -> bytes:
        ends = self._silent_since + self._timeout if self._ends is None else self._ends
        try:
            left = ends - self._clock()
            if left <= 0.0:
                raise ProviderError("silent for too long", code="provider_timeout")
            return self._exchange.read(left)
        except ProviderError as exc:
            if self._ends is not None and exc.code in ("provider_timeout", "answer_timeout"):
                return b""
            raise
