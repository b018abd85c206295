"""The whole configuration, read once into a frozen object. No other module of the product reads the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from zoneinfo import ZoneInfo

from pydantic import PrivateAttr, Secret, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from config import rules
from config.addresses import on_cluster, redis_address, sql_address
from config.apps import app_problems, named_app
from config.bots import DEFAULT_BOT, BotSettings, bot_settings, name_problems, named_bot
from config.environment import FILE, read_environment, unknown_names, with_files
from config.fields import Group, named_key
from config.groups import (
    AuthSettings,
    BatchSettings,
    HttpSettings,
    LogSettings,
    MoreWeComSettings,
    ProviderSettings,
    RedisSettings,
    ServerSettings,
    SocketSettings,
    SqlSettings,
    StreamSettings,
    TraceSettings,
    UsageSettings,
    WeComSettings,
)
from config.problems import Invalid, Problem, validated
from config.texts import check_overrides


class Settings(
    # Pydantic orders fields from the last base to the first, so this list is the order of `demo.env` reversed.
    TraceSettings,
    LogSettings,
    UsageSettings,
    BatchSettings,
    SocketSettings,
    StreamSettings,
    HttpSettings,
    ProviderSettings,
    AuthSettings,
    SqlSettings,
    RedisSettings,
    MoreWeComSettings,
    WeComSettings,
    ServerSettings,
    BaseSettings,
):
    """Every variable as an attribute with its name in lower case; values derived from several are properties."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    #: Warnings for the log: unknown names, and settings that have no effect.
    _warnings: tuple[str, ...] = PrivateAttr(())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use only the values that `load_settings` passes, so that pydantic never reads the environment itself."""
        return (init_settings,)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._warnings

    @property
    def on_redis_cluster(self) -> bool:
        return on_cluster(self.redis_url)

    @property
    def redis_address(self) -> SecretStr:
        """The Redis URL with password and database; built from the other variables if `REDIS_URL` is empty."""
        return redis_address(self)

    @property
    def sql_url(self) -> SecretStr | None:
        """The SQLAlchemy URL of MySQL or of the SQLite file; `None` if there is no database."""
        return sql_address(self, self.mysql_host)

    @property
    def sql_read_url(self) -> SecretStr | None:
        """The SQLAlchemy URL for the user query: the read replica, or the same as `sql_url`."""
        return sql_address(self, self.mysql_read_host or self.mysql_host)

    @cached_property
    def report_zone(self) -> ZoneInfo:
        """The time zone of `REPORT_TZ`."""
        return ZoneInfo(self.report_tz)

    @cached_property
    def provider(self) -> ProviderSettings:
        """The provider of bots without provider settings of their own, and of channels without a bot."""
        return ProviderSettings.model_validate(_part(self, ProviderSettings))

    @cached_property
    def bots(self) -> Mapping[str, BotSettings]:
        """Every bot by name. "default" has the top-level `WECHAT_*` variables.

        There is no default bot if none of its keys is set and `WECHAT_BOTS` or sockets are configured.
        """
        wecom = WeComSettings.model_validate(_part(self, WeComSettings))
        named = self.wechat_bots.get_secret_value()
        bots = {}
        given_one = wecom.wechat_token or wecom.wechat_encoding_aes_key or wecom.wechat_bot_id
        if given_one or not (named or self.sockets_chosen):
            bots[DEFAULT_BOT] = bot_settings(DEFAULT_BOT, wecom, self.provider)
        for name, given in named.items():
            bots[name] = named_bot(name, given, wecom, self.provider)
        return MappingProxyType(bots)

    @cached_property
    def app_providers(self) -> Mapping[str, ProviderSettings]:
        """The provider settings of each app of `APPS`."""
        return {name: named_app(name, given, self.provider) for name, given in self.apps.get_secret_value().items()}

    @property
    def sockets_chosen(self) -> bool:
        """Whether access to sockets is configured; the gateway may then run without a WeCom bot."""
        return bool(self.api_keys) or self.websocket_auth != "key"

    @property
    def administrators(self) -> tuple[tuple[str, str, str], ...]:
        """Name, role and token of each administrator; the one of `ADMIN_TOKEN` has its name and every right."""
        named = (tuple(entry.get_secret_value().split(":", 2)) for entry in self.admin_tokens)
        one = [("ADMIN_TOKEN", "admin", self.admin_token.get_secret_value())] if self.admin_token else []
        return (*one, *((name, role, token) for name, role, token in named))

    @cached_property
    def texts_overrides(self) -> Mapping[str, str]:
        """The validated sentences of `TEXTS_FILE`; empty if it is not set."""
        return check_overrides(_read_object(self.texts_file)) if self.texts_file else {}

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """Every configured secret, for masking in logs."""
        providers = (*(bot.provider for bot in self.bots.values()), *self.app_providers.values())
        holders: list[Group] = [self, *providers, *self.bots.values()]
        fields = (getattr(holder, field) for holder in holders for field in type(holder).model_fields)
        keys = (key for bot in self.bots.values() for key in (*bot.tokens, *bot.aes_keys, *bot.secrets))
        tokens = [token for *_, token in self.administrators]
        tokens += [named_key(key.get_secret_value())[1] for key in self.api_keys]
        return tuple({*keys, *tokens, *(text for value in fields for text in _secret_texts(value))} - {""})


def load_settings(env: Mapping[str, str] | None = None, env_file: str | None = ".env") -> Settings:
    """Read and check the configuration: environment variables override those of the `.env` file, if it exists.

    `NAME_FILE` names a file that holds the value of `NAME`.
    `env` replaces the process's environment; `env_file=None` reads no file.

    Raises:
        SettingsError: a value is missing or wrong; the message is one line with the variable, its value and the
            expected value.
    """
    known = [field.upper() for field in Settings.model_fields]
    given = with_files(read_environment(os.environ if env is None else env, env_file), known)
    settings = validated(Settings, {name.lower(): given[name] for name in known if name in given})
    _check(settings)
    names = [*known, *(name + FILE for name in known)]
    settings._warnings = (*unknown_names(given, names), *rules.warnings(settings))
    return settings


def _check(settings: Settings) -> None:
    # Bot names first: `settings.bots`, which the rules check, can only be built from valid names.
    for find in (_misnamed, rules.problems):
        if found := list(find(settings)):
            raise Invalid(found)
    _ = settings.texts_overrides


def _misnamed(settings: Settings) -> Iterator[Problem]:
    for name, given in settings.wechat_bots.get_secret_value().items():
        yield from name_problems(name, given)
    for name, given in settings.apps.get_secret_value().items():
        yield from app_problems(name, given)


def _part(settings: Settings, group: type[Group]) -> dict[str, Any]:
    return {field: getattr(settings, field) for field in group.model_fields}


def _read_object(path: str) -> Mapping[str, Any]:
    expected = 'a UTF-8 file with a JSON object {"key": "sentence"}'
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as exc:
        raise Invalid([Problem("TEXTS_FILE", path, f"{expected} ({exc})")]) from exc
    if not isinstance(content, dict):
        raise Invalid([Problem("TEXTS_FILE", path, expected)])
    return content


def _secret_texts(value: Any) -> Iterator[str]:
    """Yield the secret texts in a field's value, including passwords in URLs; nothing for a field without secrets."""
    match value:
        case SecretStr():
            text = value.get_secret_value()
            yield text
            if "://" in text:
                parts = urlsplit(text)
                yield unquote(parts.password or "")
                yield from (
                    value for name, value in parse_qsl(parts.query) if name == "key" or name.endswith("password")
                )
        case Secret():
            yield from (text for text in value.get_secret_value().values() if isinstance(text, str))
        case tuple():
            yield from (item.get_secret_value() for item in value if isinstance(item, SecretStr))
