"""The report of /health, and its probes: each is True while a dependency works, and takes one round trip at most."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Protocol

from config.bots import DEFAULT_BOT, BotSettings
from config.settings import Settings
from services.batches.archive import writable
from services.batches.manager import BatchManager
from services.errors import ProviderError, StoreRefused, StoreUnavailable
from services.identity.auth_service import AuthService
from services.ops.health import Health, Probe
from services.providers.base import BaseRAGProvider
from services.redis.store import ScriptRunner
from services.rules.rules_file import RulesFiles
from services.wecom.long_connection.lease_store import LeaseStore
from services.wecom.long_connection.protocol import WRONG_SECRET

log = logging.getLogger(__name__)

#: Descriptions of a lease's `problem` in /health; other codes are shown unchanged.
PROBLEMS = {str(WRONG_SECRET): f"wrong WECHAT_BOT_ID or WECHAT_BOT_SECRET ({WRONG_SECRET})"}
#: Seconds by which the clocks may differ if every bot's WECHAT_TIMESTAMP_WINDOW is 0.
CLOCK_WINDOW = 600.0


class SqlStore(Protocol):
    """A store that can tell whether its database answers: its `check` raises `StoreUnavailable` if not."""

    def check(self) -> None: ...


def make_health(
    settings: Settings,
    runner: ScriptRunner,
    providers: Mapping[str, BaseRAGProvider],
    *,
    stores: Iterable[SqlStore | None],
    auth: AuthService,
    batches: BatchManager | None,
    batch_redis: ScriptRunner | None,
    leases: LeaseStore,
    rules: RulesFiles,
) -> Health:
    """Return the report on all dependencies.

    `stores` are those that use SQL, None where one is off; `batch_redis` is the Redis of batches if it is another one.
    """
    probes: dict[str, Probe] = {
        "redis": probe(runner.ping),
        "clock": clock_probe(runner, providers.values(), clock_window(settings.bots.values())),
    }
    if used := [store for store in stores if store]:
        probes["sql"] = probe(partial(_check_all, used))
    if auth.mode == "external":
        probes["auth"] = probe(auth.check)
    if batches and batch_redis:
        probes["batch_redis"] = probe(batch_redis.ping)
    if batches and settings.batch_storage_path:
        probes["batch_storage"] = folder_probe(settings.batch_storage_path)
    if rules:
        probes["rules"] = lambda: "; ".join(rules.problems) or True
    for bot in settings.bots.values():
        if bot.mode == "websocket":
            probes[f"long_connection:{bot.name}"] = subscription_probe(leases, bot.name)
    default = providers[DEFAULT_BOT]
    search = default.search_provider
    return Health(
        rag=(default.name, lambda: all(provider.health_check() for provider in providers.values())),
        search=(search.name, search.health_check) if search else None,
        batch=probe(batches.check) if batches else None,
        dependencies=probes,
    )


def _check_all(stores: Iterable[SqlStore]) -> None:
    for store in stores:
        store.check()


def probe(check: Callable[[], None]) -> Probe:
    """Return a probe that is True once the check returns, and of a `StoreRefused` returns the cause.

    Any other error of the check goes on to `Health`, which keeps its cause for administrators.
    """

    def run() -> bool | str:
        try:
            check()
        except StoreRefused as exc:
            return f"refused: {exc}"
        return True

    return run


def subscription_probe(leases: LeaseStore, bot: str) -> Probe:
    """Return a probe that is True while a replica holds a bot's long connection, and else returns the cause.

    Without Redis it is True: the probe of Redis reports the outage.
    """

    def run() -> bool | str:
        try:
            state = leases.look(bot)
        except StoreUnavailable:
            return True
        if state.evicted:
            return f"another program runs this bot; then: python -m tools.wecom resume {bot}"
        if state.problem:
            return f"not subscribed: {PROBLEMS.get(state.problem, state.problem)}"
        return state.is_held or "no replica holds the connection"

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
