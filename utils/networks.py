"""Addresses of clients: who the client behind trusted proxies is, and what of an address names its owner."""

from __future__ import annotations

import ipaddress

#: Bits of an IPv6 address that one owner has; the rest each of their machines chooses as it likes.
V6_NETWORK = 64


def network(ip: str) -> str:
    """Return what of an address names its owner; what is no address stands for itself."""
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
    """Return the client's address behind so many trusted proxies, as werkzeug's ProxyFix does.

    `forwarded` has all values of `X-Forwarded-For`, joined by commas. With fewer values than proxies, or without
    proxies, the client is the connection's peer.
    """
    if not proxies or not forwarded:
        return peer
    values = [value.strip() for value in forwarded.split(",") if value.strip()]
    return values[-proxies] if len(values) >= proxies else peer
