"""Times and days as options name them, in the zone of REPORT_TZ."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

EXPECTED = "expected a day (2026-11-24), a time (2026-11-24T08:00), or a span until now (30m, 12h, 7d)"
_SPAN = re.compile(r"(\d{1,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def moment(text: str, now: datetime, *, end: bool = False) -> datetime:
    """Return the time that a text names, in the zone of `now`; of a day its begin, with `end` that of the next one.

    Raises:
        ValueError: it names no time.
    """
    if span := _SPAN.fullmatch(text):
        return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        if len(text) <= len("2026-11-24"):
            day = date.fromisoformat(text) + timedelta(days=1 if end else 0)
            return datetime(day.year, day.month, day.day, tzinfo=now.tzinfo)
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ValueError(EXPECTED) from None
    return found if found.tzinfo else found.replace(tzinfo=now.tzinfo)


def now_in(zone: ZoneInfo) -> datetime:
    return datetime.now(zone)
