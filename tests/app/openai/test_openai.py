"""The OpenAI endpoint, with a model server and with Dify behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from channels.openai.models import Completion, ModelList
from config.texts import ZH
from demo.mocks.dify.server import MockDify
from demo.mocks.openai.plays import THOUGHT
from demo.mocks.openai.server import MockOpenAI
from tests.support.openai_program import OpenAIProgram, assistant, error_of, user
from tests.support.replicas import AES_KEY, TOKEN, AppServer, dify_settings
from tests.support.servers.processes import RedisServer
from tests.support.sockets.event_reader import Program

KEY, OTHER_KEY = "obviously-fake-api-key", "another-fake-api-key"
#: A bot that programs may ask, and one that they may not.
BOTS = {
    name: {"WECHAT_TOKEN": TOKEN, "WECHAT_ENCODING_AES_KEY": AES_KEY, "RAG_PROVIDER": "mock", **more}
    for name, more in {"hr": {"api": True}, "it": {}}.items()
}
ASKED = "年假怎么申请？"
CHINESE = re.compile("[\u4e00-\u9fff]")


@pytest.fixture
def model() -> Iterator[MockOpenAI]:
    with MockOpenAI() as model:
        yield model


@pytest.fixture
def app_server(redis_url: str, model: MockOpenAI) -> Iterator[AppServer]:
    values = {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "sk-fake", "RAG_PROVIDER": "openai"}
    with AppServer(redis_url, **values, **common()) as app_server:
        yield app_server


@pytest.fixture(scope="module")
def refusing(redis_server: RedisServer) -> Iterator[OpenAIProgram]:
    """A program of a gateway whose model server is never asked."""
    with MockOpenAI() as model:
        values = {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "sk-fake", "RAG_PROVIDER": "openai"}
        with AppServer(redis_server.url(), **values, **common()) as app_server:
            yield OpenAIProgram(app_server.url, KEY)
        assert not model.asked


@pytest.fixture
def dify_server(redis_url: str, dify: MockDify) -> Iterator[AppServer]:
    with AppServer(redis_url, **dify_settings(dify.base_url), **common()) as app_server:
        yield app_server


@pytest.fixture
def program(app_server: AppServer) -> OpenAIProgram:
    return OpenAIProgram(app_server.url, KEY)


@pytest.fixture
def dify_program(dify_server: AppServer) -> OpenAIProgram:
    return OpenAIProgram(dify_server.url, KEY)


def common() -> dict[str, str]:
    return {
        "API_KEYS": KEY,
        "DRAIN_SECONDS": "0",
        "RATE_LIMIT_USER": "off",
        "WECHAT_BOTS": json.dumps(BOTS),
        "MEDIA_MAX_BYTES": "100000",
    }


# Answers


def test_a_whole_answer_has_openais_shape(program: OpenAIProgram, model: MockOpenAI) -> None:
    """Text, finish reason and tokens; the ids are those of a completion."""
    reply = program.asks(ASKED)

    body = reply.json()
    Completion.model_validate(body)
    (choice,) = body["choices"]
    assert (body["object"], body["model"], body["id"][:9]) == ("chat.completion", "default", "chatcmpl-")
    assert choice["message"] == {"role": "assistant", "content": model.expected_answer(ASKED), "refusal": None}
    assert choice["finish_reason"] == "stop"
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"] > 0


def test_a_stream_begins_with_the_role_and_ends_with_done(program: OpenAIProgram, model: MockOpenAI) -> None:
    """Between them are the deltas, the finish reason in a chunk of its own, and the usage where it is asked for."""
    plain = program.streams(ASKED)
    counted = program.streams(ASKED, stream_options={"include_usage": True})

    assert plain.chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (plain.content, plain.finish, plain.done) == (model.expected_answer(ASKED), "stop", True)
    assert not any("usage" in chunk for chunk in plain.chunks)
    assert counted.chunks[-1]["choices"] == []
    assert counted.chunks[-1]["usage"]["total_tokens"] > 0
    assert {chunk["usage"] for chunk in counted.chunks[:-1]} == {None}
    assert counted.content == plain.content


@pytest.mark.parametrize("script", ["reasoning", "thinking-parts"])
def test_thinking_is_reasoning_content(program: OpenAIProgram, script: str) -> None:
    """It is neither in the answer nor are its tags, whole and as a stream."""
    asked = f"{ASKED} [[{script}]]"

    message = program.asks(asked).json()["choices"][0]["message"]
    stream = program.streams(asked)

    assert message["reasoning_content"] == stream.joined("reasoning_content") == THOUGHT
    assert message["content"] == stream.content
    assert "think" not in stream.content


def test_sources_are_annotations(dify_program: OpenAIProgram) -> None:
    """They come with the whole answer, and in the last delta of a stream."""
    message = dify_program.asks(ASKED).json()["choices"][0]["message"]
    last = dify_program.streams(ASKED).chunks[-1]["choices"][0]["delta"]

    cited = [one["url_citation"] for one in message["annotations"]]
    assert message["annotations"] == last["annotations"]
    assert all(one["title"] and one["end_index"] == len(message["content"]) for one in cited)


@pytest.mark.parametrize(("script", "finish"), [("length", "length"), ("content-filter", "content_filter")])
def test_a_cut_answer_says_why(program: OpenAIProgram, script: str, finish: str) -> None:
    """The text so far is the answer; no sentence of ours is in it."""
    asked = f"{ASKED} [[{script}]]"

    whole, stream = program.asks(asked).json(), program.streams(asked)

    assert whole["choices"][0]["finish_reason"] == stream.finish == finish
    assert whole["choices"][0]["message"]["content"] == stream.content != ""
    assert stream.done


@pytest.mark.full
def test_a_replaced_text_ends_a_stream(dify_program: OpenAIProgram, dify: MockDify) -> None:
    """What was sent cannot be taken back; a whole answer has the new text."""
    dify.delay = 0.1
    asked = f"{ASKED} [[new-agent-differs]]"

    stream = dify_program.streams(asked)

    assert (stream.error["code"], stream.done) == ("answer_replaced", False)
    assert dify_program.content(asked)


# Models


def test_models_are_the_default_bot_and_offered_ones(program: OpenAIProgram) -> None:
    """A bot without `"api": true` cannot be asked."""
    headers = {"Authorization": f"Bearer {KEY}"}
    listed = requests.get(f"{program.url}/v1/models", headers=headers, timeout=10).json()
    one = requests.get(f"{program.url}/v1/models/hr", headers=headers, timeout=10)
    none = requests.get(f"{program.url}/v1/models/it", headers=headers, timeout=10)

    ModelList.model_validate(listed)
    assert [model["id"] for model in listed["data"]] == ["default", "hr"]
    assert (one.json()["id"], error_of(none)) == ("hr", (404, "model_not_found", "model"))
    assert ASKED in program.content(ASKED, model="hr")
    assert error_of(program.asks(ASKED, model="it")) == (404, "model_not_found", "model")


# Errors


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"messages": "x"}, (400, "invalid_value", "messages")),
        ({"messages": []}, (400, "invalid_value", "messages")),
        ({"messages": [{"role": "user", "content": 5}]}, (400, "invalid_value", "messages[0].content")),
        ({"messages": [{"role": "robot"}]}, (400, "invalid_value", "messages[0].role")),
        ({"messages": [{"role": "user", "content": "  "}]}, (400, "invalid_value", "messages[0].content")),
        ({"messages": [{"role": "assistant", "content": "x"}]}, (400, "invalid_value", "messages[0].role")),
        ({"messages": [{"role": "tool", "content": "x"}]}, (400, "invalid_value", "messages[0].role")),
        ({"stream": "yes"}, (400, "invalid_value", "stream")),
        ({"user": "a\nb"}, (400, "invalid_value", "user")),
        ({"user": "x" * 129}, (400, "invalid_value", "user")),
        ({"model": 5}, (400, "invalid_value", "model")),
        ({"n": 2}, (400, "unsupported_value", "n")),
        ({"tool_choice": "required"}, (400, "unsupported_value", "tool_choice")),
        ({"response_format": {"type": "json_object"}}, (400, "unsupported_value", "response_format")),
        ({"metadata": {"conversation_id": "a b"}}, (400, "invalid_value", "metadata.conversation_id")),
        ({"messages": [{"role": "user", "content": "x" * 70_000}]}, (400, "context_length_exceeded", None)),
    ],
)
def test_a_wrong_request_names_its_field(
    refusing: OpenAIProgram, fields: dict[str, Any], found: tuple[int, str, str | None]
) -> None:
    """As OpenAI does, with status 400."""
    assert error_of(refusing.asks(ASKED, **fields)) == found


@pytest.mark.parametrize("locale", ["zh", "en"])
def test_errors_are_in_the_language_of_locale(redis_url: str, locale: str) -> None:
    """Those of wrong requests, keys and models, of a used Idempotency-Key and of the limit; codes stay as they are."""
    once = {"RAG_PROVIDER": "mock", "RATE_LIMIT_USER": "1/day", "LOCALE": locale}
    with AppServer(redis_url, **{**common(), **once}) as app:
        program, key = OpenAIProgram(app.url, KEY), {"Idempotency-Key": "k1"}
        assert program.content(ASKED, headers=key)
        replies = [
            program.asks(assistant("x")),
            program.asks(ASKED, n="x"),
            OpenAIProgram(app.url, "wrong").asks(ASKED),
            program.asks(ASKED, model="it"),
            program.asks("乙？", headers=key),
            program.asks("丙？"),
        ]

    codes = ["invalid_value"] * 2 + ["invalid_api_key", "model_not_found"]
    assert [error_of(reply)[1] for reply in replies] == [*codes, "idempotency_key_reuse", "rate_limit_exceeded"]
    messages = [reply.json()["error"]["message"] for reply in replies]
    assert [bool(CHINESE.search(message)) for message in messages] == [locale == "zh"] * 6, messages


def test_fields_that_are_not_used_are_ignored(program: OpenAIProgram) -> None:
    """Clients send many: sampling parameters, tools that may be called, and fields of later versions."""
    fields = {"top_p": 1, "tools": [{"type": "function", "function": {"name": "f"}}], "new": {}}

    assert program.content(ASKED, tool_choice="auto", response_format={"type": "text"}, store=False, **fields)


def test_the_temperature_reaches_providers_that_take_one(
    program: OpenAIProgram, model: MockOpenAI, dify_program: OpenAIProgram
) -> None:
    """Others ignore it, as many clients send one; nobody takes one beyond OpenAI's range."""
    assert program.content(ASKED, temperature=0.1)
    assert program.content("病假呢？")
    assert dify_program.content(ASKED, temperature=0.1)

    assert [one.body.get("temperature") for one in model.asked] == [0.1, None]
    assert error_of(program.asks(ASKED, temperature=2.1)) == (400, "invalid_value", "temperature")


