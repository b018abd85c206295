"""Count events against a limit of a minute and of an hour."""

from __future__ import annotations

from collections import deque

from demo.wecom.long_connection.commands import PER_HOUR, PER_MINUTE


class SlidingLimit:
    """The limits over the last 60 and 3600 seconds, of one chat or of one bot's uploads."""

    def __init__(self, per_minute: int = PER_MINUTE, per_hour: int = PER_HOUR) -> None:
        self._limits = (60.0, per_minute), (3600.0, per_hour)
        self._times: deque[float] = deque()

    def take(self, now: float) -> bool:
        """Count an event unless a limit is reached; return whether it was counted."""
        while self._times and self._times[0] <= now - 3600:
            self._times.popleft()
        if any(sum(time > now - span for time in self._times) >= most for span, most in self._limits):
            return False
        self._times.append(now)
        return True
