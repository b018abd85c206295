"""Checks of settings that are a URL or a host: each returns the value, in its final form, or raises `ValueError`.

The text of each error completes the sentence "NAME='value' is wrong: expected …".
"""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

from pydantic import SecretStr

from config.addresses import parse_redis_url

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
