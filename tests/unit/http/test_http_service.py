"""The pooled session whose reads a deadline interrupts; what it does for Dify is in test_dify_service."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from urllib3 import HTTPConnectionPool
from urllib3.util.connection import is_connection_dropped

from demo.mocks.auth import MockAuth
from services.errors import ProviderError
from services.http.connections import CHECK_SECONDS, PEER_TIMEOUT, Lease, _read_timeouts
from services.http.service import HTTPService, TransientError
from tests.support.servers.processes import free_port, wait_until, when
from tests.support.servers.raw_server import RawServer, self_signed
from utils.deadline import Deadline

OK, CHUNKED = b"HTTP/1.1 200 OK\r\n", b"Transfer-Encoding: chunked\r\n"
HEAD = OK + CHUNKED


def read(url: str, deadline: Deadline, **headers: str) -> bytes:
    """GET, and read to the end."""
    http = HTTPService()
    with http.exchange("GET", url, deadline=deadline, timeout=600.0, headers=headers) as exchange:
        body = exchange.read_all(limit=100, timeout=5.0)
    http.close()
    return body


def test_a_question_aborted_while_it_connects_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is its reply waited for: an abort that comes before there is a socket is not lost."""
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


def test_a_lease_that_was_given_back_interrupts_nobody() -> None:
    """The hook of an abort may run a moment late, when the connection is another request's."""
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
    """A proxy of the environment is used, and its connections are as interruptible as direct ones."""
    deadline, started = Deadline(600.0), time.monotonic()
    with RawServer(b"", hang=True) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        when(lambda: proxy.heads, lambda: deadline.abort("cancelled"))

        with pytest.raises(ProviderError) as caught:
            read("http://dify.example/v1/info", deadline)

    assert caught.value.code == "interrupted"
    assert time.monotonic() - started < 60.0
    assert proxy.heads[0].startswith(b"GET http://dify.example/v1/info ")


def test_an_address_that_cannot_be_asked_is_our_error() -> None:
    """What the library refuses to send is an error of ours, which does not quote it."""
    with pytest.raises(ProviderError) as caught:
        read("http://secret.example:port/", Deadline(5.0))

    assert caught.value.code == "provider_error"
    assert "secret" not in str(caught.value)


def test_a_body_is_read_up_to_its_limit() -> None:
    """An error page of any size costs this much memory."""
    with RawServer(
        HEAD + b"\r\n" + b"64\r\n" + b"x" * 100 + b"\r\n" + b"64\r\n" + b"y" * 100 + b"\r\n0\r\n\r\n"
    ) as server:
        assert read(server.url, Deadline(5.0)) == b"x" * 100


def test_cookies_of_one_user_do_not_travel_with_the_next() -> None:
    """One session serves everybody."""
    http = HTTPService()
    with RawServer(b"HTTP/1.1 200 OK\r\nSet-Cookie: who=me; Path=/\r\nContent-Length: 0\r\n\r\n") as server:
        for _ in range(2):
            with http.exchange("GET", server.url, deadline=Deadline(5.0), timeout=5.0, headers={}) as exchange:
                assert exchange.status == 200
    http.close()

    assert len(server.heads) == 2
    assert not any(b"Cookie" in head for head in server.heads)


def test_credentials_of_netrc_do_not_replace_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """A file in the home directory changes no header."""
    netrc = f"{tmp_path}/netrc"
    with open(netrc, "w", encoding="utf-8") as file:
        file.write("machine 127.0.0.1 login someone password fake\n")
    monkeypatch.setenv("NETRC", netrc)
    with RawServer(HEAD + b"\r\n0\r\n\r\n") as server:
        read(server.url, Deadline(5.0), Authorization="Bearer app-fake")

    assert b"Authorization: Bearer app-fake\r\n" in server.heads[0]


def test_a_peer_that_vanishes_is_noticed() -> None:
    """The system probes a silent peer and breaks the connection of one that is gone, in the pool too."""
    http = HTTPService()
    with (
        RawServer(HEAD + b"\r\n", hang=True) as server,
        http.exchange("GET", server.url, deadline=Deadline(5.0), timeout=5.0, headers={}) as exchange,
    ):
        sock = exchange._socket
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert 0 < sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 1000 * PEER_TIMEOUT
    http.close()


def ask(http: HTTPService, auth: MockAuth, timeout: float = 30.0) -> None:
    """Ask the auth API for something and read its answer."""
    sent = {"usercode": "E1001", "password": "demo-password"}
    with http.exchange("POST", auth.url, deadline=Deadline(60.0), timeout=timeout, headers={}, json=sent) as exchange:
        exchange.read_all(limit=1000, timeout=timeout)


