"""The opening handshake of a WebSocket inside a WSGI request, and the request's end."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, request
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol
from werkzeug.serving import make_server

from channels.sockets.socket import Closed, HandshakeRefused, Socket, accept, converse, finish
from tests.support.servers.processes import wait_until
from tests.support.sockets.far_end import TIMEOUT, Endpoint, tcp_pair
from utils.slow_peers import SEND_BUFFER


def environ(**changes: str | None) -> dict[str, Any]:
    """Return the headers of RFC 6455, 1.3, with changes; None removes a header."""
    headers = {
        "HTTP_CONNECTION": "keep-alive, Upgrade",
        "HTTP_UPGRADE": "websocket",
        "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_EXTENSIONS": "permessage-deflate",
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        **changes,
    }
    return {name: value for name, value in headers.items() if value is not None}


def answer(request: dict[str, Any], **options: Any) -> list[str]:
    """Return the lines of the handshake's response."""
    near, far = tcp_pair()
    with near, far:
        accept({**request, "gunicorn.socket": near}, **options)
        return far.recv(4096).decode().split("\r\n")


def test_the_handshake_follows_the_rfcs_example() -> None:
    """The accept key of the RFC's example; no extension is accepted, because deflate would cost 100 KiB a socket."""
    lines = answer(environ())

    assert lines[0] == "HTTP/1.1 101 Switching Protocols"
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in lines
    assert not [line for line in lines if line.startswith(("Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"))]
    assert lines[-2:] == ["", ""]


@pytest.mark.parametrize(
    ("offered", "ours", "selected"),
    [
        ("wechatlaibao, bearer.a2V5", "wechatlaibao", ["Sec-WebSocket-Protocol: wechatlaibao"]),
        ("bearer.a2V5,wechatlaibao", "wechatlaibao", ["Sec-WebSocket-Protocol: wechatlaibao"]),
        ("bearer.a2V5", "wechatlaibao", []),
        ("wechatlaibao", "", []),
        (None, "wechatlaibao", []),
    ],
)
def test_a_subprotocol_is_selected_if_both_sides_have_it(offered: str | None, ours: str, selected: list[str]) -> None:
    """The server never selects a subprotocol that was not offered, and never the credential."""
    lines = answer(environ(HTTP_SEC_WEBSOCKET_PROTOCOL=offered), subprotocol=ours)

    assert [line for line in lines if line.startswith("Sec-WebSocket-Protocol")] == selected


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"HTTP_UPGRADE": None}, 426),
        ({"HTTP_CONNECTION": "keep-alive"}, 426),
        ({"HTTP_UPGRADE": "h2c"}, 426),
        ({"HTTP_SEC_WEBSOCKET_KEY": None}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": "c2hvcnQ="}, 400),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, 400),
        ({"HTTP_SEC_WEBSOCKET_PROTOCOL": "a b"}, 400),
        ({"REQUEST_METHOD": "POST"}, 405),
        ({"SERVER_PROTOCOL": "HTTP/1.0"}, 505),
    ],
)
def test_an_invalid_handshake_writes_nothing(changes: dict[str, str | None], status: int) -> None:
    """The caller replies with the status; no byte was written to the connection."""
    near, far = tcp_pair()
    with near, far:
        with pytest.raises(HandshakeRefused) as refused:
            accept({**environ(**changes), "gunicorn.socket": near})
        near.sendall(b"untouched")

        assert refused.value.status == status
        assert far.recv(100) == b"untouched"


def test_a_server_without_a_raw_socket_is_rejected() -> None:
    """A test client's environment has no socket."""
    with pytest.raises(HandshakeRefused) as refused:
        accept(environ())

    assert refused.value.status == 501


def test_a_client_that_leaves_during_the_handshake_is_a_lost_connection() -> None:
    """The endpoint is opened, and then closed as for any lost connection."""
    near, far = tcp_pair()
    with near:
        far.close()
        endpoint = Endpoint()
        converse(accept({**environ(), "gunicorn.socket": near}), endpoint)

    assert endpoint.ends == [Closed(1006, "", by_peer=True, clean=False)]


def echo(sock: Socket, text: str) -> None:
    sock.send({"echo": text})


def test_the_kernels_send_buffer_is_bounded() -> None:
    """The kernel's send buffer could grow to megabytes for each socket; TCP_NODELAY sends small frames at once."""
    near, far = tcp_pair()
    with near, far:
        accept({**environ(), "gunicorn.socket": near})

        # Linux doubles the requested size.
        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BUFFER
        assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.fixture
def served() -> Iterator[tuple[str, Endpoint]]:
    """Serve an echo endpoint on werkzeug's server."""
    app, endpoint = Flask("echo"), Endpoint()

    @app.get("/ws", websocket=True)
    def ws() -> Any:
        sock = accept(request.environ)
        endpoint.on_text = lambda text: echo(sock, text)
        converse(sock, endpoint)
        return finish()

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"ws://127.0.0.1:{server.server_port}/ws", endpoint
    server.shutdown()
    server.server_close()
    thread.join(TIMEOUT)


def test_werkzeugs_server_serves_sockets_too(served: tuple[str, Endpoint], caplog: pytest.LogCaptureFixture) -> None:
    """A client of the websockets library is answered and closed in order; the request logs nothing."""
    url, endpoint = served
    caplog.set_level(logging.INFO)

    with connect(url, subprotocols=[Subprotocol("other")]) as client:
        client.send("hello")
        assert client.recv(TIMEOUT) == '{"echo":"hello"}'
        assert client.ping().wait(TIMEOUT)

    assert wait_until(lambda: endpoint.ends, TIMEOUT) == [Closed(1000, "", by_peer=True, clean=True)]
    assert not [line.message for line in caplog.records if line.name.split(".")[0] in ("channels", "werkzeug")]


def test_a_rejected_handshake_is_an_http_reply(served: tuple[str, Endpoint]) -> None:
    """The reply is an HTTP status, because no WebSocket was opened."""
    url, _ = served

    with pytest.raises(InvalidStatus), connect(url + "/nowhere"):
        pass
