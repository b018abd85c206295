"""What the settings alone say of a deployment: who answers, what is off, which folders can be written to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from config.apps import provider_name
from config.bots import BotSettings
from config.groups import ProviderSettings
from config.settings import Settings
from tools._doctor.checks import Finding


def providers(settings: Settings) -> Iterator[tuple[str, ProviderSettings, Sequence[BotSettings]]]:
    """Yield the name and the settings of each provider, with the bots that may ask it."""
    for name, bot in settings.bots.items():
        yield name, bot.provider, (bot,)
    for name, provider in settings.app_providers.items():
        yield provider_name("", name), provider, tuple(settings.bots.values())


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Yield who answers, what cannot be written, warnings, and what is off."""
    who = ", ".join(f"{name} by {provider.rag_provider}" for name, provider, _ in providers(settings))
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
    # Loads the product; here, since most deployments have neither folder.
    from services.batches.archive import writable

    try:
        writable(folder)
    except OSError as exc:
        text = f"{folder} cannot be written to ({exc.strerror}): {otherwise}"
        return Finding(check, "failed", text, f"let this user write there, correct {setting}, or leave it empty")
    return Finding(check, "ok", f"{folder} can be written to")
