"""What attackers tried from outside, each against real gunicorn, and what it must not bring them."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from config.texts import ZH
from demo.mocks.auth import DEMO_USER_QUERY, create_demo_users
from demo.mocks.dify.server import MockDify
from services.limits.guesses import MOST as GUESSES
from services.models import UserInfo
from services.streams.store import stream_keys
from tests.scenarios.stage.silent_clients import SilentClients, allow_files, script_of, usual_wait
from tests.scenarios.stage.unread import ANSWER, MIB, get, handshake, peak, served, settled_peak, unread
from tests.support.forgery import FORGED, a_text, callback, echo, raw_callback
from tests.support.replicas import Replica, dify_settings, replicas, settings_for, wecom_user
from tests.support.scrapes import samples
from tests.support.servers.processes import RedisServer, free_port, wait_until
from tests.support.sockets.event_reader import events
from tests.support.sockets.visitor import visit
from utils.keyring import derive
from utils.markdown.blocks import render_markdown
from utils.sealed import unseal

pytestmark = [pytest.mark.scenario, pytest.mark.full]

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


@pytest.fixture(scope="module")
def fortress(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A replica with 600 slots for ordinary requests, half of them for one address, and room for 500 connections more.

    The defaults are 2,000 and 1,000: with a bound of each kind, fewer clients show the same.
    """
    allow_files()
    slots = {"SOCKETS_MAX": "50", "HTTP_WAITS_MAX": "50", "CONNECTIONS_PER_IP": "300"}
    env = settings_for(redis_server.url(), API_KEYS=KEY, OPS_PORT=str(free_port()), **slots)
    with replicas(1, env, tmp_path_factory.mktemp("fortress")) as (replica,):
        yield replica


@pytest.fixture
def server_besieged(fortress: Replica) -> Replica:
    """The replica, once the connections of the test before are gone."""
    wait_until(lambda: server_connections(fortress) < 100, 40)
    return fortress


def server_connections(replica: Replica) -> int:
    """Count what the worker has open."""
    return len(list(Path(f"/proc/{replica.workers[0]}/fd").iterdir()))


def test_slow_readers_of_one_address_stop_nobody_else(server_besieged: Replica) -> None:
    """700 connections ask for a script and read none of it: callbacks and probes are answered within a second.

    So are pages for other addresses. After 30 s the connections are closed, and the address is served again.
    """
    script, idle = script_of(server_besieged), server_connections(server_besieged)
    with SilentClients(server_besieged) as clients:
        clients.hold(700, script)
        longest = usual_wait(server_besieged)
        refused = requests.get(f"{server_besieged.url}/docs", timeout=30)
        other = server_reply(PAGE, server_besieged.port, source="127.0.0.2")[0]
        held = server_connections(server_besieged) - idle

        wait_until(lambda: server_connections(server_besieged) < idle + 50, 40)
        again = requests.get(f"{server_besieged.url}/docs", timeout=30)

    assert longest < 1.0
    assert 250 < held <= 400
    assert (refused.status_code, refused.json()["code"], other, again.status_code) == (429, 20000, 200, 200)
    assert "Traceback" not in server_besieged.log


def test_slow_readers_of_many_addresses_leave_room_for_callbacks(server_besieged: Replica) -> None:
    """When all slots are taken by ten addresses, ordinary requests get 503; callbacks and probes their answers."""
    script = script_of(server_besieged)
    with SilentClients(server_besieged) as clients:
        clients.hold(700, script, addresses=[f"127.0.0.{number}" for number in range(10, 20)])
        longest = usual_wait(server_besieged)
        full = requests.get(f"{server_besieged.url}/docs", timeout=30)

    assert longest < 1.0
    assert (full.status_code, full.headers["Connection"], full.headers["Retry-After"]) == (503, "close", "5")


@pytest.mark.parametrize("sent", ["", PAGE[:20], PAGE.replace("close", "keep-alive")], ids=["none", "half", "one"])
def test_clients_that_ask_nothing_make_room(server_besieged: Replica, sent: str) -> None:
    """1,400 connections that are silent, that break off, or that are kept: others are answered."""
    with SilentClients(server_besieged) as clients:
        clients.hold(1400, sent.encode())
        longest = usual_wait(server_besieged, settle=GIVEN_UP)
        page, _ = server_reply(PAGE, server_besieged.port, source="127.0.0.2")

    assert (longest < 1.0, page) == (True, 200)


def test_callbacks_that_never_come_make_room(server_besieged: Replica) -> None:
    """1,400 callbacks without their body do not keep out those that are whole, once they are five seconds old."""
    half = (
        b"POST /wechat/callback?msg_signature=x&timestamp=1&nonce=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"
    )
    with SilentClients(server_besieged) as clients:
        clients.hold(1050, half)
        time.sleep(5.0)
        clients.hold(350, half)
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


