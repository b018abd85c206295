"""Which pages may open a socket or ask: a browser names the page's origin, and nothing else keeps others' out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Where a page comes from, in one spelling."""

    scheme: str
    host: str
    port: int


def parse_origin(text: str) -> Origin | None:
    """Return an `Origin` header's value in one spelling; None for what names no http or https page, such as null."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc or parts.path.strip("/"):
        return None
    return Origin(parts.scheme, parts.hostname, DEFAULT_PORTS[parts.scheme] if port is None else port)


def may_open(origin: str, host: str, allowed: Iterable[str] = ()) -> bool:
    """Tell whether a page of `origin` may open a socket or ask here, where the request's `Host` header says `host`.

    Pages this server itself gave out may, and those of `allowed` origins. A proxy that ends TLS leaves no trace of the
    scheme, so a `host` without a port has the default one of the page's scheme.
    """
    page = parse_origin(origin)
    if page is None:
        return False
    return page == parse_origin(f"{page.scheme}://{host}") or page in map(parse_origin, allowed)


def is_host_of(host: str, names: Iterable[str]) -> bool:
    """Tell whether a `Host` header names one of these hosts, whatever its port; ".name" is any host below name."""
    try:
        found = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    found = found.rstrip(".")
    return any(found == name or (name.startswith(".") and found.endswith(name)) for name in names)
