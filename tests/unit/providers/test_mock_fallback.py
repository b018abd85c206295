"""The mock behind another provider: only where that failed before its first word, and never unmarked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from config.provider_group import ProviderSettings
from services.errors import ConversationGone, ProviderError
from services.models import Delta, Mocked, ProviderEvent, ProviderIds, Query
from services.providers.base import BaseRAGProvider
from services.providers.mock import MockProvider, mock_answer
from services.providers.mock_fallback import MockFallback
from services.providers.registry import build_provider
from utils.deadline import Deadline


class Scripted(BaseRAGProvider):
    """Says and raises what the test wants, and remembers whether it was closed."""

    name = "scripted"
    app = "app"

    def __init__(self, *said: ProviderEvent, error: Exception | None = None) -> None:
        self._said = said
        self._error = error
        self.closed = False

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        try:
            yield from self._said
            if self._error:
                raise self._error
        finally:
            self.closed = True

    def health_check(self) -> bool:
        return False


def behind(provider: Scripted) -> MockFallback:
    return MockFallback(provider, MockProvider(delay=0.0))


def told(provider: Scripted, deadline: Deadline | None = None) -> list[ProviderEvent]:
    return list(behind(provider).stream_query(Query("年假", "u"), deadline or Deadline(5.0)))


def text(events: list[ProviderEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def test_a_provider_that_answers_is_left_alone() -> None:
    """Nothing is added to what it says."""
    assert told(Scripted(ProviderIds("c"), Delta("年"), Delta("假"))) == [ProviderIds("c"), Delta("年"), Delta("假")]


def test_a_provider_that_fails_at_once_is_stood_in_for() -> None:
    """The answer says that it is the mock's."""
    events = told(Scripted(ProviderIds("c"), error=ProviderError(code="provider_unauthorized")))

    assert Mocked() in events
    assert events.index(Mocked()) < next(place for place, event in enumerate(events) if isinstance(event, Delta))
    assert text(events) == mock_answer("年假")


def test_a_provider_that_breaks_is_stood_in_for_too(caplog: pytest.LogCaptureFixture) -> None:
    """It may be anybody's code; the log has the traceback."""
    assert text(told(Scripted(error=ZeroDivisionError()))) == mock_answer("年假")

    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


@pytest.mark.parametrize(
    ("said", "error", "deadline"),
    [
        ((Delta("年"),), ProviderError(), lambda: Deadline(5.0)),
        ((Delta("年"),), ZeroDivisionError(), lambda: Deadline(5.0)),
        ((), ConversationGone(), lambda: Deadline(5.0)),
        ((), ProviderError(), lambda: Deadline(0.0)),
    ],
)
def test_what_is_no_failure_of_the_first_word_stays_an_error(
    said: tuple[ProviderEvent, ...], error: Exception, deadline: Callable[[], Deadline]
) -> None:
    """Half an answer is not finished by a mock; a forgotten conversation is asked anew; an end is an end."""
    with pytest.raises(type(error)):
        told(Scripted(*said, error=error), deadline())


def test_a_conversation_outlives_a_mocks_answer() -> None:
    """The provider's own id of it stays the one that is told: the next question goes on with it."""
    provider = Scripted(error=ProviderError(code="provider_busy"))

    events = list(behind(provider).stream_query(Query("年假", "u", "c1"), Deadline(5.0)))

    assert {event.conversation_id for event in events if isinstance(event, ProviderIds)} == {"c1"}


def test_a_provider_may_answer_by_any_iterator() -> None:
    """One of a person's own need not be a generator, which alone can be closed."""

    class Listing(Scripted):
        def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
            return iter([Delta("年"), Delta("假")])

    assert text(told(Listing())) == "年假"


def test_whoever_closes_it_closes_the_provider() -> None:
    """The connection goes with the answer nobody wants."""
    provider = Scripted(Delta("年"), Delta("假"))
    events = behind(provider).stream_query(Query("q", "u"), Deadline(5.0))
    next(iter(events))

    events.close()  # type: ignore[attr-defined]

    assert provider.closed
    assert not behind(provider).health_check()


def test_it_is_there_when_the_setting_says_so_and_never_else() -> None:
    """A mock's answer to a real question is a choice."""
    key = {"dify_api_key": ["app-not-a-real-key"]}

    on = build_provider(ProviderSettings.model_validate({**key, "mock_fallback": True}), bot="default", pool_size=1)
    off = build_provider(ProviderSettings.model_validate(key), bot="default", pool_size=1)

    assert isinstance(on, MockFallback)
    assert on.name == "dify"
    assert not isinstance(off, MockFallback)
