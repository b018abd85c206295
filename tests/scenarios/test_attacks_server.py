"""Attacks on the HTTP server itself: broken bodies, forged headers, paths in disguise, clients that read nothing."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.house import Replica, replicas, settings_for
from tests.servers import RedisServer, free_port, wait_until

pytestmark = pytest.mark.scenario

KEY = "obviously-fake-key"
OPS_PORT = free_port()
MALFORMED = 'connections_refused_total{reason="malformed"}'
CHUNKED = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
#: Ways to write a path that a proxy's rules do not see as the path it is.
DISGUISED = ("//metrics", "/%6detrics", "/%6Detrics", "/%2Fmetrics", "/%2e/metrics", "/api%2fchat", "//", "/x/../docs")
#: Bodies that gunicorn's parser refuses, by what is wrong with them.
BROKEN = {
    "chunk size": f"{CHUNKED}\r\nZZ\r\n{{}}\r\n0\r\n\r\n",
    "chunk end": f"{CHUNKED}\r\n2\r\n{{}}--0\r\n\r\n",
    "trailer": f"{CHUNKED}\r\n2\r\n{{}}\r\n0\r\nContent-Length: 5\r\n\r\n",
}


@pytest.fixture(scope="module")
def server_replica(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """One replica behind one proxy."""
    env = settings_for(redis_server.url(), API_KEYS=KEY, TRUSTED_PROXIES="1", OPS_PORT=str(OPS_PORT))
    with replicas(1, env, tmp_path_factory.mktemp("server")) as (replica,):
        yield replica


def server_reply(sent: str, port: int) -> tuple[int, bytes]:
    """Send a request as it is; return status and body of the reply, at whose end the server closes."""
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(sent.encode())
        head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize("path", ["/wechat/callback?msg_signature=x&timestamp=1&nonce=1", "/api/chat", "/unknown"])
def test_a_broken_body_is_a_bad_request(server_replica: Replica, path: str) -> None:
    """It is answered 400 (404 where nothing reads it) and counted; the log has no traceback."""
    before = counted(MALFORMED)

    ask = f"POST {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\n"
    replies = [server_reply(ask + broken, server_replica.port) for broken in BROKEN.values()]

    assert [status for status, _ in replies] == [404 if path == "/unknown" else 400] * len(BROKEN)
    assert not any(b"90000" in body for _, body in replies)
    wait_until(lambda: counted(MALFORMED) == before + len(BROKEN), 30)
    assert "Traceback" not in server_replica.log


def counted(series: str) -> float:
    """Return the value of one of the product's metrics, 0 where it has none."""
    page = requests.get(f"http://127.0.0.1:{OPS_PORT}/metrics", timeout=30).text
    found = re.search(rf"^wechatlaibao_{re.escape(series)} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("header", ["SCRIPT_NAME", "PATH_INFO", "script_name"])
@pytest.mark.parametrize("value", ["/healthz", "/open", "/elsewhere", ""])
def test_a_client_does_not_say_which_path_it_asks_for(server_replica: Replica, header: str, value: str) -> None:
    """Headers named as the environment's variables are ignored."""
    rest = f"HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{header}: {value}\r\n\r\n"

    assert server_reply(f"GET /healthz {rest}", server_replica.port)[0] == 200
    assert server_reply(f"GET /open/openapi.json {rest}", server_replica.port)[0] == 404


@pytest.mark.parametrize("path", DISGUISED)
def test_a_path_in_disguise_is_unknown(server_replica: Replica, path: str) -> None:
    """Its answer is that of a path that nobody has, on both ports."""
    rest = "HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

    for port in (server_replica.port, OPS_PORT):
        assert server_reply(f"GET {path} {rest}", port) == server_reply(f"GET /no-such-path {rest}", port)


def test_a_flood_of_bad_requests_does_not_fill_the_log(server_replica: Replica) -> None:
    """Of 500 refused callbacks, and as many broken requests, some get a line; others say how many did not."""
    port = server_replica.port
    with requests.Session() as wecom:
        for _ in range(500):
            assert wecom.post(f"{server_replica.url}/wechat/callback?msg_signature=x", timeout=30).status_code == 400
    for _ in range(500):
        assert server_reply("no HTTP\r\n\r\n", port)[0] == 400

    def lines(message: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in server_replica.log.splitlines() if f'"{message}"' in line]
        return [line for line in found if line["message"] == message]

    def all_told(kind: str) -> bool:
        dropped = sum(line["dropped"] for line in lines("lines dropped") if line["line"] == kind)
        return len(lines(kind)) + dropped >= 500

    assert 0 < len(lines("callback refused")) < 250 > len(lines("request refused")) > 0
    wait_until(lambda: all_told("callback refused") and all_told("request refused"), 60)
