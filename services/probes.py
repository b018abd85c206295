"""What /health asks of each part: a probe is true while the part is well, and costs a round trip or less."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from config.bots import BotSettings
from services.batches.files import writable
from services.errors import LaibaoError, StoreUnavailable
from services.ops.health import Probe
from services.providers.base import BaseRAGProvider
from services.redis.store import ScriptRunner

log = logging.getLogger(__name__)

#: Seconds the clocks may differ where no bot has a window.
CLOCK_WINDOW = 600.0


def probe(check: Callable[[], None]) -> Probe:
    """Return a probe that is true unless the check raises one of our errors."""

    def run() -> bool:
        try:
            check()
        except LaibaoError:
            return False
        return True

    return run


def clock_window(bots: Iterable[BotSettings]) -> float:
    """Return by how many seconds this machine's clock may be wrong before a bot refuses WeCom's callbacks."""
    return min((bot.timestamp_window for bot in bots if bot.timestamp_window), default=CLOCK_WINDOW)


def clock_probe(runner: ScriptRunner, providers: Iterable[BaseRAGProvider], window: float) -> Probe:
    """Return a probe that compares this machine's clock with Redis's and the providers'.

    A part that is away tells nothing of the time, so its probe alone fails.
    """

    def run() -> bool:
        skews = [provider.clock_skew() for provider in providers]
        with suppress(StoreUnavailable):
            skews.append(runner.clock_skew())
        worst = max((abs(skew) for skew in skews if skew is not None), default=0.0)
        if worst > window:
            log.warning("the clocks differ", extra={"seconds": round(worst)})
        return worst <= window

    return run


def folder_probe(folder: str) -> Probe:
    """Return a probe that is true while the files of finished batches can be written."""

    def run() -> bool:
        try:
            writable(folder)
        except OSError as exc:
            log.warning("BATCH_STORAGE_PATH cannot be written to", extra={"cause": str(exc.strerror)})
            return False
        return True

    return run
