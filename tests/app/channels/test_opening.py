"""How an app opens a chat, and the questions that it suggests after answers on the web."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from channels.http_chat.models import ChatOpening
from demo.mocks.dify.error_replies import MockErrorReply
from demo.mocks.dify.server import MockDify
from tests.support.replicas import AppServer, dify_settings
from tests.support.sockets.chat_room import ChatSocket
from tests.support.sockets.event_reader import Program

KEY = "obviously-fake-api-key"
SUGGESTED = ("病假呢", "事假呢")


@pytest.fixture
def server(redis_url: str, dify: MockDify) -> Iterator[AppServer]:
    with AppServer(redis_url, API_KEYS=KEY, WEBSOCKET_AUTH="key", **dify_settings(dify.base_url)) as server:
        yield server


def opening(server: AppServer) -> dict[str, Any]:
    """Return what GET /api/chat/opening tells, checked against its documentation."""
    reply = requests.get(f"{server.url}/api/chat/opening", headers={"X-API-Key": KEY}, timeout=30)
    return ChatOpening.model_validate(reply.json()["data"]).model_dump()


def test_an_app_opens_the_chat(server: AppServer, dify: MockDify) -> None:
    """Its statement is rendered and cleaned; Dify is asked once for many pages."""
    dify.opening, dify.begins_with = "您好，我是**助手**。<script>", ("年假怎么申请？", "", "报销呢")

    told = opening(server)
    again = opening(server)

    assert told["opening"] == "您好，我是**助手**。<script>"
    assert "<strong>助手</strong>" in told["html"]
    assert "<script" not in told["html"]
    assert told["suggested_questions"] == ["年假怎么申请？", "报销呢"]
    assert told["files"] == {"allowed": True, "max_bytes": 20 * 1024 * 1024, "max_files": 10}
    assert again == told
    # Once more for the warning of missing inputs, when the replica starts.
    assert dify.calls["GET /v1/parameters"] <= 2


def test_an_app_that_does_not_answer_opens_nothing(redis_url: str) -> None:
    """The page begins all the same; a key is needed all the same."""
    with AppServer(redis_url, API_KEYS=KEY, WEBSOCKET_AUTH="key", **dify_settings("http://127.0.0.1:9")) as server:
        told = opening(server)
        refused = requests.get(f"{server.url}/api/chat/opening", timeout=30)

    assert (told["opening"], told["html"], told["suggested_questions"]) == ("", "", [])
    assert refused.status_code == 401


def test_a_provider_without_an_opening(redis_url: str) -> None:
    with AppServer(redis_url, API_KEYS=KEY, WEBSOCKET_AUTH="key") as server:
        told = opening(server)

    assert (told["opening"], told["suggested_questions"], told["files"]["allowed"]) == ("", [], False)


def test_suggestions_follow_an_answer(server: AppServer, dify: MockDify) -> None:
    """On the chat socket, as JSON and as events; read again they are the same."""
    dify.suggested = SUGGESTED
    socket, program = ChatSocket(server.url, key=KEY), Program(KEY)

    frame = socket.sees_end(socket.asks("年假？"))[-2]
    socket.leaves()
    data = program.asks(server.url, "年假？").json()["data"]
    reader = program.reads(server.url, "年假？")
    done = reader.sees_end().data

    assert frame["suggestions"] == data["suggestions"] == done["suggestions"] == list(SUGGESTED)
    assert program.gets(server.url, reader.stream_id).json()["data"]["suggestions"] == list(SUGGESTED)
    assert socket.unknown() == []


def test_an_app_without_suggestions_is_not_asked_again(server: AppServer, dify: MockDify) -> None:
    """The list is empty then, and the frame has none."""
    socket = ChatSocket(server.url, key=KEY)
    frames = [socket.sees_end(socket.asks("年假？"))[-2] for _ in range(2)]
    socket.leaves()

    assert Program(KEY).asks(server.url, "年假？").json()["data"]["suggestions"] == []
    assert not [frame for frame in frames if "suggestions" in frame]
    assert [one.kind for one in dify.look_ups] == ["suggested"]


def test_suggestions_that_fail_cost_no_answer(server: AppServer, dify: MockDify) -> None:
    dify.suggested, dify.outage = SUGGESTED, MockErrorReply.api(500, "internal_server_error", "")

    data = Program(KEY).asks(server.url, "年假？").json()["data"]

    assert (data["status"], data["suggestions"]) == ("completed", [])


def test_suggestions_can_be_switched_off(redis_url: str, dify: MockDify) -> None:
    """`WEB_SUGGESTIONS=false`: Dify is not asked for any."""
    dify.suggested = SUGGESTED
    with AppServer(redis_url, API_KEYS=KEY, WEB_SUGGESTIONS="false", **dify_settings(dify.base_url)) as server:
        data = Program(KEY).asks(server.url, "年假？").json()["data"]

    assert (data["suggestions"], dify.look_ups) == ([], [])
