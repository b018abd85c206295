"""Forms on channels beside WeCom: with a session they are answered there, without one a sentence says where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from config.texts import ZH
from demo.mocks.dify.features.asking_back import ASKS, LEAD, rest
from demo.mocks.dify.server import MockDify
from services.forms import clicked_choice
from services.models import Question
from services.streams.long_text import FullAnswer
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import wait_until

KEY, OTHER_KEY = "obviously-fake-api-key", "obviously-fake-other-key"
ASK = "报销要什么材料 [[form]]"
CHOICES = "1. 同意\n2. 驳回\n3. 转交财务"


@pytest.fixture
def app_server(redis_url: str, dify: MockDify) -> Iterator[AppServer]:
    values = {
        "DRAIN_SECONDS": "0",
        "API_KEYS": f"{KEY},{OTHER_KEY}",
        "WEBSOCKET_AUTH": "key",
        **dify_settings(dify.base_url),
    }
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
    """The same client's next text continues the run; a click names its form, and a second one comes too late."""
    caller = app_server.container.callers.check(KEY)
    who: dict[str, Any] = {"principal": caller.principal, "credential": caller.credential, "session": "client-1"}

    def says(text: str, choice: str = "") -> str:
        gateway = app_server.container.gateway
        snapshot = gateway.ask(Question(text, channel, "default", choice=choice, **who))
        reader = {"bot": "default", "principal": caller.principal}
        wait_until(lambda: (shown := gateway.read(snapshot.stream_id, **reader)) and shown.status != "processing")
        shown = gateway.read(snapshot.stream_id, **reader)
        assert shown
        return shown.text

    assert says(ASK).endswith(ZH["form_choose"])
    assert says("驳回") == rest(ASK, "驳回")
    assert len(dify.forms.submissions) == 1


def test_the_choices_of_a_conversation_are_clicked(app_server: AppServer, dify: MockDify) -> None:
    """A click names its form, so it means no other; a second one comes too late. Elsewhere there is none."""
    gateway = app_server.container.gateway

    def asks(text: str, session: str, choice: str = "", *, as_another: bool = False, **inputs: str) -> FullAnswer:
        caller = app_server.container.callers.check(OTHER_KEY if as_another else KEY)
        reader: dict[str, Any] = {"bot": "default", "principal": caller.principal}
        who: dict[str, Any] = {"principal": caller.principal, "credential": caller.credential, "session": session}
        stream_id = gateway.ask(Question(text, "chat", "default", choice=choice, inputs=inputs, **who)).stream_id
        wait_until(lambda: (shown := gateway.read(stream_id, **reader)) and shown.status != "processing")
        return gateway.follow(stream_id, **reader).full_answer()

    form = asks(ASK, "client-1").asks
    assert form
    assert form.titles == ("同意", "驳回", "转交财务")
    asks(ASK, "client-1")
    choice = clicked_choice(form.form_id, 1)

    assert asks(ASK, "").asks is None
    assert asks("驳回", "client-2", choice).error_code == "form_gone"
    assert asks("驳回", "client-1", choice, as_another=True).error_code == "form_gone"
    assert asks("驳回", "client-1", choice).text == rest(ASK, "驳回")
    assert asks("驳回", "client-1", choice).error_code == "form_answered"
    assert len(dify.forms.submissions) == 1

    wanted = asks("报销要什么材料 [[form-inputs]]", "client-3").asks
    assert wanted
    assert [(each.name, each.options) for each in wanted.inputs] == [("comment", ()), ("priority", ("low", "high"))]
    asks("同意", "client-3", clicked_choice(wanted.form_id, 0), comment="两行\n都要", priority="high", other="x")
    [_, (_, action, given)] = dify.forms.submissions
    assert (action, given) == ("approve", {"comment": "两行\n都要", "priority": "high"})
