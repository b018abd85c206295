"""The types of settings: they turn a variable's text into a value, and describe the expected value on failure.

The text of each `ValueError` completes the sentence "NAME='value' is wrong: expected …".
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
import socket
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Secret, SecretStr

from config.addresses import parse_redis_url
from utils.questions.commands import CommandName, CommandWords, command_words

#: Placeholders that the templates DIFY_INPUTS and CUSTOM_RAG_INPUTS may contain.
INPUT_NAMES = (
    *("user_code", "user_name", "gender", "token", "time_info"),
    *("userid", "name", "department", "chatid", "chattype", "bot", "msgid"),
)

#: Headers and JSON fields that the product's own requests set, so that OPENAI_HEADERS and OPENAI_BODY must not.
_OWN_HEADERS = (
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
)
_OWN_FIELDS = ("messages", "model", "stream")

_HEADER = re.compile(r"[A-Za-z0-9_-]+")
#: Minimum length of SECRET_KEY in characters: an attacker who can read Redis can try keys offline without limit.
SECRET_KEY_LENGTH = 16

_RATE = re.compile(r"\d+ ?(/|per) ?(\d+ ?)?(second|minute|hour|day)s?")
#: A host name, a host name with a leading dot, or an IPv4 or IPv6 address.
_HOST = re.compile(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]*:[0-9a-f:.]*:[0-9a-f.]*")
#: Size of a WeCom frame in bytes; a smaller STREAM_MAX_BYTES would cut answers before a frame is full.
FRAME_BYTES = 20_480
#: Shortest lease in seconds. The owner renews after each third of it, and one slow round trip to Redis must not let
#: the lease expire.
SHORTEST_LEASE = 2
#: Minimum length of ADMIN_TOKEN in characters; a shorter one can be guessed.
SHORTEST_TOKEN = 8

#: SQL comments, and the start of a query that only reads.
_SQL_COMMENT = re.compile(r"--[^\n]*|#[^\n]*|/\*.*?\*/", re.DOTALL)
_SQL_QUERY = re.compile(r"[\s(]*(SELECT\b|WITH\b.*\bSELECT\b)", re.DOTALL | re.IGNORECASE)
_PROVIDER = re.compile(r"[A-Za-z0-9_-]+|[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Group(BaseModel):
    """A frozen set of settings. Validation errors never quote the input, because it may be secret."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


def setting(default: Any, meaning: str) -> Any:
    """Declare one variable with its default; `meaning` is one line that includes the unit."""
    return Field(default, description=meaning)


