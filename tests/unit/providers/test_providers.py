"""The methods that every provider has, and the provider class that each name of RAG_PROVIDER builds."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from config.checks import RAG_PROVIDERS
from config.errors import SettingsError
from config.groups import ProviderSettings
from services.errors import Unrecoverable
from services.models import Delta, ProviderEvent, ProviderIds, Query, Replacement, Usage
from services.providers.base import BaseRAGProvider
from services.providers.mock import MockProvider
from services.providers.registry import PROVIDERS, build_provider
from tests.support.made_providers import dify_provider
from tests.support.settings_values import settings
from tests.support.texts import KEYS
from utils.deadline import Deadline


class Parrot(BaseRAGProvider):
    """A provider that emits a text, replaces it, and appends another."""

    name = "parrot"
    app = "app"

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        yield ProviderIds("c", "m")
        yield Delta("旧")
        yield Replacement("新")
        yield Delta("的")
        yield Usage(7, 3, 4, "0.1", "CNY", ({"title": "FAQ"},))

    def health_check(self) -> bool:
        return True


def test_a_new_key_of_dify_keeps_the_name_of_its_app() -> None:
    """The last key of DIFY_API_KEY names the app's conversations; the first is sent."""

    def app(keys: str) -> str:
        return build_provider(settings(DIFY_API_KEY=keys).provider, bot="default", pool_size=1, texts=KEYS).app

    assert app("app-fake-new,app-fake-old") == app("app-fake-old") != app("app-fake-new")


@pytest.mark.parametrize(
    "provider",
    [Parrot(), MockProvider(), dify_provider(base_url="https://dify.example", api_keys=["app-fake"])],
    ids=lambda provider: provider.name,
)
def test_an_answer_that_is_not_kept_is_unrecoverable(provider: BaseRAGProvider) -> None:
    """A provider that keeps no answers raises it, and so does one that gets no ids."""
    with pytest.raises(Unrecoverable):
        provider.recover(Query("?", "u"), ProviderIds(), Deadline(60.0))
    provider.close()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dify", "DifyProvider"),
        ("openai", "OpenAIProvider"),
        ("context", "OpenAIProvider"),
        ("custom", "CustomProvider"),
        ("mock", "MockProvider"),
        ("tests.unit.providers.test_providers:Parrot", "Parrot"),
    ],
)
def test_a_name_builds_its_provider(name: str, kind: str) -> None:
    """Building a provider opens no connection."""
    keys = {"dify_api_key": ("app-fake",), "openai_api_key": "fake", "context_api_key": "fake"}
    settings = ProviderSettings.model_validate(
        {"rag_provider": name, "custom_rag_api_url": "http://rag.example", **keys}
    )

    assert type(build_provider(settings, bot="default", pool_size=1, texts=KEYS)).__name__ == kind


def test_an_unknown_provider_name_is_a_settings_error() -> None:
    """The error names the variable and the valid names."""
    settings = ProviderSettings.model_validate({"rag_provider": "opena1"})

    with pytest.raises(SettingsError, match=f"RAG_PROVIDER: opena1, expected {', '.join(RAG_PROVIDERS)}"):
        build_provider(settings, bot="default", pool_size=1, texts=KEYS)


def test_the_settings_list_the_built_in_providers() -> None:
    """The settings accept the names that the registry builds, and `RAG_PROVIDER`'s meaning has each."""
    meaning = str(ProviderSettings.model_fields["rag_provider"].description)

    assert sorted(PROVIDERS) == sorted(RAG_PROVIDERS)
    assert [name for name in RAG_PROVIDERS if name not in re.findall(r"\w+", meaning)] == []


class Configured(Parrot):
    """A plug-in with a `from_settings` of its own."""

    @classmethod
    def from_settings(cls, settings: ProviderSettings) -> Configured:
        made = cls()
        made.app = settings.dify_user
        return made


class Moody(Parrot):
    def __init__(self) -> None:
        raise ValueError("not today")


def test_a_plug_in_may_be_built_from_the_settings() -> None:
    """It gets the settings of its bot."""
    settings = ProviderSettings(rag_provider="tests.unit.providers.test_providers:Configured", dify_user="somebody")

    assert build_provider(settings, bot="default", pool_size=1, texts=KEYS).app == "somebody"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("tests.unit.providers.test_providers:Nothing", "cannot be imported: AttributeError"),
        ("tests.no_such_module:Class", "cannot be imported: ModuleNotFoundError"),
        ("tests.unit.providers.test_providers:Moody", "cannot be made: ValueError: not today"),
        ("tests.unit.providers.test_providers:Query", "is no BaseRAGProvider"),
        ("tests.unit.providers.test_providers:build_provider", "is no BaseRAGProvider"),
    ],
)
def test_a_wrong_plug_in_stops_the_start(name: str, why: str) -> None:
    """The error names the setting, the class and the reason."""
    with pytest.raises(SettingsError, match=f"RAG_PROVIDER: {name} {why}"):
        build_provider(ProviderSettings(rag_provider=name), bot="default", pool_size=1, texts=KEYS)


def test_a_plug_in_that_is_no_search_stops_the_start() -> None:
    """The class must be a BaseSearchProvider."""
    with pytest.raises(SettingsError, match="Parrot is no BaseSearchProvider"):
        build_provider(
            ProviderSettings(rag_provider="mock", search_provider="tests.unit.providers.test_providers:Parrot"),
            bot="",
            pool_size=1,
            texts=KEYS,
        )
