"""Parse HTTP's Retry-After header, a number of seconds or a date, into seconds to wait."""

from __future__ import annotations

import re
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


def _moment(date: str) -> float | None:
    """Return an HTTP date as seconds since 1970; None if it is invalid."""
    try:
        moment = parsedate_to_datetime(date.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
