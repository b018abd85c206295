"""HTTPService: pooled connections whose reads a deadline interrupts. test_dify_service covers its use for Dify."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from urllib3 import HTTPConnectionPool
from urllib3.util.connection import is_connection_dropped

from demo.mocks.auth import MockAuth
from services.errors import ProviderError
from services.http.addresses import Target
from services.http.connections import Lease, RequestRoute, _Pool
from services.http.service import HTTPReply, HTTPService, TransientError
from tests.support.servers.processes import FakeClock, free_port, wait_until, when
from tests.support.servers.raw_server import RawServer, received, self_signed
from utils.deadline import Deadline

OK, CHUNKED = b"HTTP/1.1 200 OK\r\n", b"Transfer-Encoding: chunked\r\n"
HEAD = OK + CHUNKED


NO_HEADERS: Mapping[str, str] = {}


@contextmanager
def asked(
    url: str,
    http: HTTPService | None = None,
    *,
    deadline: Deadline | None = None,
    headers: Mapping[str, str] = NO_HEADERS,
) -> Iterator[HTTPReply]:
    """GET the URL with `http`, or with a service of its own."""
    service, bound = http or HTTPService(), deadline or Deadline(600.0)
    try:
        with service.exchange("GET", url, deadline=bound, timeout=600.0, headers=headers) as exchange:
            yield exchange
    finally:
        if http is None:
            service.close()


def read(url: str, deadline: Deadline | None = None, headers: Mapping[str, str] = NO_HEADERS) -> bytes:
    """GET the URL and return up to 100 bytes of the body."""
    with asked(url, deadline=deadline, headers=headers) as exchange:
        return exchange.read_all(limit=100, timeout=60.0)


def test_a_question_aborted_while_it_connects_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An abort before the socket exists is found after connecting: the call ends with `interrupted` at once."""
    deadline, connect = Deadline(600.0), Lease.connect

    def aborted_meanwhile(lease: Lease, timeout: float) -> socket.socket:
        sock = connect(lease, timeout)
        deadline.abort("cancelled")
        return sock

    monkeypatch.setattr(Lease, "interrupt", lambda lease: None)
    monkeypatch.setattr(Lease, "connect", aborted_meanwhile)
    with RawServer(b"", hang=True) as server, pytest.raises(ProviderError) as caught:
        read(server.url, deadline)

    assert (caught.value.code, [head for head in server.heads if head]) == ("interrupted", [])


def test_a_lease_that_was_given_back_does_not_interrupt() -> None:
    """The hook of an abort may run late, when another request already uses the connection."""
    with MockAuth() as auth:
        pool = HTTPConnectionPool("127.0.0.1", urlsplit(auth.url).port)
        lease = Lease(pool)
        sock = lease.connect(5.0)
        lease.give_back(reusable=True)

        lease.interrupt()

        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        pool.close()


def test_an_abort_interrupts_a_read_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy of the environment is used, and an abort interrupts its connections like direct ones."""
    deadline = Deadline(600.0)
    with RawServer(b"", hang=True) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        when(lambda: proxy.heads, lambda: deadline.abort("cancelled"))

        with pytest.raises(ProviderError) as caught:
            read("http://dify.example/v1/info", deadline)

    assert caught.value.code == "interrupted"
    assert proxy.heads[0].startswith(b"GET http://dify.example/v1/info ")


def test_an_invalid_url_raises_a_provider_error() -> None:
    """The library's error becomes ours, which does not quote the URL."""
    with pytest.raises(ProviderError) as caught:
        read("http://secret.example:port/")

    assert caught.value.code == "provider_error"
    assert "secret" not in str(caught.value)


def test_a_body_is_read_up_to_its_limit() -> None:
    """Of an error page of any size only `limit` bytes are kept in memory."""
    with RawServer(
        HEAD + b"\r\n" + b"64\r\n" + b"x" * 100 + b"\r\n" + b"64\r\n" + b"y" * 100 + b"\r\n0\r\n\r\n"
    ) as server:
        assert read(server.url) == b"x" * 100


