"""The types of settings: they turn a variable's text into a value; the checks of single values are in `config.checks`.

The text of each `ValueError` completes the sentence "NAME='value' is wrong: expected …".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Secret, SecretStr

from config import checks
from utils.questions.commands import CommandName, CommandWords, command_words

#: Size of a WeCom frame in bytes; a smaller STREAM_MAX_BYTES would cut answers before a frame is full.
FRAME_BYTES = 20_480
#: Shortest lease in seconds. The owner renews after each third of it, and one slow round trip to Redis must not let
#: the lease expire.
SHORTEST_LEASE = 2


class Group(BaseModel):
    """A frozen set of settings. Validation errors never quote the input, because it may be secret."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


def setting(default: Any, meaning: str, zh: str) -> Any:
    """Declare one variable with its default, or a function that computes it.

    `meaning` is one line that includes the unit, `zh` the same in Chinese: `python -m tools.settings --write` puts both
    into the documents.
    """
    default = {"default_factory": default} if callable(default) else {"default": default}
    return Field(**default, description=meaning, json_schema_extra={"zh": zh})


def _list(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not value.startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    return _json(value, list, "a list: comma-separated or JSON")


def _names(value: Any) -> Any:
    """Split at the comma of a Chinese keyboard, too."""
    return _list(value.replace("，", ",") if isinstance(value, str) else value)


def _bots(value: Any) -> Any:
    return _json(value, dict, "a JSON object", _each_once) if isinstance(value, str) else value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if twice := [name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1]:
        raise ValueError(f"each name once, got {twice[0]!r} twice")
    return made


def _object(value: Any) -> Any:
    return _json(value, dict, "a JSON object") if isinstance(value, str) else value


def _json(text: str, kind: type, expected: str, pairs_hook: Callable[[list[tuple[str, Any]]], Any] = dict) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=pairs_hook)
    except ValueError as exc:
        raise ValueError(f"{expected} ({exc})") from exc
    if not isinstance(value, kind):
        raise ValueError(expected)
    return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
WholeSeconds = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=1)]
AnswerBytes = Annotated[int, Field(ge=FRAME_BYTES)]
LeaseSeconds = Annotated[float, Field(ge=SHORTEST_LEASE, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=1, le=65535)]

Names = Annotated[tuple[Annotated[str, AfterValidator(checks.typed_name)], ...], BeforeValidator(_names)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(checks.host_pattern)], ...], BeforeValidator(_names)]
Origin = Annotated[str, AfterValidator(checks.origin)]
Origins = Annotated[tuple[Origin, ...], BeforeValidator(_names)]
Token = Annotated[SecretStr, AfterValidator(checks.typed_secret)]
Tokens = Annotated[tuple[Token, ...], BeforeValidator(_list)]
#: An API key with a name before it. The padding of base64 is none.
_NAMED = re.compile(r"([A-Za-z][A-Za-z0-9_.-]{0,63})=([^=].*)", re.DOTALL)
ApiKey = Annotated[SecretStr, AfterValidator(checks.api_key)]
ApiKeys = Annotated[tuple[ApiKey, ...], BeforeValidator(_list)]
AdminToken = Annotated[Token, AfterValidator(checks.admin_token)]
AdminTokens = Annotated[tuple[AdminToken, ...], BeforeValidator(_list)]
NamedAdminTokens = Annotated[
    tuple[Annotated[Token, AfterValidator(checks.named_admin_token)], ...], BeforeValidator(_list)
]
SecretKeys = Annotated[tuple[Annotated[Token, AfterValidator(checks.secret_key)], ...], BeforeValidator(_list)]
AesKeys = Annotated[tuple[Annotated[SecretStr, AfterValidator(checks.aes_key)], ...], BeforeValidator(_list)]

Commands = Annotated[
    dict[str, Annotated[CommandName, BeforeValidator(_lower)]],
    BeforeValidator(command_words),
    AfterValidator(CommandWords),
]
Inputs = Annotated[dict[str, Any], BeforeValidator(_object), AfterValidator(checks.inputs)]
ServiceHeaders = Annotated[
    Secret[Annotated[dict[str, str], AfterValidator(checks.service_headers)]], BeforeValidator(_object)
]
RequestHeaders = Annotated[
    Secret[Annotated[dict[str, str], AfterValidator(checks.request_headers)]], BeforeValidator(_object)
]
OtlpHeaders = Annotated[
    Secret[Annotated[dict[str, str], AfterValidator(checks.request_headers)]], BeforeValidator(checks.otlp_headers)
]
RequestFields = Annotated[dict[str, Any], BeforeValidator(_object), AfterValidator(checks.request_fields)]
Bots = Annotated[Secret[dict[str, dict[str, Any]]], BeforeValidator(_bots)]

Host = Annotated[str, AfterValidator(checks.host)]
HttpUrl = Annotated[str, AfterValidator(checks.http_url)]
BaseUrl = Annotated[str, AfterValidator(checks.base_url)]
WsUrl = Annotated[str, AfterValidator(checks.ws_url)]
SecretUrl = Annotated[SecretStr, AfterValidator(checks.secret_url)]
RedisAddress = Annotated[SecretStr, AfterValidator(checks.redis_url)]
UrlPath = Annotated[str, AfterValidator(checks.url_path)]
ProviderName = Annotated[str, AfterValidator(checks.provider_name)]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Rate = Annotated[str, AfterValidator(checks.rate)]
UserQuery = Annotated[str, AfterValidator(checks.user_query)]

Lower = BeforeValidator(_lower)
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)]


def named_key(entry: str) -> tuple[str, str]:
    """Return the name of an entry of `API_KEYS`, "" for none, and its key."""
    found = _NAMED.fullmatch(entry)
    return (found[1], found[2]) if found else ("", entry)
