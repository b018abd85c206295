"""Nobody reads, rates, cancels, resumes or uses what another caller has, in any mode of authentication."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import cycle
from typing import Any

import pytest
import requests
from websockets.sync.client import ClientConnection, connect

from demo.mocks.auth import DEMO_USER_QUERY, MockAuth, create_demo_users
from demo.mocks.dify.server import MockDify
from services.models import UserInfo
from tests.support.replicas import Replica, dify_settings, replicas, settings_for
from tests.support.servers.processes import RedisServer

pytestmark = [pytest.mark.scenario, pytest.mark.full]

ANN, BEN = "obviously-fake-key-a", "obviously-fake-key-b"
ZHANGSAN, LISI = "obviously-fake-token-of-zhangsan", "obviously-fake-token-of-lisi"
NO_ANSWER, NO_TASK = "0" * 32, "00000000-0000-4000-8000-000000000000"

Headers = Mapping[str, str]


def shown(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def visiting(secret: str) -> dict[str, str]:
    return {"X-Visitor": secret * 8}


#: For each mode, the owner of everything, and those who try to get at it; the empty headers are of nobody.
MODES: dict[str, tuple[Headers, list[Headers]]] = {
    "key": (shown(ANN), [shown(BEN), shown(ZHANGSAN), {}]),
    "token": (shown(ZHANGSAN), [shown(LISI), shown(ANN), {}]),
    "none": (shown(ANN), [shown(BEN), visiting("abcd"), {}]),
}


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def replica(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory, mode: str) -> Iterator[Replica]:
    """A replica whose people are authenticated by the external API; the tokens of two are valid."""
    folder = tmp_path_factory.mktemp(mode)
    database = folder / "own.db"
    create_demo_users(f"sqlite:///{database}")
    with redis_server.client() as stored:
        stored.set(f"authorization:token:{ZHANGSAN}", UserInfo("E1001", "张三").to_json())
        stored.set(f"authorization:token:{LISI}", UserInfo("E1002", "李四").to_json())
    with MockAuth() as auth, MockDify() as dify:
        env = settings_for(
            redis_server.url(),
            **dify_settings(dify.base_url),
            AUTH_MODE="external",
            AUTH_SERVICE_URL=auth.url,
            AUTH_USER_QUERY=DEMO_USER_QUERY,
            DATABASE_PATH=str(database),
            WEBSOCKET_AUTH=mode,
            API_KEYS=f"{ANN},{BEN}",
            RATE_LIMIT_IP="off",
            RATE_LIMIT_USER="off",
            TRUSTED_PROXIES="1",
        )
        with replicas(1, env, folder) as (replica,):
            yield replica


#: Each request comes from another address: one that sends many wrong credentials is blocked.
ADDRESSES = (f"203.0.113.{number}" for number in cycle(range(1, 255)))


def sends(replica: Replica, who: Headers, method: str, path: str, **options: Any) -> requests.Response:
    headers = {**who, "X-Forwarded-For": next(ADDRESSES)}
    return requests.request(method, replica.url + path, headers=headers, timeout=60, **options)


def data(reply: requests.Response) -> Any:
    assert reply.ok, reply.text
    return reply.json()["data"]


@pytest.fixture(scope="module")
def answer(replica: Replica, mode: str) -> str:
    """The stream of the owner's answer."""
    return str(data(sends(replica, MODES[mode][0], "POST", "/api/chat", json={"query": "年假？"}))["stream_id"])


@pytest.fixture(scope="module")
def task(replica: Replica, mode: str) -> str:
    """The owner's batch task."""
    asked = {"name": "七月", "texts": ["年假？"]}
    return str(data(sends(replica, MODES[mode][0], "POST", "/api/batch/tasks", json=asked))["task_id"])


def test_an_answer_is_its_callers_alone(replica: Replica, mode: str, answer: str) -> None:
    """To read, resume as events, rate or cancel it is refused as for one that does not exist."""
    owner, strangers = MODES[mode]
    tries: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/api/chat/{}", {}),
        ("GET", "/api/chat/{}?cursor=1", {}),
        ("GET", "/api/chat/{}?user=E1001", {}),
        ("POST", "/api/chat/{}/feedback", {"json": {"rating": "like"}}),
        ("DELETE", "/api/chat/{}", {}),
    ]

    for who in strangers:
        for method, path, options in tries:
            foreign, unknown = (
                sends(replica, who, method, path.format(stream_id), **options) for stream_id in (answer, NO_ANSWER)
            )
            assert foreign.status_code in (401, 404), (who, method, path)
            assert (foreign.status_code, foreign.json()) == (unknown.status_code, unknown.json())
            events = sends(replica, {**who, "Accept": "text/event-stream"}, method, path.format(answer), **options)
            assert "年假" not in events.text

    assert data(sends(replica, owner, "GET", f"/api/chat/{answer}"))["content"]
    assert data(sends(replica, owner, "POST", f"/api/chat/{answer}/feedback", json={"rating": "like"}))


