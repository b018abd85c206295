"""The same question through every endpoint gets the same answer, with every provider and from an app of the rules."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis
import requests

from demo.mocks.custom.server import MockCustom
from demo.mocks.dify.server import MockDify
from demo.mocks.openai.server import MockOpenAI
from services.providers.mock import mock_answer
from services.rules.words import STAR
from tests.scenarios.stage.people import TIMEOUT
from tests.support.openai_program import OpenAIProgram
from tests.support.replicas import Replica, dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import wait_until
from tests.support.sockets.visitor import visit
from utils.markdown.wecom import render_markdown

pytestmark = [pytest.mark.scenario, pytest.mark.full]

QUESTION, MASKED = "年假怎么申请？", "年假"
KEY = "obviously-fake-api-key"

Answering = tuple[Mapping[str, str], Callable[[str], str]]


def _dify(stack: ExitStack) -> Answering:
    dify = stack.enter_context(MockDify())
    return dify_settings(dify.base_url), dify.expected_answer


def _openai(stack: ExitStack) -> Answering:
    service = stack.enter_context(MockOpenAI())
    settings = {"RAG_PROVIDER": "openai", "OPENAI_BASE_URL": service.base_url, "OPENAI_API_KEY": "sk-fake"}
    return settings, service.expected_answer


def _context(stack: ExitStack) -> Answering:
    service = stack.enter_context(MockOpenAI())
    settings = {"RAG_PROVIDER": "context", "CONTEXT_BASE_URL": service.base_url, "CONTEXT_API_KEY": "ctx-fake"}
    return settings, service.expected_answer


def _custom(stack: ExitStack) -> Answering:
    service = stack.enter_context(MockCustom())
    return {"RAG_PROVIDER": "custom", "CUSTOM_RAG_API_URL": service.url}, service.expected_answer


def _mock(stack: ExitStack) -> Answering:
    return {"RAG_PROVIDER": "mock"}, mock_answer


def _app(stack: ExitStack) -> Answering:
    """The bot's own app is the built-in mock, and a rule chooses another one."""
    settings, expected = _dify(stack)
    rules = Path(stack.enter_context(TemporaryDirectory())) / "access.yaml"
    rules.write_text("- {allow: true, use: hr-app}\n", "utf-8")
    return {"RAG_PROVIDER": "mock", "APPS": json.dumps({"hr-app": settings}), "ACCESS_FILE": str(rules)}, expected


PROVIDERS = {"dify": _dify, "openai": _openai, "context": _context, "custom": _custom, "mock": _mock, "app": _app}


@pytest.fixture(params=sorted(PROVIDERS))
def app_server(
    request: pytest.FixtureRequest, redis_url: str, tmp_path: Path
) -> Iterator[tuple[Replica, Callable[[str], str]]]:
    with ExitStack() as stack:
        settings, expected = PROVIDERS[request.param](stack)
        words = tmp_path / "words.txt"
        words.write_text(f"mask {MASKED}\n", "utf-8")
        files = {"DATABASE_PATH": str(tmp_path / "app_server.db"), "WORDS_FILE": str(words)}
        env = settings_for(redis_url, API_KEYS=KEY, BATCH_MAX_CONCURRENT="2", **files, **settings)
        (replica,) = stack.enter_context(replicas(1, env, tmp_path))
        yield replica, expected


def test_every_endpoint_returns_the_same_answer(
    app_server: tuple[Replica, Callable[[str], str]], redis_client: redis.Redis
) -> None:
    """WeCom, both sockets, plain HTTP, an OpenAI client and a batch return the provider's answer, masked.

    WeCom's bubble has it as Markdown with WeCom's line breaks; the built-in mock answers the chat channel in English.
    Every key that this leaves in Redis expires, but for the secret and the copy of the saved rules.
    """
    replica, expected = app_server
    answers = {endpoint: ask(replica.url) for endpoint, ask in ENDPOINTS.items()}

    wanted = {**dict.fromkeys(ENDPOINTS, expected(QUESTION)), "wecom": render_markdown(expected(QUESTION))}
    if expected is mock_answer:
        wanted["chat"] = mock_answer(QUESTION, "en")
    assert MASKED in expected(QUESTION)
    assert answers == {endpoint: answer.replace(MASKED, STAR * len(MASKED)) for endpoint, answer in wanted.items()}
    kept = {key for key in redis_client.scan_iter() if redis_client.ttl(key) == -1}
    assert kept == {"dify_secret:own", "dify_rules:saved"}


def _wecom(url: str) -> str:
    with wecom_user([url]) as user:
        return user.sees_finish(user.says(QUESTION), TIMEOUT, 0.1)


def _chat(url: str) -> str:
    with visit(url, "chat", key=KEY) as client:
        client.says({"type": "chat", "content": QUESTION, "id": "1"})
        return str(client.until({"type": "chat", "role": "assistant"})["content"])


def _realtime(url: str) -> str:
    with visit(url, "realtime", key=KEY) as client:
        client.says({"type": "asr_chunk", "text": QUESTION, "is_final": True})
        client.until({"type": "answer", "final": True})
        assert MASKED not in "".join(str(frame) for frame in client.frames if frame["type"] == "answer")
        return "".join(frame["content"] for frame in client.frames if frame["type"] == "answer")


def _http(url: str) -> str:
    reply = requests.post(f"{url}/api/chat", json={"query": QUESTION}, headers={"X-API-Key": KEY}, timeout=TIMEOUT)
    return str(reply.json()["data"]["content"])


def _openai_client(url: str) -> str:
    return OpenAIProgram(url, KEY).streams(QUESTION).content


def _batch(url: str) -> str:
    tasks, headers = f"{url}/api/batch/tasks", {"X-API-Key": KEY}
    body = {"name": "一个问题", "texts": [QUESTION]}
    task_id = requests.post(tasks, json=body, headers=headers, timeout=TIMEOUT).json()["data"]["task_id"]

    def ended() -> bool:
        reply = requests.get(f"{tasks}/{task_id}", headers=headers, timeout=TIMEOUT)
        return reply.json()["data"]["status"] in ("completed", "failed")

    wait_until(ended, TIMEOUT)
    (item,) = requests.get(f"{tasks}/{task_id}/results", headers=headers, timeout=TIMEOUT).json()["data"]["results"]
    return str(item["content"])


ENDPOINTS: Mapping[str, Callable[[str], str]] = {
    "wecom": _wecom,
    "chat": _chat,
    "realtime": _realtime,
    "http": _http,
    "openai": _openai_client,
    "batch": _batch,
}