def test_cookies_of_one_request_are_not_sent_with_the_next() -> None:
    """All users share one service."""
    http = HTTPService()
    with RawServer(b"HTTP/1.1 200 OK\r\nSet-Cookie: who=me; Path=/\r\nContent-Length: 0\r\n\r\n") as server:
        for _ in range(2):
            with asked(server.url, http) as exchange:
                assert exchange.status == 200
    http.close()

    assert len(server.heads) == 2
    assert not any(b"Cookie" in head for head in server.heads)


def test_credentials_of_netrc_do_not_replace_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """A netrc file in the home directory does not change the Authorization header."""
    netrc = f"{tmp_path}/netrc"
    with open(netrc, "w", encoding="utf-8") as file:
        file.write("machine 127.0.0.1 login someone password fake\n")
    monkeypatch.setenv("NETRC", netrc)
    with RawServer(HEAD + b"\r\n0\r\n\r\n") as server:
        read(server.url, headers={"Authorization": "Bearer app-fake"})

    assert b"Authorization: Bearer app-fake\r\n" in server.heads[0]


def test_keepalive_detects_a_vanished_peer() -> None:
    """The socket options make the kernel probe a silent peer and break its connection, also in the pool."""
    with RawServer(HEAD + b"\r\n", hang=True) as server, asked(server.url) as exchange:
        sock = exchange._socket
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert 0 < sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 20_000


def ask(http: HTTPService, auth: MockAuth, timeout: float = 30.0) -> None:
    """Log in at the auth API and read its reply."""
    sent = {"usercode": "E1001", "password": "demo-password"}
    with http.exchange("POST", auth.url, deadline=Deadline(60.0), timeout=timeout, headers={}, json=sent) as exchange:
        exchange.read_all(limit=1000, timeout=timeout)


class PairingAuth(MockAuth):
    """An auth API that, while it is "slow", answers two requests at once or none: they need two connections."""

    def __init__(self) -> None:
        super().__init__()
        self.delay = 0.0
        self._pair = threading.Barrier(2, timeout=30.0)

    def answer(self, method: str, usercode: str, password: str) -> tuple[int, bytes, dict[str, str]]:
        if self.behaviour == "slow":
            self._pair.wait()
        return super().answer(method, usercode, password)


