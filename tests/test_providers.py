"""What every provider offers, and which one a name means."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from config.groups import ProviderSettings
from services.errors import SettingsError, Unrecoverable
from services.models import Delta, ProviderEvent, ProviderIds, Query, Replacement, Usage
from services.providers import build_provider
from services.providers.base import BaseRAGProvider
from services.providers.dify import DifyProvider
from services.providers.mock import MockProvider
from utils.deadline import Deadline


class Parrot(BaseRAGProvider):
    """Says one thing, takes it back, says another."""

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


def test_a_query_collects_the_stream() -> None:
    """Content, ids, sources and usage of a whole answer."""
    result = Parrot().query(Query("?", "u"), Deadline(1.0))

    assert result.content == "新的"
    assert result.metadata == {"provider": "parrot", "conversation_id": "c", "message_id": "m"}
    assert (list(result.sources), result.usage["tokens"], result.usage["price"]) == ([{"title": "FAQ"}], 7, "0.1")


def test_what_is_optional_does_nothing() -> None:
    """A provider need not be able to stop, to close, or to know its inputs."""
    parrot = Parrot()

    parrot.cancel(ProviderIds(), "u")
    parrot.close()
    assert parrot.missing_inputs() == []


@pytest.mark.parametrize(
    "provider",
    [Parrot(), MockProvider(), DifyProvider(base_url="https://dify.example", api_keys=["app-fake"])],
    ids=lambda provider: provider.name,
)
def test_an_answer_that_nobody_keeps_is_unrecoverable(provider: BaseRAGProvider) -> None:
    """A provider that keeps no answers says so, and so does one that cannot know which answer is meant."""
    with pytest.raises(Unrecoverable):
        provider.recover(Query("?", "u"), ProviderIds(), Deadline(5.0))
    provider.close()


@pytest.mark.parametrize(("name", "kind"), [("dify", "DifyProvider"), ("mock", "MockProvider")])
def test_a_name_means_a_provider(name: str, kind: str) -> None:
    """Nothing connects when it is built."""
    settings = ProviderSettings.model_validate({"rag_provider": name, "dify_api_key": ("app-fake",)})

    assert type(build_provider(settings, bot="default", pool_size=1)).__name__ == kind


def test_a_provider_that_is_not_there_is_a_wrong_setting() -> None:
    """The line names the variable and what there is."""
    settings = ProviderSettings.model_validate({"rag_provider": "openai", "openai_api_key": "fake"})

    with pytest.raises(SettingsError, match="RAG_PROVIDER: openai, expected one of dify, mock"):
        build_provider(settings, bot="default", pool_size=1)
