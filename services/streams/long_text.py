"""The long text of an ended stream, read slice by slice: nobody holds more of it than one slice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from services.errors import StoreUnavailable

#: Seconds of an outage of Redis that a reader waits through in the middle of a text, and between two tries.
OUTAGE_SECONDS = 20.0
PAUSE = 0.5


class TextSlice(NamedTuple):
    """A part of a text, cut between two characters; offsets and sizes are bytes."""

    text: str
    #: The offset of what follows it.
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
        """Take what reads the slice at an offset, and the bytes of all of it."""
        self._read = read
        self._clock = clock
        self._sleep = sleep
        self.size = size

    def __iter__(self) -> Iterator[str]:
        """Yield its slices; each is read when it is asked for.

        Raises:
            StoreUnavailable: Redis was away for too long, or has another text by now.
        """
        place = 0
        while place < self.size:
            found = self._patiently(place)
            if found.size != self.size or found.end == place:
                raise StoreUnavailable("the text is not the one that was begun")
            place = found.end
            yield found.text

    def _patiently(self, place: int) -> TextSlice:
        end = self._clock() + OUTAGE_SECONDS
        while True:
            try:
                return self._read(place)
            except StoreUnavailable:
                if self._clock() > end:
                    raise
                self._sleep(PAUSE)
