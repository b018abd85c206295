"""Attacks from outside, each against a real gunicorn: what an attacker tried, and what it must not bring."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from config.texts import ZH
from demo.mock_dify import MockDify
from services.guesses import MOST
from tests.forgery import FORGED, a_text, callback, echo, raw_callback
from tests.house import Replica, dify_settings, replicas, settings_for, wecom_user
from tests.scrapes import samples
from tests.servers import free_port

pytestmark = pytest.mark.scenario

DOORS_KEY, DOORS_ADMIN = "obviously-fake-key-of-doors", "obviously-fake-admin-of-doors"
DOORS_AS_ADMIN = {"Authorization": f"Bearer {DOORS_ADMIN}"}
DOORS_WITH_KEY = {"X-API-Key": DOORS_KEY}
DOORS_CONNECTIONS, DOORS_TASKS = "/api/ws/connections", "/api/batch/tasks"


@pytest.fixture
def doors_replica(redis_url: str, tmp_path: Path) -> Iterator[Replica]:
    env = settings_for(redis_url, API_KEYS=DOORS_KEY, ADMIN_TOKEN=DOORS_ADMIN, RATE_LIMIT_IP="off")
    with replicas(1, env, tmp_path) as (replica,):
        yield replica


def doors_statuses(replica: Replica, path: str, headers: list[dict[str, str]]) -> list[int]:
    """Return the statuses of requests with these headers, one after another."""
    with requests.Session() as session:
        return [session.get(replica.url + path, headers=each, timeout=30).status_code for each in headers]


def doors_refusals(replica: Replica) -> list[tuple[str, str]]:
    """Return check and cause of each refused callback in the log."""
    lines = [json.loads(line) for line in replica.log.splitlines() if line.startswith("{")]
    return [(line["check"], line["cause"]) for line in lines if line["message"] == "callback refused"]


def test_no_answer_metric_or_line_tells_good_padding_from_bad(doors_replica: Replica) -> None:
    """A sender with the token tries all 256 values of the byte that a padding oracle recovers."""
    url = f"{doors_replica.url}/wechat/callback"
    guesses = [raw_callback(bytes(16) + bytes([0, 0, 0, 1]) + b"x" * 43 + bytes([last])) for last in range(256)]
    forged = [forge() for name, forge in FORGED.items() if name.startswith("bad_ciphertext")]

    with requests.Session() as session:
        replies = [session.post(url, params=one.params, data=one.body, timeout=10) for one in guesses + forged]
        metrics = session.get(f"{doors_replica.url}/metrics", headers=DOORS_AS_ADMIN, timeout=30).text

    assert {(reply.status_code, reply.text) for reply in replies} == {(400, '{"code": "callback_refused"}')}
    counted = {name[1:]: value for name, value in samples(metrics).items() if "callbacks_refused_total" in name[0]}
    assert counted == {("bad_ciphertext",): len(replies)}
    assert set(doors_refusals(doors_replica)) == {("bad_ciphertext", "bad_ciphertext")}


def test_metrics_on_the_port_for_all_are_an_administrators(doors_replica: Replica) -> None:
    """What they count is the attacker's feedback."""
    headers = [{}, {"Authorization": "Bearer wrong"}, {"X-API-Key": DOORS_ADMIN}, DOORS_AS_ADMIN]

    assert doors_statuses(doors_replica, "/metrics", headers) == [401, 401, 401, 200]


def test_administrators_come_by_their_own_port_only(redis_url: str, tmp_path: Path) -> None:
    """Where there is one, nothing of theirs is on the port for all, whatever token is shown."""
    port = free_port()
    env = settings_for(redis_url, ADMIN_TOKEN=DOORS_ADMIN, OPS_PORT=str(port))
    with replicas(1, env, tmp_path) as (replica,):
        ops = f"http://127.0.0.1:{port}"
        shown = [
            (doors_statuses(replica, path, [DOORS_AS_ADMIN]), requests.get(ops + path, headers=headers, timeout=30))
            for path, headers in ((DOORS_CONNECTIONS, DOORS_AS_ADMIN), ("/metrics", {}))
        ]

    assert [(public, reply.status_code) for public, reply in shown] == [([404], 200), ([404], 200)]


@pytest.mark.parametrize(
    ("path", "guess", "right"),
    [
        (DOORS_CONNECTIONS, {"Authorization": "Bearer guess"}, DOORS_AS_ADMIN),
        ("/metrics", {"Authorization": "Bearer guess"}, DOORS_AS_ADMIN),
        ("/api/batch/status", {"X-API-Key": "guess"}, DOORS_WITH_KEY),
    ],
)
def test_a_guesser_is_stopped_and_nobody_else(
    redis_url: str, tmp_path: Path, path: str, guess: dict[str, str], right: dict[str, str]
) -> None:
    """200 guesses of one address are mostly not looked at; a right credential of another address is."""
    guesser, other = {"X-Forwarded-For": "203.0.113.7"}, {"X-Forwarded-For": "198.51.100.9"}
    env = settings_for(redis_url, API_KEYS=DOORS_KEY, ADMIN_TOKEN=DOORS_ADMIN, TRUSTED_PROXIES="1")
    with replicas(1, env, tmp_path) as (replica,):
        guesses = doors_statuses(replica, path, [{**guess, **guesser}] * 200)
        others = doors_statuses(replica, path, [{**right, **other}] * 5)
        counted = samples(requests.get(f"{replica.url}/metrics", headers={**DOORS_AS_ADMIN, **other}, timeout=30).text)

    assert guesses == [401] * MOST + [429] * (200 - MOST)
    assert not {401, 429} & {*others}
    kind = "admin" if right is DOORS_AS_ADMIN else "caller"
    assert counted["wechatlaibao_credentials_refused_total", kind, "wrong"] == MOST
    assert counted["wechatlaibao_credentials_refused_total", kind, "blocked"] == 200 - MOST


