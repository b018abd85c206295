"""Redis Cluster and Sentinel for tests: several real servers that form one set-up, all on free ports."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import redis
from redis.crc import key_slot

from tests.support.servers.processes import RedisServer, Server, free_port, redis_client_for, require_binary, wait_until

SLOTS = 16384
SERVICE = "main"
#: Timeout in seconds until the servers of a set-up know each other: long, for a busy machine.
FORMING = 60.0
#: Serve a replica's first sync at once, without the default wait of five seconds for more replicas.
REPLICATION = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


class ClusterNode(RedisServer):
    """One node of a cluster; the others count it as failed after `node_timeout` seconds without a reply."""

    def __init__(
        self, *, node_timeout: float = 15.0, full_coverage: bool = True, options: tuple[str, ...] = ()
    ) -> None:
        timeout, coverage = str(int(node_timeout * 1000)), "yes" if full_coverage else "no"
        cluster = ("--cluster-enabled", "yes", "--cluster-node-timeout", timeout)
        super().__init__(options=(*cluster, "--cluster-require-full-coverage", coverage, *REPLICATION, *options))
        self._bus = 0

    def command(self) -> list[str]:
        if not self._pinned:
            # The default is the port plus 10,000, which may be above the highest port.
            self._bus = free_port()
        return [*super().command(), "--cluster-port", str(self._bus)]

    def client(self, db: int = 0, **options: Any) -> redis.Redis:
        return super().client(db, **options)

    def ask(self, *words: str | int) -> Any:
        """Run one command and return its reply."""
        with self.client() as client:
            return client.execute_command(*words)

    @property
    def id(self) -> str:
        return str(self.ask("CLUSTER", "MYID"))

    def meet(self, other: ClusterNode) -> None:
        self.ask("CLUSTER", "MEET", "127.0.0.1", other.port, other._bus)

    def hand_over(self, key: str, target: ClusterNode) -> None:
        """Move one key to another node."""
        self.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)

    def knows(self, others: int) -> bool:
        """Return whether this node sees the cluster as healthy, with `others` nodes including itself."""
        lines = self.ask("CLUSTER", "INFO").split("\r\n")
        return {"cluster_state:ok", f"cluster_known_nodes:{others}"} <= set(lines)

    def knows_replicas(self) -> bool:
        """Return whether every slot has two nodes, as this node sees it."""
        return all(len(places) == 2 for _, _, *places in self.ask("CLUSTER", "SLOTS"))


class Setup:
    """Several servers that end together; a context manager."""

    def __init__(self) -> None:
        self.stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self.form()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stack.close()

    def form(self) -> None:
        raise NotImplementedError


class ClusterServers(Setup):
    """A cluster of three primaries, with `replicas=True` each with one replica."""

    def __init__(self, *, replicas: bool = False, node_timeout: float = 15.0, full_coverage: bool = True) -> None:
        super().__init__()
        self._replicas = replicas
        self._node = {"node_timeout": node_timeout, "full_coverage": full_coverage}
        self.nodes: list[ClusterNode] = []

    def form(self) -> None:
        count = 6 if self._replicas else 3
        self.nodes = [self.stack.enter_context(ClusterNode(**self._node)) for _ in range(count)]  # type: ignore[arg-type]
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            self.nodes[0].meet(node)
        for number, node in enumerate(self.nodes[:3]):
            node.ask("CLUSTER", "ADDSLOTSRANGE", SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1)
        wait_until(lambda: all(node.knows(count) for node in self.nodes), timeout=FORMING)
        for primary, replica in zip(self.nodes, self.nodes[3:], strict=False):
            replica.ask("CLUSTER", "REPLICATE", primary.id)
        if not self._replicas:
            return
        wait_until(lambda: all(is_in_step(replica) for replica in self.nodes[3:]), timeout=FORMING)
        # A primary ignores requests of its replica until it knows the replica.
        wait_until(lambda: all(node.knows_replicas() for node in self.nodes), timeout=FORMING)

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    def clear(self) -> None:
        """Remove all keys and scripts."""
        for node in self.nodes[:3]:
            node.ask("FLUSHALL")
            node.ask("SCRIPT", "FLUSH")

    def owner(self, key: str) -> ClusterNode:
        """Return the node that serves a key's slot, as it says itself."""
        slot = key_slot(key.encode())
        for node in filter(lambda node: node.running, self.nodes):
            for first, last, (_, port, *_), *_ in node.ask("CLUSTER", "SLOTS"):
                if first <= slot <= last and port == node.port:
                    return node
        raise LookupError(f"no node has slot {slot}")

    def begin_move(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        """Begin to move a slot: the source redirects clients to the target for keys that it does not have."""
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

    def end_move(self, slot: int, target: ClusterNode) -> None:
        """End the move: the slot is the target's."""
        for node in [target, *(node for node in self.nodes[:3] if node is not target)]:
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)


