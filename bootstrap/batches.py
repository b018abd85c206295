"""Factories of batches: the store, and the manager with its webhooks, from the settings."""

from __future__ import annotations

import os
import socket

from bootstrap.factories import sql_pools
from config.settings import Settings
from config.texts import Texts
from services.answers.gateway import Gateway
from services.batches.archive import BatchArchive
from services.batches.engine import LaneEngine
from services.batches.item import ItemAsker
from services.batches.lanes_store import BatchLanesStore
from services.batches.manager import BatchManager
from services.batches.store import SqlBatchStore
from services.batches.webhooks import Webhooks
from services.http.addresses import AddressRules
from services.http.fetcher import Poster
from services.redis.lock_store import LockStore
from services.redis.store import ScriptRunner
from services.streams.store import StreamStore


def make_batch_store(settings: Settings) -> SqlBatchStore | None:
    """Return the batch store; None without SQL, or if batches are disabled."""
    if not settings.batch_enabled or settings.sql_url is None:
        return None
    return SqlBatchStore(
        settings.sql_url.get_secret_value(),
        max_unfinished=settings.batch_max_queue_size,
        max_per_owner=settings.batch_max_per_key,
        pool_size=sql_pools(settings)[1],
    )


def make_batches(
    settings: Settings,
    store: SqlBatchStore | None,
    gateway: Gateway,
    streams: StreamStore,
    runner: ScriptRunner,
    texts: Texts,
) -> BatchManager | None:
    """Return the manager of the batches in a store; None without one."""
    if store is None:
        return None
    key = settings.secret_key[0].get_secret_value().encode() if settings.secret_key else None
    threads = min(settings.batch_max_concurrent, max(1, settings.stream_max_per_replica // 2))
    lanes = BatchLanesStore(
        runner,
        lanes=settings.batch_max_concurrent,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        stream_ttl=streams.ttl,
    )
    asker = ItemAsker(gateway)
    embedded = settings.batch_worker == "embedded"
    engine = LaneEngine(store, lanes, asker, texts=texts, threads=threads if embedded else 0)
    archive = BatchArchive(
        store,
        LockStore(runner),
        folder=settings.batch_storage_path,
        retention_days=settings.batch_retention_days,
    )
    webhooks = Webhooks(store, Poster(AddressRules(settings.webhook_hosts)), key)
    return BatchManager(store, lanes, streams, asker, engine=engine, archive=archive, webhooks=webhooks)


def batches_mode(settings: Settings) -> str:
    """Return for the log where batches are processed: embedded, external, or off with the reason."""
    if not settings.batch_enabled:
        return "off"
    return settings.batch_worker if settings.sql_url else "off: they need MYSQL_HOST or DATABASE_PATH"