READERS = 300
#: MiB that all of them may cost together.
MOST_MIB = 80.0
HEADER = {"X-API-Key": KEY}
SHOWN = f"X-API-Key: {KEY}"


def resumed(path: str, **members: object) -> Callable[[str, int], bytes]:
    return lambda stream, _: handshake(path, json.dumps({"type": "resume", "stream_id": stream, **members}), SHOWN)


def fetched(accept: str, *headers: str) -> Callable[[str, int], bytes]:
    return lambda stream, _: get(f"/api/chat/{stream}", SHOWN, f"Accept: {accept}", *headers)


#: How readers come back to an answer that is whole: they lack all of it, or the last frame alone.
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
}


@pytest.fixture(scope="module")
def memory_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def memory_replica(memory_redis: RedisServer, tmp_path: Path) -> Iterator[Replica]:
    """A replica of one worker, with places for all readers."""
    allow_files()
    own = {"RAG_PROVIDER": "tests.scenarios.stage.unread:MegabyteAnswers", "API_KEYS": KEY, "HTTP_WAITS_MAX": "400"}
    limits = {"RATE_LIMIT_IP": "off", "RATE_LIMIT_USER": "off", "SOCKETS_MAX": "400"}
    replica = Replica(settings_for(memory_redis.url(), **own, **limits), tmp_path)
    try:
        yield replica.wait_ready()
    finally:
        replica.kill()


def asked(replica: Replica) -> str:
    """Ask for the long answer; return its stream."""
    reply = requests.post(f"{replica.url}/api/chat", json={"query": "?"}, headers=HEADER, timeout=60)
    assert reply.json()["data"]["content"] == ANSWER
    return str(reply.json()["data"]["stream_id"])


@pytest.mark.parametrize("kind", WAYS)
def test_readers_that_read_nothing_cost_little(kind: str, memory_replica: Replica, memory_redis: RedisServer) -> None:
    """300 of them that come back to 1 MiB cost less than 80 MiB together; the ways of their kind in turns."""
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


def test_readers_that_read_get_all_of_it(memory_replica: Replica) -> None:
    """The same answer, byte for byte, as frames, HTML and events."""
    stream = asked(memory_replica)

    with connect(f"ws://127.0.0.1:{memory_replica.port}/ws/chat", additional_headers=HEADER, max_size=None) as chat:
        chat.send(json.dumps({"type": "resume", "stream_id": stream, "cursor": 0, "render": "html"}))
        frames = [json.loads(chat.recv(30))]
        while frames[-1].get("role") != "assistant":
            frames.append(json.loads(chat.recv(30)))
    url = f"{memory_replica.url}/api/chat/{stream}"
    with requests.get(url, headers={**HEADER, "Accept": "text/event-stream"}, stream=True, timeout=60) as reply:
        said = list(events(line.decode() for line in reply.iter_lines()))

    assert "".join(frame["content"] for frame in frames if frame["type"] == "chat_delta") == ANSWER
    assert (frames[-1]["content"], frames[-1]["html"]) == (ANSWER, render_markdown(ANSWER))
    assert "".join(event.data["content"] for event in said if event.name == "delta") == ANSWER
    assert said[-1].data["content"] == ANSWER
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
    """Return the statuses of requests with these headers, one after another."""
    with requests.Session() as session:
        return [session.get(replica.url + path, headers=each, timeout=30).status_code for each in headers]


def endpoints_refusals(replica: Replica) -> list[tuple[str, str]]:
    """Return check and cause of each refused callback in the log."""
    lines = [json.loads(line) for line in replica.log.splitlines() if line.startswith("{")]
    return [(line["check"], line["cause"]) for line in lines if line["message"] == "callback refused"]


def test_no_answer_metric_or_line_tells_good_padding_from_bad(endpoints_replica: Replica) -> None:
    """A sender with the token tries all 256 values of the byte that a padding oracle recovers."""
    url = f"{endpoints_replica.url}/wechat/callback"
    guesses = [raw_callback(bytes(16) + bytes([0, 0, 0, 1]) + b"x" * 43 + bytes([last])) for last in range(256)]
    forged = [forge() for name, forge in FORGED.items() if name.startswith("bad_ciphertext")]

    with requests.Session() as session:
        replies = [session.post(url, params=one.params, data=one.body, timeout=10) for one in guesses + forged]
        metrics = session.get(f"{endpoints_replica.url}/metrics", headers=ENDPOINTS_AS_ADMIN, timeout=30).text

    assert {(reply.status_code, reply.text) for reply in replies} == {(400, '{"code": "callback_refused"}')}
    counted = {name[1:]: value for name, value in samples(metrics).items() if "callbacks_refused_total" in name[0]}
    assert counted == {("bad_ciphertext",): len(replies)}
    assert set(endpoints_refusals(endpoints_replica)) == {("bad_ciphertext", "bad_ciphertext")}


