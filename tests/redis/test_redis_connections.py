"""Connections find their server, send login and database in one round trip, and keep their timeouts."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from config.errors import SettingsError
from services.errors import StoreRefused, StoreUnavailable
from services.redis.client import BoundedPool
from services.redis.store import EXCHANGE, Call, ScriptRunner, connect, script
from tests.support.replicas import ROOT
from tests.support.servers.processes import RedisServer, free_port, wait_until
from tests.support.servers.redis_setups import ClusterNode, Sentinel
from tests.support.servers.relay import Relay
from tests.support.streams.turns import count_turns

PING = Call(None, ("PING",))
#: The 2 seconds of a callback, and half a second for a slow test machine.
IN_TIME = 2.5
#: More than that, for a machine that stops for a while, and far less than a wait without a timeout takes.
WIDE = 15.0


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("memcached://a", "begins with one of redis://"),
        ("redis://", "begins with one of redis://"),
        ("redis://a,b", "like redis://"),
        ("redis://a:99999", "ports up to 65535"),
        ("redis://a/one", "like redis://"),
        ("redis://a/1/2", "like redis://"),
        ("redis+sentinel://a:26379", "/service"),
        ("redis+sentinel://a:26379,/main", "host:26379,host2:26379"),
        ("redis+cluster://a/1", "no databases"),
        ("unix://", "begins with one of"),
        ("redis://a?no_such_option=1", "no_such_option"),
        ("redis://a?health_check_interval=often", "health_check_interval"),
    ],
)
def test_a_wrong_address_is_an_error_of_one_line(url: str, expected: str) -> None:
    """The error shows the expected form of the address, and not the given address."""
    with pytest.raises(SettingsError) as caught:
        connect(url.replace("://a", "://me:fake-secret@a"), pool_size=1)

    assert str(caught.value).startswith("REDIS_URL is wrong: expected ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "fake-secret" not in str(caught.value)


def test_a_url_sets_neither_timeouts_nor_the_pool_size(redis_url: str) -> None:
    """The URL's other options go to the client library."""
    client = connect(f"{redis_url}?socket_timeout=60&timeout=60&max_connections=99&client_name=laibao", pool_size=2)

    pool = client.connection_pool
    with closing(client):
        assert client.client_getname() == "laibao"

    assert isinstance(pool, BoundedPool)
    assert (pool.max_connections, pool.timeout, pool.get_connection().socket_timeout) == (2, 0.5, 0.5)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:fake-secret@a",
        "rediss://me:fake-secret@a?ssl_password=fake-secret",
        "redis+sentinel://:fake-secret@a/main?sentinel_password=fake-secret",
        "redis+cluster://:fake-secret@a,b",
    ],
)
def test_a_repr_shows_no_password(url: str) -> None:
    """Neither the client's, nor its pool's, nor its connections'."""
    client = connect(url, pool_size=1)
    pool = client.connection_pool

    printed = [repr(client), repr(pool), repr(pool.make_connection())]

    assert "fake-secret" not in "".join(printed)


def test_login_and_database_are_one_round_trip() -> None:
    """The first command is a second one."""
    with RedisServer(options=("--requirepass", "fake-password")) as server:
        client = connect(f"redis://:fake-password@127.0.0.1:{server.port}/3", pool_size=1, timeout=10.0)
        turns = count_turns(client)

        client.set("k", "v")

        assert turns.total() == 2
        with server.client(3, password="fake-password") as other:
            assert other.get("k") == "v"
        client.close()


@pytest.mark.parametrize(
    ("login", "db", "text", "code"),
    [
        ("", 1, "Authentication", "store_refused"),
        (":wrong@", 1, "invalid username", "store_refused"),
        ("nobody:fake@", 1, "invalid username", "store_refused"),
        (":fake@", 99, "DB", "store_unavailable"),
    ],
    ids=["no password", "wrong password", "no user", "no database"],
)
def test_a_rejected_login_is_an_error_with_the_servers_text(login: str, db: int, text: str, code: str) -> None:
    """What an administrator has to mend has a code of its own; no connection is left open."""
    with RedisServer(options=("--requirepass", "fake")) as server:
        client = connect(f"redis://{login}127.0.0.1:{server.port}/{db}", pool_size=1, timeout=10.0)

        with pytest.raises(StoreUnavailable, match=text) as refused:
            ScriptRunner(client).ping()

        assert refused.value.code == code
        with server.client(0, password="fake") as other:
            wait_until(lambda: len(other.client_list()) == 1)
        client.close()


