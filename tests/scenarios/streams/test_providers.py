"""Providers without conversations, behind real replicas: a replica is killed in mid-answer; a provider is custom."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from demo.mocks.answering import MockAnswering
from demo.mocks.custom.server import MockCustom
from demo.mocks.openai.server import MockOpenAI
from services.models import Exchange
from tests.scenarios.stage.people import TIMEOUT
from tests.support.own_provider import MODULE, MockOllama, shown_file
from tests.support.replicas import ROOT, replicas, settings_for, wecom_user
from tests.support.servers.processes import wait_until
from utils.markdown.wecom import render_markdown

pytestmark = [pytest.mark.scenario, pytest.mark.full]

KEY = "obviously-fake-api-key"
FIRST, SECOND, THIRD = "年假怎么申请？", "那病假呢？", "谁批准？"


def _of_openai(mock: MockAnswering) -> Mapping[str, str]:
    return {"RAG_PROVIDER": "openai", "OPENAI_BASE_URL": mock.address, "OPENAI_API_KEY": "sk-fake"}


def _of_custom(mock: MockAnswering) -> Mapping[str, str]:
    return {"RAG_PROVIDER": "custom", "CUSTOM_RAG_API_URL": mock.address + mock.generating}


def _messages(body: Mapping[str, Any]) -> list[Exchange]:
    contents = [message["content"] for message in body["messages"][:-1]]
    return [Exchange(question, answer) for question, answer in zip(contents[::2], contents[1::2], strict=True)]


def _history(body: Mapping[str, Any]) -> list[Exchange]:
    return [Exchange(turn["question"], turn["answer"]) for turn in body.get("history", [])]


EarlierTurns = Callable[[Mapping[str, Any]], list[Exchange]]


@pytest.fixture(params=["openai", "custom"])
def asked_provider(request: pytest.FixtureRequest) -> Iterator[tuple[MockAnswering, Mapping[str, str], EarlierTurns]]:
    """A mock, the settings for it, and the function that reads earlier turns from its requests."""
    if request.param == "openai":
        with MockOpenAI() as openai:
            yield openai, _of_openai(openai), _messages
    else:
        with MockCustom() as custom:
            yield custom, _of_custom(custom), _history


def test_a_killed_replicas_question_is_asked_once_more(
    asked_provider: tuple[MockAnswering, Mapping[str, str], EarlierTurns], redis_url: str, tmp_path: Path
) -> None:
    """The user sees one whole answer, and later requests contain each turn once, on the other replica too."""
    mock, provider, earlier_turns = asked_provider
    with replicas(2, settings_for(redis_url, STREAM_LEASE="2", **provider), tmp_path) as (one, other):
        with wecom_user([one.url]) as person:
            person.sees_finish(person.says(FIRST), TIMEOUT, 0.1)
            mock.delay = 0.4
            bubble = person.says(SECOND)
            wait_until(lambda: "知识库" in person.polls(bubble).content, TIMEOUT)

        one.kill()
        mock.delay = 0.0
        with wecom_user([other.url]) as person:
            seen = person.sees_finish(bubble, TIMEOUT, 0.1, replacements=1)
            person.sees_finish(person.says(THIRD), TIMEOUT, 0.1)

    first, second = (Exchange(question, mock.expected_answer(question)) for question in (FIRST, SECOND))
    assert seen == render_markdown(second.answer)
    assert [(asked.question, earlier_turns(asked.body)) for asked in mock.asked] == [
        (FIRST, []),
        (SECOND, [first]),
        (SECOND, [first]),
        (THIRD, [first, second]),
    ]


def test_a_replica_asks_the_documented_provider(redis_url: str, tmp_path: Path) -> None:
    """The document's file, in a folder on Python's path, works under gunicorn."""
    with MockOllama() as ollama:
        shown = shown_file().replace("http://127.0.0.1:11434", ollama.address)
        (tmp_path / f"{MODULE}.py").write_text(shown, "utf-8")
        path = os.pathsep.join((str(ROOT), str(tmp_path)))
        env = settings_for(redis_url, API_KEYS=KEY, PYTHONPATH=path, RAG_PROVIDER=f"{MODULE}:Ollama")
        with replicas(1, env, tmp_path) as (replica,):
            body, headers = {"query": FIRST}, {"X-API-Key": KEY}
            answer = requests.post(f"{replica.url}/api/chat", json=body, headers=headers, timeout=TIMEOUT).json()
            health = requests.get(f"{replica.url}/health", timeout=TIMEOUT).json()

        assert answer["data"]["content"] == ollama.expected_answer(FIRST)
        assert answer["data"]["metadata"]["provider"] == "ollama"
        assert health["services"]["rag"]
        assert [asked.question for asked in ollama.asked] == [FIRST]
