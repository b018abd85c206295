"""Forms on channels beside WeCom: with a session they are answered there, without one a sentence says where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from config.texts import ZH
from demo.mocks.dify.features.asking_back import ASKS, LEAD, rest
from demo.mocks.dify.server import MockDify
from services.models import Question
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import wait_until

KEY = "obviously-fake-api-key"
ASK = "报销要什么材料 [[form]]"
CHOICES = "1. 同意\n2. 驳回\n3. 转交财务"


@pytest.fixture
def app_server(redis_url: str, dify: MockDify) -> Iterator[AppServer]:
    values = {"DRAIN_SECONDS": "0", "API_KEYS": KEY, "WEBSOCKET_AUTH": "key", **dify_settings(dify.base_url)}
    with AppServer(redis_url, **values) as app_server:
        yield app_server


def asks(app_server: AppServer, text: str, **fields: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {KEY}"}
    return requests.post(f"{app_server.url}/api/chat", json={"query": text, **fields}, headers=headers, timeout=30)


def content(reply: requests.Response) -> str:
    assert reply.status_code == 200, reply.text
    return str(reply.json()["data"]["content"])


def test_a_conversation_over_http_answers_its_form(app_server: AppServer, dify: MockDify) -> None:
    """A number in the same conversation; a second one gets 409."""
    asked = content(asks(app_server, ASK, conversation="desk-7"))
    elsewhere = content(asks(app_server, "1", conversation="desk-8"))
    answer = content(asks(app_server, "1", conversation="desk-7"))
    again = asks(app_server, "1", conversation="desk-7")

    assert asked == f"{LEAD}\n\n{ASKS}\n\n{CHOICES}\n\n{ZH['form_choose']}"
    assert elsewhere == dify.expected_answer("1")
    assert answer == rest(ASK, "同意")
    assert (again.status_code, again.json()["data"]["reason"]) == (409, "form_answered")
    assert len(dify.forms.submissions) == 1


def test_a_question_without_a_conversation_says_where_to_answer(app_server: AppServer, dify: MockDify) -> None:
    """Nothing is kept: a number after it is a question."""
    asked = content(asks(app_server, ASK))

    assert asked.endswith(f"{CHOICES}\n\n{ZH['form_elsewhere']}")
    assert content(asks(app_server, "1")) == dify.expected_answer("1")
    assert not app_server.container.redis.keys("*:forms")


@pytest.mark.parametrize("channel", ["chat", "realtime"])
def test_a_sockets_session_answers_its_form(channel: str, app_server: AppServer, dify: MockDify) -> None:
    """The same client's next text continues the run."""
    caller = app_server.container.callers.check(KEY)
    who: dict[str, Any] = {"principal": caller.principal, "credential": caller.credential, "session": "client-1"}

    def says(text: str) -> str:
        gateway = app_server.container.gateway
        snapshot = gateway.ask(Question(text, channel, "default", **who))
        reader = {"bot": "default", "principal": caller.principal}
        wait_until(lambda: (shown := gateway.read(snapshot.stream_id, **reader)) and shown.status != "processing")
        shown = gateway.read(snapshot.stream_id, **reader)
        assert shown
        return shown.text

    assert says(ASK).endswith(ZH["form_choose"])
    assert says("驳回") == rest(ASK, "驳回")
    assert len(dify.forms.submissions) == 1