def test_a_missing_right_is_refused_like_a_wrong_password() -> None:
    with RedisServer(options=("--user", "reader", "on", ">fake", "+select", "~*")) as server:
        client = connect(f"redis://reader:fake@127.0.0.1:{server.port}/1", pool_size=1, timeout=10.0)

        with pytest.raises(StoreRefused, match="NoPermission"):
            ScriptRunner(client).ping()

        client.close()


def test_a_unix_socket_is_an_address(tmp_path: Path) -> None:
    """A Unix socket works like TCP, with database selection."""
    with RedisServer(options=("--unixsocket", str(tmp_path / "s"))) as server:
        client = connect(f"unix://{tmp_path / 's'}?db=2", pool_size=1, timeout=10.0)

        assert ScriptRunner(client).run([Call(None, ("SET", "k", "v"))])

        with server.client(2) as other:
            assert other.get("k") == "v"
        client.close()


def test_every_connection_follows_a_changed_route(redis_url: str) -> None:
    """An outdated connection is replaced at its next use; one in use is not touched."""
    client = connect(redis_url, pool_size=2, timeout=10.0)
    pool = client.connection_pool
    assert isinstance(pool, BoundedPool)
    before = client.client_id()
    assert client.client_id() == before

    pool.route.renew()

    after = client.client_id()
    assert after != before
    assert client.client_id() == after
    client.close()


class Names:
    """A stand-in for the system's resolver: knows some names, and hangs on demand."""

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = {}
        self.free = threading.Event()
        self.free.set()
        self._real = socket.getaddrinfo

    def __call__(self, host: str, port: Any, *args: Any, **options: Any) -> Any:
        if host.startswith("127."):
            return self._real(host, port, *args, **options)
        self.free.wait(60.0)
        if host not in self.known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [found for name in self.known[host] for found in self._real(name, port, *args, **options)]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    yield names
    names.free.set()


def elapsed(call: Callable[[], object]) -> tuple[float, object]:
    """Return a call's duration in seconds, and its value or error."""
    began = time.monotonic()
    try:
        outcome = call()
    except Exception as exc:
        outcome = exc
    return time.monotonic() - began, outcome


def in_time(call: Callable[[], object]) -> object:
    """Return the outcome of one of three calls that ends in time: a machine may stop for seconds, but not each time."""
    for _ in range(3):
        seconds, outcome = elapsed(call)
        if seconds < IN_TIME:
            return outcome
    pytest.fail(f"took {seconds:.1f} s")


def test_a_hanging_resolver_delays_no_run(redis_server: RedisServer, names: Names) -> None:
    """New connections use the last resolved address; without one it is an outage, within a run's timeout."""
    names.known["redis.example"] = ["127.0.0.1"]
    client = connect(f"redis://redis.example:{redis_server.port}/1", pool_size=2)
    unresolved = connect(f"redis://other.example:{redis_server.port}/1", pool_size=2)
    runner = ScriptRunner(client)
    wait_until(lambda: not isinstance(elapsed(runner.ping)[1], Exception))
    names.free.clear()
    client.connection_pool.disconnect()

    known, answer = elapsed(runner.ping)
    unknown, error = elapsed(lambda: ScriptRunner(unresolved).run([PING]))

    assert answer is None
    assert isinstance(error, StoreUnavailable)
    assert "Timeout resolving the name other.example" in str(error)
    assert max(known, unknown) < WIDE
    client.close()


def test_an_unknown_name_is_an_error(names: Names) -> None:
    """The error has the text of the operating system."""
    with pytest.raises(StoreUnavailable, match="Name or service not known"):
        ScriptRunner(connect("redis://nobody.example:6379/1", pool_size=1)).ping()


def test_every_address_of_a_name_is_tried(redis_server: RedisServer, names: Names) -> None:
    """An address that refuses connections is skipped, and a name that moved is followed."""
    names.known["redis.example"] = ["127.0.0.9", "127.0.0.1"]
    client = connect(f"redis://redis.example:{redis_server.port}/1", pool_size=1, timeout=10.0)

    assert client.ping()

    names.known["redis.example"] = ["127.0.0.9"]
    client.connection_pool.disconnect()
    with pytest.raises(redis.ConnectionError, match=r"redis\.example"):
        client.ping()
    client.close()