def ask_twice_at_once(http: HTTPService, auth: MockAuth) -> None:
    """Open two connections and leave them to the pool."""
    auth.behaviour, auth.delay = "slow", 0.6
    threads = [threading.Thread(target=ask, args=(http, auth)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("body", [CHUNKED + b"\r\n2\r\nhi\r\n0\r\n\r\n", b"Content-Length: 2\r\n\r\nhi"])
def test_who_ends_a_call_ends_no_connection_of_the_pool(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    """An abort that comes when the reply is whole and its connection on the way back leaves it to the next call."""
    deadline, put_back, back = Deadline(600.0), HTTPConnectionPool._put_conn, []

    def put(pool: HTTPConnectionPool, connection: Any) -> None:
        deadline.abort("cancelled")
        back.append(connection)
        put_back(pool, connection)

    monkeypatch.setattr(HTTPConnectionPool, "_put_conn", put)
    http = HTTPService()
    with RawServer(OK + body, hang=True) as server:
        with http.exchange("GET", server.url, deadline=deadline, timeout=60.0, headers={}) as exchange:
            exchange.read_all(limit=100, timeout=60.0)

        assert [connection.is_connected for connection in back if connection] == [True]
        http.close()


def test_a_connection_that_lay_idle_for_long_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is between us and the peer may have forgotten it; a fresh one is used again and again."""
    http = HTTPService()
    opened: list[int] = []
    with MockAuth() as auth:
        for idle in (3600.0, 0.0):
            monkeypatch.setattr("services.http.connections.IDLE_SECONDS", idle)
            for _ in range(3):
                ask(http, auth)
            opened.append(auth.accepted_connections)
        http.close()

    assert opened == [1, 4]


def test_the_silence_of_one_connection_makes_the_idle_ones_suspect() -> None:
    """After a request that got no answer in time, the next one waits on none of the pool's connections."""
    http = HTTPService()
    with MockAuth() as auth:
        ask_twice_at_once(http, auth)
        auth.behaviour = "hang"
        with pytest.raises(ProviderError, match="silent"):
            ask(http, auth, timeout=0.2)
        auth.behaviour = "normal"

        # One of them takes the silent one's place in the pool, the other would take what lay idle beside it.
        ask_twice_at_once(http, auth)

        assert auth.accepted_connections == 4
        http.close()


def test_what_a_caller_says_of_a_request_takes_the_place_of_what_all_say() -> None:
    """A header comes once, however its name is spelt."""
    with RawServer(HEAD + b"\r\n0\r\n\r\n") as server:
        read(server.url, Deadline(5.0), **{"Accept": "text/html", "accept": "text/plain", "USER-AGENT": "ours"})

    head = server.heads[0].lower()
    assert head.count(b"accept:") == head.count(b"user-agent:") == 1
    assert b"accept: text/plain\r\n" in head
    assert b"connection: keep-alive\r\n" in head


@pytest.mark.parametrize(
    "sent", [{"json": float("nan")}, {"headers": {"Authorization": "Bearer app-fake\nX: y"}}], ids=["body", "header"]
)
def test_what_cannot_be_sent_is_our_error_and_is_not_quoted(sent: dict[str, Any]) -> None:
    """A key that was read with its newline stays out of the logs."""
    service, options = HTTPService(), {"headers": {}, **sent}
    with (
        RawServer(b"") as server,
        pytest.raises(ProviderError) as caught,
        service.exchange("POST", server.url, deadline=Deadline(5.0), timeout=5.0, **options),
    ):
        pass
    service.close()

    assert (caught.value.code, caught.value.__cause__) == ("provider_error", None)
    assert not any(server.heads)
    assert "fake" not in str(caught.value)


def test_a_connection_that_the_peer_closed_is_not_asked() -> None:
    """Each reply of this server is the last one on its connection, and it does not say so beforehand."""
    service = HTTPService()
    with RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as server:
        for _ in range(5):
            with service.exchange("GET", server.url, deadline=Deadline(5.0), timeout=5.0, headers={}) as exchange:
                assert exchange.read(5.0) == b""
            wait_until(lambda: _hung_up(service, server.url))
    service.close()

    assert len(server.heads) == 5


def _hung_up(service: HTTPService, url: str) -> bool:
    """Tell whether the one pooled connection is over; urllib3's own way of asking."""
    pool = service._pools.route(url).pool.pool
    assert pool
    return pool.queue[-1] is None or is_connection_dropped(pool.queue[-1])


FIRST_CHUNK = HEAD + b"\r\n5\r\nhello\r\n"
PART_OF_LENGTH = OK + b"Content-Length: 500\r\n\r\nhello"
#: Seconds of silence that are too many here.
TIMEOUT = 0.3


def second_read(
    url: str, deadline: Deadline, *, timeout: float = TIMEOUT, pause: float = 0.0
) -> tuple[ProviderError, float]:
    """Return how the read ends that follows the first bytes, and after how many seconds."""
    http = HTTPService()
    try:
        with http.exchange("GET", url, deadline=deadline, timeout=30.0, headers={}) as exchange:
            assert exchange.read(30.0) == b"hello"
            time.sleep(pause)
            began = time.monotonic()
            with pytest.raises(ProviderError) as caught:
                exchange.read(timeout)
            return caught.value, time.monotonic() - began
    finally:
        http.close()


@pytest.mark.parametrize("reply", [FIRST_CHUNK, PART_OF_LENGTH], ids=["chunks", "length"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_silence_ends_a_read(reply: bytes, secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before its time, nor counted from the read before; it is neither an end nor a broken connection."""
    tls, trusted = self_signed(tmp_path) if secure else (None, "")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    with RawServer(reply, hang=True, tls=tls) as peer:
        error, seconds = second_read(peer.url, Deadline(600.0), pause=2 * TIMEOUT)

    assert error.code == "provider_timeout"
    assert TIMEOUT * 0.9 <= seconds < 20.0


def test_the_total_time_ends_a_read() -> None:
    """The error says which of the two bounds it was."""
    with RawServer(FIRST_CHUNK, hang=True) as peer:
        error, seconds = second_read(peer.url, Deadline(TIMEOUT), timeout=30.0)

    assert error.code == "answer_timeout"
    assert seconds < 20.0


class Dripping(RawServer):
    """After its reply, sends the digits of a chunk's size one by one."""

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(65536)
            connection.sendall(self._reply)
            while True:
                time.sleep(TIMEOUT / 5)
                connection.sendall(b"0")


def test_bytes_without_content_do_not_prolong_a_read() -> None:
    """A peer that drips the line of a chunk's size times out."""
    with Dripping(FIRST_CHUNK) as peer:
        error, seconds = second_read(peer.url, Deadline(600.0))

    assert error.code == "provider_timeout"
    assert seconds < 20.0


def test_time_between_two_reads_is_no_timeout() -> None:
    """A reader may wait for Redis longer than its provider may be silent."""
    http = HTTPService()
    with (
        RawServer(FIRST_CHUNK + b"5\r\nagain\r\n", hang=True) as peer,
        http.exchange("GET", peer.url, deadline=Deadline(600.0), timeout=30.0, headers={}) as exchange,
    ):
        wait_until(lambda: bool(peer.heads))
        assert exchange.read(TIMEOUT).startswith(b"hello")
        time.sleep(TIMEOUT + 2 * CHECK_SECONDS)
        assert not exchange._lease.timed_out
    http.close()


def test_the_deadline_ends_the_wait_for_the_head() -> None:
    """A deadline that is nearer than the timeout takes its place."""
    with RawServer(b"", hang=True) as peer, pytest.raises(ProviderError) as caught:
        read(peer.url, Deadline(TIMEOUT))

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
    """The rest of the reply would be read as the next one."""
    http = HTTPService()
    with RawServer(OK + reply, hang=True) as server:
        for _ in range(2):
            with http.exchange("GET", server.url, deadline=Deadline(30.0), timeout=30.0, headers={}) as exchange:
                exchange.read(30.0)
        assert len(server.heads) == 2
        http.close()


def test_a_thread_that_times_reads_out_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one from before a fork does not run in the child."""
    ended = threading.Thread(target=lambda: None)
    ended.start()
    ended.join()
    monkeypatch.setattr(_read_timeouts, "_thread", ended)
    with RawServer(FIRST_CHUNK, hang=True) as peer:
        error, _ = second_read(peer.url, Deadline(600.0))

    assert error.code == "provider_timeout"


def test_a_proxy_that_refuses_the_connection_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a host that refuses the connection gives an error that callers retry."""
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(TransientError):
        read(address, Deadline(30.0))
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", address)
        with pytest.raises(ProviderError) as caught:
            read(f"{scheme}://dify.example/v1/info", Deadline(30.0))
        assert not isinstance(caught.value, TransientError)
        assert caught.value.code == "provider_unreachable"


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_bundle_of_the_environment_is_trusted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is: an address of the same server without it is refused."""
    tls, trusted = self_signed(tmp_path)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    with RawServer(HEAD + b"\r\n2\r\nhi\r\n0\r\n\r\n", tls=tls) as server:
        with pytest.raises(ProviderError):
            read(server.url, Deadline(5.0))

        monkeypatch.setenv(name, str(trusted))
        assert read(server.url, Deadline(5.0)) == b"hi"


def test_a_proxy_gets_its_own_credentials_and_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for a whole plain address, for a tunnel to one with TLS, and for none that NO_PROXY names."""
    with RawServer(b"HTTP/1.1 502 no\r\nContent-Length: 0\r\n\r\n") as proxy:
        address = proxy.url.replace("://", "://me:se%20cret@")
        monkeypatch.setenv("http_proxy", address)
        monkeypatch.setenv("https_proxy", address)
        monkeypatch.setenv("no_proxy", "direct.invalid")
        read("http://dify.example/v1/info", Deadline(5.0))
        with pytest.raises(ProviderError):
            read("https://dify.example/v1/info", Deadline(5.0))
        with pytest.raises(ProviderError, match="no connection"):
            read("http://direct.invalid/", Deadline(5.0))

    plain, tunnel = proxy.heads
    assert plain.startswith(b"GET http://dify.example/v1/info HTTP/1.1\r\n")
    assert tunnel.startswith(b"CONNECT dify.example:443 HTTP/")
    credentials = b"Proxy-Authorization: Basic bWU6c2UgY3JldA==\r\n"
    assert credentials in plain
    assert credentials in tunnel