#: Frames about somebody's answer or task, by endpoint.
CLAIMS: dict[str, list[dict[str, Any]]] = {
    "chat": [
        {"type": "resume", "stream_id": "", "cursor": 0},
        {"type": "feedback", "stream_id": "", "rating": "like"},
        {"type": "stop", "stream_id": ""},
    ],
    "realtime-asr": [{"type": "resume", "stream_id": "", "cursor": 0}, {"type": "subscribe", "task_id": ""}],
}
#: By mode, the credentials of another caller who may open a socket.
SOCKETS: dict[str, Headers] = {"key": shown(BEN), "token": shown(LISI), "none": {}}


@pytest.mark.parametrize("endpoint", CLAIMS)
def test_a_socket_shows_nothing_of_another_caller(
    replica: Replica, mode: str, answer: str, task: str, endpoint: str
) -> None:
    """The error is that of an answer or a task that does not exist."""
    url = f"ws://127.0.0.1:{replica.port}/ws/{endpoint}"

    with connect(url, additional_headers=SOCKETS[mode], max_size=None) as client:
        for frame in CLAIMS[endpoint]:
            name, whose, nobodys = (
                ("task_id", task, NO_TASK) if "task_id" in frame else ("stream_id", answer, NO_ANSWER)
            )
            foreign, unknown = (refusal(client, {**frame, name: one}) for one in (whose, nobodys))
            assert (foreign, foreign[0].endswith(("UNKNOWN", "NOT_FOUND"))) == (unknown, True)


def refusal(client: ClientConnection, frame: dict[str, Any]) -> tuple[str, str]:
    """Send a frame; return code and sentence of the error that it gets."""
    client.send(json.dumps(frame))
    while (reply := json.loads(client.recv(60)))["type"] != "error":
        # After an error, the realtime socket ends the answer by an empty frame.
        assert reply["type"] in ("system", "typing", "ack", "status", "heartbeat", "ping", "answer"), reply
        assert reply["type"] != "answer" or not reply["content"]
    return reply["code"], reply.get("content") or reply["message"]


def test_a_task_is_its_callers_alone(replica: Replica, mode: str, task: str) -> None:
    """Nobody else lists, sees, pauses, resumes, repeats, cancels or removes it, or gets its results."""
    owner, strangers = MODES[mode]
    one = f"/api/batch/tasks/{task}"
    tries = [
        *(("GET", one + rest) for rest in ("", "/results", "/results?format=csv", "/results?format=xlsx")),
        *(("POST", one + rest) for rest in ("/pause", "/resume", "/retry")),
        *(("DELETE", one + rest) for rest in ("", "?purge=true")),
    ]

    for who in strangers:
        for method, path in tries:
            assert sends(replica, who, method, path).status_code in (401, 404), (who, method, path)
        listed = sends(replica, who, "GET", "/api/batch/tasks")
        assert task not in listed.text

    assert data(sends(replica, owner, "GET", one))["status"] not in ("paused", "cancelled")
    assert task in sends(replica, owner, "GET", "/api/batch/tasks").text


def test_an_uploaded_file_is_its_callers_alone(replica: Replica, mode: str) -> None:
    """Another caller's question with it is refused like one with a file that does not exist."""
    owner, strangers = MODES[mode]
    picture = bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001"
        "e221bc330000000049454e44ae426082"
    )
    uploaded = sends(replica, owner, "POST", "/api/files", files={"file": ("a.png", picture)})
    file_id = data(uploaded)["file_id"]

    for who in strangers:
        refused = sends(replica, who, "POST", "/api/chat", json={"query": "?", "files": [file_id]})
        assert (refused.status_code, refused.json()["data"]["reason"]) in (
            (422, "file_unknown"),
            (401, "auth_required"),
            (401, "auth_failed"),
        )

    assert sends(replica, owner, "POST", "/api/chat", json={"query": "?", "files": [file_id]}).ok


def test_only_keys_push(replica: Replica, mode: str) -> None:
    """Neither a user's token nor a visitor writes to other people, or learns that a push exists."""
    _, strangers = MODES[mode]
    message = {"userid": "zhangsan", "markdown": "hi"}

    for who in [each for each in (*strangers, shown(ZHANGSAN)) if each not in (shown(ANN), shown(BEN))]:
        assert sends(replica, who, "POST", "/api/push", json=message).status_code == 401
        assert sends(replica, who, "GET", f"/api/push/default.{NO_ANSWER}").status_code == 401


def test_one_users_question_id_finds_no_answer_of_another(replica: Replica, mode: str) -> None:
    """The same id, and the same name of a user, make another stream for another caller."""
    owner, strangers = MODES[mode]
    asked = {"query": "年假？", "id": "q-1", "user": "E1001"}
    own = data(sends(replica, owner, "POST", "/api/chat", json=asked))["stream_id"]

    for who in strangers:
        reply = sends(replica, who, "POST", "/api/chat", json=asked)
        assert reply.status_code == 401 or data(reply)["stream_id"] != own
