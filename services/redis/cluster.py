"""Exchanges with the nodes of a Redis Cluster in parallel.

The client library's own cluster client retries by itself, reads one node after the other with a full timeout each, and
fails the whole pipeline if one node has no connection. This one repeats only commands that were certainly not executed
(MOVED, ASK, TRYAGAIN, CLUSTERDOWN, NOSCRIPT), within the caller's budget.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, NoScriptError, TryAgainError

from services.redis.calls import Call, Pipeline, Replies, load_calls
from services.redis.client import Dialer
from services.redis.routes import Address, Lookup, Route, left, within

#: How often one exchange may send a command.
ROUNDS = 4
#: Seconds before a retry for a slot that is being migrated or has no node.
PAUSE = 0.05
#: Seconds between two CLUSTER SLOTS requests, however many commands fail.
REFRESH_SECONDS = 0.1
#: Nodes that get CLUSTER SLOTS in parallel: so many known ones and so many of the configured address.
ASKED = 3
#: The node name of outages that concern no single node.
WHOLE_CLUSTER = "cluster"

NOT_CARRIED_OUT = (AskError, TryAgainError, ClusterDownError, NoScriptError)


class Topology:
    """One answer to CLUSTER SLOTS, corrected by later MOVED errors."""

    def __init__(self, asked: Address, answer: Sequence[Any]) -> None:
        self.slots: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        nodes: list[Address] = []
        for first, last, *named in answer:
            # A node that does not know its own name leaves it out: use the address that was asked.
            addresses = [(str(host or asked[0]), int(port)) for host, port, *_ in named]
            self.slots[first : last + 1] = [addresses[0]] * (last + 1 - first)
            nodes += addresses
        #: All nodes, replicas included.
        self.nodes = list(dict.fromkeys(nodes))
        self.primaries = list(dict.fromkeys(address for address in self.slots if address))
        if not self.primaries:
            raise redis.ConnectionError(f"{asked[0]}:{asked[1]} knows of no node with slots")

    def address_of(self, key: str) -> Address:
        """Return a key's node. Any node if there is no key or the slot has none, which the reply will report."""
        address = self.slots[key_slot(key.encode())] if key else None
        return address or random.choice(self.primaries)


class Sent(NamedTuple):
    """A call and the node it goes to."""

    call: Call
    address: Address
    #: Whether to load the call's script first.
    load: bool = False
    #: Whether to send ASKING first, because the slot is being migrated to the node.
    asking: bool = False


