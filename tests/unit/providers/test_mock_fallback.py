"""The mock as a fallback: it answers only if the provider failed before its first text, and always marked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from config.groups import ProviderSettings
from services.errors import ConversationGone, ProviderError
from services.models import Delta, Mocked, ProviderEvent, ProviderIds, Query
from services.providers.base import BaseRAGProvider
from services.providers.mock import MockFallback, MockProvider, mock_answer
from services.providers.registry import build_provider
from tests.support.texts import KEYS
from utils.deadline import Deadline


class Scripted(BaseRAGProvider):
    """A provider that emits the given events, raises the given error, and records whether it was closed."""

    name = "scripted"
    app = "app"

    def __init__(self, *events: ProviderEvent, error: Exception | None = None) -> None:
        self._events = events
        self._error = error
        self.closed = False

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        try:
            yield from self._events
            if self._error:
                raise self._error
        finally:
            self.closed = True

    def health_check(self) -> bool:
        return False


def with_fallback(provider: Scripted) -> MockFallback:
    return MockFallback(provider, MockProvider(delay=0.0))


def events_of(provider: Scripted, deadline: Deadline | None = None) -> list[ProviderEvent]:
    return list(with_fallback(provider).stream_query(Query("年假", "u"), deadline or Deadline(60.0)))


def text(events: list[ProviderEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def test_an_answer_of_the_provider_is_unchanged() -> None:
    """The events are the provider's, without additions."""
    assert events_of(Scripted(ProviderIds("c"), Delta("年"), Delta("假"))) == [
        ProviderIds("c"),
        Delta("年"),
        Delta("假"),
    ]


def test_the_mock_answers_for_a_provider_that_fails_at_once() -> None:
    """The mock's answer is marked by `Mocked`, before its first text."""
    events = events_of(Scripted(ProviderIds("c"), error=ProviderError(code="provider_unauthorized")))

    assert Mocked() in events
    assert events.index(Mocked()) < next(index for index, event in enumerate(events) if isinstance(event, Delta))
    assert text(events) == mock_answer("年假")


def test_the_mock_answers_for_a_provider_with_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    """A provider may be a plug-in that raises anything; the log has the traceback."""
    assert text(events_of(Scripted(error=ZeroDivisionError()))) == mock_answer("年假")

    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


@pytest.mark.parametrize(
    ("events", "error", "deadline"),
    [
        ((Delta("年"),), ProviderError(), lambda: Deadline(60.0)),
        ((Delta("年"),), ZeroDivisionError(), lambda: Deadline(60.0)),
        ((), ConversationGone(), lambda: Deadline(60.0)),
        ((), ProviderError(), lambda: Deadline(0.0)),
    ],
)
def test_other_errors_have_no_fallback(
    events: tuple[ProviderEvent, ...], error: Exception, deadline: Callable[[], Deadline]
) -> None:
    """A partial answer is not finished by the mock; a missing conversation and an exceeded deadline stay errors."""
    with pytest.raises(type(error)):
        events_of(Scripted(*events, error=error), deadline())


def test_a_mocks_answer_keeps_the_conversation() -> None:
    """The conversation id is still the provider's: the next question continues that conversation."""
    provider = Scripted(error=ProviderError(code="provider_busy"))

    events = list(with_fallback(provider).stream_query(Query("年假", "u", "c1"), Deadline(60.0)))

    assert {event.conversation_id for event in events if isinstance(event, ProviderIds)} == {"c1"}


def test_a_provider_may_answer_by_any_iterator() -> None:
    """A plug-in's iterator need not be a generator, the only kind that has `close`."""

    class Listing(Scripted):
        def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
            return iter([Delta("年"), Delta("假")])

    assert text(events_of(Listing())) == "年假"


def test_closing_the_answer_closes_the_provider() -> None:
    """Closing the generator closes the provider's connection."""
    provider = Scripted(Delta("年"), Delta("假"))
    events = with_fallback(provider).stream_query(Query("q", "u"), Deadline(60.0))
    next(iter(events))

    events.close()  # type: ignore[attr-defined]

    assert provider.closed
    assert not with_fallback(provider).health_check()


def test_the_fallback_is_on_only_if_it_is_set() -> None:
    """MOCK_FALLBACK is off by default."""
    key = {"dify_api_key": ["app-not-a-real-key"]}

    on = build_provider(
        ProviderSettings.model_validate({**key, "mock_fallback": True}), bot="default", pool_size=1, texts=KEYS
    )
    off = build_provider(ProviderSettings.model_validate(key), bot="default", pool_size=1, texts=KEYS)

    assert isinstance(on, MockFallback)
    assert on.name == "dify"
    assert not isinstance(off, MockFallback)
