"""The base of all mocks: connections are counted and closed, bodies are JSON or None, headers say how a body ends."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import requests

from demo.mocks.http import Handler, HttpMock
from tests.support.servers.processes import wait_until

pytestmark = pytest.mark.full


class Echo(Handler):
    """GET streams until its connection closes; POST returns the parsed body."""

    def get(self) -> None:
        self.begin_stream("text/plain", chunked=False, headers={"Cache-Control": "no-cache"})
        self.wfile.write(b"words")
        self.close_connection = True

    def post(self) -> None:
        self.reply({"came": self.json_body(16)})


class Mock(HttpMock):
    def __init__(self) -> None:
        self.listen("127.0.0.1", 0, Echo)


@pytest.fixture
def mock() -> Iterator[Mock]:
    with Mock() as mock:
        yield mock


def test_connections_are_counted(mock: Mock) -> None:
    """Two requests of one client use one connection, open until it closes; the mock's close cuts an idle one."""
    with requests.Session() as client:
        for _ in range(2):
            client.post(mock.address, json=1, timeout=30)
        assert (mock.accepted_connections, mock.open_connections, mock.peak_connections) == (1, 1, 1)

    wait_until(lambda: mock.open_connections == 0)
    with socket.create_connection(("127.0.0.1", int(mock.address.rpartition(":")[2])), 30.0) as idle:
        wait_until(lambda: mock.open_connections == 1)
        mock.close()
        assert idle.recv(1) == b""


@pytest.mark.parametrize(
    ("body", "came"),
    [
        (b'{"a": "\xe4\xb8\x80"}', '{"came": {"a": "一"}}'),
        (b"{", '{"came": null}'),
        (b"[1234567890, 123]", '{"came": null}'),
    ],
    ids=["json", "none", "too long"],
)
def test_a_body_is_json_or_none(mock: Mock, body: bytes, came: str) -> None:
    """A body that is invalid JSON or longer than a handler reads is None; the reply is JSON with its length."""
    reply = requests.post(mock.address, data=body, timeout=30)

    assert (reply.text, reply.headers["Content-Type"]) == (came, "application/json")
    assert int(reply.headers["Content-Length"]) == len(came.encode())


def test_a_stream_without_chunks_ends_with_its_connection(mock: Mock) -> None:
    """The reply has `Connection: close` and the headers that the mock adds; a method without a handler gets 501."""
    reply = requests.get(mock.address, timeout=30)

    assert reply.text == "words"
    assert (reply.headers["Connection"], reply.headers["Cache-Control"]) == ("close", "no-cache")
    assert "Content-Length" not in reply.headers
    assert requests.put(mock.address, timeout=30).status_code == 501
