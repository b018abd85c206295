"""Compare another machine's clock with this one's."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime


def seconds_ahead(date: str, *, clock: Callable[[], float] = time.time) -> float | None:
    """Return by how many seconds an HTTP `Date` header is ahead of the clock; None if it is missing or invalid."""
    try:
        told = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        return None
    return told.replace(tzinfo=told.tzinfo or UTC).timestamp() - clock()
