"""A long text in Redis, read in slices: outages are waited through, and a changed text is detected."""

from __future__ import annotations

import pytest

from services.errors import StoreUnavailable
from services.streams.long_text import OUTAGE_SECONDS, LongText, TextSlice
from tests.support.servers.processes import FakeClock

TEXT = "0123456789"


class Source:
    """A text with slices of four bytes."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.text = TEXT
        #: Seconds for which Redis is away from the second slice on.
        self.away = 0.0
        self.reads = 0

    def read(self, offset: int) -> TextSlice:
        self.reads += 1
        if offset == 4 and self.clock() < self.away:
            raise StoreUnavailable("away")
        slice = self.text[offset : offset + 4]
        return TextSlice(slice, offset + len(slice), len(self.text))

    def long(self) -> LongText:
        return LongText(self.read, len(TEXT), clock=self.clock, sleep=self.clock.advance)


@pytest.fixture
def source(clock: FakeClock) -> Source:
    return Source(clock)


def test_each_slice_is_read_when_it_is_asked_for(source: Source) -> None:
    """Each new iteration reads all slices again."""
    text = source.long()

    assert next(iter(text)) == "0123"
    assert source.reads == 1
    assert list(text) == list(text) == ["0123", "4567", "89"]


def test_an_outage_is_waited_through(source: Source, clock: FakeClock) -> None:
    """Readers wait as long as producers; then there is an error."""
    source.away = clock() + OUTAGE_SECONDS - 1
    assert list(source.long()) == ["0123", "4567", "89"]

    source.away = clock() + OUTAGE_SECONDS + 2
    with pytest.raises(StoreUnavailable):
        list(source.long())


@pytest.mark.parametrize("other", ["", "0123", "0123456789x"])
def test_another_text_is_not_taken_for_it(source: Source, other: str) -> None:
    """A text that expired, or of which Redis lost a part, is an error."""
    slices = iter(source.long())
    next(slices)
    source.text = other

    with pytest.raises(StoreUnavailable):
        next(slices)