@pytest.mark.parametrize(
    ("method", "path", "headers", "found"),
    [
        ("GET", "/v1/nothing", {}, (404, None, None)),
        ("GET", "/v1/chat/completions", {}, (405, None, None)),
        ("POST", "/v1/chat/completions", {"Authorization": "Bearer wrong"}, (401, "invalid_api_key", None)),
        ("POST", "/v1/chat/completions", {"Authorization": ""}, (401, "invalid_api_key", None)),
        ("GET", "/v1/models", {"Authorization": "Bearer wrong"}, (401, "invalid_api_key", None)),
        ("POST", "/v1/chat/completions", {"Content-Type": "text/plain"}, (415, "not_json", None)),
        ("POST", "/v1/chat/completions", {}, (400, "invalid_json", None)),
        ("POST", "/v1/chat/completions", {"Origin": "https://elsewhere.example"}, (403, "origin", None)),
    ],
)
def test_every_error_has_openais_shape(
    refusing: OpenAIProgram, method: str, path: str, headers: dict[str, str], found: tuple[int, str | None, str | None]
) -> None:
    """Also those of the framework, and those that are found before the request is read."""
    sent = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **headers}

    reply = requests.request(method, refusing.url + path, headers=sent, data=b"{", timeout=10)

    assert error_of(reply) == found
    assert CHINESE.search(reply.json()["error"]["message"])


