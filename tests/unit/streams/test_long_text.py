"""A long text in Redis, read in slices: outages are waited through, and a changed text is detected."""

from __future__ import annotations

import pytest

from services.errors import StoreUnavailable
from services.streams.long_text import OUTAGE_SECONDS, LongText, TextSlice
from tests.support.servers.processes import FakeClock

TEXT = "0123456789"


class Source:
    """A text read in slices of four bytes."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.text = TEXT
        #: The clock's time until which reads of the second slice fail.
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


def test_slices_are_read_during_iteration(source: Source) -> None:
    """Each new iteration reads all slices again."""
    text = source.long()

    assert next(iter(text)) == "0123"
    assert source.reads == 1
    assert list(text) == list(text) == ["0123", "4567", "89"]


def test_an_outage_is_waited_through(source: Source, clock: FakeClock) -> None:
    """Readers wait through OUTAGE_SECONDS, as producers do, and then get StoreUnavailable."""
    source.away = clock() + OUTAGE_SECONDS - 1
    assert list(source.long()) == ["0123", "4567", "89"]

    source.away = clock() + OUTAGE_SECONDS + 2
    with pytest.raises(StoreUnavailable):
        list(source.long())


@pytest.mark.parametrize("other", ["", "0123", "0123456789x"])
def test_a_text_that_changed_between_slices_is_an_error(source: Source, other: str) -> None:
    """The text expired, Redis lost a part, or it has another length."""
    slices = iter(source.long())
    next(slices)
    source.text = other

    with pytest.raises(StoreUnavailable):
        next(slices)
