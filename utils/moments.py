"""Moments as text, everywhere the same."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_text(moment: datetime | None) -> str | None:
    """Return an aware time as ISO 8601 in UTC, with milliseconds and Z; None stays that."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
