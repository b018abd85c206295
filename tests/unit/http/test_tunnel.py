"""Connections for other protocols than HTTP: directly, by the environment's proxy, with TLS, and their errors."""

from __future__ import annotations

import base64
import socket
import traceback
from pathlib import Path

import pytest

from services.http.tunnel import ConnectFailed, open_connection
from tests.support.servers.processes import free_port
from tests.support.servers.raw_server import RawServer, self_signed

TIMEOUT = 10.0
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "all_proxy", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def opened(server: RawServer, *, tls: bool = False) -> socket.socket:
    return open_connection("127.0.0.1", int(server.url.rpartition(":")[2]), tls=tls, timeout=TIMEOUT)


def talk(connection: socket.socket) -> bytes:
    with connection:
        connection.sendall(b"hello")
        return connection.recv(100)


def test_a_certificate_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An authority of REQUESTS_CA_BUNDLE is trusted, and an unknown one is not."""
    context, trusted = self_signed(tmp_path)
    with RawServer(b"welcome", tls=context) as server:
        with pytest.raises(ConnectFailed) as caught:
            opened(server, tls=True)
        assert caught.value.code == "tls_failed"

        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
        assert talk(opened(server, tls=True)) == b"welcome"


def test_a_certificate_of_another_host_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The name in the certificate has to be the host's."""
    context, trusted = self_signed(tmp_path, "other.example")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))

    with RawServer(b"", tls=context) as server, pytest.raises(ConnectFailed) as caught:
        opened(server, tls=True)

    assert caught.value.code == "tls_failed"


@pytest.mark.parametrize("name", ["https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_the_proxy_of_the_environment_is_asked_for_a_tunnel(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Also without TLS; the proxy gets its credentials, and resolves the host's name."""
    with RawServer(ESTABLISHED, hang=True) as proxy:
        monkeypatch.setenv(name, proxy.url.replace("://", "://me:se%20cret@"))
        open_connection("wecom.invalid", 443, tls=False, timeout=TIMEOUT).close()

    (head,) = proxy.heads
    assert head.startswith(b"CONNECT wecom.invalid:443 HTTP/1.")
    assert base64.b64encode(b"me:se cret") in head


def test_no_proxy_is_used_for_a_host_that_is_excepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_PROXY holds, as for HTTP."""
    with RawServer(b"welcome") as server, RawServer(ESTABLISHED) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")

        assert talk(opened(server)) == b"welcome"
        assert proxy.heads == []


@pytest.mark.parametrize("reply", [b"HTTP/1.1 407 who are you\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n", b""])
def test_a_proxy_that_refuses_is_told(monkeypatch: pytest.MonkeyPatch, reply: bytes) -> None:
    """The error has no password."""
    with RawServer(reply) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url.replace("://", "://me:se%20cret@"))
        with pytest.raises(ConnectFailed) as caught:
            open_connection("wecom.invalid", 443, tls=False, timeout=TIMEOUT)

    assert caught.value.code == "proxy_failed"
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        ("socks5://me:p4ss@127.0.0.1:1", "socks5://"),
        ("http://me:p4ss/w0rd@127.0.0.1:1", "HTTPS_PROXY"),
        ("http://[me:p4ss@127.0.0.1:1", "HTTPS_PROXY"),
    ],
)
def test_an_unusable_proxy_is_told(monkeypatch: pytest.MonkeyPatch, proxy: str, told: str) -> None:
    """SOCKS, and an address with a "/" in its password; neither the error nor its traceback has a piece of it."""
    monkeypatch.setenv("https_proxy", proxy)

    with pytest.raises(ConnectFailed, match=told) as caught:
        open_connection("wecom.invalid", 443, tls=False, timeout=TIMEOUT)

    assert caught.value.code == "proxy_failed"
    assert "p4ss" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("host", ["wecom.invalid", "127.0.0.1"])
def test_a_host_that_cannot_be_reached_is_told(host: str) -> None:
    """A name that does not resolve, and a port that nothing listens on."""
    with pytest.raises(ConnectFailed) as caught:
        open_connection(host, free_port(), tls=False, timeout=TIMEOUT)

    assert caught.value.code == "connect_failed"
