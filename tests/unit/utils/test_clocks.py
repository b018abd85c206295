"""The `Date` header of a reply is compared with this machine's clock."""

from __future__ import annotations

import pytest

from utils.clocks import seconds_ahead


@pytest.mark.parametrize(
    ("date", "ahead"),
    [
        ("Thu, 01 Jan 1970 00:20:00 GMT", 1200.0),
        ("Thu, 01 Jan 1970 00:20:00 -0000", 1200.0),
        ("Thu, 01 Jan 1970 01:00:00 +0100", 0.0),
        ("", None),
        ("yesterday", None),
        ("Thu, 99 Jan 1970 00:00:00 GMT", None),
    ],
)
def test_a_date_is_compared_with_the_clock(date: str, ahead: float | None) -> None:
    """Dates of any time zone are accepted; an invalid one gives None."""
    assert seconds_ahead(date, clock=lambda: 0.0) == ahead
