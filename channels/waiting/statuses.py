"""The Retry-After of an answer that was refused or has failed, beside its HTTP status."""

from __future__ import annotations

from math import ceil

from channels.web.errors import status_of_code

#: Retry-After in seconds by HTTP status, and for the rate limit, which counts by the minute.
RETRY_AFTER = {429: 10, 503: 5}
RATE_RETRY_AFTER = 60


def retry_headers(code: str, retry_after: float = 0.0) -> dict[str, str]:
    """Return the header Retry-After of an error's reply, if it has one.

    `retry_after` is the provider's Retry-After in seconds, 0.0 when it sent none.
    """
    seconds = ceil(retry_after) or (
        RATE_RETRY_AFTER if code == "rate_limited" else RETRY_AFTER.get(status_of_code(code))
    )
    return {"Retry-After": str(seconds)} if seconds else {}
