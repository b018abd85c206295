"""Which node of a Redis Cluster has which slot, as its nodes say; looked up again when something was wrong."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from services.redis_connections import Dialer
from services.redis_routes import Address
from services.redis_waits import Lookup, left

#: Seconds between two looks, however many commands fail meanwhile.
REFRESH_SECONDS = 0.1
#: Nodes asked at once, of those known and of those the address names.
ASKED = 3


class Topology:
    """One answer to CLUSTER SLOTS; MOVED corrects it."""

    def __init__(self, answer: Sequence[Any], asked: Address) -> None:
        self.slots: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        nodes: list[Address] = []
        for first, last, *places in answer:
            # A node that does not know its own name leaves it out: it is the one that was asked.
            addresses = [(str(host or asked[0]), int(port)) for host, port, *_ in places]
            self.slots[first : last + 1] = [addresses[0]] * (last + 1 - first)
            nodes += addresses
        #: Replicas too.
        self.nodes = list(dict.fromkeys(nodes))
        self.primaries = list(dict.fromkeys(address for address in self.slots if address))
        if not self.primaries:
            raise redis.ConnectionError(f"{asked[0]}:{asked[1]} knows of no node with slots")

    def place(self, key: str) -> Address:
        """Return the node of a key; any of them without a key, or where none has the slot: it will say so."""
        address = self.slots[key_slot(key.encode())] if key else None
        return address or random.choice(self.primaries)


class Navigator:
    """Keeps the topology, and looks it up again after `lost` was called."""

    def __init__(self, dialer: Dialer, seeds: Sequence[Address]) -> None:
        self._dialer = dialer
        self._seeds = seeds
        self._lookup: Lookup[Topology] = Lookup(self._find, name="cluster topology")
        self._topology: Topology | None = None
        self._stale = True

    def topology(self) -> Topology:
        """Return the topology, a new one where the last is in doubt and can be had in time.

        Raises:
            redis.ConnectionError: no node tells it, and none ever did.
        """
        topology = self._topology
        if topology is None or (self._stale and self._lookup.age > REFRESH_SECONDS):
            # Before asking: what fails meanwhile is news.
            self._stale = False
            try:
                found = self._lookup.get(left(self._dialer.timeout))
            except (redis.RedisError, OSError) as exc:
                raise redis.ConnectionError(f"no node tells the cluster's slots: {exc}") from exc
            self._stale = self._stale or found is topology
            self._topology = topology = found
        return topology

    @property
    def known(self) -> Topology | None:
        """The topology as it was last told, without asking anybody."""
        return self._topology

    def lost(self) -> None:
        """Take in that the topology may be wrong."""
        self._stale = True

    def moved(self, slot: int, address: Address) -> None:
        """Take in where a slot is now, and that others may have moved with it."""
        if self._topology:
            self._topology.slots[slot] = address
        self.lost()

    def _find(self) -> Topology:
        known = self._topology.nodes if self._topology else []
        asked = [address for some in (known, self._seeds) for address in random.sample(some, min(ASKED, len(some)))]
        ((address, answer),) = self._dialer.ask_all(list(dict.fromkeys(asked)), ("CLUSTER", "SLOTS"), enough=1)
        return Topology(answer, address)
