"""A failover in the middle of an answer, with real servers that are really killed: the stream ends complete."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count

import pytest
import redis
from redis.crc import key_slot

from services.errors import StoreUnavailable
from services.redis.store import ScriptRunner, connect
from services.streams.flusher import Flusher
from services.streams.owned_stream import OwnedStream
from services.streams.records import NewStream
from services.streams.store import StreamStore, stream_keys
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.servers.redis_setups import SERVICE, SLOTS, ClusterServers, SentinelServers, is_primary
from utils.deadline import Deadline

pytestmark = [pytest.mark.scenario, pytest.mark.full]

#: Seconds between two pieces of an answer.
PACE = 0.02
#: Timeout in seconds of every wait: long, for a slow test machine.
TIMEOUT = 60.0
Record = Callable[[str, object], None]


class Answer:
    """An answer written by its owner while a reader follows it."""

    def __init__(self, store: StreamStore, flusher: Flusher, stream_id: str) -> None:
        new = NewStream(stream_id, "owner", {"status": "processing"})
        store.open(new)
        self.stream_id = stream_id
        self._store = store
        self._stream = OwnedStream(new, deadline=Deadline(600.0), changed=flusher.changed, max_bytes=1_000_000)
        flusher.add(self._stream)
        self._ending = threading.Event()
        self.written = ""
        #: Bytes that the reader saw, and its longest time in seconds without new ones.
        self.seen = 0
        self.stall = 0.0
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._write, self._read)]
        for thread in self._threads:
            thread.start()

    def _write(self) -> None:
        for number in count():
            piece = f"{number} "
            self._stream.emit(piece)
            self.written += piece
            if self._ending.wait(PACE):
                return

    def _read(self) -> None:
        grown = time.monotonic()
        while not self._ending.wait(PACE):
            with suppress(StoreUnavailable):
                snapshot = self._store.read(self.stream_id)
                if snapshot and snapshot.size > self.seen:
                    self.seen = snapshot.size
                    self.stall = max(self.stall, time.monotonic() - grown)
                    grown = time.monotonic()

    def grows(self, since: int) -> bool:
        return self.seen > since

    def goes_on(self) -> None:
        """Wait until the reader sees text written from now on."""
        now = len(self.written)
        wait_until(lambda: self.seen > now, timeout=TIMEOUT)

    def end(self) -> None:
        """End the answer, and check that Redis has each byte of it once."""
        self._ending.set()
        for thread in self._threads:
            thread.join(TIMEOUT)
        self._stream.finish("completed")
        assert self._stream.wait_closed(TIMEOUT)
        assert self._stream.closed == "done"
        fields, chunks = self._store.load(self.stream_id)
        snapshot = self._store.read(self.stream_id)
        assert snapshot
        assert "".join(chunk.content for chunk in chunks) == self.written
        assert snapshot.text == self.written
        assert (fields["status"], chunks[-1].is_final) == ("completed", True)


@contextmanager
def replica_of_the_product(url: str) -> Iterator[Callable[[str], Answer]]:
    """Run a replica's stream store and flusher with their real timeouts; yield a function that begins an answer."""
    client = connect(url, pool_size=8)
    store = StreamStore(ScriptRunner(client), lease=30.0)
    flusher = Flusher(store)
    flusher.start()
    yield lambda stream_id: Answer(store, flusher, stream_id)
    flusher.stop()
    client.close()


@pytest.fixture
def sentinels() -> Iterator[SentinelServers]:
    with SentinelServers() as servers:
        yield servers


@pytest.fixture
def cluster() -> Iterator[ClusterServers]:
    """Three primaries with a replica each; without one of them the others continue."""
    with ClusterServers(replicas=True, node_timeout=2.0, full_coverage=False) as servers:
        yield servers


def outage_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "services.redis.outages"]


