"""A streamed reply whose pieces are read one by one, the silence between those that count bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

from services.errors import ProviderError
from services.http.service import Exchange

Piece = TypeVar("Piece")


class BoundedStream(Generic[Piece]):
    """What Dify's events and other providers' records are read from. Iterating again goes on where it stopped."""

    def __init__(self, exchange: Exchange, *, timeout: float, started: float, clock: Callable[[], float]) -> None:
        """Take the reply; silence counts from `started` on, by the clock, and `timeout` seconds of it are too many."""
        self._exchange = exchange
        self._timeout = timeout
        self._clock = clock
        self._silent_since = started
        self._ends: float | None = None
        self._pieces = self._read()

    def __iter__(self) -> Iterator[Piece]:
        """Yield each piece.

        Raises:
            ProviderError: `provider_timeout` when none that counts came for `timeout` seconds.
        """
        return self._pieces

    def _read(self) -> Iterator[Piece]:
        """Yield the pieces in what `_next_chunk` returns, and set `_silent_since` after each that counts."""
        raise NotImplementedError

    def end_within(self, seconds: float) -> None:
        """Let the stream end by itself after this many seconds, as if the server had closed it."""
        ends = self._clock() + seconds
        self._ends = ends if self._ends is None else min(self._ends, ends)

    def drain(self, seconds: float) -> None:
        """Read to the end, for a moment: its connection can be used again, and the run is not cut off."""
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
