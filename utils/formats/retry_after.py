"""The Retry-After header of HTTP: a number of seconds or a date in, seconds to wait out."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

#: Seconds of the longest wait that is honoured; a service that asks for more is asked again after these.
LONGEST = 600.0

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


def retry_after(value: str | None, *, now: float, date: str | None = None) -> float:
    """Return the seconds a service asks to be left alone, 0.0 where it asks for nothing that can be read.

    `now` is the time in seconds since 1970. `date` is the reply's own Date header: where it can be read, a date is
    measured against it, so that no clock of ours counts.
    """
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        # Only as many digits as matter: Python refuses to read very long whole numbers.
        return min(LONGEST, float(text[:32]))
    until, since = _moment(text), _moment(date or "")
    if until is None:
        return 0.0
    return min(LONGEST, max(0.0, until - (now if since is None else since)))


def _moment(date: str) -> float | None:
    """Return a date of HTTP as seconds since 1970, None where it is none."""
    try:
        moment = parsedate_to_datetime(date.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
