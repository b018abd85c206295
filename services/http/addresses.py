"""Decides where files may be fetched from: listed hosts, and public addresses over https (SSRF protection).

A listed host may use http, any port and any address. Every other host needs https, and is reached at an address that
was checked: its name is resolved once, so that a second answer of its DNS server cannot lead elsewhere (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import queue
import re
import socket
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from services.errors import FetchError
from utils.origins import DEFAULT_PORTS, is_host_of

#: The most addresses of one name that are tried.
MOST_ADDRESSES = 4
#: Seconds to resolve a name.
RESOLVE_SECONDS = 5.0
#: Parsers of URLs disagree about hosts with other characters.
_HOST = re.compile(r"[a-z0-9_.-]{1,253}|[0-9a-f:.]{2,45}")
#: Characters of a path and query that are sent as they are: no second encoding of a signature.
_KEPT = "%/?:@!$&'()*+,;=~[]|-._"
#: Networks whose addresses stand for IPv4 addresses behind a gateway, so that they say nothing about the target.
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")))

#: Returns the addresses of a host.
Resolve = Callable[[str, int], list[str]]


@dataclass(frozen=True, slots=True)
class Target:
    """One URL that may be fetched. Its repr shows the host only: paths and queries may hold a credential."""

    scheme: str
    host: str
    port: int
    #: Path and query as they are sent.
    path: str = field(repr=False)
    #: The addresses to connect to; () where the host's own address may be used, and a proxy.
    addresses: tuple[str, ...] = ()

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.path}"


class AddressRules:
    """The rule for one set of listed hosts."""

    def __init__(self, hosts: Collection[str], *, resolve: Resolve | None = None) -> None:
        """`hosts` are names, or ".name" for all below one; `resolve` replaces the system's resolver."""
        self._hosts = hosts
        self._resolve = resolve or resolved

    def allowed(self, url: str, also: Collection[str] = ()) -> Target:
        """Return the target of a URL that may be fetched.

        `also` are further places, each as `scheme://host[:port]/path/`: a URL below one is allowed like a listed host.

        Raises:
            FetchError: `media_not_allowed`; `media_failed` if the name cannot be resolved.
        """
        target = parsed(url)
        if is_host_of(target.netloc, self._hosts) or any(_is_below(target, place) for place in also):
            return target
        if target.scheme != "https":
            raise _refused("the host is not listed and the address is not https")
        addresses = self._resolve(target.host, target.port)
        public = tuple(address for address in addresses if is_public(address))
        if not public:
            raise _refused("the host is not listed and has no public address")
        return Target(target.scheme, target.host, target.port, target.path, public[:MOST_ADDRESSES])


def parsed(url: str) -> Target:
    """Return the parts of an http or https URL.

    Raises:
        FetchError: it is none, or it has a user, or a host that parsers of URLs may read differently.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError:
        raise _refused("not an address") from None
    if parts.scheme not in DEFAULT_PORTS or "@" in parts.netloc or not _HOST.fullmatch(host):
        raise _refused("not an http address")
    path = quote(f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}", safe=_KEPT)
    return Target(parts.scheme, host, DEFAULT_PORTS[parts.scheme] if port is None else port, path)


def is_public(address: str) -> bool:
    """Return whether an address belongs to the public internet, not to this machine or a private network."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return is_public(str(found.ipv4_mapped))
        if found.is_site_local or any(found in network for network in _TRANSLATED):
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved)


def resolved(host: str, port: int) -> list[str]:
    """Return the addresses of a host, as its name has them now.

    Raises:
        FetchError: `media_failed`: there are none, or the resolver did not answer in time.
    """
    found: queue.Queue[list[str]] = queue.Queue(1)
    # In a thread of its own: the system's resolver has no timeout that a caller can set.
    threading.Thread(target=lambda: found.put(_lookup(host, port)), name="resolver", daemon=True).start()
    try:
        addresses = found.get(timeout=RESOLVE_SECONDS)
    except queue.Empty:
        addresses = []
    if not addresses:
        raise FetchError("the host's name cannot be resolved")
    return addresses


def _lookup(host: str, port: int) -> list[str]:
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


def _is_below(target: Target, place: str) -> bool:
    """Return whether a target is below `scheme://host[:port]/path/`."""
    top = parsed(place)
    path, _, _ = target.path.partition("?")
    # A server may read an encoded dot or slash as one.
    if re.search(r"(?i)(^|/)(\.|%2e){1,2}(/|$)|%2f|%5c|\\", path):
        return False
    return (target.scheme, target.host, target.port) == (top.scheme, top.host, top.port) and path.startswith(top.path)


def _refused(cause: str) -> FetchError:
    return FetchError(cause, code="media_not_allowed")
