"""`Misses`: a stream that Redis lacks may come back until the timeout, and is unknown after it."""

from __future__ import annotations

from services.streams.following import MAX_MISSES, Misses
from tests.support.servers.processes import FakeClock


def test_a_missing_stream_may_come_back_until_the_timeout(clock: FakeClock) -> None:
    """The timeout counts from the first miss."""
    misses = Misses(4.0, clock=clock)

    assert misses.note("s")
    clock.advance(3.9)
    assert misses.note("s")
    clock.advance(0.1)
    assert not misses.note("s")
    assert misses.note("another")


def test_a_stream_that_came_back_gets_the_full_timeout_again(clock: FakeClock) -> None:
    """A stream that was never missed may be forgotten too."""
    misses = Misses(4.0, clock=clock)
    misses.note("s")
    clock.advance(5.0)

    misses.forget("s")
    misses.forget("never missed")

    assert misses.note("s")


def test_the_number_of_misses_is_bounded(clock: FakeClock) -> None:
    """Requests for ever new streams use bounded memory; the oldest miss is dropped first."""
    misses = Misses(4.0, clock=clock)

    for number in range(MAX_MISSES + 1):
        misses.note(str(number))
    clock.advance(5.0)

    assert misses.note("0")
    assert not misses.note(str(MAX_MISSES))