UNDER_GEVENT = """
from gevent import monkey, get_hub, spawn, sleep
import time
hang = time.sleep
monkey.patch_all()
import socket
from services.redis.store import ScriptRunner, connect
real = socket.getaddrinfo
socket.getaddrinfo = lambda *args, **options: get_hub().threadpool.apply(hang, (20,))
ticks = []
def tick():
    while True:
        ticks.append(time.monotonic())
        sleep(0.01)
spawn(tick)
runner = ScriptRunner(connect("redis://redis.example:6379/1", pool_size=1))
began = time.monotonic()
try:
    runner.ping()
except Exception as exc:
    print(time.monotonic() - began, max(b - a for a, b in zip(ticks, ticks[1:])), exc, flush=True)
import os
os._exit(0)
"""


def test_a_hanging_resolver_blocks_no_greenlet() -> None:
    """Under gunicorn's worker a hanging resolver blocks neither the caller nor other greenlets."""
    run = subprocess.run([sys.executable, "-c", UNDER_GEVENT], cwd=ROOT, capture_output=True, text=True, timeout=60)

    seconds, pause, message = run.stdout.split(" ", 2)
    assert "Timeout resolving the name redis.example" in message
    assert float(seconds) < WIDE
    assert float(pause) < float(seconds)


def test_two_runs_over_a_slow_connection_end_in_time() -> None:
    """Each reply is 0.4 s late, and new connections need a login and the scripts too."""
    with (
        RedisServer(options=("--requirepass", "fake")) as server,
        Relay(server.port) as proxy,
        proxy.slow(0.4),
    ):
        runners: list[ScriptRunner] = []
        head = Call(script("head"), ("dify_stream:nobody",), ("",))

        def unconnected() -> None:
            runners.append(ScriptRunner(connect(f"redis://:fake@127.0.0.1:{proxy.port}/1", pool_size=2)))
            for _ in range(2):
                elapsed(lambda: runners[-1].run([head]))

        in_time(unconnected)
        assert in_time(lambda: runners[-1].run([head]) + runners[-1].run([head])) == [None, None]


def test_the_wait_for_a_pool_connection_is_part_of_the_timeout() -> None:
    """A hundred threads share one connection to a slow Redis: none waits until the others have their replies."""
    with RedisServer() as server, Relay(server.port) as proxy:
        runner = ScriptRunner(connect(proxy_url(proxy), pool_size=1))
        runner.ping()
        with proxy.slow(0.4):
            took: list[float] = []
            threads = [threading.Thread(target=lambda: took.append(elapsed(runner.ping)[0])) for _ in range(100)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60.0)

    assert len(took) == 100
    assert max(took) < WIDE


def test_a_full_pool_is_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    """A thread that gets no connection fails in time, and one log line reports the full pool."""
    with RedisServer() as server:
        client = connect(server.url(), pool_size=1)
        runner = ScriptRunner(client)
        taken = client.connection_pool.get_connection()
        with pytest.raises(StoreUnavailable):
            runner.ping()
        client.connection_pool.release(taken)
        runner.ping()
        client.close()

    assert caplog.messages == ["all connections to redis are in use"]


def proxy_url(proxy: Relay) -> str:
    return f"redis://127.0.0.1:{proxy.port}/0"


@contextmanager
def dripping(seconds: float) -> Iterator[int]:
    """Yield the port of a Redis whose replies come one byte every `seconds`."""
    ended = threading.Event()

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError):
            while client.recv(65536):
                for byte in b"$1000\r\n" + b"x" * 1000 + b"\r\n":
                    client.sendall(bytes([byte]))
                    if ended.wait(seconds):
                        return

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)


def test_a_dripping_reply_is_given_up_in_time() -> None:
    """Each byte comes within the socket's timeout, but the whole reply would take two minutes."""
    with dripping(0.1) as port:
        runner = ScriptRunner(connect(f"redis://127.0.0.1:{port}/0", pool_size=1))

        took, outcome = elapsed(lambda: runner.run([Call(None, ("GET", "k"))]))

    assert isinstance(outcome, StoreUnavailable)
    assert EXCHANGE * 0.5 - 0.1 <= took < WIDE