def report(record: Record, what: str, **stalls: float) -> None:
    words = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in stalls.items())
    print(f"\n{what}: longest time without new text: {words}")
    for name, seconds in stalls.items():
        record(f"stall_seconds_{name}", round(seconds, 2))


def killed(servers: SentinelServers) -> None:
    servers.master.kill()


def frozen(servers: SentinelServers) -> None:
    """Freeze the master until a failover; it comes back, and still takes itself for the master."""
    master = servers.master
    master.pause()
    wait_until(lambda: any(is_primary(server) for server in servers.servers if server is not master), timeout=TIMEOUT)
    threading.Timer(1.0, master.resume).start()


def handed_over(servers: SentinelServers) -> None:
    """Demote the master; for some seconds it still accepts writes, which it loses."""
    servers.sentinels[0].ask("SENTINEL FAILOVER", SERVICE)
    wait_until(lambda: is_primary(servers.servers[1]), timeout=TIMEOUT)


@pytest.mark.parametrize("happens", [killed, frozen])
def test_an_answer_outlives_a_failover_of_sentinels(
    happens: Callable[[SentinelServers], None],
    sentinels: SentinelServers,
    caplog: pytest.LogCaptureFixture,
    record_property: Record,
) -> None:
    """The master is killed, or hangs and returns: the answer stalls, then ends complete; the outage is logged."""
    new = sentinels.servers[1]
    with caplog.at_level(logging.INFO, "services"), replica_of_the_product(sentinels.url) as begin:
        answer = begin("s1")
        answer.goes_on()
        happens(sentinels)
        is_written_on(new, answer)
        answer.goes_on()
        wait_until(lambda: "redis is back" in outage_lines(caplog), timeout=TIMEOUT)
        answer.end()

    report(record_property, f"master {happens.__name__}, three sentinels", answer=answer.stall)
    assert is_primary(new)


def test_writes_go_to_the_new_master_before_the_old_one_steps_down(sentinels: SentinelServers) -> None:
    """The old master accepts writes for eight seconds more and loses them: by then all writes go to the new one."""
    old, new = sentinels.servers
    with replica_of_the_product(sentinels.url) as begin:
        answer = begin("s1")
        answer.goes_on()

        handed_over(sentinels)

        is_written_on(new, answer)
        assert is_primary(old)
        answer.end()


def is_written_on(server: RedisServer, answer: Answer) -> None:
    """Wait until a server has text written from now on."""
    later = len(answer.written) + 100
    with server.client() as client:
        key = stream_keys(answer.stream_id).text
        wait_until(lambda: _length(client, key) >= later, timeout=TIMEOUT)


def _length(client: redis.Redis, key: str) -> int:
    """Return the length of a text; retry once, because a server that changes its role drops connections."""
    try:
        return int(str(client.strlen(key)))
    except redis.ConnectionError:
        return 0


#: Removes the last five chunks and their text, as writes that the replica lacked when its master died.
FORGET_THE_LAST = """
local lost = 0
for _ = 1, 5 do
  local chunk = cjson.decode(redis.call('RPOP', KEYS[1]))
  lost = lost + #chunk.content
end
local text = redis.call('GET', KEYS[2])
return redis.call('SET', KEYS[2], string.sub(text, 1, #text - lost), 'KEEPTTL')
"""


def forget_the_last(replica: RedisServer) -> None:
    keys = stream_keys("s1")
    with replica.client() as client:
        client.config_set("replica-read-only", "no")
        client.eval(FORGET_THE_LAST, 2, keys.messages, keys.text)
        client.config_set("replica-read-only", "yes")


def forget_everything(replica: RedisServer) -> None:
    with replica.client() as client:
        client.config_set("replica-read-only", "no")
        client.flushall()
        client.config_set("replica-read-only", "yes")


