"""The checks of a deployment in their order. Importing them loads the product."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

from bootstrap.container import Container
from bootstrap.probes import clock_window
from config.settings import Settings
from tools._doctor.askers import check_askers
from tools._doctor.callback import callback_urls, check_callback
from tools._doctor.checks import Look
from tools._doctor.dify import check_dify
from tools._doctor.directory import check_directory
from tools._doctor.long_connection import check_long_connection
from tools._doctor.redis import check_batch_redis, check_redis
from tools._doctor.settings import providers
from tools._doctor.sql import check_sql
from tools._doctor.users import check_auth_api, check_users


def checks(settings: Settings, container: Container, options: argparse.Namespace) -> Iterator[tuple[str, Look]]:
    """Yield the checks for these settings. Later checks depend on earlier ones."""
    yield "redis", partial(check_redis, container)
    if container.batches and container.redis_of_batches is not container.redis:
        yield "batch redis", partial(check_batch_redis, container)
    yield "askers", partial(check_askers, container, settings.bots.values())
    if settings.sql_url:
        yield "sql", partial(check_sql, settings, settings.sql_url.get_secret_value())
    yield "users", partial(check_users, settings, container, options.userid, options.corp)
    if settings.auth_mode == "external":
        yield "auth API", partial(check_auth_api, container)
    for name, bot in settings.bots.items():
        if bot.wecom_corp_id:
            yield f"directory {name}", partial(check_directory, name, bot, options.userid)
    for name, provider, bots in providers(settings):
        if provider.rag_provider == "dify":
            yield f"dify {name}", partial(check_dify, name, provider, container.providers[name], clock_window(bots))
    url = options.url or f"http://127.0.0.1:{settings.port}/wechat/callback"
    for name, address in callback_urls(url, settings.bots).items():
        yield f"callback {name}", partial(check_callback, name, settings.bots[name], address)
    for name, bot in settings.bots.items():
        if bot.mode == "websocket":
            yield (
                f"long connection {name}",
                partial(check_long_connection, bot, container.leases, subscribe=options.subscribe),
            )
