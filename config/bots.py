"""Settings of the bots at `/wechat/callback` and `/wechat/callback/<name>`, each with its own keys and provider."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, SecretStr

from config.apps import entry_problems, given_fields, named_provider
from config.fields import Group
from config.groups import ProviderSettings, WeComSettings
from config.problems import Problem, validated

DEFAULT_BOT = "default"
#: Values that WeCom issues per bot; a named bot never inherits them from the default bot.
OWN = ("token", "encoding_aes_key", "receive_id", "bot_name", "bot_id", "bot_secret")
#: Keys of a named bot that are not variables.
BOT_FIELDS = ("corp", "api")
#: Settings of WeCom's directory; a bot of another corp, or with any of these, inherits none from the default bot.
DIRECTORY = ("wecom_corp_id", "wecom_contact_secret", "wecom_api_url")

#: Seconds after which an answer's frame is ended by default: WeCom gives it up after 360 and 600.
ANSWER_SECONDS = {"callback": 330, "websocket": 570}


class BotSettings(Group):
    """One bot: its `WECHAT_*` variables without the prefix, and the provider that answers its questions."""

    name: str = DEFAULT_BOT
    #: WeCom corporation of the bot. Bots of the same corp share user identities and tokens.
    corp: str = ""
    #: Whether programs may ask the bot, over HTTP and as a model of the OpenAI endpoint.
    api: bool = False
    tokens: tuple[str, ...] = Field((), repr=False)
    aes_keys: tuple[str, ...] = Field((), repr=False)
    receive_id: str = ""
    bot_name: str = ""
    welcome: str = ""
    mode: str = "callback"
    bot_id: str = ""
    #: The Secrets of the long connection; the first one subscribes.
    secrets: tuple[str, ...] = Field((), repr=False)
    ws_url: str = ""
    ws_retry: float = 0
    ws_frame_seconds: float = 1
    answer_seconds: float = 330
    timestamp_window: float = 600
    thinking: Literal["show", "hide"] = "show"
    progress: bool = False
    sources: bool = False
    suggestions: bool = False
    words_file: str | None = None
    group_conversation: str = "user"
    #: Words that users type → command.
    commands: Mapping[str, str] = {}
    handoff_webhook: SecretStr | None = None
    wecom_corp_id: str = ""
    wecom_contact_secret: SecretStr | None = None
    wecom_api_url: str = "https://qyapi.weixin.qq.com"
    provider: ProviderSettings = ProviderSettings()


def bot_settings(
    name: str, wecom: WeComSettings, provider: ProviderSettings, *, corp: str = "", api: bool = False
) -> BotSettings:
    given = {field.removeprefix("wechat_"): getattr(wecom, field) for field in WeComSettings.model_fields}
    tokens, aes_keys, secrets = (given.pop(field) for field in ("token", "encoding_aes_key", "bot_secret"))
    given["answer_seconds"] = given["answer_seconds"] or ANSWER_SECONDS[wecom.wechat_mode]
    return BotSettings(
        name=name,
        corp=corp,
        api=api,
        tokens=tuple(token.get_secret_value() for token in tokens),
        aes_keys=tuple(key.get_secret_value() for key in aes_keys),
        secrets=tuple(secret.get_secret_value() for secret in secrets),
        provider=provider,
        **given,
    )


def named_bot(name: str, given: Mapping[str, Any], wecom: WeComSettings, provider: ProviderSettings) -> BotSettings:
    """Build a bot of `WECHAT_BOTS`; variables it does not set are inherited from the default bot.

    Raises:
        Invalid: a variable has a wrong value; the message calls it `WECHAT_BOTS: <bot>.<VARIABLE>`.
    """
    where = f"WECHAT_BOTS: {name}."
    own = {key.lower(): value for key, value in given.items() if key not in BOT_FIELDS}
    return bot_settings(
        name,
        validated(WeComSettings, {**_inherited_wecom(wecom, given), **given_fields(WeComSettings, own)}, where),
        named_provider(where, own, provider),
        corp=str(given.get("corp", "")),
        api=given.get("api", False),
    )


def name_problems(name: str, given: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem if the bot's name is invalid, and one for each unknown variable of the bot."""
    groups, expected = (WeComSettings, ProviderSettings), "WECHAT_* and provider variables, corp or api"
    yield from entry_problems("WECHAT_BOTS", "bot", name, given, groups, expected, BOT_FIELDS)
    if not isinstance(given.get("api", False), bool):
        yield Problem("WECHAT_BOTS", f"{name}.api", "true or false")


def _inherited_wecom(wecom: WeComSettings, given: Mapping[str, Any]) -> dict[str, Any]:
    inherited = {field: getattr(wecom, field) for field in WeComSettings.model_fields}
    for name in OWN:
        del inherited[f"wechat_{name}"]
    # In another company's directory the same userid may be another person.
    if given.get("corp") or any(given.get(field.upper()) for field in DIRECTORY):
        for field in DIRECTORY:
            del inherited[field]
    return inherited