def _list(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not value.startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    return _json(value, list, "a list: comma-separated or JSON")


def _object(value: Any) -> Any:
    return _json(value, dict, "a JSON object") if isinstance(value, str) else value


def _json(text: str, kind: type, expected: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise ValueError(f"{expected} ({exc})") from exc
    if not isinstance(value, kind):
        raise ValueError(expected)
    return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _base_url(url: str) -> str:
    """Check a URL and return it unchanged: a slash at its end is significant (see OPENAI_BASE_URL)."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an address like https://host.example/path")
    if parts.username or parts.password:
        raise ValueError("an address without a user and password in it")
    return url


def _http_url(url: str) -> str:
    return _base_url(url).rstrip("/")


def _secret_url(url: SecretStr) -> SecretStr:
    _base_url(url.get_secret_value())
    return url


def _origin(origin: str) -> str:
    parts = urlsplit(_http_url(origin))
    if parts.path or parts.query:
        raise ValueError("origins like https://chat.example.com, without a path")
    return f"{parts.scheme}://{parts.netloc}"


def _host_pattern(name: str) -> str:
    bare = name.strip("[]").lower()
    if not _HOST.fullmatch(bare):
        raise ValueError("names of hosts without scheme and port, such as chat.example.com or .example.com")
    return bare


def _redis_url(url: SecretStr) -> SecretStr:
    parse_redis_url(url.get_secret_value())
    return url


def _path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("a path that begins with /")
    return path


def _aes_key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    try:
        fits = len(text) == 43 and len(base64.b64decode(text + "=", validate=True)) == 32
    except (binascii.Error, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"the 43 letters and digits that WeCom's console shows as EncodingAESKey, got {len(text)}")
    return key


def _secret_key(key: SecretStr) -> SecretStr:
    if (length := len(key.get_secret_value())) < SECRET_KEY_LENGTH:
        raise ValueError(f"at least {SECRET_KEY_LENGTH} random characters in each, got {length}")
    return key


def _rate(rate: str) -> str:
    if rate == "off":
        return ""
    if not all(_RATE.fullmatch(part.strip()) for part in rate.split(";")):
        raise ValueError("a rate like 20/minute or 5/second;100/hour, or off")
    return rate


def _provider_name(name: str) -> str:
    if not _PROVIDER.fullmatch(name):
        raise ValueError("a provider's name, or an import path like package.module:Class")
    return name if ":" in name else name.lower()


def _template(inputs: dict[str, Any]) -> dict[str, Any]:
    named = re.findall(r"\{(\w+)\}", json.dumps(inputs))
    unknown = sorted(set(named) - set(INPUT_NAMES))
    if unknown:
        known = " ".join(f"{{{name}}}" for name in INPUT_NAMES)
        raise ValueError(f"a JSON object with no other placeholders than {known}, got {{{unknown[0]}}}")
    return inputs


def _request_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if name.lower() in _OWN_HEADERS:
            raise ValueError(f"headers other than {name!r}")
        if not _HEADER.fullmatch(name) or not (value.isascii() and value.isprintable()):
            raise ValueError(f"headers that can be sent, not {name!r}")
    return headers


def _request_fields(fields: dict[str, Any]) -> dict[str, Any]:
    for name in _OWN_FIELDS:
        if name in fields:
            raise ValueError(f"fields other than {name}, which is not for this setting")
    try:
        json.dumps(fields, allow_nan=False)
    except ValueError as exc:
        raise ValueError("a JSON object without NaN and Infinity") from exc
    return fields


def _user_query(query: str) -> str:
    if ":userid" not in query:
        raise ValueError("SQL with :userid in it")
    if not _SQL_QUERY.match(_SQL_COMMENT.sub(" ", query)):
        raise ValueError("a SELECT (WITH … SELECT is one too)")
    return query


def _host(host: str) -> str:
    """Check a host and return it without the brackets of an IPv6 address."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not _is_host(bare):
        raise ValueError("a host name or an IP address alone: its port is a variable of its own")
    return bare


def _is_host(host: str) -> bool:
    try:
        if ":" in host:
            ipaddress.IPv6Address(host)
        elif re.fullmatch(r"[\d.]+", host):
            socket.inet_aton(host)
    except (OSError, ValueError):
        return False
    return ":" in host or re.fullmatch(r"[\w.-]*", host) is not None


def _api_key(key: SecretStr) -> SecretStr:
    if re.search(r"\s", key.get_secret_value()):
        raise ValueError("the key alone, without Bearer before it or any space in it")
    return key


def _admin_token(token: SecretStr) -> SecretStr:
    if (length := len(token.get_secret_value())) < SHORTEST_TOKEN:
        raise ValueError(f"at least {SHORTEST_TOKEN} characters, got {length}")
    return token


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
WholeSeconds = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=1)]
AnswerBytes = Annotated[int, Field(ge=FRAME_BYTES)]
LeaseSeconds = Annotated[float, Field(ge=SHORTEST_LEASE, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=1, le=65535)]

Names = Annotated[tuple[str, ...], BeforeValidator(_list)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host_pattern)], ...], BeforeValidator(_list)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_list)]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_list)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]
ApiKeys = Annotated[tuple[ApiKey, ...], BeforeValidator(_list)]
AdminToken = Annotated[SecretStr, AfterValidator(_admin_token)]
SecretKeys = Annotated[tuple[Annotated[SecretStr, AfterValidator(_secret_key)], ...], BeforeValidator(_list)]
AesKeys = Annotated[tuple[Annotated[SecretStr, AfterValidator(_aes_key)], ...], BeforeValidator(_list)]

Commands = Annotated[
    dict[str, Annotated[CommandName, BeforeValidator(_lower)]],
    BeforeValidator(command_words),
    AfterValidator(CommandWords),
]
Inputs = Annotated[dict[str, Any], BeforeValidator(_object), AfterValidator(_template)]
Headers = Annotated[Secret[dict[str, str]], BeforeValidator(_object)]
RequestHeaders = Annotated[
    Secret[Annotated[dict[str, str], AfterValidator(_request_headers)]], BeforeValidator(_object)
]
RequestFields = Annotated[dict[str, Any], BeforeValidator(_object), AfterValidator(_request_fields)]
Bots = Annotated[Secret[dict[str, dict[str, Any]]], BeforeValidator(_object)]

Host = Annotated[str, AfterValidator(_host)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
SecretUrl = Annotated[SecretStr, AfterValidator(_secret_url)]
RedisAddress = Annotated[SecretStr, AfterValidator(_redis_url)]
UrlPath = Annotated[str, AfterValidator(_path)]
ProviderName = Annotated[str, AfterValidator(_provider_name)]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Rate = Annotated[str, AfterValidator(_rate)]
UserQuery = Annotated[str, AfterValidator(_user_query)]

Lower = BeforeValidator(_lower)
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)]
