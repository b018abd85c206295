"""Checks of single settings: each returns the value, in its final form, or raises `ValueError`.

The text of each error completes the sentence "NAME='value' is wrong: expected …".
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections.abc import Container, Iterable
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from config.addresses import parse_redis_url
from utils.keyring import decode_aes_key

#: A host name, a host name with a leading dot, or an IPv4 or IPv6 address.
_HOST = re.compile(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]*:[0-9a-f:.]*:[0-9a-f.]*")


def base_url(url: str) -> str:
    """Check a URL and return it without surrounding spaces; a slash at its end is significant (see OPENAI_BASE_URL)."""
    url = url.strip()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an address like https://host.example/path")
    if parts.username or parts.password:
        raise ValueError("an address without a user and password in it")
    return url


def http_url(url: str) -> str:
    return base_url(url).rstrip("/")


def ws_url(url: str) -> str:
    if not url.startswith(("ws://", "wss://")):
        raise ValueError("an address like wss://host.example")
    # The same rules as for http:// and https://.
    base_url(f"http{url[2:]}")
    return url


def secret_url(url: SecretStr) -> SecretStr:
    base_url(url.get_secret_value())
    return url


def origin(url: str) -> str:
    parts = urlsplit(http_url(url))
    if parts.path or parts.query:
        raise ValueError("origins like https://chat.example.com, without a path")
    return f"{parts.scheme}://{parts.netloc}"


def host_pattern(name: str) -> str:
    bare = name.strip("[]").lower()
    if not _HOST.fullmatch(bare):
        raise ValueError("names of hosts without scheme and port, such as chat.example.com or .example.com")
    return bare


def host(name: str) -> str:
    """Check a host and return it without the brackets of an IPv6 address."""
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if not _is_host(bare):
        raise ValueError("a host name or an IP address alone: its port is a variable of its own")
    return bare


def _is_host(name: str) -> bool:
    try:
        if ":" in name:
            ipaddress.IPv6Address(name)
        elif re.fullmatch(r"[\d.]+", name):
            socket.inet_aton(name)
    except (OSError, ValueError):
        return False
    return ":" in name or re.fullmatch(r"[\w.-]*", name) is not None


def redis_url(url: SecretStr) -> SecretStr:
    parse_redis_url(url.get_secret_value())
    return url


def url_path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("a path that begins with /")
    return path


#: Placeholders that the templates DIFY_INPUTS and CUSTOM_RAG_INPUTS may contain.
INPUT_NAMES = (
    *("user_code", "user_name", "gender", "token", "time_info"),
    *("userid", "name", "department", "chatid", "chattype", "bot", "msgid", "channel"),
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

#: Characters that a word processor or a Chinese keyboard puts where quotes and commas were meant.
_TYPESET = "，、“”‘’＂＇"

_RATE = re.compile(r"\d+ ?(/|per) ?(\d+ ?)?(second|minute|hour|day)s?")
#: Minimum length of an administrator's token in characters; a shorter one can be guessed.
SHORTEST_TOKEN = 8
#: An entry of ADMIN_TOKENS; what stands before the digest, where a token is not given itself.
_ADMIN = re.compile(r"([A-Za-z0-9._-]{1,64}):(viewer|operator|admin):(.*)", re.DOTALL)
HASHED = "sha256:"

#: SQL comments, and the start of a query that only reads.
_SQL_COMMENT = re.compile(r"--[^\n]*|#[^\n]*|/\*.*?\*/", re.DOTALL)
_SQL_QUERY = re.compile(r"[\s(]*(SELECT\b|WITH\b.*\bSELECT\b)", re.DOTALL | re.IGNORECASE)
_PROVIDER = re.compile(r"[A-Za-z0-9_-]+|[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def aes_key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    try:
        decode_aes_key(text)
    except ValueError:
        expected = f"the 43 letters and digits that WeCom's console shows as EncodingAESKey, got {len(text)}"
        raise ValueError(expected) from None
    return key


def typed_name(name: str) -> str:
    if found := re.search(f'[{_TYPESET}"]', name):
        raise ValueError(f"names without quotes, separated by commas, got {found[0]}")
    return name


def typed_secret(secret: SecretStr) -> SecretStr:
    if found := re.search(f"[{_TYPESET}]", secret.get_secret_value()):
        raise ValueError(f"no quotes or commas of a word processor or a Chinese keyboard, got {found[0]}")
    return secret


def secret_key(key: SecretStr) -> SecretStr:
    if (length := len(key.get_secret_value())) < SECRET_KEY_LENGTH:
        raise ValueError(f"at least {SECRET_KEY_LENGTH} random characters in each, got {length}")
    return key


def admin_token(token: SecretStr) -> SecretStr:
    if (length := len(token.get_secret_value())) < SHORTEST_TOKEN:
        raise ValueError(f"at least {SHORTEST_TOKEN} characters, got {length}")
    return token


def named_admin_token(entry: SecretStr) -> SecretStr:
    found = _ADMIN.fullmatch(entry.get_secret_value())
    if not found:
        raise ValueError("NAME:viewer:TOKEN, NAME:operator:TOKEN or NAME:admin:TOKEN, NAME of letters, digits and ._-")
    if found[3].startswith(HASHED):
        if not re.fullmatch(r"[0-9a-f]{64}", found[3].removeprefix(HASHED)):
            raise ValueError(f"after {HASHED} the 64 hexadecimal digits that tools.admin prints")
    else:
        admin_token(SecretStr(found[3]))
    return entry


def api_key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if re.search(r"\s", text):
        raise ValueError("the key alone, without Bearer before it or any space in it")
    if not (text.isascii() and text.isprintable()):
        raise ValueError("a key of printable ASCII characters")
    return key


def rate(text: str) -> str:
    if text == "off":
        return ""
    if not all(_RATE.fullmatch(part.strip()) for part in text.split(";")):
        raise ValueError("a rate like 20/minute or 5/second;100/hour, or off")
    return text


def provider_name(name: str) -> str:
    if not _PROVIDER.fullmatch(name):
        raise ValueError("a provider's name, or an import path like package.module:Class")
    return name if ":" in name else name.lower()


def inputs(template: dict[str, Any]) -> dict[str, Any]:
    named = re.findall(r"\{(\w+)\}", json.dumps(template))
    unknown = sorted(set(named) - set(INPUT_NAMES))
    if unknown:
        known = " ".join(f"{{{name}}}" for name in INPUT_NAMES)
        raise ValueError(f"a JSON object with no other placeholders than {known}, got {{{unknown[0]}}}")
    return template


def request_headers(headers: dict[str, str]) -> dict[str, str]:
    return _sendable(headers, own=_OWN_HEADERS)


def service_headers(headers: dict[str, str]) -> dict[str, str]:
    """Check CUSTOM_RAG_HEADERS, which may set `Accept` and `Content-Type`, and strip the values."""
    own = set(_OWN_HEADERS) - {"accept", "content-type"}
    return _sendable({name: value.strip() for name, value in headers.items()}, own=own)


def otlp_headers(given: Any) -> Any:
    """Return the headers of OTEL_EXPORTER_OTLP_HEADERS, `NAME=VALUE,…` with percent-encoded values."""
    if not isinstance(given, str):
        return given
    pairs = [pair.partition("=") for pair in given.split(",") if pair.strip()]
    if not all(found for _, found, _ in pairs):
        raise ValueError("NAME=VALUE, several joined by commas")
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}


def _sendable(headers: dict[str, str], *, own: Container[str]) -> dict[str, str]:
    for name, value in headers.items():
        if name.lower() in own:
            raise ValueError(f"headers other than {name!r}")
        if not _HEADER.fullmatch(name) or not (value.isascii() and value.isprintable()):
            raise ValueError(f"headers that can be sent, not {name!r}")
    return headers


def request_fields(fields: dict[str, Any]) -> dict[str, Any]:
    for name in _OWN_FIELDS:
        if name in fields:
            raise ValueError(f"fields other than {name}, which is not for this setting")
    try:
        json.dumps(fields, allow_nan=False)
    except ValueError as exc:
        raise ValueError("a JSON object without NaN and Infinity") from exc
    return fields


def user_query(query: str) -> str:
    if ":userid" not in query:
        raise ValueError("SQL with :userid in it")
    if not _SQL_QUERY.match(_SQL_COMMENT.sub(" ", query)):
        raise ValueError("a SELECT (WITH … SELECT is one too)")
    return query


#: Entry point group in which installed packages register their providers.
GROUP = "wechatlaibao.providers"
RAG_PROVIDERS = ("context", "custom", "dify", "mock", "openai")
SEARCH_PROVIDERS = ("serper",)


def is_provider(name: str, built_in: Iterable[str]) -> bool:
    """Return whether `name` is built in, an entry point, or an import path whose top-level package exists."""
    module, _, attribute = name.partition(":")
    if not attribute:
        return name in built_in or bool(entry_points(group=GROUP, name=name))
    try:
        # Only the top-level package: finding a submodule would import its parent.
        return find_spec(module.partition(".")[0]) is not None
    except ValueError:
        # find_spec raises it for an imported module without a spec, such as __main__; the module exists.
        return True


def expected_providers(built_in: Iterable[str]) -> str:
    """Return the valid names as text for an error message, including those of installed packages."""
    installed = sorted({entry.name for entry in entry_points(group=GROUP)} - set(built_in))
    names = ", ".join([*built_in, *installed])
    return f"{names}, the name of an installed provider, or package.module:Class of a module that can be imported"
