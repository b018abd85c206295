"""What an app says before the first question, kept for a while: pages ask for it each time they are opened."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from services.errors import ProviderError
from services.providers.base import BaseRAGProvider, Opening
from utils.markdown.plain import plain_line

log = logging.getLogger(__name__)

#: Seconds for which an opening counts, and until a provider that failed is asked again.
KEPT_SECONDS, FAILED_SECONDS = 300.0, 30.0
#: Characters of a statement; questions, and the characters of each.
STATEMENT_CHARACTERS, MAX_QUESTIONS, QUESTION_CHARACTERS = 4000, 10, 200


class KeptOpening:
    """The opening of one provider. Thread-safe."""

    def __init__(self, provider: BaseRAGProvider, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._provider = provider
        self._clock = clock
        self._lock = threading.Lock()
        self._opening = Opening()
        self._asks_from = -float("inf")

    def current(self) -> Opening:
        """Return the opening, bounded; the last known one, or an empty one, where the provider fails."""
        if self._provider.opening is None:
            return self._opening
        # The provider's own timeout bounds the wait: those who waited find it fresh.
        with self._lock:
            if self._clock() >= self._asks_from:
                self._opening, kept = self._asked(self._provider.opening)
                self._asks_from = self._clock() + kept
            return self._opening

    def _asked(self, opening: Callable[[], Opening]) -> tuple[Opening, float]:
        """Return the opening, and the seconds for which it counts."""
        try:
            return _bounded(opening()), KEPT_SECONDS
        except ProviderError as exc:
            log.info("no opening", extra={"provider": self._provider.name, "code": exc.code, "cause": str(exc)})
        except Exception:  # a plug-in may raise any exception
            log.exception("no opening", extra={"provider": self._provider.name})
        return self._opening, FAILED_SECONDS


def _bounded(opening: Opening) -> Opening:
    lines = dict.fromkeys(line for one in opening.questions if (line := plain_line(one, QUESTION_CHARACTERS)))
    return Opening(opening.statement.strip()[:STATEMENT_CHARACTERS], tuple(lines)[:MAX_QUESTIONS])
