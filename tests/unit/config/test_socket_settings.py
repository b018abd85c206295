"""Settings of the socket endpoints, checked on a running server through its WebSockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from demo.mocks.auth import DEMO_USER_QUERY, create_demo_users
from services.models import UserInfo
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import free_port, wait_until

SECONDS = 30.0
OPEN = {"WEBSOCKET_AUTH": "none"}
ENDPOINTS = ["/ws/chat", "/ws/realtime-asr"]


@contextmanager
def session(app_server: AppServer, path: str = "/ws/chat", **options: Any) -> Iterator[ClientConnection]:
    with connect(app_server.url.replace("http", "ws", 1) + path, open_timeout=SECONDS, **options) as socket:
        yield socket


def refused_status(app_server: AppServer, path: str = "/ws/chat", **options: Any) -> int:
    """Return the HTTP status of a refused handshake."""
    with pytest.raises(InvalidStatus) as refused, session(app_server, path, **options):
        pass
    return refused.value.response.status_code


def until(socket: ClientConnection, **members: object) -> dict[str, Any]:
    """Receive frames up to the next one with these members, and return it."""
    while True:
        frame: dict[str, Any] = json.loads(socket.recv(SECONDS))
        if frame.items() >= members.items():
            return frame


def test_public_origins_may_open_sockets(redis_url: str) -> None:
    """PUBLIC_ORIGINS: its pages and those of the server's own host connect, others get 403."""
    with AppServer(redis_url, **OPEN, PUBLIC_ORIGINS="https://chat.example.com") as app_server:
        for origin in ("https://chat.example.com", app_server.url):
            with session(app_server, origin=origin) as socket:
                assert until(socket, type="system")

        assert refused_status(app_server, origin="https://elsewhere.example.com") == 403


def test_the_number_of_sockets_is_limited(redis_url: str) -> None:
    """SOCKETS_MAX: one more gets 503, and is accepted after another socket has closed."""
    with AppServer(redis_url, **OPEN, SOCKETS_MAX="1") as app_server:
        with session(app_server) as socket:
            until(socket, type="system")
            assert refused_status(app_server) == 503

        def has_slot() -> bool:
            try:
                with session(app_server) as later:
                    return bool(until(later, type="system"))
            except InvalidStatus:
                return False

        wait_until(has_slot, SECONDS)


def test_an_address_opens_a_limited_number_of_sockets(redis_url: str) -> None:
    """RATE_LIMIT_IP: the third handshake within the hour gets 429."""
    with AppServer(redis_url, **OPEN, RATE_LIMIT_IP="2/hour") as app_server:
        for _ in range(2):
            with session(app_server) as socket:
                until(socket, type="system")

        assert refused_status(app_server) == 429


def test_a_client_asks_a_limited_number_of_questions(redis_url: str) -> None:
    """RATE_LIMIT_USER: the third question gets an error frame, and the socket stays open."""
    with AppServer(redis_url, **OPEN, RATE_LIMIT_USER="2/hour") as app_server, session(app_server) as socket:
        for number in range(3):
            socket.send(json.dumps({"content": f"问题{number}"}))

        assert until(socket, type="error")["code"] == "RATE_LIMITED"
        socket.send(json.dumps({"type": "ping", "timestamp": 1}))
        assert until(socket, type="pong", timestamp=1)


def test_a_users_token_opens_sockets(redis_url: str, tmp_path: Path) -> None:
    """WEBSOCKET_AUTH=token: a valid token is accepted in a header and in an auth frame, an expired one gets 401."""
    create_demo_users(f"sqlite:///{tmp_path / 'users.db'}")
    token = "user-token-not-real"
    external = {
        "AUTH_MODE": "external",
        "AUTH_SERVICE_URL": f"http://127.0.0.1:{free_port()}",
        "AUTH_USER_QUERY": DEMO_USER_QUERY,
        "DATABASE_PATH": str(tmp_path / "users.db"),
        "WEBSOCKET_AUTH": "token",
    }
    with (
        AppServer(redis_url, **external) as app_server,
        redis.Redis.from_url(redis_url, decode_responses=True) as client,
    ):
        client.set(f"authorization:token:{token}", UserInfo("E1001", "张三").to_json())
        for endpoint in ENDPOINTS:
            with session(app_server, endpoint, additional_headers={"Authorization": f"Bearer {token}"}) as socket:
                socket.send(json.dumps(question_for(endpoint)))
                assert until(socket, **END[endpoint])
            with session(app_server, endpoint) as socket:
                until(socket, type="auth_required")
                socket.send(json.dumps({"type": "auth", "token": token}))
                assert json.loads(socket.recv(SECONDS))["type"] in ("system", "ack")

        client.delete(f"authorization:token:{token}")
        for endpoint in ENDPOINTS:
            assert refused_status(app_server, endpoint, additional_headers={"X-API-Key": token}) == 401


#: Members of the frame that ends an answer, by endpoint.
END: dict[str, dict[str, object]] = {
    ENDPOINTS[0]: {"type": "chat", "role": "assistant", "status": "completed"},
    ENDPOINTS[1]: {"final": True},
}


def question_for(endpoint: str) -> dict[str, object]:
    if endpoint == ENDPOINTS[0]:
        return {"content": "年假怎么申请？"}
    return {"type": "asr_chunk", "text": "年假怎么申请？", "is_final": True}


def test_mock_fallback_answers_when_the_provider_is_unreachable(redis_url: str) -> None:
    """MOCK_FALLBACK: the answer's frame is marked with `mock: true`; without it, PROVIDER_UNREACHABLE is sent."""
    unreachable = dify_settings(f"http://127.0.0.1:{free_port()}")
    with (
        AppServer(redis_url, **OPEN, **unreachable, MOCK_FALLBACK="true") as falls_back,
        AppServer(redis_url, **OPEN, **unreachable) as fails,
        session(falls_back, ENDPOINTS[0]) as chat,
        session(falls_back, ENDPOINTS[1]) as realtime,
        session(fails) as without,
    ):
        # Each provider is tried three times, with pauses: at the same time.
        for socket, endpoint in ((chat, ENDPOINTS[0]), (realtime, ENDPOINTS[1]), (without, ENDPOINTS[0])):
            socket.send(json.dumps(question_for(endpoint)))

        assert until(chat, **END[ENDPOINTS[0]])["mock"] is True
        assert until(realtime, **END[ENDPOINTS[1]])["mock"] is True
        assert until(without, type="error")["code"] == "PROVIDER_UNREACHABLE"


@pytest.mark.parametrize("switch", [{"MOCK_MODE": "true"}, {"USE_MOCK_RAG": "1"}, {"RAG_PROVIDER": "mock"}])
def test_each_mock_switch_makes_the_mock_answer(redis_url: str, switch: dict[str, str]) -> None:
    """The answer is the original's sentence with the question in it, marked with `mock: true`."""
    real = dify_settings(f"http://127.0.0.1:{free_port()}")
    with AppServer(redis_url, **OPEN, **{**real, **switch}) as app_server, session(app_server) as socket:
        socket.send(json.dumps({"content": "What?"}))

        answer = until(socket, type="chat", role="assistant")
        assert answer["content"].startswith("This is a mock response to your question: 'What?'.")
        assert answer["mock"] is True
