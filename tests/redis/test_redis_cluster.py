"""A real Redis Cluster: each call reaches its node, slots may move, and a node that is away affects no other."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest
import redis
from redis.crc import key_slot

from services.errors import StoreUnavailable
from services.redis.cluster import ClusterClient
from services.redis.store import Call, ScriptRunner, connect, script, servers
from tests.support.replicas import ROOT
from tests.support.servers.processes import FakeClock, RedisServer, free_port, wait_until
from tests.support.servers.redis_setups import SLOTS, ClusterNode, ClusterServers

#: The 2 seconds of a callback, and half a second for a slow test machine.
IN_TIME = 2.5
LOGGER = "services.redis.outages"


def command(*words: str) -> Call:
    return Call(None, words)


def enter(key: str) -> Call:
    return Call(script("enter"), (key,), ("100", "s1", 3, 60))


def key_on(number: int, *, other: str = "") -> str:
    """Return a key of the node with this number by the initial slots; no other test key has its slot."""
    keys = (f"key{n}" for n in count() if f"key{n}" != other)
    return next(key for key in keys if key_slot(key.encode()) * 3 // SLOTS == number)


#: Real clusters take seconds to form, so only `make test-all` runs these tests.
pytestmark = pytest.mark.full

KEYS = [key_on(number) for number in range(3)]


@pytest.fixture
def runner(cluster_url: str) -> Iterator[ScriptRunner]:
    """A runner for the shared cluster, with a longer timeout for a slow test machine."""
    client = connect(cluster_url, pool_size=4, timeout=10.0)
    yield ScriptRunner(client)
    client.close()


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[ClusterServers]:
    """A cluster that these tests may break; a node that is away does not stop the others."""
    with ClusterServers(full_coverage=False, node_timeout=60.0) as cluster:
        yield cluster


@pytest.fixture
def cluster(own_cluster: ClusterServers) -> ClusterServers:
    own_cluster.clear()
    return own_cluster


def test_replies_come_in_the_order_of_the_calls(runner: ScriptRunner) -> None:
    """Replies come in call order over any number of nodes, for scripts and plain commands."""
    runner.run([command("SET", f"k{n}", str(n)) for n in range(200)])

    calls = [command("GET", f"k{n}") if n % 3 else enter(f"places{n}") for n in range(200)]

    assert runner.run(calls) == [str(n) if n % 3 else 1 for n in range(200)]
    assert runner.run_each(calls) == [str(n) if n % 3 else 2 for n in range(200)]


def test_nodes_work_at_the_same_time(redis_cluster: ClusterServers) -> None:
    """A run over three nodes takes as long as the slowest node, not the sum."""
    client = connect(redis_cluster.url, pool_size=2, timeout=20.0)
    assert isinstance(client, ClusterClient)
    client.everywhere([command("PING")])
    began = time.monotonic()

    replies = client.everywhere([Call(None, ("WAIT", 1, 1500))])

    assert replies.values == [0, 0, 0]
    assert time.monotonic() - began < 3.5
    client.close()


def test_every_node_has_every_script(runner: ScriptRunner, redis_cluster: ClusterServers) -> None:
    """Scripts run after loading; a node that lost them gets them again with the next call."""
    runner.load()
    sha = script("enter").sha
    assert [node.ask("SCRIPT", "EXISTS", sha) for node in redis_cluster.nodes] == [[True]] * 3

    redis_cluster.nodes[1].ask("SCRIPT", "FLUSH")

    assert runner.run([enter(key) for key in KEYS]) == [1, 1, 1]


def test_a_refused_call_has_its_own_error(runner: ScriptRunner) -> None:
    """As with one server: `run` fails as a whole, `run_each` per call, and `mistyped` returns WRONGTYPE errors."""
    runner.run([command("LPUSH", KEYS[1], "1")])
    calls = [command("SET", KEYS[0], "v"), command("GET", KEYS[1]), command("GET", KEYS[0])]

    first, refused, last = runner.run_each(calls)

    assert (first, last) == (True, "v")
    assert "WRONGTYPE" in str(refused)
    assert isinstance(runner.run(calls, mistyped=True)[1], redis.ResponseError)
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        runner.run(calls)


def test_single_commands_find_their_node(cluster_url: str) -> None:
    """Single commands go to the node of their first key, or to any node; `pipeline` raises."""
    client = connect(cluster_url, pool_size=2, timeout=10.0)

    for key in KEYS:
        client.set(key, key)

    assert [client.get(key) for key in KEYS] == KEYS
    assert client.ping()
    assert sum(int(str(server.dbsize())) for server in servers(client)) == 3
    with pytest.raises(redis.ResponseError):
        client.incr(KEYS[0])
    with pytest.raises(NotImplementedError):
        client.pipeline()
    client.close()


def test_each_node_has_a_pool_of_its_own(cluster: ClusterServers) -> None:
    """The pool is bounded: threads wait for a free connection."""
    client = connect(cluster.url, pool_size=2, timeout=20.0)
    runner = ScriptRunner(client)
    before = clients_of(cluster.nodes[0])

    threads = [threading.Thread(target=runner.run, args=([command("GET", key) for key in KEYS],)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)

    assert clients_of(cluster.nodes[0]) - before <= 2
    client.close()


def clients_of(node: ClusterNode) -> int:
    with node.client() as client:
        return len(client.client_list(_type="normal"))


def test_a_password_is_for_every_node(cluster: ClusterServers) -> None:
    """Every node gets the password; without it no node answers."""
    for node in cluster.nodes:
        node.ask("CONFIG", "SET", "requirepass", "fake-secret")
    try:
        authenticated = ScriptRunner(connect(cluster.url.replace("://", "://:fake-secret@"), pool_size=1, timeout=10.0))
        with pytest.raises(StoreUnavailable, match="Authentication required") as caught:
            ScriptRunner(connect(cluster.url, pool_size=1, timeout=10.0)).ping()

        assert authenticated.run([command("SET", key, "v") for key in KEYS]) == [True] * 3
        assert "fake-secret" not in str(caught.value)
    finally:
        for node in cluster.nodes:
            with node.client(password="fake-secret") as client:
                client.config_set("requirepass", "")


def test_a_single_server_is_not_accepted_as_a_cluster(redis_server: RedisServer) -> None:
    """The error is that of the server, which has cluster support disabled."""
    runner = ScriptRunner(connect(f"redis+cluster://127.0.0.1:{redis_server.port}", pool_size=1, timeout=10.0))

    with pytest.raises(StoreUnavailable, match="cluster support disabled"):
        runner.ping()


@contextmanager
def frozen(*nodes: ClusterNode) -> Iterator[None]:
    for node in nodes:
        node.pause()
    try:
        yield
    finally:
        for node in nodes:
            node.resume()


def test_one_node_that_hangs_fails_its_own_calls_only(cluster: ClusterServers) -> None:
    """Calls to other nodes get their replies, within the time of one wait."""
    runner = ScriptRunner(connect(cluster.url, pool_size=4))
    runner.run([command("SET", key, key) for key in KEYS])

    with frozen(cluster.nodes[0]):
        began = time.monotonic()
        outcomes = runner.run_each([command("GET", key) for key in (*KEYS, *KEYS)])
        took = time.monotonic() - began

    print(f"\none node of three hangs: the others' calls took {took:.2f} s")
    assert [isinstance(outcome, StoreUnavailable) for outcome in outcomes] == [True, False, False] * 2
    assert outcomes[1:3] == KEYS[1:]
    assert took < IN_TIME
    wait_until(lambda: runner.run_each([command("GET", KEYS[0])]) == KEYS[:1])


def test_a_callback_over_hung_nodes_is_in_time(cluster: ClusterServers) -> None:
    """Two runs while one node works and two hang, on open and on new connections."""
    for warm in (True, False):
        runner = ScriptRunner(connect(cluster.url, pool_size=4))
        if warm:
            runner.run([command("SET", key, key) for key in KEYS])

        with frozen(*cluster.nodes[:2]):
            began = time.monotonic()
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    runner.run([command("GET", key) for key in KEYS])
            took = time.monotonic() - began
            others = runner.run([command("GET", KEYS[2])])

        print(f"\ntwo of three nodes hang, {'open' if warm else 'new'} connections: two runs took {took:.2f} s")
        assert took < IN_TIME
        assert others == [KEYS[2]]


def test_the_outage_of_one_node_is_one_log_line_with_its_name(
    cluster: ClusterServers, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage is logged once however many calls fail, and once at its end. Replies of other nodes do not end it."""
    runner = ScriptRunner(connect(cluster.url, pool_size=4, timeout=5.0), clock=clock)
    runner.run([command("GET", key) for key in KEYS])
    gone = cluster.nodes[1]
    gone.stop()
    with caplog.at_level(logging.INFO, LOGGER):
        for _ in range(5):
            runner.run_each([command("GET", key) for key in KEYS])
        assert runner.away(KEYS[1])
        clock.advance(30.0)
        runner.run([command("GET", KEYS[0]), command("GET", KEYS[2])])
        assert runner.away(KEYS[1])
        assert not runner.away(KEYS[0])
        gone.start()
        wait_until(lambda: runner.run_each([command("GET", key) for key in KEYS]) == [None] * 3, timeout=60.0)
        wait_until(lambda: pinged(runner, clock))

    name = f"127.0.0.1:{gone.port}"
    away, back = caplog.records
    assert (away.message, vars(away)["node"]) == ("redis is away", name)
    assert name in vars(away)["cause"]
    assert (back.message, vars(back)["node"]) == ("redis is back", name)
    assert not runner.away(KEYS[1])


