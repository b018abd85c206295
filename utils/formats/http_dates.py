"""Read the times in HTTP's headers: the clock of a reply's `Date`, and the seconds to wait of `Retry-After`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime

#: Longest wait in seconds; longer ones are cut to it.
LONGEST = 600.0

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


def retry_after(value: str | None, *, now: float, date: str | None = None) -> float:
    """Return the seconds to wait, at most `LONGEST`; 0.0 if the header is missing or invalid.

    `now` is the time in seconds since 1970. `date` is the reply's Date header: if it is valid, a date in Retry-After is
    measured against it, so that the difference between the two machines' clocks does not matter.
    """
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        # Python refuses to parse very long integers, so only the first digits are used.
        return min(LONGEST, float(text[:32]))
    until, since = _moment(text), _moment(date or "")
    if until is None:
        return 0.0
    return min(LONGEST, max(0.0, until - (now if since is None else since)))


def seconds_ahead(date: str, *, clock: Callable[[], float] = time.time) -> float | None:
    """Return by how many seconds an HTTP `Date` header is ahead of the clock; None if it is missing or invalid."""
    moment = _moment(date)
    return None if moment is None else moment - clock()


def _moment(date: str) -> float | None:
    """Return an HTTP date as seconds since 1970; None if it is invalid."""
    try:
        moment = parsedate_to_datetime(date.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