@pytest.mark.parametrize("forget", [forget_the_last, forget_everything])
def test_an_owner_restores_what_a_failover_lost(
    forget: Callable[[RedisServer], None], sentinels: SentinelServers, record_property: Record
) -> None:
    """The new master lacks acknowledged writes or all data: the owner writes them again, and the answer is complete."""
    with replica_of_the_product(sentinels.url) as begin:
        answer = begin("s1")
        wait_until(lambda: answer.grows(200), timeout=TIMEOUT)
        sentinels.master.kill()
        forget(sentinels.servers[1])
        assert not is_primary(sentinels.servers[1])
        answer.goes_on()
        answer.end()

    report(record_property, f"master killed, new one: {forget.__name__}", answer=answer.stall)


def stream_on(cluster: ClusterServers, number: int) -> str:
    """Return the id of a stream whose slot belongs to the primary with this number."""
    ids = (f"s{n}" for n in count())
    return next(name for name in ids if key_slot(stream_keys(name).hash.encode()) * 3 // SLOTS == number)


def test_a_primary_of_a_cluster_is_killed(
    cluster: ClusterServers, caplog: pytest.LogCaptureFixture, record_property: Record
) -> None:
    """Streams of the failed node stall until its replica takes over, others do not; one log line names the node."""
    lost, replica = cluster.nodes[0], cluster.nodes[3]
    with caplog.at_level(logging.INFO, "services"), replica_of_the_product(cluster.url) as begin:
        answers = [begin(stream_on(cluster, number)) for number in range(3)]
        for answer in answers:
            answer.goes_on()
        lost.kill()
        for answer in answers[1:]:
            answer.goes_on()
        others = max(answer.stall for answer in answers[1:])
        assert not is_primary(replica)
        wait_until(lambda: is_primary(replica), timeout=TIMEOUT)
        for answer in answers:
            answer.goes_on()
        wait_until(lambda: "redis is back" in outage_lines(caplog), timeout=TIMEOUT)
        for answer in answers:
            answer.end()

    others = max(others, *(answer.stall for answer in answers[1:]))
    report(record_property, "primary killed, its replica promoted", its=answers[0].stall, others=others)
    assert others < answers[0].stall
    lines = [vars(record) for record in caplog.records if record.name == "services.redis.outages"]
    assert [(line["message"], line["node"]) for line in lines if line["node"].endswith(str(lost.port))] == [
        ("redis is away", f"127.0.0.1:{lost.port}"),
        ("redis is back", f"127.0.0.1:{lost.port}"),
    ]


def test_a_primary_of_a_cluster_hands_over_to_its_replica(cluster: ClusterServers, record_property: Record) -> None:
    """The answer moves to the other node with its slot, as in an upgrade."""
    with replica_of_the_product(cluster.url) as begin:
        answer = begin(stream_on(cluster, 1))
        answer.goes_on()

        cluster.nodes[4].ask("CLUSTER", "FAILOVER")
        wait_until(lambda: is_primary(cluster.nodes[4]) and not is_primary(cluster.nodes[1]), timeout=TIMEOUT)

        answer.goes_on()
        answer.end()

    report(record_property, "primary handed over to its replica", answer=answer.stall)


def test_a_slot_moves_in_the_middle_of_its_answer(cluster: ClusterServers, record_property: Record) -> None:
    """Keys migrate one by one, as when a cluster grows: the answer waits meanwhile, and nothing is lost."""
    source, target = cluster.nodes[0], cluster.nodes[2]
    stream_id = stream_on(cluster, 0)
    keys = stream_keys(stream_id)
    slot = key_slot(keys.hash.encode())
    with replica_of_the_product(cluster.url) as begin:
        answer = begin(stream_id)
        answer.goes_on()

        cluster.begin_move(slot, source, target)
        answer.goes_on()
        for key in keys:
            source.hand_over(key, target)
            time.sleep(0.3)
        answer.goes_on()
        cluster.end_move(slot, target)

        answer.goes_on()
        answer.end()

    report(record_property, "slot moved to another primary", answer=answer.stall)
    assert target.ask("CLUSTER", "COUNTKEYSINSLOT", slot) == 3