def pinged(runner: ScriptRunner, clock: FakeClock) -> bool:
    """Call every node until QUIET_SECONDS passed without errors; return whether all outages are over."""
    clock.advance(5.0)
    runner.ping()
    return not runner.away(KEYS[1])


def test_a_health_check_names_the_node_that_is_away(cluster: ClusterServers) -> None:
    """`ping` succeeds only if each primary answers."""
    runner = ScriptRunner(connect(cluster.url, pool_size=4, timeout=5.0))
    runner.ping()
    gone = cluster.nodes[2]
    gone.stop()

    with pytest.raises(StoreUnavailable, match=str(gone.port)):
        runner.ping()

    gone.start()
    wait_until(lambda: runner.run_each([command("GET", key) for key in KEYS]) == [None] * 3, timeout=60.0)


def test_one_address_that_answers_is_enough(cluster: ClusterServers) -> None:
    """The other given addresses are one without a server and one of a node that hangs."""
    addresses = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{cluster.nodes[0].port}", f"127.0.0.1:{cluster.nodes[1].port}"]
    client = connect(f"redis+cluster://{','.join(addresses)}", pool_size=2)

    with frozen(cluster.nodes[0]):
        began = time.monotonic()
        stored = ScriptRunner(client).run([command("SET", key, key) for key in KEYS[1:]])
        took = time.monotonic() - began

    print(f"\none address of three answers: the first run took {took:.2f} s")
    assert stored == [True, True]
    assert took < IN_TIME
    client.close()