def test_metrics_on_the_port_for_all_are_an_administrators(endpoints_replica: Replica) -> None:
    """What they count is the attacker's feedback."""
    headers = [{}, {"Authorization": "Bearer wrong"}, {"X-API-Key": ENDPOINTS_ADMIN}, ENDPOINTS_AS_ADMIN]

    assert endpoints_statuses(endpoints_replica, "/metrics", headers) == [401, 401, 401, 200]


def test_administrators_come_by_their_own_port_only(redis_url: str, tmp_path: Path) -> None:
    """Where there is one, nothing of theirs is on the port for all, whatever token is shown."""
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
def test_a_guesser_is_stopped_and_nobody_else(
    endpoints_replica: Replica, address: int, path: str, guess: dict[str, str], right: dict[str, str]
) -> None:
    """200 guesses of one address are mostly not looked at; a right credential of another address is."""
    guesser, other = ({"X-Forwarded-For": f"{block}.{address}"} for block in ("203.0.113", "198.51.100"))
    kind = "admin" if right is ENDPOINTS_AS_ADMIN else "caller"

    def refused() -> list[float]:
        page = requests.get(
            f"{endpoints_replica.url}/metrics", headers={**ENDPOINTS_AS_ADMIN, **other}, timeout=30
        ).text
        counted = samples(page)
        series = "wechatlaibao_credentials_refused_total"
        return [counted.get((series, kind, why), 0.0) for why in ("wrong", "blocked")]

    # A page of metrics may be a second old: one guess of a third address, once counted, shows that this one is not.
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


def test_a_foreign_page_submits_nothing(redis_url: str, tmp_path: Path) -> None:
    """A form with a file needs no leave of the browser; it is refused all the same, and a program's is taken."""
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


def test_a_name_that_was_rebound_is_refused(redis_url: str, tmp_path: Path) -> None:
    """The attacker's page is of the server's own origin then; callbacks and probes come by any name."""
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
    """As many tasks of one key as the queue has room for are refused beyond its share; another key's are taken."""
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


def test_a_path_steers_no_terminal_and_forges_no_line(redis_url: str, tmp_path: Path) -> None:
    """ESC, NEL and U+2028 of a path that anybody may ask for are written as what they are."""
    env = settings_for(redis_url, ADMIN_TOKEN=ENDPOINTS_ADMIN, LOG_FORMAT="plain")
    with replicas(1, env, tmp_path) as (replica,):
        path = "/api/ws/disconnect/%1B%5B2J%C2%85%E2%80%A8%E2%80%AE2026-01-01"
        status = requests.post(replica.url + path, timeout=30).status_code
        lines = [line for line in replica.log.split("\n") if "administrator refused" in line]

    assert (status, len(lines)) == (401, 1)
    assert r"\u001b[2J\u0085\u2028\u202e2026-01-01" in lines[0]
    assert not {*"\x1b\x85\u2028\u202e"} & {*lines[0]}


def test_a_question_that_is_too_large_reaches_nobody(redis_url: str, tmp_path: Path) -> None:
    """A sentence in WeCom's bubble, 413 over REST as JSON and as events; the largest one is asked."""
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


def test_a_record_that_ends_within_the_replay_window_is_warned_of(redis_url: str, tmp_path: Path) -> None:
    """A recorded callback would be asked again."""
    with replicas(1, settings_for(redis_url, WECHAT_TIMESTAMP_WINDOW="3600"), tmp_path) as (replica,):
        warned = [json.loads(line)["warning"] for line in replica.log.splitlines() if '"settings"' in line]

    assert [warning.startswith("STREAM_TTL is 1800 and WECHAT_TIMESTAMP_WINDOW") for warning in warned] == [True]


def test_a_message_id_of_another_person_reads_nothing_of_theirs(redis_server: RedisServer, tmp_path: Path) -> None:
    """Whoever uses it asks a question of their own, and sees its answer alone."""
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


#: Without a bot and without SECRET_KEY: nothing secret is left that Redis does not have.
NO_BOT = {"WECHAT_TOKEN": "", "WECHAT_ENCODING_AES_KEY": "", "WEBSOCKET_AUTH": "token"}
USER_TOKEN = "user-token-not-real"


def test_a_reader_of_redis_opens_no_users_token(redis_server: RedisServer, tmp_path: Path) -> None:
    """Neither by what Redis keeps nor by what everybody knows, with the derivations of the code at hand."""
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
        (record,) = stored.scan_iter("dify_stream:*")
        question = json.loads(str(stored.hget(record, "question")))
        secret = str(stored.get("dify_secret:own") or "")

    assert question["credential"]
    public = hashlib.sha256(b"callers:WechatLaibao").digest()
    for key in (public, derive(secret.encode(), "callers"), derive(bytes.fromhex(secret), "callers")):
        with pytest.raises(ValueError, match="MAC"):
            unseal(key, question["credential"])
