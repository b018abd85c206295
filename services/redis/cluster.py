"""Exchanges with one server, and with the nodes of a Redis Cluster, which work at the same time.

The client library's own cluster client retries by itself, reads one node after the other with a full timeout for each,
and fails the whole pipeline where one node has no connection. Here only what was certainly not carried out (MOVED, ASK,
TRYAGAIN, CLUSTERDOWN, NOSCRIPT) is sent again, within the caller's budget.
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

from services.redis.client import FAILURES, Call, Dialer, Replies
from services.redis.routes import Address, Lookup, Route, left, within

#: How often one exchange may send a command.
ROUNDS = 4
#: Seconds before a slot that is on its way, or without a node, is tried again.
PAUSE = 0.05
#: Seconds between two looks at the slots, however many commands fail meanwhile.
REFRESH_SECONDS = 0.1
#: Nodes asked for the slots at once, of those known and of those the address names.
ASKED = 3
#: The name under which what concerns no single node is reported.
WHOLE_CLUSTER = "cluster"

NOT_CARRIED_OUT = (AskError, TryAgainError, ClusterDownError, NoScriptError)


def load_calls(calls: Iterable[Call]) -> list[Call]:
    """Return the calls that load the scripts of others."""
    sources = dict.fromkeys(call.script.source for call in calls if call.script)
    return [Call(None, ("SCRIPT", "LOAD", source)) for source in sources]


class Pipeline:
    """Calls to one server in one round trip; sent and read apart, so that several servers work at the same time."""

    def __init__(self, client: redis.Redis, calls: Sequence[Call]) -> None:
        self._pool = client.connection_pool
        self._shapes = client.response_callbacks
        self._calls = calls
        self._connection: Any = None
        #: A reply for each call once it is read: a value, or an exception.
        self.replies: list[Any] = []
        self.failed = False

    def close(self) -> None:
        """Give the connection back; one with replies yet to come is ended."""
        if self._connection:
            if self.failed or len(self.replies) < len(self._calls):
                self._connection.disconnect()
            self._pool.release(self._connection)

    def send(self) -> None:
        try:
            self._connection = self._pool.get_connection()
            packed = self._connection.pack_commands([call.words for call in self._calls])
            self._connection.send_packed_command(packed)
        except redis.DataError:
            # A mistake of ours, and no outage.
            raise
        except FAILURES as exc:
            self._fail(exc)

    def read(self) -> None:
        """Take in the replies; where the server fails, its exception stands for each that is missing."""
        if self.failed:
            return
        try:
            for call in self._calls:
                self.replies.append(self._next(call))
        except FAILURES as exc:
            self._fail(exc)

    def _next(self, call: Call) -> Any:
        """Return the next reply, shaped as the library does for that command; an error where it is one."""
        try:
            value = self._connection.read_response()
        except redis.ResponseError as exc:
            return exc
        shape = None if call.script else self._shapes.get(call.keys[0])  # type: ignore[no-untyped-call]
        return shape(value) if shape else value

    def _fail(self, exc: Exception) -> None:
        self.failed = True
        if self._connection and type(exc) is redis.ConnectionError:
            exc = redis.ConnectionError(f"{self._connection._host_error()}: {exc}")
        self.replies += [exc] * (len(self._calls) - len(self.replies))


class Topology:
    """One answer to CLUSTER SLOTS; MOVED corrects it."""

    def __init__(self, asked: Address, answer: Sequence[Any]) -> None:
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


class Sent(NamedTuple):
    """A call and where it goes."""

    call: Call
    address: Address
    #: Whether the node may lack its script.
    load: bool = False
    #: Whether the slot is on its way to the node, which refuses it without ASKING.
    asking: bool = False


class ClusterClient(redis.Redis):
    """A client of a whole cluster: a command goes where its first key is, and one without a key to any node."""

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
        """Return a reply for each call, in their order; what failed is an exception among them."""
        try:
            topology = self._topology()
        except redis.ConnectionError as exc:
            return Replies([exc] * len(calls), [WHOLE_CLUSTER] * len(calls))
        sent = {index: Sent(call, topology.place(call.key)) for index, call in enumerate(calls)}
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
        """Send calls without keys to every primary, and return all replies."""
        try:
            primaries = self._topology().primaries
        except redis.ConnectionError as exc:
            return Replies([exc], [WHOLE_CLUSTER])
        sent = [Sent(call, address) for call in calls for address in primaries]
        replies = Replies([None] * len(sent), [""] * len(sent))
        self._round(dict(enumerate(sent)), replies)
        return replies

    def names(self) -> Collection[str]:
        """Return the nodes there are, as replies name them."""
        return {_name(address) for address in self._known.primaries} if self._known else set()

    def home(self, key: str) -> str:
        """Return the name of a key's node as far as it is known; nobody is asked."""
        return _name(self._known.place(key)) if self._known else WHOLE_CLUSTER

    def servers(self) -> list[redis.Redis]:
        """Return a client of each primary, for what is asked of servers and not of keys.

        Raises:
            redis.RedisError: no node answers.
        """
        return [self._client(address) for address in self._topology().primaries]

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command to its node; its key is the word after its name."""
        value = self.exchange([Call(None, args)]).values[0]
        if isinstance(value, Exception):
            raise value
        return value

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        """Refuse: commands of several nodes go through `exchange`."""
        raise NotImplementedError("a cluster takes pipelines through exchange")

    def close(self) -> None:
        for client in list(self._clients.values()):
            client.connection_pool.close()

    def _client(self, address: Address) -> redis.Redis:
        if address not in self._clients:
            self._clients.setdefault(address, self._dialer.client(Route(address), self._pool_size))
        return self._clients[address]

    def _round(self, sent: Mapping[int, Sent], replies: Replies) -> None:
        """Send each command once; nodes that failed last come last, so that they hold nobody else up."""
        groups: dict[Address, dict[int, Sent]] = {}
        for index, one in sent.items():
            groups.setdefault(one.address, {})[index] = one
        # All in one order, or two threads could each hold a connection and wait for the other's.
        order = sorted(groups, key=lambda address: (self._failed_at.get(address, -math.inf), address))
        with ExitStack() as stack:
            lines = {address: _line(groups[address]) for address in order}
            turns = {
                address: Pipeline(self._client(address), [call for _, call in line]) for address, line in lines.items()
            }
            for turn in turns.values():
                stack.callback(turn.close)
                turn.send()
            with within(self._dialer.timeout):
                for turn in turns.values():
                    turn.read()
        for address, turn in turns.items():
            if turn.failed:
                self._failed_at[address] = time.monotonic()
                self._stale = True
            for (place, _), value in zip(lines[address], turn.replies, strict=True):
                if place is not None:
                    replies.values[place], replies.nodes[place] = value, _name(address)

    def _redirected(self, refused: Mapping[int, Sent], values: Sequence[Any]) -> dict[int, Sent]:
        """Return where commands go that were not carried out."""
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
        return Sent(one.call, self._topology().place(one.call.key))

    def _topology(self) -> Topology:
        """Return which node has which slot, looked up anew where the last answer is in doubt.

        Raises:
            redis.ConnectionError: no node tells it, and none ever did.
        """
        known = self._known
        if known is None or (self._stale and self._lookup.age > REFRESH_SECONDS):
            # Before asking: what fails meanwhile is news.
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


def _line(group: Mapping[int, Sent]) -> list[tuple[int | None, Call]]:
    """Return what one node is sent, and whose reply each brings: None for a command that goes before another."""
    line: list[tuple[int | None, Call]] = [
        (None, call) for call in load_calls(one.call for one in group.values() if one.load)
    ]
    for index, one in group.items():
        line += [(None, Call(None, ("ASKING",)))] if one.asking else []
        line.append((index, one.call))
    return line


def _name(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def _address(exc: AskError, sent: Sent) -> Address:
    """Return the node an error names; one without a name is the one that answered, with another port."""
    return (str(exc.host) or sent.address[0], int(exc.port))
