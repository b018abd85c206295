"""The pooled session whose reads a deadline interrupts; what it does for Dify is in test_dify_service."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from demo.mock_auth import MockAuth
from services.errors import ProviderError
from services.http_service import PEER_TIMEOUT, Call, HTTPService
from tests.raw_server import RawServer
from utils.deadline import Deadline

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


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
        threading.Timer(0.2, deadline.abort, ("cancelled",)).start()

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
    auth.behaviour, auth.delay = "slow", 0.2
    threads = [threading.Thread(target=ask, args=(http, auth)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_connection_that_lay_idle_for_long_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is between us and the peer may have forgotten it; a fresh one is used again and again."""
    http = HTTPService()
    opened: list[int] = []
    with MockAuth() as auth:
        for idle in (3600.0, 0.0):
            monkeypatch.setattr("services.http_service.IDLE_SECONDS", idle)
            for _ in range(3):
                ask(http, auth)
            opened.append(auth.connections)
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

        ask(http, auth)

        assert auth.connections == 3
        http.close()
