"""The options of a question over plain HTTP, with real replicas: they survive the owner, and reach the provider."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.mocks.dify.server import MockDify
from demo.mocks.openai.server import MockOpenAI
from tests.support.replicas import AppServer, Replica, dify_settings, replicas, settings_for
from tests.support.servers.processes import wait_until
from tests.support.sockets.chat_room import ChatSocket
from tests.support.sockets.event_reader import Program

KEY = "not-a-real-key"
QUESTION = "年假怎么申请？"
#: All options that the provider openai takes.
OPTIONS = {"model": "m2", "temperature": 0.25, "user": "zhangsan"}
BOTS = {
    "hr": {
        "WECHAT_TOKEN": "HRTOKEN0123456789",
        "WECHAT_ENCODING_AES_KEY": "HBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQAAAAA",
        "api": True,
    }
}

TRACE = "0af7651916cd43dd8448eb211c80319c"
IDS = {"X-Request-Id": "order-7", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}

program = Program(KEY)


@pytest.fixture
def model() -> Iterator[MockOpenAI]:
    """A model whose answers take some seconds."""
    with MockOpenAI(delay=0.5) as model:
        yield model


@pytest.fixture
def pair(redis_url: str, model: MockOpenAI, tmp_path: Path) -> Iterator[tuple[Replica, Replica]]:
    provider = {"RAG_PROVIDER": "openai", "OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "k", "OPENAI_MODEL": "m"}
    own = {**provider, "API_KEYS": KEY, "STREAM_LEASE": "3", "RATE_LIMIT_USER": "off"}
    with replicas(2, settings_for(redis_url, **own), tmp_path) as (one, other):
        yield one, other


@pytest.mark.scenario
@pytest.mark.full
def test_a_request_is_followed_by_its_ids(pair: tuple[Replica, Replica], model: MockOpenAI) -> None:
    """In the reply, in the log lines of the answer on both of its owners, and in both requests to the provider."""
    one, other = pair
    asking = Program(KEY, IDS)
    reader = asking.reads(one.url, QUESTION, id="q1")
    reader.sees_text(2)
    one.kill()
    reply = program.asks(other.url, QUESTION, id="q1")

    assert reply.json()["data"]["content"] == model.expected_answer(QUESTION)
    assert {name: reader.headers[name] for name in IDS} == IDS
    assert reply.headers["X-Request-Id"] != "order-7"

    def lines() -> list[dict[str, str]]:
        return [json.loads(line) for line in (one.log + other.log).splitlines() if '"order-7"' in line]

    wait_until(lambda: {"http question", "stream taken over", "stream"} <= {line["message"] for line in lines()})
    assert {line["trace_id"] for line in lines()} == {TRACE}
    sent = [asked.headers["traceparent"] for asked in model.asked]
    assert len(sent) == len({*sent, IDS["traceparent"]}) - 1 == 2
    assert {each[3:35] for each in sent} == {TRACE}


def over_http(one: Replica, other: Replica) -> tuple[str, str]:
    reader = program.reads(one.url, QUESTION, id="q1", **OPTIONS)
    reader.sees_text(2)
    one.kill()
    whole = program.asks(other.url, QUESTION, id="q1", **OPTIONS).json()["data"]
    differing = program.asks(other.url, QUESTION, id="q1", **{**OPTIONS, "model": "m3"})
    assert differing.status_code == 409
    return whole["content"], differing.json()["data"]["reason"]


def over_a_socket(one: Replica, other: Replica) -> tuple[str, str]:
    first = ChatSocket(one.url, "desk-7", key=KEY)
    stream_id = first.asks(QUESTION, id="q1", **OPTIONS)
    first.sees_text(stream_id, 2)
    one.kill()
    first.leaves()
    second = ChatSocket(other.url, "desk-7", key=KEY)
    assert second.asks(QUESTION, id="q1", **OPTIONS) == stream_id
    second.sees_end(stream_id)
    second.says(type="chat", content=QUESTION, id="q1", **{**OPTIONS, "model": "m3"})
    refused = second.sees(type="error", code="ID_CONFLICT")
    second.leaves()
    return second.text(stream_id), str(refused["code"]).lower()


@pytest.mark.scenario
@pytest.mark.full
@pytest.mark.parametrize("asked_twice", [over_http, over_a_socket])
def test_another_replica_asks_with_the_same_options(
    pair: tuple[Replica, Replica], model: MockOpenAI, asked_twice: Callable[[Replica, Replica], tuple[str, str]]
) -> None:
    """After a kill of the owner; the same id with another model is another question."""
    content, reason = asked_twice(*pair)

    assert (content, reason) == (model.expected_answer(QUESTION), "id_conflict")
    assert [(asked.body["model"], asked.body["temperature"]) for asked in model.asked] == [("m2", 0.25)] * 2


def test_a_bot_answers_for_the_end_user(redis_url: str) -> None:
    """Dify gets the user and the inputs; conversations and answers of another user are out of reach. So on a socket."""
    with MockDify() as dify, MockDify() as hr:
        bots = {"hr": {**BOTS["hr"], "DIFY_BASE_URL": hr.base_url}}
        own = dify_settings(dify.base_url, API_KEYS=KEY, WECHAT_BOTS=json.dumps(bots))
        with AppServer(redis_url, **own) as app:
            asked = {"bot": "hr", "user": "zhangsan", "conversation": "desk-7"}
            first = program.asks(app.url, "甲？", inputs={"level": 3}, **asked).json()["data"]
            program.asks(app.url, "乙？", **asked)
            program.asks(app.url, "丙？", **{**asked, "user": "lisi"})
            reading = f"{first['stream_id']}?bot=hr&user="
            read, foreign = program.gets(app.url, reading + "zhangsan"), program.gets(app.url, reading + "lisi")
            refused = program.asks(app.url, "丁？", bot="hr", model="m2")
            socket = ChatSocket(app.url, key=KEY)
            shown = socket.asks("戊？", bot="hr", user="wangwu", inputs={"level": 4})
            socket.sees_end(shown)
            socket.says(content="己？", bot="hr", model="m2")
            socket.sees(code="INVALID_FIELDS")
            socket.leaves()

    assert not dify.requests
    bodies = [request.body for request in hr.requests]
    assert [(body["user"], body["inputs"]) for body in bodies] == [
        ("http:zhangsan", {"level": 3}),
        ("http:zhangsan", {}),
        ("http:lisi", {}),
        ("chat:wangwu", {"level": 4}),
    ]
    assert [bool(body.get("conversation_id")) for body in bodies] == [False, True, False, False]
    assert read.json()["data"] == first
    assert foreign.status_code == 404
    assert refused.json()["data"]["errors"][0]["field"] == "model"
