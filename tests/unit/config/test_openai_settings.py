"""Settings of an OpenAI-compatible provider: base URL, key, extra headers and extra body fields."""

from __future__ import annotations

from typing import Any

import pytest

from demo.mocks.openai.server import MockOpenAI
from services.providers.openai.provider import OpenAIProvider, endpoint
from tests.support.answers import ask
from tests.support.made_providers import openai_provider
from tests.support.settings_values import refusal, settings

KEY = "sk-fake-key"


#: Service, the base URL that its documentation gives, and the URLs that are requested ({}: the endpoint's path).
SERVICES = [
    ("OpenAI", "https://api.openai.com", "https://api.openai.com/v1/{}"),
    ("DeepSeek", "https://api.deepseek.com", "https://api.deepseek.com/v1/{}"),
    (
        "Qwen",
        "https://dashscope.aliyuncs.com/compatible-mode/v1",
        "https://dashscope.aliyuncs.com/compatible-mode/v1/{}",
    ),
    ("Zhipu", "https://open.bigmodel.cn/api/paas/v4/", "https://open.bigmodel.cn/api/paas/v4/{}"),
    ("Moonshot", "https://api.moonshot.cn/v1", "https://api.moonshot.cn/v1/{}"),
    ("MiniMax", "https://api.minimaxi.com/v1/chat/completions", "https://api.minimaxi.com/v1/{}"),
    ("Ark", "https://ark.cn-beijing.volces.com/api/v3", "https://ark.cn-beijing.volces.com/api/v3/{}"),
    (
        "Gemini",
        "https://generativelanguage.googleapis.com/v1beta/openai/",
        "https://generativelanguage.googleapis.com/v1beta/openai/{}",
    ),
    ("Mistral", "https://api.mistral.ai/v1", "https://api.mistral.ai/v1/{}"),
    ("OpenRouter", "https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1/{}"),
    ("Perplexity", "https://api.perplexity.ai/", "https://api.perplexity.ai/{}"),
    ("GitHub Models", "https://models.github.ai/inference", "https://models.github.ai/inference/{}"),
    ("Ollama", "http://127.0.0.1:11434", "http://127.0.0.1:11434/v1/{}"),
    ("vLLM", "http://vllm:8000/v1/", "http://vllm:8000/v1/{}"),
    (
        "Azure",
        "https://acme.openai.azure.com/openai/deployments/gpt-4o?api-version=2024-10-21",
        "https://acme.openai.azure.com/openai/deployments/gpt-4o/{}?api-version=2024-10-21",
    ),
    (
        "Azure v1",
        "https://acme.openai.azure.com/openai/v1/?api-version=preview",
        "https://acme.openai.azure.com/openai/v1/{}?api-version=preview",
    ),
    ("a gateway", "https://gateway.example?tenant=a/", "https://gateway.example/v1/{}?tenant=a/"),
    ("a whole address", "https://gateway.example/chat/completions", "https://gateway.example/{}"),
]


@pytest.mark.parametrize(("base", "url"), [row[1:] for row in SERVICES], ids=[row[0] for row in SERVICES])
def test_a_base_url_gives_the_urls_of_its_service(base: str, url: str) -> None:
    """/v1 is appended to a bare host; a base with a path, or a / at its end, is used as it is; its query is kept."""
    given = settings(RAG_PROVIDER="openai", OPENAI_API_KEY="fake", OPENAI_BASE_URL=base).openai_base_url

    assert endpoint(given, "chat/completions") == url.format("chat/completions")
    assert endpoint(given, "models") == url.format("models")


@pytest.mark.parametrize(
    ("given", "path"),
    [("", "/v1"), ("/", ""), ("/v1/", "/v1"), ("/proxy", "/proxy"), ("/proxy/chat/completions", "/proxy")],
)
@pytest.mark.parametrize("query", ["", "?api-version=2024-10-21"])
def test_questions_and_health_checks_use_the_base_url(given: str, path: str, query: str) -> None:
    """The mock server answers only under this path and query."""
    with MockOpenAI(version=path, query=query) as server:
        provider = openai_provider(base_url=f"{server.address}{given}{query}", api_key=KEY, model="m1")

        assert ask(provider, "年假").error is None
        assert provider.health_check()
        provider.close()


