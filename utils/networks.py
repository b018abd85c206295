"""Find a client's address behind trusted proxies, and the network that counts as one client."""

from __future__ import annotations

import ipaddress

#: Prefix length of an IPv6 network that counts as one client; a machine chooses the other bits freely.
V6_NETWORK = 64


def network(ip: str) -> str:
    """Return an IPv4 address as it is and an IPv6 address as its /64 network; any other text unchanged."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return ip
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, V6_NETWORK), strict=False))


def client_of(peer: str, forwarded: str, proxies: int) -> str:
    """Return the client's address behind a number of trusted proxies, as werkzeug's ProxyFix does.

    `forwarded` contains all values of `X-Forwarded-For`, joined by commas. If it has fewer values than there are
    proxies, or there are no proxies, the result is `peer`.
    """
    if not proxies or not forwarded:
        return peer
    values = [value.strip() for value in forwarded.split(",") if value.strip()]
    return values[-proxies] if len(values) >= proxies else peer