class ClusterClient(redis.Redis):
    """A client of a Redis Cluster: sends each command to the node of its first key, or to any node without one."""

    def __init__(self, dialer: Dialer, seeds: Sequence[Address], *, pool_size: int) -> None:
        self._dialer = dialer
        self._seeds = seeds
        self._pool_size = pool_size
        self._clients: dict[Address, redis.Redis] = {}
        #: When a node last failed, by a monotonic clock.
        self._failed_at: dict[Address, float] = {}
        self._lookup: Lookup[Topology] = Lookup(self._find, name="cluster topology")
        self._known: Topology | None = None
        self._stale = True
        super().__init__(connection_pool=self._client(seeds[0]).connection_pool)

    def exchange(self, calls: Sequence[Call]) -> Replies:
        """Return a reply for each call, in order; errors are among them as exceptions."""
        try:
            topology = self._topology()
        except redis.ConnectionError as exc:
            return Replies([exc] * len(calls), [WHOLE_CLUSTER] * len(calls))
        sent = {index: Sent(call, topology.address_of(call.key)) for index, call in enumerate(calls)}
        replies = Replies([None] * len(calls), [""] * len(calls))
        self._round(sent, replies)
        for _ in range(ROUNDS - 1):
            refused = {index: one for index, one in sent.items() if isinstance(replies.values[index], NOT_CARRIED_OUT)}
            if not refused:
                break
            sent = self._redirected(refused, replies.values)
            self._round(sent, replies)
        return replies

    def everywhere(self, calls: Iterable[Call]) -> Replies:
        """Send calls without keys to every primary; return all replies."""
        try:
            primaries = self._topology().primaries
        except redis.ConnectionError as exc:
            return Replies([exc], [WHOLE_CLUSTER])
        sent = [Sent(call, address) for call in calls for address in primaries]
        replies = Replies([None] * len(sent), [""] * len(sent))
        self._round(dict(enumerate(sent)), replies)
        return replies

    def names(self) -> Collection[str]:
        """Return the known primaries, named as in replies."""
        return {_name(address) for address in self._known.primaries} if self._known else set()

    def home(self, key: str) -> str:
        """Return the name of a key's node as far as it is known, without a request."""
        return _name(self._known.address_of(key)) if self._known else WHOLE_CLUSTER

    def servers(self) -> list[redis.Redis]:
        """Return a client for each primary, for commands that concern a server and not a key.

        Raises:
            redis.RedisError: no node answers.
        """
        return [self._client(address) for address in self._topology().primaries]

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command to the node of its key, which is the word after its name."""
        value = self.exchange([Call(None, args)]).values[0]
        if isinstance(value, Exception):
            raise value
        return value

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        """Raise: pipelines over several nodes go through `exchange`."""
        raise NotImplementedError("a cluster takes pipelines through exchange")

    def close(self) -> None:
        for client in list(self._clients.values()):
            client.connection_pool.close()

    def _client(self, address: Address) -> redis.Redis:
        if address not in self._clients:
            self._clients.setdefault(address, self._dialer.client(Route(address), self._pool_size))
        return self._clients[address]

    def _round(self, sent: Mapping[int, Sent], replies: Replies) -> None:
        """Send each command once; nodes that failed recently come last, so that they delay no other."""
        groups: dict[Address, dict[int, Sent]] = {}
        for index, one in sent.items():
            groups.setdefault(one.address, {})[index] = one
        # One order for all threads, or two of them could each hold a connection and wait for the other's.
        order = sorted(groups, key=lambda address: (self._failed_at.get(address, -math.inf), address))
        with ExitStack() as stack:
            commands = {address: _commands(groups[address]) for address in order}
            pipelines = {
                address: Pipeline(self._client(address), [call for _, call in sent_there])
                for address, sent_there in commands.items()
            }
            for pipeline in pipelines.values():
                stack.callback(pipeline.close)
                pipeline.send()
            with within(self._dialer.timeout):
                for pipeline in pipelines.values():
                    pipeline.read()
        for address, pipeline in pipelines.items():
            if pipeline.failed:
                self._failed_at[address] = time.monotonic()
                self._stale = True
            for (asked, _), value in zip(commands[address], pipeline.replies, strict=True):
                if asked is not None:
                    replies.values[asked], replies.nodes[asked] = value, _name(address)

    def _redirected(self, refused: Mapping[int, Sent], values: Sequence[Any]) -> dict[int, Sent]:
        """Return the new targets of commands that were not carried out."""
        errors = [values[index] for index in refused]
        for one, exc in zip(refused.values(), errors, strict=True):
            if isinstance(exc, MovedError) and self._known:
                self._known.slots[exc.slot_id] = _address(exc, one)
        if any(isinstance(exc, MovedError | ClusterDownError) for exc in errors):
            self._stale = True
        if any(isinstance(exc, TryAgainError | ClusterDownError) for exc in errors):
            time.sleep(left(PAUSE))
        return {index: self._redirect(one, values[index]) for index, one in refused.items()}

    def _redirect(self, one: Sent, exc: Exception) -> Sent:
        if isinstance(exc, NoScriptError):
            return one._replace(load=True)
        if isinstance(exc, AskError):
            return Sent(one.call, _address(exc, one), asking=not isinstance(exc, MovedError))
        return Sent(one.call, self._topology().address_of(one.call.key))

    def _topology(self) -> Topology:
        """Return the map of slots to nodes, looked up again if the last answer is in doubt.

        Raises:
            redis.ConnectionError: no node answers, and none ever did.
        """
        known = self._known
        if known is None or (self._stale and self._lookup.age > REFRESH_SECONDS):
            # Reset before the request: errors during it mark the map as stale again.
            self._stale = False
            try:
                found = self._lookup.get(left(self._dialer.timeout))
            except (redis.RedisError, OSError) as exc:
                raise redis.ConnectionError(f"no node tells the cluster's slots: {exc}") from exc
            self._stale = self._stale or found is known
            self._known = known = found
        return known

    def _find(self) -> Topology:
        known = self._known.nodes if self._known else []
        asked = [address for some in (known, self._seeds) for address in random.sample(some, min(ASKED, len(some)))]
        return Topology(*self._dialer.ask_all(list(dict.fromkeys(asked)), ("CLUSTER SLOTS",), enough=1)[0])


def _commands(group: Mapping[int, Sent]) -> list[tuple[int | None, Call]]:
    """Return the calls for one node, each with the index of its reply, None for SCRIPT LOAD and ASKING."""
    sent: list[tuple[int | None, Call]] = [
        (None, call) for call in load_calls(one.call for one in group.values() if one.load)
    ]
    for index, one in group.items():
        sent += [(None, Call(None, ("ASKING",)))] if one.asking else []
        sent.append((index, one.call))
    return sent


def _name(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def _address(exc: AskError, sent: Sent) -> Address:
    """Return the node that an error names; without a name it is the answering node, with another port."""
    return (str(exc.host) or sent.address[0], int(exc.port))
