"""Attacks on the HTTP server itself: broken bodies, forged headers, paths in disguise, clients that read nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.house import Replica, replicas, settings_for
from tests.servers import RedisServer, free_port

pytestmark = pytest.mark.scenario

KEY = "obviously-fake-key"
OPS_PORT = free_port()
#: Ways to write a path that a proxy's rules do not see as the path it is.
DISGUISED = ("//metrics", "/%6detrics", "/%6Detrics", "/%2Fmetrics", "/%2e/metrics", "/api%2fchat", "//", "/x/../docs")


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
