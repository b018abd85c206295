"""`python -m tools.doctor`: finds problems of a deployment and prints their remedies.

Reads the settings as the product does, then checks Redis, SQL, the user query, the auth API, and every bot's access to
WeCom's directory, Dify app, and callback address or long connection, in this order, each for at most ten seconds.
Prints one line per check and never a secret; `off` is what the settings leave out.
Exit status: 0 no check failed (there may be warnings), 1 a check failed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial

from bootstrap.container import Container
from bootstrap.probes import clock_window
from config.apps import provider_name
from config.bots import BotSettings
from config.errors import SettingsError
from config.groups import ProviderSettings
from config.logging import MASK, SHORTEST_SECRET
from config.settings import Settings, load_settings
from services.batches.archive import writable
from tools._doctor.askers import check_askers
from tools._doctor.callback import callback_urls, check_callback
from tools._doctor.checks import Finding, Look, findings
from tools._doctor.dify import check_dify
from tools._doctor.directory import check_directory
from tools._doctor.long_connection import check_long_connection
from tools._doctor.redis import check_batch_redis, check_redis
from tools._doctor.sql import check_sql
from tools._doctor.users import check_auth_api, check_users
from tools._pipes import until_nobody_reads
from utils.printable import as_json, printable


def main(argv: Sequence[str] | None = None, *, load: Callable[[], Settings] = load_settings) -> int:
    """Print the report; return the exit status."""
    options = _options(argv)
    # Suppress log lines during the checks: the report has the same facts.
    logging.getLogger().addHandler(logging.NullHandler())
    found = []
    for finding in diagnose(options, load):
        found.append(finding)
        if not options.json:
            print(printable(str(finding)), flush=True)
    failed = [finding for finding in found if finding.outcome == "failed"]
    if options.json:
        print(as_json({"ok": not failed, "findings": [asdict(f) for f in found]}, indent=2))
    else:
        counts = Counter(finding.outcome for finding in found)
        summary = f"{counts['ok']} ok, {counts['off']} off, {counts['warning']} to look at, {counts['failed']} failed"
        print(f"{len(found)} checks: {summary}")
    return 1 if failed else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.doctor", description="Say what is wrong with a deployment.")
    parser.add_argument("--userid", default="", help="WeCom's userid of a user to look up")
    parser.add_argument("--corp", default="", help="the corp of that user, if bots have one")
    parser.add_argument("--url", default="", help="the callback's public address; else this machine's port")
    parser.add_argument(
        "--subscribe",
        action="store_true",
        help="try BotID and Secret of bots that no replica runs; ends the connection of another program that runs one",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    return parser.parse_args(argv)


def diagnose(options: argparse.Namespace, load: Callable[[], Settings]) -> Iterator[Finding]:
    """Yield every finding as soon as it is made, with all secrets masked."""
    try:
        settings = load()
        container = Container(settings)
    except (SettingsError, ValueError) as exc:
        remedy = "correct the setting in the environment or in .env, or the file that it names"
        yield Finding("settings", "failed", str(exc), remedy)
        return
    try:
        yield from _masked(_settings(settings), settings.secrets)
        for name, look in checks(settings, container, options):
            yield from _masked(findings(name, look), settings.secrets)
    finally:
        container.close()


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
    for name, provider, bots in _providers(settings):
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


def _providers(settings: Settings) -> Iterator[tuple[str, ProviderSettings, Sequence[BotSettings]]]:
    """Yield the name and the settings of each provider, with the bots that may ask it."""
    for name, bot in settings.bots.items():
        yield name, bot.provider, (bot,)
    for name, provider in settings.app_providers.items():
        yield provider_name("", name), provider, tuple(settings.bots.values())


def _settings(settings: Settings) -> Iterator[Finding]:
    who = ", ".join(f"{name} by {provider.rag_provider}" for name, provider, _ in _providers(settings))
    yield Finding("settings", "ok", f"bots: {who}; auth: {settings.auth_mode}; workers: {settings.workers}")
    if settings.log_dir:
        yield _folder("logs", "LOG_DIR", settings.log_dir, "the start stops")
    if settings.batch_enabled and settings.batch_storage_path:
        yield _folder("batch files", "BATCH_STORAGE_PATH", settings.batch_storage_path, "finished batches have no file")
    for warning in settings.warnings:
        yield Finding("settings", "warning", warning)
    yield from _off(settings)


def _off(settings: Settings) -> Iterator[Finding]:
    """Yield what these settings leave out, and the setting that brings it."""
    if not settings.sockets_chosen:
        text = "no API_KEYS: HTTP, sockets and the pages refuse everybody"
        yield Finding("HTTP and sockets", "off", text, "set API_KEYS to a long random text (openssl rand -hex 24)")
    if not settings.batch_enabled:
        yield Finding("batches", "off", "BATCH_ENABLED=false", "set it to true")
    elif settings.sql_url is None:
        text = "neither MYSQL_HOST nor DATABASE_PATH: no batches, and ratings go to the provider only"
        yield Finding("batches", "off", text, "set MYSQL_HOST, or DATABASE_PATH on one machine")
    if settings.sql_url is None:
        text = "neither MYSQL_HOST nor DATABASE_PATH: who asked what, and what it cost, is not stored"
        yield Finding("question log", "off", text, "set MYSQL_HOST, or DATABASE_PATH on one machine")
    elif settings.question_log == "off":
        yield Finding("question log", "off", "QUESTION_LOG=off; usage is counted", "set it to meta or full")
    if not settings.secret_key:
        text = "not set: keys are derived from the bots' own; changing those loses tokens and conversations"
        yield Finding(
            "SECRET_KEY", "off", text, "set SECRET_KEY to a long random text; what is sealed already stays readable"
        )
    if not settings.administrators:
        text = "no ADMIN_TOKEN or ADMIN_TOKENS: administrators' addresses, and /metrics without an OPS_PORT, are 404"
        yield Finding("administration", "off", text, "set ADMIN_TOKEN to a long random text")


def _folder(check: str, setting: str, folder: str, otherwise: str) -> Finding:
    """Check that a folder can be written to. A missing folder is not created here; the product creates it."""
    try:
        writable(folder)
    except OSError as exc:
        text = f"{folder} cannot be written to ({exc.strerror}): {otherwise}"
        return Finding(check, "failed", text, f"let this user write there, correct {setting}, or leave it empty")
    return Finding(check, "ok", f"{folder} can be written to")


def _masked(found: Iterable[Finding], secrets: Iterable[str]) -> Iterator[Finding]:
    """Mask secrets in findings: a database's error message may quote a password."""
    long = sorted((secret for secret in secrets if len(secret) >= SHORTEST_SECRET), key=len, reverse=True)
    for finding in found:
        text = finding.text
        for secret in long:
            text = text.replace(secret, MASK)
        yield Finding(finding.check, finding.outcome, text, finding.remedy)


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
