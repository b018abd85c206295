"""Attacks from outside against real gunicorn, each with the check that it gains nothing."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from config.texts import ZH
from demo.mocks.auth import DEMO_USER_QUERY, create_demo_users
from demo.mocks.dify.server import MockDify
from services.identity.guesses import MOST as GUESSES
from services.models import UserInfo
from services.ops.metrics_files import FRESH_SECONDS
from services.streams.store import stream_keys
from tests.scenarios.stage.silent_clients import UNBLOCKED, SilentClients, allow_files, script_of, usual_wait
from tests.scenarios.stage.unread import ANSWER, MIB, get, handshake, peak, post, served, settled_peak, unread
from tests.support.forgery import FORGED, a_text, callback, echo, raw_callback
from tests.support.replicas import Replica, dify_settings, replicas, settings_for, wecom_user
from tests.support.scrapes import samples
from tests.support.servers.processes import RedisServer, free_port, wait_until
from tests.support.sockets.event_reader import events
from tests.support.sockets.visitor import visit
from utils.keyring import derive
from utils.markdown.blocks import render_markdown
from utils.sealed import unseal_any

pytestmark = [pytest.mark.scenario, pytest.mark.full]

KEY = "obviously-fake-key"


@cache
def ops_port() -> int:
    return free_port()


MALFORMED = 'connections_refused_total{reason="malformed"}'
CHUNKED = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
#: Spellings of paths that a proxy's rules do not recognise.
DISGUISED = ("//metrics", "/%6detrics", "/%6Detrics", "/%2Fmetrics", "/%2e/metrics", "/api%2fchat", "//", "/x/../docs")
PAGE = "GET /docs HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
#: Seconds within which room must be made: a few less than the timeout of a connection without a request.
GIVEN_UP = 12.0
#: Bodies that gunicorn's parser rejects, by the part that is wrong.
BROKEN = {
    "chunk size": f"{CHUNKED}\r\nZZ\r\n{{}}\r\n0\r\n\r\n",
    "chunk end": f"{CHUNKED}\r\n2\r\n{{}}--0\r\n\r\n",
    "trailer": f"{CHUNKED}\r\n2\r\n{{}}\r\n0\r\nContent-Length: 5\r\n\r\n",
}


@pytest.fixture(scope="module")
def server_replica(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """One replica behind one proxy."""
    env = settings_for(redis_server.url(), API_KEYS=KEY, TRUSTED_PROXIES="1", OPS_PORT=str(ops_port()))
    with replicas(1, env, tmp_path_factory.mktemp("server")) as (replica,):
        yield replica


def server_reply(sent: str, port: int, *, source: str = "127.0.0.1") -> tuple[int, bytes]:
    """Send a request as it is; return status and body of the response, after which the server closes."""
    with socket.create_connection(("127.0.0.1", port), 30, (source, 0)) as client:
        client.sendall(sent.encode())
        head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize("path", ["/wechat/callback?msg_signature=x&timestamp=1&nonce=1", "/api/chat", "/unknown"])
def test_a_broken_body_is_a_bad_request(server_replica: Replica, path: str) -> None:
    """A broken body gets 400, or 404 where no endpoint reads it, and is counted; the log has no traceback."""
    # A page of metrics may be a second old.
    time.sleep(FRESH_SECONDS)
    before = counted(MALFORMED)

    ask = f"POST {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\n"
    replies = [server_reply(ask + broken, server_replica.port) for broken in BROKEN.values()]

    assert [status for status, _ in replies] == [404 if path == "/unknown" else 400] * len(BROKEN)
    assert not any(b"90000" in body for _, body in replies)
    wait_until(lambda: counted(MALFORMED) == before + len(BROKEN), 30)
    assert "Traceback" not in server_replica.log


def counted(series: str) -> float:
    """Return the value of one of the product's metrics, 0 if it has no sample."""
    page = requests.get(f"http://127.0.0.1:{ops_port()}/metrics", timeout=30).text
    found = re.search(rf"^wechatlaibao_{re.escape(series)} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("header", ["SCRIPT_NAME", "PATH_INFO", "script_name"])
@pytest.mark.parametrize("value", ["/healthz", "/open", "/elsewhere", ""])
def test_headers_do_not_change_the_requested_path(server_replica: Replica, header: str, value: str) -> None:
    """Headers with the names of WSGI variables are ignored."""
    rest = f"HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{header}: {value}\r\n\r\n"

    assert server_reply(f"GET /healthz {rest}", server_replica.port)[0] == 200
    assert server_reply(f"GET /open/openapi.json {rest}", server_replica.port)[0] == 404


@pytest.mark.parametrize("path", DISGUISED)
def test_a_disguised_path_is_unknown(server_replica: Replica, path: str) -> None:
    """An encoded or doubled path gets the reply of an unknown path, on both ports."""
    rest = "HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

    for port in (server_replica.port, ops_port()):
        assert server_reply(f"GET {path} {rest}", port) == server_reply(f"GET /no-such-path {rest}", port)


def test_a_flood_of_bad_requests_does_not_fill_the_log(server_replica: Replica) -> None:
    """Of 500 rejected callbacks, and of 500 broken requests, some are logged; other lines count the dropped ones."""
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


@pytest.fixture(scope="module")
def limited_replica(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A replica with 600 slots for ordinary requests, 300 of them for one address, and 500 connections beyond.

    The defaults are 2,000 and 1,000: with lower limits, fewer clients show the same.
    """
    allow_files()
    slots = {"SOCKETS_MAX": "50", "HTTP_WAITS_MAX": "50", "CONNECTIONS_PER_IP": "300"}
    env = settings_for(redis_server.url(), API_KEYS=KEY, OPS_PORT=str(free_port()), **slots)
    with replicas(1, env, tmp_path_factory.mktemp("fortress")) as (replica,):
        yield replica


@pytest.fixture
def limited(limited_replica: Replica) -> Replica:
    """The replica, once the connections of the previous test are closed."""
    wait_until(lambda: server_connections(limited_replica) < 100, 40)
    return limited_replica


def server_connections(replica: Replica) -> int:
    """Return the number of the worker's open file descriptors."""
    return len(list(Path(f"/proc/{replica.workers[0]}/fd").iterdir()))


def test_slow_readers_of_one_address_do_not_block_other_clients(limited: Replica) -> None:
    """With 700 connections that request a script and read nothing, callbacks and probes are answered.

    Pages are served to other addresses. After 30 s the connections are closed, and the address is served again.
    """
    script, idle = script_of(limited), server_connections(limited)
    with SilentClients(limited) as clients:
        clients.hold(700, script)
        longest = usual_wait(limited)
        refused = requests.get(f"{limited.url}/docs", timeout=30)
        other = server_reply(PAGE, limited.port, source="127.0.0.2")[0]
        held = server_connections(limited) - idle

        wait_until(lambda: server_connections(limited) < idle + 50, 40)
        again = requests.get(f"{limited.url}/docs", timeout=30)

    assert longest < UNBLOCKED
    assert 250 < held <= 400
    assert (refused.status_code, refused.json()["code"], other, again.status_code) == (429, 20000, 200, 200)
    assert "Traceback" not in limited.log


def test_slow_readers_of_many_addresses_leave_room_for_callbacks(limited: Replica) -> None:
    """When ten addresses hold all slots, ordinary requests get 503; callbacks and probes are still answered."""
    script = script_of(limited)
    with SilentClients(limited) as clients:
        clients.hold(700, script, addresses=[f"127.0.0.{number}" for number in range(10, 20)])
        longest = usual_wait(limited)
        full = requests.get(f"{limited.url}/docs", timeout=30)

    assert longest < UNBLOCKED
    assert (full.status_code, full.headers["Connection"], full.headers["Retry-After"]) == (503, "close", "5")


@pytest.mark.parametrize("sent", ["", PAGE[:20], PAGE.replace("close", "keep-alive")], ids=["none", "half", "one"])
def test_idle_connections_do_not_block_other_clients(limited: Replica, sent: str) -> None:
    """1,400 connections that are silent, incomplete or kept alive do not keep other clients from being answered."""
    with SilentClients(limited) as clients:
        clients.hold(1400, sent.encode())
        longest = usual_wait(limited, settle=GIVEN_UP)
        page, _ = server_reply(PAGE, limited.port, source="127.0.0.2")

    assert (longest < UNBLOCKED, page) == (True, 200)


def test_incomplete_callbacks_do_not_block_complete_ones(limited: Replica) -> None:
    """1,400 callbacks without their body give way to complete ones once they are five seconds old."""
    half = (
        b"POST /wechat/callback?msg_signature=x&timestamp=1&nonce=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"
    )
    with SilentClients(limited) as clients:
        clients.hold(1050, half)
        time.sleep(5.0)
        clients.hold(350, half)
        longest = usual_wait(limited, settle=GIVEN_UP)

    assert longest < UNBLOCKED


def test_connections_are_counted_by_the_forwarded_address(redis_server: RedisServer, tmp_path: Path) -> None:
    """Behind a proxy the last forwarded address counts, whatever a client puts before it; sockets count too."""
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
            statuses = [_status(replica, f) for f in ("198.51.100.9, 203.0.113.1", "203.0.113.1, 198.51.100.9", "")]

            with pytest.raises(InvalidStatus):
                visit(replica.url, "chat", additional_headers={"X-Forwarded-For": "203.0.113.1"}).__enter__()
        wait_until(lambda: _status(replica, "203.0.113.1") == 200, 10)

    assert statuses == [429, 200, 200]


def _status(replica: Replica, forwarded: str) -> int:
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    return requests.get(f"{replica.url}/docs", headers=headers, timeout=30).status_code


READERS = 300
#: The limit in MiB for all readers together.
MOST_MIB = 80.0
HEADER = {"X-API-Key": KEY}
SHOWN = f"X-API-Key: {KEY}"


def resumed(path: str, **members: object) -> Callable[[str, int], bytes]:
    return lambda stream, _: handshake(path, json.dumps({"type": "resume", "stream_id": stream, **members}), SHOWN)


def fetched(accept: str, *headers: str) -> Callable[[str, int], bytes]:
    return lambda stream, _: get(f"/api/chat/{stream}", SHOWN, f"Accept: {accept}", *headers)


#: All requests with one Idempotency-Key get the answer of the first.
COMPLETION = json.dumps({"model": "default", "messages": [{"role": "user", "content": "?"}], "stream": True})
#: Ways to return to a finished answer: from its start, or for the last frame only.
WAYS: dict[str, list[Callable[[str, int], bytes]]] = {
    "sockets": [
        resumed("/ws/chat", cursor=0),
        resumed("/ws/chat", cursor=0, render="html"),
        resumed("/ws/realtime-asr", cursor=0),
        lambda stream, end: resumed("/ws/chat", cursor=end)(stream, end),
    ],
    "HTTP": [
        fetched("text/event-stream"),
        fetched("application/json", "Accept-Encoding: br, gzip"),
        lambda stream, end: fetched("text/event-stream", f"Last-Event-ID: {end}")(stream, end),
    ],
    "completions": [lambda stream, end: post("/v1/chat/completions", COMPLETION, SHOWN, "Idempotency-Key: one")],
}


@pytest.fixture(scope="module")
def memory_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def memory_replica(memory_redis: RedisServer, tmp_path: Path) -> Iterator[Replica]:
    """A replica with one worker and slots for all readers."""
    allow_files()
    own = {"RAG_PROVIDER": "tests.scenarios.stage.unread:MegabyteAnswers", "API_KEYS": KEY, "HTTP_WAITS_MAX": "400"}
    limits = {"RATE_LIMIT_IP": "off", "RATE_LIMIT_USER": "off", "SOCKETS_MAX": "400"}
    replica = Replica(settings_for(memory_redis.url(), **own, **limits), tmp_path)
    try:
        yield replica.wait_ready()
    finally:
        replica.kill()


def asked(replica: Replica) -> str:
    """Ask for the long answer; return its stream's id."""
    reply = requests.post(f"{replica.url}/api/chat", json={"query": "?"}, headers=HEADER, timeout=60)
    assert reply.json()["data"]["content"] == ANSWER
    return str(reply.json()["data"]["stream_id"])


@pytest.mark.parametrize("kind", WAYS)
def test_readers_that_read_nothing_cost_little(kind: str, memory_replica: Replica, memory_redis: RedisServer) -> None:
    """300 readers that return to an answer of 1 MiB and read nothing cost less than 80 MiB together."""
    stream = asked(memory_replica)
    with memory_redis.client() as client:
        end = client.llen(stream_keys(stream).messages)
    before = peak(memory_replica)
    assert 0.9 * MIB < len(ANSWER.encode()) <= MIB

    with unread(memory_replica.port, [way(stream, end) for way in WAYS[kind]], READERS) as readers:
        wait_until(lambda: served(readers) == READERS, 60.0)
        cost = settled_peak(memory_replica) - before
        print(f"{kind}: {cost:.0f} MiB")

    assert cost < MOST_MIB


def test_readers_that_read_get_the_whole_answer(memory_replica: Replica) -> None:
    """Readers that do read get the same answer, byte for byte, as frames, HTML and events."""
    stream = asked(memory_replica)

    with connect(f"ws://127.0.0.1:{memory_replica.port}/ws/chat", additional_headers=HEADER, max_size=None) as chat:
        chat.send(json.dumps({"type": "resume", "stream_id": stream, "cursor": 0, "render": "html"}))
        frames = [json.loads(chat.recv(30))]
        while frames[-1].get("role") != "assistant":
            frames.append(json.loads(chat.recv(30)))
    url = f"{memory_replica.url}/api/chat/{stream}"
    with requests.get(url, headers={**HEADER, "Accept": "text/event-stream"}, stream=True, timeout=60) as reply:
        received = list(events(line.decode() for line in reply.iter_lines()))

    assert "".join(frame["content"] for frame in frames if frame["type"] == "chat_delta") == ANSWER
    assert (frames[-1]["content"], frames[-1]["html"]) == (ANSWER, render_markdown(ANSWER))
    assert "".join(event.data["content"] for event in received if event.name == "delta") == ANSWER
    assert received[-1].data["content"] == ANSWER
    assert "Traceback" not in memory_replica.log


ENDPOINTS_KEY, ENDPOINTS_ADMIN = "obviously-fake-key-of-endpoints", "obviously-fake-admin-of-endpoints"
ENDPOINTS_AS_ADMIN = {"Authorization": f"Bearer {ENDPOINTS_ADMIN}"}
ENDPOINTS_WITH_KEY = {"X-API-Key": ENDPOINTS_KEY}
ENDPOINTS_CONNECTIONS, ENDPOINTS_TASKS = "/api/ws/connections", "/api/batch/tasks"


@pytest.fixture(scope="module")
def endpoints_replica(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    env = settings_for(
        redis_server.url(),
        API_KEYS=ENDPOINTS_KEY,
        ADMIN_TOKEN=ENDPOINTS_ADMIN,
        RATE_LIMIT_IP="off",
        TRUSTED_PROXIES="1",
    )
    with replicas(1, env, tmp_path_factory.mktemp("endpoints")) as (replica,):
        yield replica


def endpoints_statuses(replica: Replica, path: str, headers: list[dict[str, str]]) -> list[int]:
    """Return the statuses of requests with these headers, sent one after another."""
    with requests.Session() as session:
        return [session.get(replica.url + path, headers=each, timeout=30).status_code for each in headers]


def endpoints_refusals(replica: Replica) -> list[tuple[str, str]]:
    """Return check and cause of each refused callback in the log."""
    lines = [json.loads(line) for line in replica.log.splitlines() if line.startswith("{")]
    return [(line["check"], line["cause"]) for line in lines if line["message"] == "callback refused"]


def test_no_reply_metric_or_log_line_tells_good_padding_from_bad(endpoints_replica: Replica) -> None:
    """All 256 values of the byte that a padding oracle recovers get the same reply, metric and log line."""
    url = f"{endpoints_replica.url}/wechat/callback"
    guesses = [raw_callback(bytes(16) + bytes([0, 0, 0, 1]) + b"x" * 43 + bytes([last])) for last in range(256)]
    forged = [forge() for name, forge in FORGED.items() if name.startswith("bad_ciphertext")]

    with requests.Session() as session:
        replies = [session.post(url, params=one.params, data=one.body, timeout=10) for one in guesses + forged]

    def counted() -> dict[tuple[str, ...], float]:
        page = requests.get(f"{endpoints_replica.url}/metrics", headers=ENDPOINTS_AS_ADMIN, timeout=30).text
        counts = {name[1:]: value for name, value in samples(page).items() if "callbacks_refused_total" in name[0]}
        return {labels: value for labels, value in counts.items() if value}

    assert {(reply.status_code, reply.text) for reply in replies} == {(400, '{"code": "callback_refused"}')}
    # A page of metrics may be a second old.
    wait_until(lambda: counted() == {("bad_ciphertext",): len(replies)})
    assert set(endpoints_refusals(endpoints_replica)) == {("bad_ciphertext", "bad_ciphertext")}


def test_metrics_on_the_public_port_need_the_admin_token(endpoints_replica: Replica) -> None:
    """Metrics would tell an attacker the result of an attempt, so they need the admin token on the public port."""
    headers = [{}, {"Authorization": "Bearer wrong"}, {"X-API-Key": ENDPOINTS_ADMIN}, ENDPOINTS_AS_ADMIN]

    assert endpoints_statuses(endpoints_replica, "/metrics", headers) == [401, 401, 401, 200]


def test_administrators_endpoints_are_on_the_ops_port_only(redis_url: str, tmp_path: Path) -> None:
    """With OPS_PORT set, administrators' endpoints are 404 on the public port, even with the token."""
    port = free_port()
    env = settings_for(redis_url, ADMIN_TOKEN=ENDPOINTS_ADMIN, OPS_PORT=str(port))
    with replicas(1, env, tmp_path) as (replica,):
        ops = f"http://127.0.0.1:{port}"
        shown = [
            (
                endpoints_statuses(replica, path, [ENDPOINTS_AS_ADMIN]),
                requests.get(ops + path, headers=headers, timeout=30),
            )
            for path, headers in ((ENDPOINTS_CONNECTIONS, ENDPOINTS_AS_ADMIN), ("/metrics", {}))
        ]

    assert [(public, reply.status_code) for public, reply in shown] == [([404], 200), ([404], 200)]


@pytest.mark.parametrize(
    ("address", "path", "guess", "right"),
    [
        (7, ENDPOINTS_CONNECTIONS, {"Authorization": "Bearer guess"}, ENDPOINTS_AS_ADMIN),
        (8, "/metrics", {"Authorization": "Bearer guess"}, ENDPOINTS_AS_ADMIN),
        (9, "/api/batch/status", {"X-API-Key": "guess"}, ENDPOINTS_WITH_KEY),
    ],
)
def test_guesses_are_blocked_for_their_address_only(
    endpoints_replica: Replica, address: int, path: str, guess: dict[str, str], right: dict[str, str]
) -> None:
    """200 guesses from one address are blocked after the limit; a valid credential from another address is accepted."""
    guesser, other = ({"X-Forwarded-For": f"{block}.{address}"} for block in ("203.0.113", "198.51.100"))
    kind = "admin" if right is ENDPOINTS_AS_ADMIN else "caller"

    def refused() -> list[float]:
        page = requests.get(
            f"{endpoints_replica.url}/metrics", headers={**ENDPOINTS_AS_ADMIN, **other}, timeout=30
        ).text
        counted = samples(page)
        series = "wechatlaibao_credentials_refused_total"
        return [counted.get((series, kind, why), 0.0) for why in ("wrong", "blocked")]

    # Metrics may be a second old: once a guess of a third address is counted, all earlier guesses are counted too.
    old = refused()
    endpoints_statuses(endpoints_replica, path, [{**guess, "X-Forwarded-For": f"192.0.2.{address}"}])
    before = wait_until(lambda: (now := refused()) != old and now)
    guesses = endpoints_statuses(endpoints_replica, path, [{**guess, **guesser}] * 200)
    others = endpoints_statuses(endpoints_replica, path, [{**right, **other}] * 5)

    assert guesses == [401] * GUESSES + [429] * (200 - GUESSES)
    assert not {401, 429} & {*others}
    more = [GUESSES, 200 - GUESSES]
    wait_until(lambda: [now - then for now, then in zip(refused(), before or old, strict=True)] == more)


ENDPOINTS_OPEN = {"WEBSOCKET_AUTH": "none", "RATE_LIMIT_IP": "off", "RATE_LIMIT_USER": "off"}


def test_a_page_of_another_origin_submits_nothing(redis_url: str, tmp_path: Path) -> None:
    """A form with a file needs no CORS preflight; it is rejected by its origin, and a program's upload is accepted."""
    database = str(tmp_path / "batches.db")
    with replicas(1, settings_for(redis_url, DATABASE_PATH=database, **ENDPOINTS_OPEN), tmp_path) as (replica,):
        origins = [{"Origin": one} for one in ("https://evil.example", "null", replica.url)]
        replies = [
            requests.post(
                replica.url + ENDPOINTS_TASKS, files={"file": ("q.txt", b"1\n2\n")}, headers=headers, timeout=30
            )
            for headers in [*origins, {}]
        ]
        asked = requests.post(f"{replica.url}/api/chat", json={"query": "?"}, headers=origins[0], timeout=30)

    assert [reply.status_code for reply in replies] == [403, 403, 201, 201]
    assert (asked.status_code, asked.json()["data"]) == (403, {"reason": "origin"})
    assert {reply.headers["X-Content-Type-Options"] for reply in [*replies, asked]} == {"nosniff"}


def test_a_rebound_host_name_is_refused(redis_url: str, tmp_path: Path) -> None:
    """With DNS rebinding the attacker's page is same-origin; callbacks and probes are accepted under any host name."""
    env = settings_for(redis_url, ALLOWED_HOSTS="chat.example.com,.intra.example", **ENDPOINTS_OPEN)
    with replicas(1, env, tmp_path) as (replica,):
        evil = {"Host": "rebound.evil.example", "Origin": "http://rebound.evil.example"}
        socket = {**evil, "Connection": "Upgrade", "Upgrade": "websocket"}
        refused = [("/api/batch/status", evil), ("/chat", evil), ("/metrics", evil), ("/ws/chat", socket)]
        taken = [("/chat", {"Host": "Chat.Example.com:8443"}), ("/chat", {"Host": "a.intra.example"})]
        probes = [("/healthz", evil), ("/readyz", evil)]
        statuses = [endpoints_statuses(replica, path, [headers])[0] for path, headers in [*refused, *taken, *probes]]
        one = callback(a_text())
        url = f"{replica.url}/wechat/callback"
        called = requests.post(url, params=one.params, data=one.body, headers={"Host": evil["Host"]}, timeout=30)
        echoed = requests.get(url, params=echo("123"), headers={"Host": evil["Host"]}, timeout=30)

    assert statuses == [400] * 4 + [200] * 4
    assert (called.status_code, echoed.text) == (200, "123")


def test_one_key_does_not_fill_the_queue(redis_url: str, tmp_path: Path) -> None:
    """Tasks of one key beyond BATCH_MAX_PER_KEY are rejected while the queue has room; another key's are accepted."""
    other = "obviously-fake-key-of-others"
    changes = {"API_KEYS": f"{ENDPOINTS_KEY},{other}", "BATCH_MAX_PER_KEY": "20", "BATCH_MAX_QUEUE_SIZE": "60"}
    env = settings_for(
        redis_url, DATABASE_PATH=str(tmp_path / "batches.db"), **{**ENDPOINTS_OPEN, **changes}, BATCH_WORKER="external"
    )
    with replicas(1, env, tmp_path) as (replica,), requests.Session() as session:

        def submit(key: str) -> requests.Response:
            task = {"name": "q", "texts": ["?"]}
            return session.post(replica.url + ENDPOINTS_TASKS, json=task, headers={"X-API-Key": key}, timeout=30)

        greedy = [submit(ENDPOINTS_KEY) for _ in range(65)]
        late = submit(other)

    assert [reply.status_code for reply in greedy] == [201] * 20 + [429] * 45
    assert (greedy[-1].json()["data"], late.status_code) == ({"reason": "batch_key_full"}, 201)


def test_a_path_is_logged_without_control_characters(redis_url: str, tmp_path: Path) -> None:
    """ESC, NEL and U+2028 in a requested path are logged as escapes, in one line."""
    env = settings_for(redis_url, ADMIN_TOKEN=ENDPOINTS_ADMIN, LOG_FORMAT="plain")
    with replicas(1, env, tmp_path) as (replica,):
        path = "/api/ws/disconnect/%1B%5B2J%C2%85%E2%80%A8%E2%80%AE2026-01-01"
        status = requests.post(replica.url + path, timeout=30).status_code
        lines = [line for line in replica.log.split("\n") if "administrator refused" in line]

    assert (status, len(lines)) == (401, 1)
    assert r"\u001b[2J\u0085\u2028\u202e2026-01-01" in lines[0]
    assert not {*"\x1b\x85\u2028\u202e"} & {*lines[0]}


def test_a_question_that_is_too_large_is_not_asked(redis_url: str, tmp_path: Path) -> None:
    """WeCom's bubble shows a sentence, REST answers 413, also to `stream`; the largest allowed question is asked."""
    with (
        MockDify() as dify,
        replicas(1, settings_for(redis_url, **dify_settings(dify.base_url), **ENDPOINTS_OPEN), tmp_path) as (replica,),
        wecom_user([replica.url]) as person,
    ):
        bubble = person.says("x" * 65_537)
        asked = [
            requests.post(f"{replica.url}/api/chat", json={"query": "x" * size, "stream": stream}, timeout=60)
            for size, stream in ((65_537, False), (65_537, True), (65_536, False))
        ]
        reached = len(dify.requests)

    assert (bubble.finish, bubble.content) == (True, ZH["question_too_large"])
    assert [reply.status_code for reply in asked] == [413, 413, 200]
    assert (asked[0].json()["data"]["reason"], reached) == ("question_too_large", 1)


def test_a_stream_ttl_below_the_replay_window_is_warned_of(redis_url: str, tmp_path: Path) -> None:
    """A recorded callback could be asked again once its stream has expired, so the start logs a warning."""
    with replicas(1, settings_for(redis_url, WECHAT_TIMESTAMP_WINDOW="3600"), tmp_path) as (replica,):
        warned = [json.loads(line)["warning"] for line in replica.log.splitlines() if '"settings"' in line]

    assert [warning.startswith("STREAM_TTL is 1800 and WECHAT_TIMESTAMP_WINDOW") for warning in warned] == [True]


def test_a_message_id_of_another_user_reads_nothing_of_theirs(redis_server: RedisServer, tmp_path: Path) -> None:
    """A user who sends another user's message id gets a stream and an answer of their own."""
    with MockDify() as dify:
        env = settings_for(redis_server.url(), **dify_settings(dify.base_url))
        with replicas(1, env, tmp_path) as (one,), wecom_user([one.url], "zhangsan") as zhangsan:
            theirs = zhangsan.says("我的工资是多少")
            zhangsan.sees_finish(theirs, every=0.1)
            with wecom_user([one.url], "lisi") as lisi:
                own = lisi.says("年假怎么申请", msgid=theirs.msgid)
                lisi.sees_finish(own, every=0.1)

        assert own.stream_id != theirs.stream_id
        assert own.content != theirs.content
        assert [request.body["query"] for request in dify.requests] == ["我的工资是多少", "年假怎么申请"]


#: Without a bot and without SECRET_KEY every secret is in Redis.
NO_BOT = {"WECHAT_TOKEN": "", "WECHAT_ENCODING_AES_KEY": "", "WEBSOCKET_AUTH": "token"}
USER_TOKEN = "user-token-not-real"


def test_the_content_of_redis_decrypts_no_users_token(redis_server: RedisServer, tmp_path: Path) -> None:
    """A user's token cannot be decrypted with Redis's content, public constants, or keys derived from them."""
    create_demo_users(f"sqlite:///{tmp_path / 'users.db'}")
    company = {
        **NO_BOT,
        "AUTH_MODE": "external",
        "AUTH_SERVICE_URL": f"http://127.0.0.1:{free_port()}",
        "AUTH_USER_QUERY": DEMO_USER_QUERY,
        "DATABASE_PATH": str(tmp_path / "users.db"),
    }
    with redis_server.client() as stored, replicas(1, settings_for(redis_server.url(), **company), tmp_path) as (one,):
        stored.flushdb()
        stored.set(f"authorization:token:{USER_TOKEN}", UserInfo("E1001", "张三").to_json())
        shown = {"Authorization": f"Bearer {USER_TOKEN}"}
        answer = requests.post(f"{one.url}/api/chat", json={"query": "年假怎么申请"}, headers=shown, timeout=30)
        assert answer.status_code == 200, answer.text
        (record,) = set(stored.scan_iter("dify_stream:*"))
        question = json.loads(str(stored.hget(record, "question")))
        secret = str(stored.get("dify_secret:own") or "")

    assert question["credential"]
    public = hashlib.sha256(b"callers:WechatLaibao").digest()
    for key in (public, derive(secret.encode(), "callers"), derive(bytes.fromhex(secret), "callers")):
        with pytest.raises(ValueError, match="MAC"):
            unseal_any((key,), question["credential"])