def test_a_body_that_is_too_large_is_refused(refusing: OpenAIProgram) -> None:
    """Before it is parsed."""
    reply = refusing.asks(ASKED, new="x" * 5_000_000)

    assert error_of(reply) == (413, "too_large", None)


@pytest.mark.parametrize(("script", "status"), [("401", 502), ("429-later", 429)])
def test_an_error_before_the_first_text_is_a_status(program: OpenAIProgram, script: str, status: int) -> None:
    """Also of a stream. The provider's own text, with its secrets, is in neither."""
    asked = f"{ASKED} [[{script}]]"

    for reply in (program.asks(asked), program.asks(asked, stream=True)):
        assert error_of(reply)[0] == status
        assert "secret" not in reply.text
        assert reply.headers.get("Retry-After") == ("30" if status == 429 else None)


def test_an_error_within_a_stream_is_its_last_chunk(program: OpenAIProgram) -> None:
    """The text so far stays; there is no finish reason and no `[DONE]`."""
    stream = program.streams(f"{ASKED} [[error-after-text]]")

    assert stream.content
    assert (stream.error["type"], stream.done) == ("server_error", False)
    assert stream.error["message"] in ZH.values()


def test_the_rate_limit_follows_the_end_user(redis_url: str) -> None:
    """Each user of a key has a count; who names none shares the count of the address."""
    with AppServer(redis_url, **{**common(), "RATE_LIMIT_USER": "1/day"}) as limited:
        program = OpenAIProgram(limited.url, KEY)
        replies = [program.asks(ASKED, user=name) for name in ("ann", "ben", "ann", "", "")]

    assert [reply.status_code for reply in replies] == [200, 200, 429, 200, 429]
    assert error_of(replies[2]) == (429, "rate_limit_exceeded", None)
    assert replies[2].headers["Retry-After"] == "60"


