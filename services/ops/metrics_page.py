"""What a scrape gets: rendered once for all that ask at the same time, and for a second after."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from services.ops.metrics_files import MetricsUnavailable

#: Seconds a rendering is good for: two Prometheus servers that scrape side by side cost one.
FRESH_SECONDS = 1.0


class MetricsPage:
    """Renders at most one text at a time; who comes meanwhile gets the same."""

    def __init__(self, render: Callable[[], bytes], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._render = render
        self._clock = clock
        self._lock = threading.Lock()
        self._text: bytes | None = None
        self._until = float("-inf")

    def text(self) -> bytes:
        """Return the metrics in the text format of Prometheus.

        Raises MetricsUnavailable, for as long after a failure as a text would be good: a failure is not tried again by
        everybody who waited for it.
        """
        with self._lock:
            if self._clock() >= self._until:
                self._refresh()
            if self._text is None:
                raise MetricsUnavailable("rendering failed just now")
            return self._text

    def _refresh(self) -> None:
        self._text = None
        try:
            self._text = self._render()
        finally:
            self._until = self._clock() + FRESH_SECONDS
