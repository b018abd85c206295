"""One rule says which certificates are trusted, for the server's clients and for every tool; a wrong one is named."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from config.errors import LaibaoError
from demo.wecom.wire import CallbackFailed, RuleBroken, WeComWire
from services.errors import ProviderError
from services.http.retries import is_unsent
from services.http.service import HTTPService
from services.http.tunnel import open_connection
from tests.support.replicas import AES_KEY
from tests.support.servers.raw_server import RawServer, self_signed
from tools._batch.api import Api, Away, Failed
from tools._ws.talk import NotConnected, connected
from utils.deadline import Deadline


def by_service(url: str) -> None:
    """Providers, the auth API, files and webhooks."""
    with (
        closing(HTTPService()) as http,
        http.exchange("GET", url, deadline=Deadline(60.0), timeout=60.0, headers={}) as reply,
    ):
        reply.read_all(limit=100, timeout=60.0)


def by_tunnel(url: str) -> None:
    """WeCom's long connection."""
    open_connection("127.0.0.1", int(url.rpartition(":")[2]), tls=True, timeout=60.0).close()


def by_socket_tool(url: str) -> None:
    connected(f"wss{url[5:]}/ws/chat", "").close()


def by_batch_tool(url: str) -> None:
    with closing(Api(url)) as api:
        api.ask("GET", "/status")


def by_wecom_tool(url: str) -> None:
    with closing(WeComWire([f"{url}/wechat/callback"], "fake-token", AES_KEY)) as wecom:
        wecom.verify()


CLIENTS = (by_service, by_tunnel, by_socket_tool, by_batch_tool, by_wecom_tool)


def words(client: Callable[[str], None], url: str) -> str:
    """Return the words of the client's error; "" for none."""
    try:
        client(url)
    except (LaibaoError, Failed, Away, NotConnected, CallbackFailed, RuleBroken) as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize("client", CLIENTS)
def test_an_untrusted_certificate_is_named_and_a_bundle_is_trusted(
    client: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only REQUESTS_CA_BUNDLE (or CURL_CA_BUNDLE) changes what is trusted; the error names it."""
    tls, trusted = self_signed(tmp_path)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", tls=tls) as server:
        untrusted = words(client, server.url)
        for name in ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
            monkeypatch.setenv(name, str(trusted))
            assert "certificate" not in words(client, server.url)
            monkeypatch.delenv(name)

    assert "certificate verify failed: self-signed certificate; REQUESTS_CA_BUNDLE" in untrusted


@pytest.mark.parametrize("client", CLIENTS)
def test_a_certificate_for_another_host_needs_no_bundle(
    client: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another authority would not help, so none is proposed."""
    tls, trusted = self_signed(tmp_path, "other.example")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    with RawServer(b"", tls=tls) as server:
        found = words(client, server.url)

    assert "certificate verify failed" in found
    assert "REQUESTS_CA_BUNDLE" not in found


@pytest.mark.parametrize("client", CLIENTS)
def test_a_port_without_tls_is_named(client: Callable[[str], None]) -> None:
    with RawServer(b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        assert "TLS failed: WRONG_VERSION_NUMBER" in words(client, f"https{server.url[4:]}")


def test_an_untrusted_certificate_is_not_tried_again(tmp_path: Path) -> None:
    """No byte of the request has left, and still no attempt follows: it would have the same result."""
    tls, _ = self_signed(tmp_path)
    with RawServer(b"", tls=tls) as server, pytest.raises(ProviderError) as caught:
        by_service(server.url)

    assert (caught.value.code, caught.value.unsent, is_unsent(caught.value)) == ("provider_untrusted", True, False)