def test_extra_headers_and_fields_are_sent() -> None:
    """Without a key there is no Authorization header; a configured one replaces the key's, also in health checks."""
    with MockOpenAI() as server:
        body = {"enable_thinking": False, "max_completion_tokens": 90, "temperature": None, "stop": ["。"]}
        azure = provider_of(server, api_key="", headers={"api-key": "k"}, body=body, max_tokens=50, temperature=0.5)
        own = provider_of(server, headers={"authorization": "Basic eA=="})

        for provider in (azure, own):
            assert ask(provider, "年假").error is None
            assert provider.health_check()
            provider.close()

        first, second = server.asked
        assert (first.headers["api-key"], first.headers.get("authorization")) == ("k", None)
        assert second.headers["authorization"] == "Basic eA=="
        assert [authorization for _, authorization in server.looks] == ["", "Basic eA=="]
        sent = {
            name: value for name, value in first.body.items() if name not in ("messages", "stream", "stream_options")
        }
        assert sent == {"model": "m1", "enable_thinking": False, "max_completion_tokens": 90, "stop": ["。"]}


@pytest.mark.parametrize("options", [None, {"include_usage": False}])
def test_stream_options_can_be_omitted_or_replaced(options: object) -> None:
    """Some servers reject requests with stream_options, with an error that does not name the field."""
    with MockOpenAI() as server:
        provider = provider_of(server, body={"stream_options": options})

        assert ask(provider, "年假").error is None
        provider.close()

        assert server.asked[0].body.get("stream_options") == options


def provider_of(server: MockOpenAI, **options: Any) -> OpenAIProvider:
    return openai_provider(**{"base_url": server.base_url, "api_key": KEY, "model": "m1"} | options)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("OPENAI_HEADERS", "api-key: s3cret", "a JSON object"),
        ("OPENAI_HEADERS", '["s3cret"]', "a JSON object"),
        ("OPENAI_HEADERS", '{"api-key": 7}', "a valid string"),
        ("OPENAI_HEADERS", '{"api key": "s3cret"}', "headers that can be sent, not 'api key'"),
        ("OPENAI_HEADERS", '{"api-key": "s3cret密"}', "headers that can be sent, not 'api-key'"),
        ("OPENAI_HEADERS", '{"api-key": "s3cret\\r\\nX: y"}', "headers that can be sent, not 'api-key'"),
        ("OPENAI_HEADERS", '{"Content-Length": "1"}', "headers other than 'Content-Length'"),
        ("OPENAI_BODY", "reasoning_effort=low", "a JSON object"),
        ("OPENAI_BODY", "[1]", "a JSON object"),
        ("OPENAI_BODY", '{"stream": false}', "fields other than stream"),
        ("OPENAI_BODY", '{"messages": []}', "fields other than messages"),
        ("OPENAI_BODY", '{"model": "m"}', "fields other than model"),
        ("OPENAI_BODY", '{"seed": NaN}', "a JSON object"),
    ],
)
def test_wrong_headers_and_fields_stop_the_start(name: str, value: str, expected: str) -> None:
    """The error's line names the variable and shows no header's value."""
    line = refusal(**{"RAG_PROVIDER": "openai", "OPENAI_API_KEY": "fake", name: value})

    assert line.startswith(f"{name}=")
    assert f"expected {expected}" in line
    assert "s3cret" not in line


def test_a_header_may_replace_the_key() -> None:
    """Azure expects its key in the header api-key; the values of OPENAI_HEADERS are secrets."""
    found = settings(RAG_PROVIDER="openai", OPENAI_HEADERS='{"api-key": "fake-azure-key"}', OPENAI_BODY='{"seed": 7}')

    assert found.openai_body == {"seed": 7}
    assert "fake-azure-key" in found.secrets
    assert "fake-azure-key" not in repr(found)
    assert refusal(RAG_PROVIDER="openai").startswith("OPENAI_API_KEY is missing")
