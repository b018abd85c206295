"""Attacks on the HTTP server itself: broken bodies, forged headers, paths in disguise, clients that read nothing."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.exceptions import InvalidStatus

from tests.doors import visit
from tests.house import Replica, replicas, settings_for
from tests.scenarios.silent_clients import SilentClients, allow_files, script_of, usual_wait
from tests.servers import RedisServer, free_port, wait_until

pytestmark = pytest.mark.scenario

KEY = "obviously-fake-key"
OPS_PORT = free_port()
MALFORMED = 'connections_refused_total{reason="malformed"}'
CHUNKED = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
#: Ways to write a path that a proxy's rules do not see as the path it is.
DISGUISED = ("//metrics", "/%6detrics", "/%6Detrics", "/%2Fmetrics", "/%2e/metrics", "/api%2fchat", "//", "/x/../docs")
PAGE = "GET /docs HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
#: Seconds after which a connection without a request is closed by itself, less a few.
GIVEN_UP = 12.0
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


def server_reply(sent: str, port: int, *, source: str = "127.0.0.1") -> tuple[int, bytes]:
    """Send a request as it is; return status and body of the reply, at whose end the server closes."""
    with socket.create_connection(("127.0.0.1", port), 30, (source, 0)) as client:
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
        dropped: int = sum(line["dropped"] for line in lines("lines dropped") if line["line"] == kind)
        return len(lines(kind)) + dropped >= 500

    assert 0 < len(lines("callback refused")) < 250 > len(lines("request refused")) > 0
    wait_until(lambda: all_told("callback refused") and all_told("request refused"), 60)


@pytest.fixture
def server_besieged(redis_server: RedisServer, tmp_path: Path) -> Iterator[Replica]:
    """A replica of its own, which may open as many files as this process may."""
    allow_files()
    own = {"API_KEYS": KEY, "OPS_PORT": str(free_port())}
    with replicas(1, settings_for(redis_server.url(), **own), tmp_path) as (replica,):
        yield replica


def server_connections(replica: Replica) -> int:
    """Count what the worker has open."""
    return len(list(Path(f"/proc/{replica.workers[0]}/fd").iterdir()))


def test_slow_readers_of_one_address_stop_nobody_else(server_besieged: Replica) -> None:
    """2,300 connections ask for a script and read none of it: callbacks and probes are answered within a second.

    So are pages for other addresses. After 30 s the connections are closed, and the address is served again.
    """
    script, idle = script_of(server_besieged), server_connections(server_besieged)
    with SilentClients(server_besieged) as clients:
        clients.hold(2300, script)
        longest = usual_wait(server_besieged)
        refused = requests.get(f"{server_besieged.url}/docs", timeout=30)
        other = server_reply(PAGE, server_besieged.port, source="127.0.0.2")[0]
        held = server_connections(server_besieged) - idle

        wait_until(lambda: server_connections(server_besieged) < idle + 50, 40)
        again = requests.get(f"{server_besieged.url}/docs", timeout=30)

    assert longest < 1.0
    assert 900 < held <= 1100
    assert (refused.status_code, refused.json()["code"], other, again.status_code) == (429, 20000, 200, 200)
    assert "Traceback" not in server_besieged.log


def test_slow_readers_of_many_addresses_leave_room_for_callbacks(server_besieged: Replica) -> None:
    """When 2,000 slots are taken by ten addresses, ordinary requests get 503; callbacks and probes their answers."""
    script = script_of(server_besieged)
    with SilentClients(server_besieged) as clients:
        clients.hold(2300, script, addresses=[f"127.0.0.{number}" for number in range(10, 20)])
        longest = usual_wait(server_besieged)
        full = requests.get(f"{server_besieged.url}/docs", timeout=30)

    assert longest < 1.0
    assert (full.status_code, full.headers["Connection"], full.headers["Retry-After"]) == (503, "close", "5")


@pytest.mark.parametrize("sent", ["", PAGE[:20], PAGE.replace("close", "keep-alive")], ids=["none", "half", "one"])
def test_clients_that_ask_nothing_make_room(server_besieged: Replica, sent: str) -> None:
    """3,000 connections that are silent, that break off, or that are kept: others are answered."""
    with SilentClients(server_besieged) as clients:
        clients.hold(3000, sent.encode())
        longest = usual_wait(server_besieged, settle=GIVEN_UP)
        page, _ = server_reply(PAGE, server_besieged.port, source="127.0.0.2")

    assert (longest < 1.0, page) == (True, 200)


def test_callbacks_that_never_come_make_room(server_besieged: Replica) -> None:
    """3,000 callbacks without their body do not keep out those that are whole, once they are five seconds old."""
    half = (
        b"POST /wechat/callback?msg_signature=x&timestamp=1&nonce=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"
    )
    with SilentClients(server_besieged) as clients:
        clients.hold(2400, half)
        time.sleep(5.0)
        clients.hold(600, half)
        longest = usual_wait(server_besieged, settle=GIVEN_UP)

    assert longest < 1.0


def test_connections_are_counted_by_the_forwarded_address(redis_server: RedisServer, tmp_path: Path) -> None:
    """Behind a proxy it is the last one that counts, whatever a client says it is; sockets count too."""
    own = {"TRUSTED_PROXIES": "1", "CONNECTIONS_PER_IP": "3", "WEBSOCKET_AUTH": "none"}
    with (
        replicas(1, settings_for(redis_server.url(), **own), tmp_path) as (replica,),
        SilentClients(replica) as clients,
    ):
        script = script_of(replica)
        as_one = script.replace(b"Host: a", b"Host: a\r\nX-Forwarded-For: 203.0.113.1")
        clients.hold(2, as_one)
        with visit(replica.url, "chat", additional_headers={"X-Forwarded-For": "203.0.113.1"}):
            wait_until(lambda: _status(replica, "203.0.113.1") == 429, 10)
            told = [_status(replica, f) for f in ("198.51.100.9, 203.0.113.1", "203.0.113.1, 198.51.100.9", "")]

            with pytest.raises(InvalidStatus):
                visit(replica.url, "chat", additional_headers={"X-Forwarded-For": "203.0.113.1"}).__enter__()
        wait_until(lambda: _status(replica, "203.0.113.1") == 200, 10)

    assert told == [429, 200, 200]


def _status(replica: Replica, forwarded: str) -> int:
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    return requests.get(f"{replica.url}/docs", headers=headers, timeout=30).status_code