def test_a_redis_that_does_not_read_is_given_up_in_time() -> None:
    """A request is sent in one piece: its parts do not each get the whole timeout."""
    with RedisServer() as server:
        runner = ScriptRunner(connect(server.url(), pool_size=1))
        runner.ping()
        server.pause()

        took, outcome = elapsed(lambda: runner.run([Call(None, ("SET", "k", "x" * 50_000_000))]))

        server.resume()
    assert isinstance(outcome, StoreUnavailable)
    assert took < WIDE


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a key and a self-signed certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis for tests")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "redis.key", folder / "redis.crt"
    private = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths[0].write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    paths[1].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return paths


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls(tmp_path_factory.mktemp("tls"))


class Tls:
    """A certificate for 127.0.0.1, with the options of servers and clients that use it."""

    def __init__(self, folder: Path) -> None:
        key, self.certificate = certificate(folder)
        files = {"key": key, "cert": self.certificate, "ca-cert": self.certificate}
        self.lines = [f"tls-{name}-file {path}" for name, path in files.items()] + ["tls-auth-clients no"]
        self.query = f"?ssl_ca_certs={self.certificate}"

    def options(self, port: int) -> tuple[str, ...]:
        words = [word for line in self.lines for word in f"--{line}".split(" ")]
        return (*words, "--tls-port", str(port))


def test_tls_verifies_the_certificate_and_has_the_same_timeouts(tls: Tls) -> None:
    """An untrusted certificate is rejected; a frozen server is given up in time."""
    port = free_port()
    with RedisServer(options=tls.options(port)) as server:
        url = f"rediss://127.0.0.1:{port}/1"
        trusting = connect(url + tls.query, pool_size=1, timeout=10.0)
        assert trusting.ping()
        with pytest.raises(StoreUnavailable, match="certificate"):
            ScriptRunner(connect(url, pool_size=1, timeout=10.0)).ping()
        server.pause()

        took, outcome = elapsed(lambda: ScriptRunner(connect(url + tls.query, pool_size=1)).run([PING]))

        server.resume()
        trusting.close()
    assert isinstance(outcome, StoreUnavailable)
    assert took < WIDE


@pytest.mark.full
def test_sentinels_and_cluster_nodes_are_reached_by_tls(tls: Tls) -> None:
    """Sentinels and cluster nodes announce the TLS port."""
    server_port, sentinel_port, node_port = free_port(), free_port(), free_port()
    lines = (*tls.lines, f"tls-port {sentinel_port}", "tls-replication yes")
    with (
        RedisServer(options=tls.options(server_port)),
        Sentinel(server_port, lines=lines),
        ClusterNode(options=(*tls.options(node_port), "--tls-cluster", "yes")) as node,
    ):
        node.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        urls = [f"rediss+sentinel://127.0.0.1:{sentinel_port}/main", f"rediss+cluster://127.0.0.1:{node_port}"]
        runners = [ScriptRunner(connect(url + tls.query, pool_size=1, timeout=10.0)) for url in urls]

        for runner in runners:
            wait_until(lambda runner=runner: stores(runner), timeout=30.0)  # type: ignore[misc]


def stores(runner: ScriptRunner) -> bool:
    """Return whether Redis accepts a write: a Cluster does once all its slots are served."""
    with suppress(StoreUnavailable):
        return runner.run([Call(None, ("SET", "k", "v"))]) == [True]
    return False


def test_a_reply_that_came_while_the_process_was_stopped_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event loop that finds it together with a timeout that has passed reports the timeout."""
    recv_into, timeouts = socket.socket.recv_into, [TimeoutError("timed out")]

    def reported(sock: socket.socket, *args: Any) -> int:
        assert select.select([sock], [], [], 30.0)[0]
        if timeouts:
            raise timeouts.pop()
        return recv_into(sock, *args)

    with RedisServer() as server, closing(connect(server.url(), pool_size=1)) as client:
        runner = ScriptRunner(client)
        runner.ping()
        monkeypatch.setattr(socket.socket, "recv_into", reported)

        assert runner.run([PING], attempts=1) == [True]

    assert not timeouts
