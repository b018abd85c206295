"""Reads a streamed reply piece by piece, with a timeout on the time between pieces, and JSON records as an answer.

`BoundedStream` is for any pieces, `RecordStream` for JSON records. `record_events` feeds the records into the state
machine of an answer, for the OpenAI and the custom provider.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, Literal, Protocol, TypeVar

from services.errors import ProviderError
from services.http.service import HTTPReply
from services.models import ProviderEvent
from services.providers.client.limits import ClientLimits
from utils.formats.json_records import BrokenRecord, JSONRecords, Record
from utils.formats.sse import EventTooLong

Piece = TypeVar("Piece")

log = logging.getLogger(__name__)

#: running: read on · finishing: the answer is over, its usage may follow · done: stop reading.
RecordState = Literal["running", "finishing", "done"]


class BoundedStream(Generic[Piece]):
    """Base class of Dify's event stream and of record streams. A second iteration continues where the first stopped."""

    def __init__(self, exchange: HTTPReply, *, timeout: float, started: float, clock: Callable[[], float]) -> None:
        """Wrap the reply. The read fails `timeout` seconds after `started` (a reading of `clock`) or the last piece."""
        self._exchange = exchange
        self._timeout = timeout
        self._clock = clock
        self._silent_since = started
        self._ends: float | None = None
        self._pieces = self._read()

    def __iter__(self) -> Iterator[Piece]:
        """Yield each piece.

        Raises:
            ProviderError: `provider_timeout` when no piece that resets the timeout arrived for `timeout` seconds.
        """
        return self._pieces

    def _read(self) -> Iterator[Piece]:
        """Decode the bytes of `_next_chunk` into pieces; set `_silent_since` after each one that resets the timeout."""
        raise NotImplementedError

    def wait_up_to(self, seconds: float) -> None:
        """Change the longest wait for a piece."""
        self._timeout = seconds

    def end_within(self, seconds: float) -> None:
        """End the stream after this many seconds, without an error, as if the server had closed it."""
        ends = self._clock() + seconds
        self._ends = ends if self._ends is None else min(self._ends, ends)

    def drain(self, seconds: float) -> None:
        """Read to the end, for at most this many seconds: the connection can then be reused, and the run is not cut."""
        self.end_within(seconds)
        with suppress(ProviderError):
            for _ in self._pieces:
                pass

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


class RecordStream(BoundedStream[Record]):
    """Iterates over the records of one reply. A record with a field resets the timeout, and so does a comment."""

    def __init__(self, exchange: HTTPReply, *, timeout: float, started: float, clock: Callable[[], float]) -> None:
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
            try:
                yield from self._decoder.flush()
            except BrokenRecord:
                self._broke = True
        except (BrokenRecord, EventTooLong) as exc:
            raise ProviderError(str(exc), code="provider_error") from exc
        if self._decoder.unreadable:
            log.warning("the provider sent %d pieces that are no JSON objects", self._decoder.unreadable)


class RecordAnswer(Protocol):
    """The state machine of one answer, without I/O."""

    state: RecordState

    def take(self, record: Record) -> Iterator[ProviderEvent]:
        """Yield the events of a record."""

    def leave(self) -> Iterator[ProviderEvent]:
        """Yield the metadata and usage known so far, for an answer that failed."""


def record_events(stream: RecordStream, answer: RecordAnswer, limits: ClientLimits) -> Iterator[ProviderEvent]:
    """Yield the events of the records until the answer is done or the stream ends. The caller closes the answer.

    `limits` has the time for a last record after the answer's end (`end_grace`), and for the stream to close.

    Raises:
        ProviderError: the stream failed. The answer's metadata and usage were yielded before, unless it was aborted.
    """
    try:
        for record in stream:
            yield from answer.take(record)
            if answer.state == "done":
                stream.drain(limits.linger)
                break
            if answer.state == "finishing":
                stream.end_within(limits.end_grace)
    except ProviderError as exc:
        # An aborted answer belongs to another owner by now, or was cancelled: its events must not be written.
        if exc.code != "interrupted":
            yield from answer.leave()
        raise
