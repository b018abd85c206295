"""An OpenAI-compatible server as a provider, against the mock over HTTP: its requests, and what answers tell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from demo.mocks.openai.plays import CITED, REFUSED, THOUGHT
from demo.mocks.openai.server import MockOpenAI
from services.models import Delta, Exchange, Metadata, ProviderIds, Query, Usage
from services.providers.openai.provider import OpenAIProvider
from tests.support.answers import TIMEOUT, TickingClock, ask, provider_lines
from tests.support.made_providers import openai_provider
from tests.support.servers.processes import FakeClock, wait_until, when
from utils.deadline import Deadline

KEY = "sk-fake-key"


@pytest.fixture
def server() -> Iterator[MockOpenAI]:
    with MockOpenAI() as mock:
        yield mock


Make = Callable[..., OpenAIProvider]


@pytest.fixture
def make(server: MockOpenAI) -> Iterator[Make]:
    """Make providers of the mock, with options; they are closed after the test."""
    made: list[OpenAIProvider] = []

    def provider(**options: Any) -> OpenAIProvider:
        wanted: dict[str, Any] = {"base_url": server.base_url, "api_key": KEY, "model": "m1", "timeout": TIMEOUT}
        made.append(openai_provider(**wanted | {"end_grace": TIMEOUT} | options))
        return made[-1]

    yield provider
    for each in made:
        each.close()


@pytest.mark.parametrize("name", ["429-later", "503-later"])
def test_a_long_retry_after_is_left_to_the_caller(make: Make, server: MockOpenAI, name: str) -> None:
    """The error carries the Retry-After of 30 s; the caller decides when to ask again."""
    error = ask(make(), f"[[{name}]] 报销").error

    assert error is not None
    assert error.retry_after == 30.0
    assert len(server.asked) == 1


def test_a_batch_leaves_a_short_retry_after_to_its_worker(make: Make, server: MockOpenAI) -> None:
    """A batch worker waits for all its items at once; for a user's question the provider itself waits 1 s."""
    batch = ask(make(), "[[429-soon]] 报销", waits_for_provider=False)

    assert (batch.code, batch.error.retry_after if batch.error else 0.0) == ("provider_busy", 1.0)
    assert len(server.asked) == 1


