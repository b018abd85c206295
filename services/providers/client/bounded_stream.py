"""Reads a streamed reply piece by piece, with a timeout on the time between pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

from services.errors import ProviderError
from services.http.service import Exchange

Piece = TypeVar("Piece")


class BoundedStream(Generic[Piece]):
    """Base class of Dify's event stream and of record streams. A second iteration continues where the first stopped."""

    def __init__(self, exchange: Exchange, *, timeout: float, started: float, clock: Callable[[], float]) -> None:
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