def test_an_unreachable_cluster_is_one_outage(caplog: pytest.LogCaptureFixture) -> None:
    """It is reported in time, as an outage of the cluster, because no node is known."""
    runner = ScriptRunner(connect(f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{free_port()}", pool_size=1))

    with caplog.at_level(logging.INFO, LOGGER):
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="no node tells the cluster's slots"):
                runner.run_each([command("GET", key) for key in KEYS])

    assert [vars(record)["node"] for record in caplog.records] == ["cluster"]


def test_a_slot_that_moved_is_followed(cluster: ClusterServers) -> None:
    """A moved slot is followed in the same run, for scripts too; the next run goes to the new node at once."""
    runner = ScriptRunner(connect(cluster.url, pool_size=4, timeout=10.0))
    key, source, target = KEYS[0], cluster.nodes[0], cluster.nodes[2]
    slot = key_slot(key.encode())
    runner.run([command("GET", each) for each in KEYS])
    cluster.begin_move(slot, source, target)
    cluster.end_move(slot, target)
    try:
        assert runner.run([enter(key), command("GET", KEYS[1])]) == [1, None]

        before = target.ask("CLUSTER", "COUNTKEYSINSLOT", slot)
        redirected = errors_of(source)
        assert runner.run([enter(key)]) == [2]
        assert before == 1
        assert errors_of(source) == redirected
    finally:
        target.ask("DEL", key)
        cluster.begin_move(slot, target, source)
        cluster.end_move(slot, source)


def errors_of(node: ClusterNode) -> int:
    """Return how often a node replied MOVED or ASK."""
    with node.client() as client:
        return sum(int(e["count"]) for name, e in client.info("errorstats").items() if name.endswith("MOVED"))


def test_a_migrating_slot_is_read_on_both_nodes(cluster: ClusterServers) -> None:
    """During a migration, keys are read at the source until they move; commands over both sides have to wait."""
    runner = ScriptRunner(connect(cluster.url, pool_size=4, timeout=10.0))
    source, target = cluster.nodes[1], cluster.nodes[2]
    left, gone, new = (f"{{{KEYS[1]}}}:{name}" for name in ("left", "gone", "new"))
    slot = key_slot(KEYS[1].encode())
    runner.run([command("SET", left, "left"), command("SET", gone, "gone")])
    cluster.begin_move(slot, source, target)
    try:
        source.hand_over(gone, target)

        assert runner.run([command("GET", left), command("GET", gone), enter(new)]) == ["left", "gone", 1]
        assert target.ask("CLUSTER", "COUNTKEYSINSLOT", slot) == 2
        with pytest.raises(StoreUnavailable, match="TryAgain"):
            runner.run([command("MGET", left, gone)])

        source.hand_over(left, target)
        cluster.end_move(slot, target)
        assert runner.run([command("MGET", left, gone)]) == [["left", "gone"]]
    finally:
        target.ask("DEL", left, gone, new)
        cluster.end_move(slot, target)
        cluster.begin_move(slot, target, source)
        cluster.end_move(slot, source)


UNDER_GEVENT = """
import sys
from gevent import monkey
monkey.patch_all()
from services.redis.store import Call, ScriptRunner, connect
from services.streams.store import StreamStore
from services.streams.records import NewStream
runner = ScriptRunner(connect(sys.argv[1], pool_size=2, timeout=10.0))
runner.load()
store = StreamStore(runner)
for n in range(20):
    store.open(NewStream(f"s{n}", "o", {"status": "processing"}))
print([store.read(f"s{n}").status for n in range(20)].count("processing"))
"""


@pytest.mark.parametrize("kind", ["cluster_url", "sentinel_url"])
def test_cluster_and_sentinel_clients_work_under_gevent(kind: str, request: pytest.FixtureRequest) -> None:
    """As in gunicorn's workers, gevent patches before any import of the product."""
    url = request.getfixturevalue(kind)

    run = subprocess.run(
        [sys.executable, "-c", UNDER_GEVENT, url], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert (run.stdout, run.stderr) == ("20\n", "")
