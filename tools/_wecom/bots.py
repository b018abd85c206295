"""Reads a bot's keys from the environment and `.env`, without the settings that only a gateway needs."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

from config.bots import DEFAULT_BOT, BotSettings
from config.environment import read_environment, with_files
from config.errors import SettingsError
from config.problems import validated
from config.settings import Settings

PATH = "/wechat/callback"
MISSING = "no keys: set WECHAT_TOKEN and WECHAT_ENCODING_AES_KEY to those of the bot's API settings"


def bot_of(env: Mapping[str, str], name: str, env_file: str | None = ".env") -> BotSettings:
    """Return the default bot, or a named one of `WECHAT_BOTS`.

    Raises:
        SettingsError: there is no such bot, or its keys are missing or wrong.
    """
    given = with_files(read_environment(env, env_file), (field.upper() for field in Settings.model_fields))
    bots = validated(Settings, {key.lower(): value for key, value in given.items() if key.startswith("WECHAT_")}).bots
    bot = bots.get(name)
    if bot is None and name != DEFAULT_BOT:
        raise SettingsError(f"no bot {name}: WECHAT_BOTS has {', '.join(sorted(set(bots) - {DEFAULT_BOT})) or 'none'}")
    if bot is None or not (bot.tokens and bot.aes_keys):
        raise SettingsError(MISSING)
    return bot


def callback_address(url: str, bot: str) -> str:
    """Return the full address of a bot's callback: an address without a path gets the product's."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/") or PATH
    if bot != DEFAULT_BOT and path == PATH:
        path = f"{PATH}/{bot}"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
