"""Where a connection to Redis leads: a name is resolved, and a route asked, anew for each; neither takes long."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import redis

from services.redis_waits import Lookup

Address = tuple[str, int]


class Resolver:
    """Looks names up in bounded time: a resolver that hangs is not waited for, its last good answer stands in."""

    def __init__(self) -> None:
        self._lookups: dict[str, Lookup[list[Any]]] = {}

    def addresses(self, host: str, port: int, timeout: float) -> list[tuple[int, tuple[Any, ...]]]:
        """Return the socket addresses of `host`, each with its family.

        Raises:
            OSError: the name is unknown.
            redis.TimeoutError: there is no answer within `timeout` seconds, and never was one.
        """

        def find() -> list[Any]:
            return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)

        if _is_number(host):
            found = find()
        else:
            lookup = self._lookups.setdefault(host, Lookup(find, name=f"resolve {host}"))
            try:
                found = lookup.get(timeout)
            except TimeoutError as exc:
                raise redis.TimeoutError(f"Timeout resolving the name {host}") from exc
        return [(family, (place[0], port, *place[2:])) for family, *_, place in found]


class Route:
    """Where a pool's connections lead."""

    def __init__(self, address: Address = ("", 0)) -> None:
        self._address = address
        #: Counts up when connections made before may lead to the wrong server: each is made anew when next used.
        self.generation = 0

    def target(self, timeout: float) -> Address:
        """Return where a new connection is to go; asking others takes at most `timeout` seconds."""
        return self._address

    def look(self) -> None:
        """Take in news of where to go, without waiting; called before each use of a connection that is open."""

    def renew(self) -> None:
        self.generation += 1


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
