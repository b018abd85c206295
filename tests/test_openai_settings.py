"""What the settings of an OpenAI-compatible provider may say."""

from __future__ import annotations

import pytest

from demo.mock_openai import MockOpenAI
from services.errors import SettingsError
from services.providers.openai import OpenAIProvider
from tests.answers import ask

KEY = "sk-fake-key"


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/compatible-mode/v1", "/compatible-mode/v1/chat/completions"),
        ("/api/paas/v4", "/api/paas/v4/chat/completions"),
        ("/v1beta/openai/", "/v1beta/openai/chat/completions"),
        ("/proxy", "/proxy/v1/chat/completions"),
    ],
)
def test_the_address_may_have_its_version_or_not(given: str, path: str) -> None:
    """Every spelling of a base leads to the same place, probes included."""
    with MockOpenAI(version=path.removesuffix("/chat/completions")) as server:
        provider = OpenAIProvider(base_url=server.address + given, api_key=KEY, model="m1")

        assert ask(provider, "年假").error is None
        assert provider.health_check()
        provider.close()


@pytest.mark.parametrize(
    ("wrong", "variable"),
    [
        ({"api_key": ""}, "OPENAI_API_KEY"),
        ({"api_key": "sk-密"}, "OPENAI_API_KEY"),
        ({"name": "context", "api_key": ""}, "CONTEXT_API_KEY"),
        ({"name": "context", "model": ""}, "CONTEXT_MODEL"),
        ({"base_url": "ftp://x"}, "OPENAI_BASE_URL"),
        ({"base_url": "https://"}, "OPENAI_BASE_URL"),
    ],
    ids=str,
)
def test_what_cannot_work_stops_the_start(wrong: dict[str, str], variable: str) -> None:
    """The line names the variable and never the key."""
    right = {"base_url": "https://models.example", "api_key": KEY, "model": "m1"}

    with pytest.raises(SettingsError, match=variable) as caught:
        OpenAIProvider(**right | wrong)  # type: ignore[arg-type]

    assert "密" not in str(caught.value)


def test_bots_that_differ_are_apps_that_differ() -> None:
    """Else two of them would share their conversations; one address has one spelling."""

    def app(**other: str) -> str:
        return OpenAIProvider(**{"base_url": "https://a.example", "api_key": KEY, "model": "m1"} | other).app  # type: ignore[arg-type]

    differing = [app(), app(model="m2"), app(system_prompt="海盗"), app(api_key="k"), app(base_url="https://b.example")]
    assert len(set(differing)) == 5
    assert app(base_url="https://a.example/v1/") == app()
    assert KEY not in app()