def ask_twice_at_once(http: HTTPService, auth: PairingAuth) -> None:
    """Open two connections and leave them in the pool."""
    auth.behaviour = "slow"
    threads = [threading.Thread(target=ask, args=(http, auth)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("body", [CHUNKED + b"\r\n2\r\nhi\r\n0\r\n\r\n", b"Content-Length: 2\r\n\r\nhi"])
def test_a_late_abort_leaves_the_pooled_connection_open(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    """The abort comes when the reply is complete, just before its connection is put back into the pool."""
    deadline, put_back, returned = Deadline(600.0), _Pool._put_conn, []

    def put(pool: _Pool, connection: Any) -> None:
        deadline.abort("cancelled")
        returned.append(connection)
        put_back(pool, connection)

    monkeypatch.setattr(_Pool, "_put_conn", put)
    http = HTTPService()
    with RawServer(OK + body, hang=True) as server:
        with asked(server.url, http, deadline=deadline) as exchange:
            exchange.read_all(limit=100, timeout=60.0)

        assert [connection.is_connected for connection in returned if connection] == [True]
        http.close()


@pytest.mark.parametrize(("idle", "opened"), [(3600.0, 1), (0.0, 3)])
def test_a_connection_idle_for_too_long_is_replaced(idle: float, opened: int) -> None:
    """A firewall may have dropped an idle connection without a sign; before `idle_seconds` are over it is reused."""
    http = HTTPService(idle_seconds=idle)
    with MockAuth() as auth:
        for _ in range(3):
            ask(http, auth)
        http.close()

        assert auth.accepted_connections == opened


def test_idle_connections_are_closed() -> None:
    """Without a further request: after a rush they would stay open for ever. Those that may be reused stay."""
    with PairingAuth() as auth, PairingAuth() as lasting:
        services = HTTPService(idle_seconds=0.2), HTTPService()
        for http, each in zip(services, (auth, lasting), strict=True):
            ask_twice_at_once(http, each)

        pool: Any = services[1]._pools.route(lasting.url).pool
        pool._reap()
        wait_until(lambda: auth.open_connections == 0)

        ask_twice_at_once(services[1], lasting)
        assert (auth.accepted_connections, lasting.accepted_connections) == (2, 2)
        for http in services:
            http.close()


def test_more_connections_than_a_pool_keeps_are_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Two requests at once need two connections, of which the pool keeps one."""
    http = HTTPService(pool_size=1)
    with PairingAuth() as auth:
        ask_twice_at_once(http, auth)

        wait_until(lambda: auth.open_connections == 1)
        http.close()

    assert "pool is full" not in caplog.text


@pytest.mark.parametrize("timeout", [60.0, 0.001])
def test_bytes_that_came_while_the_process_was_stopped_are_read(
    monkeypatch: pytest.MonkeyPatch, timeout: float
) -> None:
    """An event loop that finds them together with a timeout that has passed reports the timeout."""
    recv_into, timeouts = socket.socket.recv_into, [TimeoutError("timed out")]

    def reported(sock: socket.socket, *args: Any) -> int:
        assert select.select([sock], [], [], 30.0)[0]
        if timeouts:
            raise timeouts.pop()
        return recv_into(sock, *args)

    http = HTTPService()
    with RawServer(OK + b"Content-Length: 2\r\n\r\nhi") as server:
        monkeypatch.setattr(socket.socket, "recv_into", reported)
        with http.exchange("GET", server.url, deadline=Deadline(60.0), timeout=timeout, headers={}) as exchange:
            assert exchange.read(30.0) == b"hi"
    http.close()

    assert not timeouts


def test_a_timeout_discards_the_idle_connections() -> None:
    """After a request that timed out, the next ones open new connections."""
    http = HTTPService()
    with PairingAuth() as auth:
        ask_twice_at_once(http, auth)
        auth.behaviour = "hang"
        with pytest.raises(ProviderError, match="silent"):
            ask(http, auth, timeout=0.1)

        # One call replaces the timed out connection; the other would reuse the idle one if the pool still had it.
        ask_twice_at_once(http, auth)

        assert auth.accepted_connections == 4
        http.close()


def test_closing_closes_idle_connections_of_pools_that_are_in_use() -> None:
    """Something may still refer to a pool, such as the traceback of an error; the next request opens a connection."""
    http = HTTPService()
    with PairingAuth() as auth:
        ask_twice_at_once(http, auth)
        auth.behaviour = "normal"
        lease = Lease(http._pools.route(auth.url).pool)

        http.close()
        wait_until(lambda: auth.open_connections == 1)
        lease.connect(5.0)
        lease.give_back(reusable=True)

        wait_until(lambda: auth.open_connections == 0)
        ask(http, auth)
        assert auth.accepted_connections == 3
        http.close()


def test_a_callers_header_replaces_the_default() -> None:
    """Each header is sent once; names are compared without regard to case."""
    with RawServer(HEAD + b"\r\n0\r\n\r\n") as server:
        read(server.url, headers={"Accept": "text/html", "accept": "text/plain", "USER-AGENT": "ours"})

    head = server.heads[0].lower()
    assert head.count(b"accept:") == head.count(b"user-agent:") == 1
    assert b"accept: text/plain\r\n" in head
    assert b"connection: keep-alive\r\n" in head


@pytest.mark.parametrize(
    "sent", [{"json": float("nan")}, {"headers": {"Authorization": "Bearer app-fake\nX: y"}}], ids=["body", "header"]
)
def test_an_invalid_request_raises_an_error_that_does_not_quote_it(sent: dict[str, Any]) -> None:
    """For example, an API key that contains a newline does not get into the logs."""
    service, options = HTTPService(), {"headers": {}, **sent}
    with (
        RawServer(b"") as server,
        pytest.raises(ProviderError) as caught,
        service.exchange("POST", server.url, deadline=Deadline(60.0), timeout=60.0, **options),
    ):
        pass
    service.close()

    assert (caught.value.code, caught.value.__cause__) == ("provider_error", None)
    assert not any(server.heads)
    assert "fake" not in str(caught.value)


def test_a_connection_that_the_peer_closed_is_not_reused() -> None:
    """This server closes the connection after each reply without announcing it by `Connection: close`."""
    service = HTTPService()
    with RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as server:
        for _ in range(5):
            with asked(server.url, service) as exchange:
                assert exchange.read(30.0) == b""
            wait_until(lambda: _hung_up(service, server.url))
    service.close()

    assert len(server.heads) == 5


def test_a_connection_that_is_not_kept_is_closed_after_its_reply() -> None:
    """Also if the server leaves it open: it was asked to close it, and may do so while the next request is sent."""
    service = HTTPService(pool_size=1, keeps_connections=False)
    with RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", hang=True) as server:
        for _ in range(2):
            with asked(server.url, service) as exchange:
                assert exchange.read(30.0) == b""
    service.close()

    assert [b"connection: close" in head.lower() for head in server.heads] == [True, True]


def _hung_up(service: HTTPService, url: str) -> bool:
    """Return whether the pooled connection is closed, as urllib3 checks it."""
    pool = service._pools.route(url).pool.pool
    assert pool
    return pool.queue[-1] is None or is_connection_dropped(pool.queue[-1])


FIRST_CHUNK = HEAD + b"\r\n5\r\nhello\r\n"
PART_OF_LENGTH = OK + b"Content-Length: 500\r\n\r\nhello"
#: The read timeout of these tests, in seconds.
TIMEOUT = 0.1


def second_read(
    url: str,
    deadline: Deadline | None = None,
    *,
    timeout: float = TIMEOUT,
    before: Callable[[], object] = lambda: None,
) -> tuple[ProviderError, float]:
    """Return the error of the read after the first bytes, and its duration in seconds; `before` it, call that."""
    with asked(url, deadline=deadline) as exchange:
        assert exchange.read(30.0) == b"hello"
        before()
        began = time.monotonic()
        with pytest.raises(ProviderError) as caught:
            exchange.read(timeout)
        return caught.value, time.monotonic() - began


@pytest.mark.parametrize("reply", [FIRST_CHUNK, PART_OF_LENGTH], ids=["chunks", "length"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_silent_peer_times_a_read_out(
    reply: bytes, secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timeout counts from the start of this read, and differs from the end of the body and a broken connection."""
    tls, trusted = self_signed(tmp_path) if secure else (None, "")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    with RawServer(reply, hang=True, tls=tls) as peer:
        error, seconds = second_read(peer.url, before=lambda: time.sleep(2 * TIMEOUT))

    assert error.code == "provider_timeout"
    assert TIMEOUT * 0.9 <= seconds < 20.0


def test_the_deadline_ends_a_read() -> None:
    """The error's code says that the deadline was reached, not the timeout."""
    clock = FakeClock()
    with RawServer(FIRST_CHUNK, hang=True) as peer:
        error, seconds = second_read(
            peer.url, Deadline(60.0, clock=clock), timeout=30.0, before=lambda: clock.advance(59.99)
        )

    assert error.code == "answer_timeout"
    assert seconds < 20.0


class Dripping(RawServer):
    """After its reply, sends digits one by one, without end."""

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            received(connection)
            connection.sendall(self._replies[0])
            while True:
                time.sleep(TIMEOUT / 5)
                connection.sendall(b"0")


@pytest.mark.parametrize("reply", [OK + b"X-Number: ", FIRST_CHUNK], ids=["head", "chunk"])
def test_the_deadline_ends_a_drip_of_bytes_without_content(reply: bytes) -> None:
    """Each byte of a head or of a chunk's size starts the socket's timeout anew, but not the deadline."""

    def read_on(url: str) -> None:
        with asked(url, deadline=Deadline(5 * TIMEOUT)) as exchange:
            while exchange.read(30.0):
                pass

    with Dripping(reply) as peer, pytest.raises(ProviderError) as caught:
        read_on(peer.url)

    assert caught.value.code == "answer_timeout"


def test_the_deadline_ends_the_wait_for_the_head() -> None:
    """The wait for the reply's head ends at the deadline if this is nearer than the timeout."""
    clock = FakeClock()
    deadline = Deadline(60.0, clock=clock)
    clock.advance(59.96)
    with RawServer(b"", hang=True) as peer, pytest.raises(ProviderError) as caught:
        read(peer.url, deadline)

    assert caught.value.code == "answer_timeout"


BROKEN_REPLIES = {
    "no size": CHUNKED + b"\r\nno size\r\n",
    "longer chunk": CHUNKED + b"\r\n2\r\nhello\r\n0\r\n\r\n",
    "unread rest": CHUNKED + b"\r\n5\r\nhello\r\n",
    "no gzip": b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    "no gzip in chunks": b"Content-Encoding: gzip\r\n" + CHUNKED + b"\r\n5\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("reply", BROKEN_REPLIES.values(), ids=BROKEN_REPLIES.keys())
def test_a_connection_is_not_reused_after_a_failure(reply: bytes) -> None:
    """An unread rest of the reply would be taken for the next reply."""
    http = HTTPService()
    with RawServer(OK + reply, hang=True) as server:
        for _ in range(2):
            with asked(server.url, http) as exchange:
                exchange.read(30.0)
        assert len(server.heads) == 2
        http.close()


def test_a_connection_whose_read_was_interrupted_is_not_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a blocked read: the unread rest of the reply would be taken for the next reply."""

    def interrupted(*_args: object) -> int:
        raise KeyboardInterrupt

    def read_on(exchange: HTTPReply) -> None:
        assert exchange.read(30.0) == b"hello"
        with monkeypatch.context() as patched:
            patched.setattr(socket.socket, "recv_into", interrupted)
            exchange.read(30.0)

    http = HTTPService()
    with RawServer(FIRST_CHUNK, hang=True) as server:
        with pytest.raises(KeyboardInterrupt), asked(server.url, http) as exchange:
            read_on(exchange)
        with asked(server.url, http) as exchange:
            assert exchange.read(30.0) == b"hello"
        assert len(server.heads) == 2
        http.close()


def test_a_proxy_that_refuses_the_connection_is_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a refused connection to the host itself raises TransientError, which callers retry."""
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(TransientError):
        read(address)
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", address)
        with pytest.raises(ProviderError) as caught:
            read(f"{scheme}://dify.example/v1/info")
        assert not isinstance(caught.value, TransientError)
        assert caught.value.code == "provider_unreachable"


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_ca_bundle_of_the_environment_is_trusted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the bundle, the connection to the same server fails."""
    tls, trusted = self_signed(tmp_path)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    with RawServer(HEAD + b"\r\n2\r\nhi\r\n0\r\n\r\n", tls=tls) as server:
        with pytest.raises(ProviderError):
            read(server.url)

        monkeypatch.setenv(name, str(trusted))
        assert read(server.url) == b"hi"


def test_a_proxy_gets_its_credentials_and_a_tunnel_for_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the whole URL for http, CONNECT for https, and no request for a host in NO_PROXY."""
    with RawServer(b"HTTP/1.1 502 no\r\nContent-Length: 0\r\n\r\n") as proxy:
        address = proxy.url.replace("://", "://me:se%20cret@")
        monkeypatch.setenv("http_proxy", address)
        monkeypatch.setenv("https_proxy", address)
        monkeypatch.setenv("no_proxy", "direct.invalid")
        read("http://dify.example/v1/info")
        with pytest.raises(ProviderError):
            read("https://dify.example/v1/info")
        with pytest.raises(ProviderError, match="no connection"):
            read("http://direct.invalid/")

    plain, tunnel = proxy.heads
    assert plain.startswith(b"GET http://dify.example/v1/info HTTP/1.1\r\n")
    assert tunnel.startswith(b"CONNECT dify.example:443 HTTP/")
    credentials = b"Proxy-Authorization: Basic bWU6c2UgY3JldA==\r\n"
    assert credentials in plain
    assert credentials in tunnel


@pytest.mark.parametrize(("unsent", "tried"), [(True, ["192.0.2.1", "192.0.2.2"]), (False, ["192.0.2.1"])])
def test_the_next_address_is_tried_where_nothing_has_left(unsent: bool, tried: list[str]) -> None:
    """Each checked address of a host in turn; after a byte has left, the error is the result."""
    hosts: list[str] = []

    def send(route: RequestRoute) -> str:
        hosts.append(route.pool.host)
        if len(hosts) > 1:
            return "reached"
        error = ProviderError("no connection")
        error.unsent = unsent
        raise error

    with nullcontext() if unsent else pytest.raises(ProviderError):
        target = Target("https", "a.example", 443, "/x", ("192.0.2.1", "192.0.2.2"))
        assert HTTPService().reach(target, send) == "reached"

    assert hosts == tried