def test_the_request_has_only_fields_with_values(make: Make, server: MockOpenAI) -> None:
    """Only fields with values are sent, and no user name."""
    ask(make(), "你好")

    assert server.asked[0].body == {
        "model": "m1",
        "messages": [{"role": "user", "content": "你好"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"


def test_settings_and_earlier_turns_are_sent(make: Make, server: MockOpenAI) -> None:
    """System prompt, earlier turns without the model's reasoning, question; the limits as they are set, 0 included."""
    provider = make(system_prompt="你是助手", max_tokens=50, temperature=0.0)
    earlier = (Exchange("一", "<think>嗯</think>答一"), Exchange("二", "答二"))

    ask(provider, "三", history=earlier)

    body = server.asked[0].body
    assert [(each["role"], each["content"]) for each in body["messages"]] == [
        ("system", "你是助手"),
        ("user", "一"),
        ("assistant", "答一"),
        ("user", "二"),
        ("assistant", "答二"),
        ("user", "三"),
    ]
    assert (body["max_tokens"], body["temperature"]) == (50, 0.0)


def test_a_question_has_its_own_model_and_temperature(make: Make, server: MockOpenAI) -> None:
    """They replace those of the settings, for this question only; a temperature of 0 is one."""
    provider = make(temperature=0.7)

    ask(provider, "一", model="m2", temperature=0.0)
    ask(provider, "二")

    assert [(asked.body["model"], asked.body["temperature"]) for asked in server.asked] == [("m2", 0.0), ("m1", 0.7)]


@pytest.mark.parametrize("script", ["cited", "search-results"])
def test_cited_pages_are_the_sources(make: Make, script: str) -> None:
    """Each page once, however often the records name it; the tokens are counted beside them."""
    usage = ask(make(), f"[[{script}]] 年假").usage

    assert usage
    assert [(source["title"], source["url"]) for source in usage.sources] == [tuple(CITED.values())]
    assert usage.total_tokens == 31


def test_a_server_that_rejects_stream_options_is_asked_without_them(make: Make, server: MockOpenAI) -> None:
    """The question is sent again without stream_options; later questions are sent without them at once."""
    server.takes_usage = False
    provider = make()

    answers = [ask(provider, "年假") for _ in range(2)]

    assert [answer.code for answer in answers] == ["", ""]
    assert [answer.usage for answer in answers] == [None, None]
    assert ["stream_options" in asked.body for asked in server.asked] == [True, False, False]


def test_another_error_400_does_not_drop_stream_options(make: Make, server: MockOpenAI) -> None:
    """A 400 that does not name stream_options is not retried, and the next question still has stream_options."""
    provider = make()
    ask(provider, "[[400]]")
    assert len(server.asked) == 1

    assert ask(provider, "年假").usage == Usage(31, 21, 10)


@pytest.mark.parametrize("name", ["counted-then-dropped", "counted-then-failed", "counted-then-silent"])
def test_a_broken_answer_has_its_usage(make: Make, name: str) -> None:
    """The usage and the model that came before the error are emitted once, and an open <think> is closed."""
    clock = FakeClock()
    deadline, seconds = Deadline(TIMEOUT, clock=clock), TIMEOUT if name.endswith("silent") else 0.0

    answer = ask(make(), f"[[{name}]]", deadline=deadline, after_each=lambda: clock.advance(seconds))

    assert answer.code
    assert [event for event in answer.events if isinstance(event, Usage)] == [Usage(31, 21, 10)]
    assert Metadata({"model": "mock-model"}) in answer.events
    assert answer.text.count("<think>") == answer.text.count("</think>")


def test_the_metadata_has_id_model_and_finish_reason(make: Make) -> None:
    """The answer's id, its model and its finish_reason."""
    result = make().query(Query("年假", "u1"), Deadline(TIMEOUT))

    assert result.metadata == {
        "provider": "openai",
        "conversation_id": "",
        "message_id": "chatcmpl-mock",
        "model": "mock-model",
        "finish_reason": "stop",
    }
    assert result.usage["tokens"] == 31


def test_reasoning_is_streamed_before_the_answer(make: Make) -> None:
    """<think> opens at the first reasoning, and closes before the first text or at the end."""
    pieces = [event.text for event in ask(make(), "[[reasoning]]").events if isinstance(event, Delta)]
    only = ask(make(), "[[only-reasoning]]")

    assert pieces[0].startswith("<think>用")
    assert pieces.count("</think>") == 1
    assert only.text == f"<think>{THOUGHT}</think>"


def test_a_refusal_of_the_model_is_its_answer(make: Make) -> None:
    """The model addresses its refusal to the user."""
    assert ask(make(), "[[refusal]]").text == REFUSED


def test_comments_restart_the_timeout_for_silence(make: Make, server: MockOpenAI) -> None:
    """A server that sends comments may exceed the timeout for silence, but not the deadline."""
    clock, until = TickingClock(), FakeClock()
    server.slow = 0.001
    when(lambda: clock.now > 50.0, lambda: until.advance(TIMEOUT))

    answer = ask(make(timeout=10.0, clock=clock), "[[comments-only]]", deadline=Deadline(TIMEOUT, clock=until))

    assert answer.code == "answer_timeout"


def test_the_log_counts_tokens_and_nothing_private(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """One line per answer; an error has its status and code, not its message, the address, the key or the question."""
    caplog.set_level(logging.INFO, "services")

    ask(make(), "机密问题")
    ask(make(name="context"), "[[404]] 机密问题")

    assert provider_lines(caplog) == [
        "[openai RAG] Tokens: 31",
        "[context RAG Error] provider_not_found: HTTP 404 model_not_found invalid_request_error",
    ]


def test_cancelling_sends_no_request(make: Make, server: MockOpenAI) -> None:
    """Such a server stops generating when the client closes the connection; it has no stop request."""
    provider = make()
    events = provider.stream_query(Query("[[drip]]", "u1"), Deadline(TIMEOUT))
    next(events)

    events.close()  # type: ignore[attr-defined]
    provider.cancel(ProviderIds(message_id="chatcmpl-mock"), "u1")

    wait_until(lambda: server.open_streams == 0, TIMEOUT)
    assert len(server.asked) == 1
    assert not server.looks


def test_a_model_name_of_a_wrong_type_is_ignored(make: Make) -> None:
    """Fields of wrong types are ignored."""
    emitted = [event for event in ask(make(), "[[odd]]").events if isinstance(event, Metadata)]

    assert emitted == [Metadata({"model": "mock-model", "finish_reason": "stop"})]
