"""The long text of an ended stream, read in slices, so that no reader holds more than one slice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from services.errors import StoreUnavailable

#: Seconds of a Redis outage that a reader waits through within a text, and between two attempts.
OUTAGE_SECONDS = 20.0
PAUSE = 0.5


class TextSlice(NamedTuple):
    """A part of a text, cut between two characters; `end` and `size` are in bytes."""

    text: str
    #: The offset at which the next slice begins.
    end: int
    #: The size of the whole text.
    size: int


class LongText:
    """A text in Redis; each iteration reads it again."""

    def __init__(
        self,
        read: Callable[[int], TextSlice],
        size: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Take the function that reads the slice at an offset, and the size of the whole text in bytes."""
        self._read = read
        self._clock = clock
        self._sleep = sleep
        self.size = size

    def __iter__(self) -> Iterator[str]:
        """Yield the slices; each one is read when it is requested.

        Raises:
            StoreUnavailable: Redis was away for longer than `OUTAGE_SECONDS`, or the text has changed.
        """
        offset = 0
        while offset < self.size:
            found = self._read_slice(offset)
            if found.size != self.size or found.end == offset:
                raise StoreUnavailable("the text is not the one that was begun")
            offset = found.end
            yield found.text

    def _read_slice(self, offset: int) -> TextSlice:
        end = self._clock() + OUTAGE_SECONDS
        while True:
            try:
                return self._read(offset)
            except StoreUnavailable:
                if self._clock() > end:
                    raise
                self._sleep(PAUSE)