DOORS_OPEN = {"WEBSOCKET_AUTH": "none", "RATE_LIMIT_IP": "off", "RATE_LIMIT_USER": "off"}


def test_a_foreign_page_submits_nothing(redis_url: str, tmp_path: Path) -> None:
    """A form with a file needs no leave of the browser; it is refused all the same, and a program's is taken."""
    database = str(tmp_path / "batches.db")
    with replicas(1, settings_for(redis_url, DATABASE_PATH=database, **DOORS_OPEN), tmp_path) as (replica,):
        origins = [{"Origin": one} for one in ("https://evil.example", "null", replica.url)]
        replies = [
            requests.post(replica.url + DOORS_TASKS, files={"file": ("q.txt", b"1\n2\n")}, headers=headers, timeout=30)
            for headers in [*origins, {}]
        ]
        asked = requests.post(f"{replica.url}/api/chat", json={"query": "?"}, headers=origins[0], timeout=30)

    assert [reply.status_code for reply in replies] == [403, 403, 201, 201]
    assert (asked.status_code, asked.json()["data"]) == (403, {"reason": "origin"})
    assert {reply.headers["X-Content-Type-Options"] for reply in [*replies, asked]} == {"nosniff"}


def test_a_name_that_was_rebound_is_refused(redis_url: str, tmp_path: Path) -> None:
    """The attacker's page is of the server's own origin then; callbacks and probes come by any name."""
    env = settings_for(redis_url, ALLOWED_HOSTS="chat.example.com,.intra.example", **DOORS_OPEN)
    with replicas(1, env, tmp_path) as (replica,):
        evil = {"Host": "rebound.evil.example", "Origin": "http://rebound.evil.example"}
        socket = {**evil, "Connection": "Upgrade", "Upgrade": "websocket"}
        refused = [("/api/batch/status", evil), ("/chat", evil), ("/metrics", evil), ("/ws/chat", socket)]
        taken = [("/chat", {"Host": "Chat.Example.com:8443"}), ("/chat", {"Host": "a.intra.example"})]
        probes = [("/healthz", evil), ("/readyz", evil)]
        statuses = [doors_statuses(replica, path, [headers])[0] for path, headers in [*refused, *taken, *probes]]
        one = callback(a_text())
        url = f"{replica.url}/wechat/callback"
        called = requests.post(url, params=one.params, data=one.body, headers={"Host": evil["Host"]}, timeout=30)
        echoed = requests.get(url, params=echo("123"), headers={"Host": evil["Host"]}, timeout=30)

    assert statuses == [400] * 4 + [200] * 4
    assert (called.status_code, echoed.text) == (200, "123")


def test_one_key_does_not_fill_the_queue(redis_url: str, tmp_path: Path) -> None:
    """As many tasks of one key as the queue has room for are refused beyond its share; another key's are taken."""
    other = "obviously-fake-key-of-others"
    changes = {"API_KEYS": f"{DOORS_KEY},{other}", "BATCH_MAX_PER_KEY": "20", "BATCH_MAX_QUEUE_SIZE": "60"}
    env = settings_for(
        redis_url, DATABASE_PATH=str(tmp_path / "batches.db"), **{**DOORS_OPEN, **changes}, BATCH_WORKER="external"
    )
    with replicas(1, env, tmp_path) as (replica,), requests.Session() as session:

        def submit(key: str) -> requests.Response:
            task = {"name": "q", "texts": ["?"]}
            return session.post(replica.url + DOORS_TASKS, json=task, headers={"X-API-Key": key}, timeout=30)

        greedy = [submit(DOORS_KEY) for _ in range(65)]
        late = submit(other)

    assert [reply.status_code for reply in greedy] == [201] * 20 + [429] * 45
    assert (greedy[-1].json()["data"], late.status_code) == ({"reason": "batch_key_full"}, 201)


def test_a_path_steers_no_terminal_and_forges_no_line(redis_url: str, tmp_path: Path) -> None:
    """ESC, NEL and U+2028 of a path that anybody may ask for are written as what they are."""
    env = settings_for(redis_url, ADMIN_TOKEN=DOORS_ADMIN, LOG_FORMAT="plain")
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
        replicas(1, settings_for(redis_url, **dify_settings(dify.base_url), **DOORS_OPEN), tmp_path) as (replica,),
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
