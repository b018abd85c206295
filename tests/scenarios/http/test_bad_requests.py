"""Bytes that are not HTTP, and requests that are never completed, sent to real gunicorn."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from server.requests import BODY_SECONDS
from tests.scenarios.stage.people import at_once
from tests.support.replicas import Replica, replicas, settings_for
from tests.support.servers.processes import RedisServer

pytestmark = [pytest.mark.scenario, pytest.mark.full]


@pytest.fixture(scope="module")
def replica(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    env = settings_for(redis_server.url(), API_KEYS="obviously-fake-key")
    with replicas(1, env, tmp_path_factory.mktemp("bad")) as (replica,):
        yield replica


def answer(replica: Replica, sent: bytes) -> tuple[bytes, bytes]:
    """Send `sent` and nothing more; return head and body of the response, after which the server closes."""
    with socket.create_connection(("127.0.0.1", replica.port), timeout=BODY_SECONDS + 30.0) as client:
        client.sendall(sent)
        head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"secret\r\n\r\n", 400),
        (b"GET /" + b"secret" * 2000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"secret" * 20_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nAuth\x00: secret\r\n\r\n", 400),
    ],
    ids=["no line", "a long line", "a long header", "no header"],
)
def test_bytes_that_are_not_http_get_the_envelope(replica: Replica, sent: bytes, status: int) -> None:
    """The error reply is the envelope, and neither reply nor log repeats the bytes."""
    head, body = answer(replica, sent)

    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert json.loads(body)["data"] is None
    assert b"secret" not in head + body
    assert "secret" not in replica.log


def test_waiting_for_half_a_body_ends_with_400(replica: Replica) -> None:
    """On every path: a client must not hold a connection by withholding the body."""
    begun = b"Host: a\r\nX-API-Key: obviously-fake-key\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    query = b"msg_signature=x&timestamp=1&nonce=1"

    program, wecom = at_once(
        [
            lambda: answer(replica, b"POST /api/chat HTTP/1.1\r\n" + begun),
            lambda: answer(replica, b"POST /wechat/callback?" + query + b" HTTP/1.1\r\n" + begun),
        ]
    )

    assert [head.split()[1] for head, _ in (program, wecom)] == [b"400", b"400"]
