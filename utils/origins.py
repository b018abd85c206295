"""Decide by the `Origin` header which pages may open sockets or send requests.

Browsers do not apply the same-origin policy to WebSockets, so the server must check the header itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """A normalized origin: the port is always set."""

    scheme: str
    host: str
    port: int


def parse_origin(text: str) -> Origin | None:
    """Parse the value of an `Origin` header; return None for anything but an http or https origin, such as `null`."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc or parts.path.strip("/"):
        return None
    return Origin(parts.scheme, parts.hostname, DEFAULT_PORTS[parts.scheme] if port is None else port)


def may_open(origin: str, host: str, allowed: Iterable[str] = ()) -> bool:
    """Return whether a page of `origin` may open a socket or send a request; `host` is the request's `Host` header.

    Pages served by this server and pages of `allowed` origins may. The scheme is unknown behind a proxy that
    terminates TLS, so a `host` without a port gets the default port of the page's scheme.
    """
    page = parse_origin(origin)
    if page is None:
        return False
    return page == parse_origin(f"{page.scheme}://{host}") or page in map(parse_origin, allowed)


def is_host_of(host: str, names: Iterable[str]) -> bool:
    """Return whether a `Host` header names one of these hosts, with any port; ".name" stands for its subdomains."""
    try:
        found = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    found = found.rstrip(".")
    return any(found == name or (name.startswith(".") and found.endswith(name)) for name in names)
