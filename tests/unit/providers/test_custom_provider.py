"""A company's own service as a provider, against the mock over HTTP: its requests, and what answers tell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from demo.mocks.custom.plays import METADATA, SOURCE
from demo.mocks.custom.server import MockCustom
from services.models import Asker, Delta, Exchange, Query, Replacement, Usage
from services.providers.custom.provider import CustomProvider
from tests.support.answers import TIMEOUT, ask, provider_lines
from tests.support.made_providers import custom_provider
from tests.support.provider_drivers import CustomDriver
from utils.deadline import Deadline

KEY = "fake-key"
SPENT = Usage(31, 21, 10, sources=(SOURCE,))


@pytest.fixture
def service() -> Iterator[MockCustom]:
    with MockCustom() as mock:
        yield mock


Make = Callable[..., CustomProvider]


@pytest.fixture
def make(service: MockCustom) -> Iterator[Make]:
    """Make providers of the mock, with options; they are closed after the test."""
    made: list[CustomProvider] = []

    def provider(**options: Any) -> CustomProvider:
        wanted: dict[str, Any] = {"api_url": service.url, "api_key": KEY, "timeout": TIMEOUT, "end_grace": TIMEOUT}
        made.append(custom_provider(**wanted | {"backoff": 0.01} | options))
        return made[-1]

    yield provider
    for each in made:
        each.close()


def test_a_broken_answer_has_its_usage(make: Make) -> None:
    """The usage and the sources that came before the error are emitted."""
    answer = ask(make(), "[[error-after-usage]]")

    assert answer.code == "provider_error"
    assert answer.usage is not None
    assert (answer.usage.total_tokens > 0, len(answer.usage.sources)) == (True, 1)


STREAMED = [name for name in CustomDriver.answered if not name.startswith(("whole", "open"))]


@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_is_passed_on_as_it_comes(make: Make, name: str) -> None:
    """It arrives in more than one piece, and no piece contains the wire format."""
    pieces = [event.text for event in ask(make(), f"[[{name}]]").events if isinstance(event, Delta | Replacement)]

    assert len(pieces) > 1
    assert not any(sign in "".join(pieces) for sign in ("data:", "event:", '{"', "keep-alive", "DONE"))


@pytest.mark.parametrize("name", ["lines", "events", "whole", "whole-pretty", "whole-content", "lines-repeated"])
def test_sources_tokens_and_metadata_are_passed_on(make: Make, name: str) -> None:
    """They are read wherever the service puts them, and emitted once; `provider` in the metadata stays ours."""
    result = make().query(Query(f"[[{name}]]", "u1"), Deadline(TIMEOUT))

    assert [event for event in ask(make(), f"[[{name}]]").events if isinstance(event, Usage)] == [SPENT]
    assert list(result.sources) == [SOURCE]
    assert result.usage["tokens"] == 31
    assert result.metadata == {**METADATA, "provider": "custom", "conversation_id": "", "message_id": ""}


def test_a_closing_record_does_not_repeat_the_answer(make: Make) -> None:
    """Text in another field than the deltas is the whole answer: if equal it is ignored, else it replaces them."""
    same = ask(make(), "[[lines-repeated]]").events
    other = ask(make(), "[[lines-corrected]]").events

    assert not [event for event in same if isinstance(event, Replacement)]
    assert len([event for event in other if isinstance(event, Replacement)]) == 1


def test_fields_of_wrong_types_are_ignored(make: Make) -> None:
    """They are ignored; sources that are only names become titles."""
    usage = ask(make(), "[[odd]]").usage

    assert usage is not None
    assert (usage.total_tokens, usage.sources) == (0, ({"title": "手册"}, SOURCE))


def test_the_request_has_only_fields_with_values(make: Make, service: MockCustom) -> None:
    """Question, user, inputs and earlier turns; a strict service gets no empty field."""
    provider = make()
    ask(provider, "三", inputs={"lang": "zh"}, history=(Exchange("一", "<think>嗯</think>答一"),))
    list(provider.stream_query(Query("四", ""), Deadline(TIMEOUT)))

    assert [asked.body for asked in service.asked] == [
        {
            "question": "三",
            "stream": True,
            "user": "u1",
            "inputs": {"lang": "zh"},
            "history": [{"question": "一", "answer": "答一"}],
        },
        {"question": "四", "stream": True},
    ]


def test_the_inputs_of_the_template_tell_who_asks(make: Make, service: MockCustom) -> None:
    """CUSTOM_RAG_INPUTS has the placeholders of DIFY_INPUTS; a question's own inputs go along."""
    provider = make(inputs={"who": "{name} ({userid})", "from": "{department}", "chat": "{chattype}", "lang": "zh"})
    asker = Asker("zhangsan", "张三", "研发部", "wr1", "group", "default", "m-1")

    ask(provider, "三", inputs={"lang": "en", "who": "boss"}, asker=asker)

    assert service.asked[0].body["inputs"] == {
        "who": "张三 (zhangsan)",
        "from": "研发部",
        "chat": "group",
        "lang": "en",
    }


def test_configured_headers_are_sent_with_questions_and_health_checks(make: Make, service: MockCustom) -> None:
    """CUSTOM_RAG_HEADERS are added, and an Authorization among them replaces the key."""
    service.api_key = "own"
    provider = make(headers={"X-Tenant": "a", "authorization": "Bearer own"})

    assert ask(provider, "你好").error is None
    assert provider.health_check()
    headers = service.asked[0].headers
    assert (headers["x-tenant"], headers["authorization"]) == ("a", "Bearer own")
    assert headers["accept"].startswith("text/event-stream")
    assert service.looks == [("/ask/health", "Bearer own")]


def test_without_a_key_no_authorization_is_sent(make: Make, service: MockCustom) -> None:
    """A service in a private network may need no key."""
    ask(make(api_key=""), "你好")

    assert "authorization" not in service.asked[0].headers


def test_the_health_address_is_configurable(make: Make, service: MockCustom) -> None:
    """It is CUSTOM_RAG_HEALTH_URL, or `/health` below the service; an unhealthy reply makes the check false."""
    assert make(health_url=f"{service.address}/status").health_check()
    assert make(api_url=f"{service.url}/?tenant=a").health_check()
    service.healthy = False
    assert not make().health_check()
    assert [path for path, _ in service.looks] == ["/status", "/ask/health", "/ask/health"]


def test_the_key_is_sent_to_no_other_server(make: Make, service: MockCustom) -> None:
    """A health address on another host is requested without the key."""
    with MockCustom() as monitor:
        assert make(health_url=f"{monitor.address}/status").health_check()

    assert monitor.looks == [("/status", "")]


def test_the_log_counts_tokens_and_nothing_private(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """One line per answer; an error has its status and code, not its message, the address, the key or the question."""
    caplog.set_level(logging.INFO, "services")

    ask(make(), "机密问题")
    ask(make(), "[[401]] 机密问题")

    assert provider_lines(caplog) == [
        "[custom RAG] Tokens: 31, Price: 0 -",
        "[custom RAG Error] provider_unauthorized: HTTP 401 unauthorized",
    ]


def test_different_services_are_different_apps() -> None:
    """The app differs by address, key and headers."""

    def app(**other: Any) -> str:
        return custom_provider(**{"api_url": "https://a.example/ask"} | other).app

    assert len({app(), app(api_url="https://a.example/b"), app(api_key=KEY), app(headers={"X-Tenant": "b"})}) == 4
    assert app() == app()
