"""The pooled session whose reads a deadline interrupts; what it does for Dify is in test_dify_service."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from typing import Any

import pytest
from urllib3 import HTTPConnectionPool
from urllib3.util.connection import is_connection_dropped

from demo.mocks.auth import MockAuth
from services.errors import ProviderError
from services.http.connections import PEER_TIMEOUT, Call
from services.http.service import HTTPService
from tests.support.servers.processes import wait_until, when
from tests.support.servers.raw_server import RawServer
from utils.deadline import Deadline

OK, CHUNKED = b"HTTP/1.1 200 OK\r\n", b"Transfer-Encoding: chunked\r\n"
HEAD = OK + CHUNKED


def read(url: str, deadline: Deadline, **headers: str) -> bytes:
    """GET, and read to the end."""
    http = HTTPService()
    with http.exchange("GET", url, deadline=deadline, patience=600.0, headers=headers) as exchange:
        body = exchange.read_all(limit=100, patience=5.0)
    http.close()
    return body


def test_a_call_aborted_before_its_socket_is_known_shuts_it_down() -> None:
    """An abort that comes while the request is being sent is not lost."""
    deadline = Deadline(600.0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        deadline.abort("cancelled")

        Call(deadline).attach(ours)

        theirs.settimeout(10.0)
        assert theirs.recv(1) == b""


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
            with http.exchange("GET", server.url, deadline=Deadline(5.0), patience=5.0, headers={}) as exchange:
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
        http.exchange("GET", server.url, deadline=Deadline(5.0), patience=5.0, headers={}) as exchange,
    ):
        sock = exchange._call._socket
        assert sock is not None
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert 0 < sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 1000 * PEER_TIMEOUT
    http.close()


def ask(http: HTTPService, auth: MockAuth, patience: float = 30.0) -> None:
    """Ask the auth API for something and read its answer."""
    sent = {"usercode": "E1001", "password": "demo-password"}
    with http.exchange("POST", auth.url, deadline=Deadline(60.0), patience=patience, headers={}, json=sent) as exchange:
        exchange.read_all(limit=1000, patience=patience)


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
        with http.exchange("GET", server.url, deadline=deadline, patience=60.0, headers={}) as exchange:
            exchange.read_all(limit=100, patience=60.0)

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
            ask(http, auth, patience=0.2)
        auth.behaviour = "normal"

        # One of them takes the silent one's place in the pool, the other would take what lay idle beside it.
        ask_twice_at_once(http, auth)

        assert auth.accepted_connections == 4
        http.close()


def test_a_request_is_sent_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Head and body are one system call and one packet, on a new connection and on a pooled one."""
    pieces: list[bytes] = []
    send = http.client.HTTPConnection.send

    def note(connection: http.client.HTTPConnection, piece: Any) -> None:
        pieces.append(piece)
        send(connection, piece)

    monkeypatch.setattr(http.client.HTTPConnection, "send", note)
    service = HTTPService()
    with MockAuth() as auth:
        for _ in range(2):
            ask(service, auth)
    service.close()

    assert len(pieces) == 2
    assert all(piece.startswith(b"POST ") and piece.endswith(b'"password": "demo-password"}') for piece in pieces)


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
        service.exchange("POST", server.url, deadline=Deadline(5.0), patience=5.0, **options),
    ):
        pass
    service.close()

    assert (caught.value.code, caught.value.__cause__, server.heads) == ("provider_error", None, [])
    assert "fake" not in str(caught.value)


def test_a_connection_that_the_peer_closed_is_not_asked() -> None:
    """Each reply of this server is the last one on its connection, and it does not say so beforehand."""
    service = HTTPService()
    with RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as server:
        for _ in range(5):
            with service.exchange("GET", server.url, deadline=Deadline(5.0), patience=5.0, headers={}) as exchange:
                assert exchange.read(5.0) == b""
            wait_until(lambda: _hung_up(service, server.url))
    service.close()

    assert len(server.heads) == 5


def _hung_up(service: HTTPService, url: str) -> bool:
    """Tell whether the one pooled connection is over; urllib3's own way of asking."""
    pool = service._way(url, ()).pool.pool
    assert pool
    return pool.queue[-1] is None or is_connection_dropped(pool.queue[-1])