class Sentinel(Server):
    """One sentinel that watches a master; `lines` are added to its configuration."""

    def __init__(
        self,
        master_port: int,
        *,
        quorum: int = 1,
        down_after: float = 30.0,
        lines: tuple[str, ...] = (),
        port: int = 0,
    ) -> None:
        super().__init__(port=port)
        self._binary = require_binary("redis-server")
        self._lines = [
            f"sentinel monitor {SERVICE} 127.0.0.1 {master_port} {quorum}",
            f"sentinel down-after-milliseconds {SERVICE} {int(down_after * 1000)}",
            f"sentinel failover-timeout {SERVICE} 10000",
            f"sentinel parallel-syncs {SERVICE} 1",
            *lines,
        ]

    def command(self) -> list[str]:
        # Sentinel writes its state into its configuration: create the file once.
        path = self.directory / "sentinel.conf"
        if not path.exists():
            path.write_text("\n".join([f"dir {self.directory}", *self._lines, ""]))
        return [self._binary, str(path), "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1"]

    def answers(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False

    def ask(self, *words: str | int) -> Any:
        with redis_client_for(f"redis://127.0.0.1:{self.port}/0") as client:
            return client.execute_command(*words)

    def state(self) -> dict[str, Any]:
        """Return the sentinel's state of the master."""
        return dict(self.ask("SENTINEL MASTER", SERVICE))


class SentinelServers(Setup):
    """A master, its replicas, and three sentinels with a quorum of two."""

    def __init__(self, *, replicas: int = 1, down_after: float = 1.0) -> None:
        super().__init__()
        self._replicas = replicas
        self._down_after = down_after
        self.servers: list[RedisServer] = []
        self.sentinels: list[Sentinel] = []

    def form(self) -> None:
        first = self.stack.enter_context(RedisServer(options=REPLICATION))
        follow = (*REPLICATION, "--replicaof", f"127.0.0.1 {first.port}")
        self.servers = [first]
        self.servers += [self.stack.enter_context(RedisServer(options=follow)) for _ in range(self._replicas)]
        wait_until(lambda: all(is_in_step(server) for server in self.servers[1:]), timeout=FORMING)
        for _ in range(3):
            sentinel = Sentinel(first.port, quorum=2, down_after=self._down_after)
            self.sentinels.append(self.stack.enter_context(sentinel))
        wait_until(lambda: all(self._knows(sentinel) for sentinel in self.sentinels), timeout=FORMING)

    def _knows(self, sentinel: Sentinel) -> bool:
        state = sentinel.state()
        return (int(state["num-other-sentinels"]), int(state["num-slaves"])) == (2, self._replicas)

    @property
    def url(self) -> str:
        return sentinel_url(*self.sentinels)

    @property
    def master(self) -> RedisServer:
        """The running server that reports itself as master."""
        return next(server for server in self.servers if server.running and is_primary(server))

    def clear(self) -> None:
        """Remove all keys and scripts."""
        with self.master.client() as client:
            client.flushall()
            client.script_flush()


def sentinel_url(*sentinels: Sentinel, query: str = "") -> str:
    return f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in sentinels)}/{SERVICE}/1{query}"


def is_primary(server: RedisServer) -> bool:
    return replication(server).get("role") == "master"


def is_in_step(server: RedisServer) -> bool:
    """Return whether a replica is connected to its master and synced."""
    state = replication(server)
    return (state.get("role"), state.get("master_link_status")) == ("slave", "up")


def replication(server: RedisServer) -> dict[str, Any]:
    """Return a server's INFO replication; empty while it does not answer or breaks connections."""
    try:
        with server.client() as client:
            return dict(client.info("replication"))
    except redis.RedisError:
        return {}
