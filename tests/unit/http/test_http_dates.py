"""Retry-After headers in both forms, seconds and date; the Date header compared with this machine's clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.http.service import LONGEST, retry_after, seconds_ahead

#: 21 Oct 2015 07:28:00 GMT, the date of RFC 9110's example.
DATE, SECONDS = "Wed, 21 Oct 2015 07:28:00 GMT", 1445412480.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        (" 30 ", 30.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("601", LONGEST),
        ("9" * 5000, LONGEST),
        ("", 0.0),
        (None, 0.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("nan", 0.0),
        ("1e3", 0.0),
        ("٣٠", 0.0),
        ("30, 60", 0.0),
    ],
)
def test_seconds_are_limited_to_ten_minutes(value: str | None, seconds: float) -> None:
    """A value that is no number of seconds gives 0.0."""
    assert retry_after(value, now=SECONDS) == seconds


@pytest.mark.parametrize(
    ("now", "seconds"), [(SECONDS - 30, 30.0), (SECONDS, 0.0), (SECONDS + 5, 0.0), (SECONDS - 86400, LONGEST)]
)
@pytest.mark.parametrize("date", [DATE, "Wed, 21 Oct 2015 07:28:00 +0000", "Wednesday, 21-Oct-15 07:28:00 GMT"])
def test_a_date_gives_the_seconds_until_it(date: str, now: float, seconds: float) -> None:
    """Older date formats are accepted; a date in the past gives 0.0."""
    assert retry_after(date, now=now) == seconds


def test_a_date_is_measured_by_the_servers_own_clock() -> None:
    """With a valid Date header, an error of this machine's clock does not matter; without one, its clock is used."""
    assert retry_after(DATE, now=SECONDS + 3600, date="Wed, 21 Oct 2015 07:27:30 GMT") == 30.0
    assert retry_after(DATE, now=SECONDS - 7, date="nonsense") == 7.0


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_header_gives_a_wait_within_the_limits(value: str, date: str) -> None:
    """For any text the wait is between 0.0 and LONGEST."""
    assert 0.0 <= retry_after(value, now=SECONDS, date=date) <= LONGEST


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
