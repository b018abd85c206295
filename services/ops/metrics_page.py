"""The text of the metrics page, rendered once for simultaneous scrapes and cached for a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from services.ops.metrics_files import MetricsUnavailable

#: Seconds a rendered text is reused, so that two Prometheus servers cost one rendering.
FRESH_SECONDS = 1.0


class MetricsPage:
    """Render at most one text at a time; requests that arrive meanwhile get the same text."""

    def __init__(self, render: Callable[[], bytes], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._render = render
        self._clock = clock
        self._lock = threading.Lock()
        self._text: bytes | None = None
        self._until = float("-inf")

    def text(self) -> bytes:
        """Return the metrics in Prometheus's text format.

        Raises:
            MetricsUnavailable: rendering failed within the last `FRESH_SECONDS`. Waiting requests do not try again.
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
