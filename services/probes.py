"""The probes behind /health. A probe returns True while a dependency works and takes at most one round trip."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from config.bots import BotSettings
from services.batches.files import writable
from services.errors import LaibaoError, ProviderError, StoreUnavailable
from services.ops.health import Probe
from services.providers.base import BaseRAGProvider
from services.redis.store import ScriptRunner

log = logging.getLogger(__name__)

#: Seconds the clocks may differ if no bot has WECHAT_TIMESTAMP_WINDOW.
CLOCK_WINDOW = 600.0


def probe(check: Callable[[], None]) -> Probe:
    """Return a probe that is True unless the check raises a `LaibaoError`."""

    def run() -> bool:
        try:
            check()
        except LaibaoError:
            return False
        return True

    return run


def clock_window(bots: Iterable[BotSettings]) -> float:
    """Return by how many seconds this machine's clock may be wrong before a bot rejects WeCom's callbacks."""
    return min((bot.timestamp_window for bot in bots if bot.timestamp_window), default=CLOCK_WINDOW)


def clock_probe(runner: ScriptRunner, providers: Iterable[BaseRAGProvider], window: float) -> Probe:
    """Return a probe that compares this machine's clock with those of Redis and the providers.

    A dependency that does not answer is skipped here; its own probe reports it.
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
    """Return a probe that is True while the files of finished batches can be written."""

    def run() -> bool:
        try:
            writable(folder)
        except OSError as exc:
            log.warning("BATCH_STORAGE_PATH cannot be written to", extra={"cause": str(exc.strerror)})
            return False
        return True

    return run


def warn_of_missing_inputs(providers: Mapping[str, BaseRAGProvider]) -> None:
    """Warn of each bot's required inputs without a value: a run that lacks one may hang instead of failing."""
    for bot, provider in providers.items():
        with suppress(ProviderError):
            for name in provider.missing_inputs():
                log.warning("the app requires an input that DIFY_INPUTS lacks", extra={"bot": bot, "input": name})