def test_a_key_has_a_rate_whatever_users_it_names(redis_url: str) -> None:
    """Beside the one of each user, over all endpoints; another key has its own."""
    keys = {"API_KEYS": f"{KEY},{OTHER_KEY}", "RATE_LIMIT_KEY": "2/day"}
    with AppServer(redis_url, **{**common(), **keys}) as limited:
        program = OpenAIProgram(limited.url, KEY)
        replies = [program.asks(ASKED, user=name) for name in ("ann", "ben", "eve")]
        rest = Program(KEY).asks(limited.url, ASKED)
        other = OpenAIProgram(limited.url, OTHER_KEY).asks(ASKED, user="ann")

    assert [reply.status_code for reply in (*replies, rest, other)] == [200, 200, 429, 429, 200]
    assert error_of(replies[2]) == (429, "rate_limit_exceeded", None)


# Messages before the question


def test_a_model_server_gets_earlier_messages_as_messages(program: OpenAIProgram, model: MockOpenAI) -> None:
    """With the instructions first; the model's thinking is left out."""
    system = {"role": "system", "content": "Be brief."}

    program.content(system, "甲？", assistant("<think>嗯</think>甲。"), user("乙？"))

    sent = model.asked[-1].body["messages"]
    assert sent == [system, user("甲？"), assistant("甲。"), user("乙？")]


def test_dify_gets_earlier_messages_as_text(dify_program: OpenAIProgram, dify: MockDify) -> None:
    """Before the question. The stored question and the documented field `content` have the question alone."""
    dify_program.content(
        {"role": "developer", "content": "Be brief."}, "甲？", assistant("甲。"), user("乙？"), user="ann"
    )

    body = dify.requests[-1].body
    assert body["query"] == "System: Be brief.\n\nUser: 甲？\n\nAssistant: 甲。\n\nUser: 乙？"
    assert body["user"] == "openai:ann"
    assert "conversation_id" not in body
