"""A Redis Cluster: each command goes to the node that has its slot, and all nodes work at the same time.

The library's own cluster client retries by itself and bounds no exchange as a whole. Here what was certainly not
carried out (MOVED, ASK, TRYAGAIN, CLUSTERDOWN, NOSCRIPT) is sent again within the caller's budget, and nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NamedTuple, Self

import redis
from redis.exceptions import AskError, ClusterDownError, MovedError, NoScriptError, TryAgainError

from services.redis_calls import Call, Replies, Words
from services.redis_connections import BoundedPool, Dialer
from services.redis_routes import Address, Route
from services.redis_topology import Navigator
from services.redis_waits import left, within

#: How often one exchange may send a command.
ROUNDS = 4
#: Seconds before a slot that is on its way, or without a node, is tried again.
PAUSE = 0.05
#: The name under which what concerns no single node is reported.
WHOLE_CLUSTER = "cluster"

#: What a node raises that does not answer, or not in Redis's words.
FAILURES = (redis.RedisError, OSError)
NOT_CARRIED_OUT = (AskError, TryAgainError, ClusterDownError, NoScriptError)


class Node:
    """One server of the cluster, with its own pool."""

    def __init__(self, address: Address, pool: BoundedPool) -> None:
        self.name = f"{address[0]}:{address[1]}"
        self.pool = pool
        self.client = redis.Redis.from_pool(pool)
        #: When it last failed, by a monotonic clock.
        self.failed_at = -math.inf


class _Reply(NamedTuple):
    """What came back for a call: a value or an exception, and from which node."""

    value: Any
    node: str


class Sent(NamedTuple):
    """A call and where it goes."""

    call: Call
    address: Address
    #: Whether the node may lack its script.
    load: bool = False
    #: Whether the slot is on its way to the node, which must be told that we know.
    asking: bool = False


class Turn:
    """One pipeline to one node: sent and read apart, so that several nodes work at the same time."""

    def __init__(self, node: Node, sent: Mapping[int, Sent]) -> None:
        self._node = node
        self._connection: Any = None
        self._waiting = False
        sources = dict.fromkeys(one.call.source for one in sent.values() if one.load and one.call.source)
        #: Every command, and whose reply it brings: None for one that only goes before others.
        self._line: list[tuple[int | None, Words]] = [(None, ("SCRIPT", "LOAD", source)) for source in sources]
        for index, one in sent.items():
            self._line += [(None, ("ASKING",))] if one.asking else []
            self._line.append((index, one.call.words))
        self.failed = False
        self.replies: dict[int, _Reply] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._connection:
            if self._waiting:
                self._connection.disconnect()
            self._node.pool.release(self._connection)  # type: ignore[no-untyped-call]

    def send(self) -> None:
        try:
            self._connection = self._node.pool.get_connection()
            self._waiting = True
            self._connection.send_packed_command(self._connection.pack_commands([words for _, words in self._line]))
        except FAILURES as exc:
            self._fail(exc)

    def read(self) -> None:
        """Take the replies in; where the node fails, its exception stands for every one that is missing."""
        if self.failed:
            return
        try:
            for index, words in self._line:
                value = self._next(str(words[0]))
                if index is not None:
                    self.replies[index] = _Reply(value, self._node.name)
            self._waiting = False
        except FAILURES as exc:
            self._fail(exc)

    def _next(self, name: str) -> Any:
        try:
            return self._node.client.parse_response(self._connection, name)  # type: ignore[no-untyped-call]
        except redis.ResponseError as exc:
            return exc

    def _fail(self, exc: Exception) -> None:
        self.failed = True
        self._node.failed_at = time.monotonic()
        missing = [index for index, _ in self._line if index is not None and index not in self.replies]
        self.replies |= dict.fromkeys(missing, _Reply(exc, self._node.name))


class ClusterClient(redis.Redis):
    """A client of a whole cluster: a command goes where its first key is, and one without a key to any node."""

    def __init__(self, dialer: Dialer, seeds: Sequence[Address], *, pool_size: int) -> None:
        self.patience = dialer.timeout
        self._dialer = dialer
        self._pool_size = pool_size
        self._navigator = Navigator(dialer, seeds)
        self._nodes: dict[Address, Node] = {}
        super().__init__(connection_pool=self._node(seeds[0]).pool)

    def exchange(self, calls: Sequence[Call]) -> Replies:
        """Return a reply for each call, in their order; what failed is an exception among them."""
        try:
            topology = self._navigator.topology()
        except redis.ConnectionError as exc:
            return Replies([exc] * len(calls), [WHOLE_CLUSTER] * len(calls))
        sent = {index: Sent(call, topology.place(call.key)) for index, call in enumerate(calls)}
        replies = self._round(sent)
        for _ in range(ROUNDS - 1):
            failed = [index for index, reply in replies.items() if isinstance(reply.value, NOT_CARRIED_OUT)]
            if not failed:
                break
            again = self._redirected({index: (sent[index], replies[index].value) for index in failed})
            sent |= again
            replies |= self._round(again)
        return _in_order(replies)

    def everywhere(self, lines: Iterable[Words]) -> Replies:
        """Send commands without keys to every primary, and return all replies."""
        try:
            primaries = self._navigator.topology().primaries
        except redis.ConnectionError as exc:
            return Replies([exc], [WHOLE_CLUSTER])
        sent = [Sent(Call(None, words), address) for words in lines for address in primaries]
        return _in_order(self._round(dict(enumerate(sent))))

    def names(self) -> Collection[str]:
        """Return the nodes there are, as replies name them."""
        known = self._navigator.known
        return {self._node(address).name for address in known.primaries} if known else set()

    def home(self, key: str) -> str:
        """Return the name of a key's node as far as it is known; nobody is asked."""
        known = self._navigator.known
        return self._node(known.place(key)).name if known else WHOLE_CLUSTER

    def servers(self) -> list[redis.Redis]:
        """Return a client of each primary, for what is asked of servers and not of keys.

        Raises:
            redis.RedisError: no node answers.
        """
        return [self._node(address).client for address in self._navigator.topology().primaries]

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
        for node in list(self._nodes.values()):
            node.pool.close()

    def _node(self, address: Address) -> Node:
        if address not in self._nodes:
            self._nodes.setdefault(address, Node(address, self._dialer.pool(Route(address), self._pool_size)))
        return self._nodes[address]

    def _round(self, sent: Mapping[int, Sent]) -> dict[int, _Reply]:
        """Send each command once; nodes that failed last come last, so that they hold nobody else up."""
        groups: dict[Address, dict[int, Sent]] = {}
        for index, one in sent.items():
            groups.setdefault(one.address, {})[index] = one
        nodes = {self._node(address): group for address, group in groups.items()}
        # All in one order: none waits for a connection that another holds who waits for its own.
        order = sorted(nodes, key=lambda node: (node.failed_at, node.name))
        with ExitStack() as stack:
            turns = [stack.enter_context(Turn(node, nodes[node])) for node in order]
            for turn in turns:
                turn.send()
            with within(self.patience):
                for turn in turns:
                    turn.read()
        if any(turn.failed for turn in turns):
            self._navigator.lost()
        return {index: reply for turn in turns for index, reply in turn.replies.items()}

    def _redirected(self, failed: Mapping[int, tuple[Sent, Exception]]) -> dict[int, Sent]:
        """Return where commands go that were not carried out."""
        for sent, exc in failed.values():
            if isinstance(exc, MovedError):
                self._navigator.moved(exc.slot_id, _address(exc, sent))
            elif isinstance(exc, ClusterDownError):
                self._navigator.lost()
        if any(isinstance(exc, TryAgainError | ClusterDownError) for _, exc in failed.values()):
            time.sleep(left(PAUSE))
        return {index: self._redirect(*one) for index, one in failed.items()}

    def _redirect(self, sent: Sent, exc: Exception) -> Sent:
        if isinstance(exc, NoScriptError):
            return sent._replace(load=True)
        if isinstance(exc, AskError):
            asking = not isinstance(exc, MovedError)
            return Sent(sent.call, _address(exc, sent), asking=asking)
        return Sent(sent.call, self._navigator.topology().place(sent.call.key))


def _in_order(replies: Mapping[int, _Reply]) -> Replies:
    found = [replies[index] for index in sorted(replies)]
    return Replies([reply.value for reply in found], [reply.node for reply in found])


def _address(exc: AskError, sent: Sent) -> Address:
    """Return the node an error names; one without a name is the one that answered, with another port."""
    return (str(exc.host) or sent.address[0], int(exc.port))
