"""Suggested questions over real HTTP: found, switched off, too slow, broken."""

from __future__ import annotations

import pytest

from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.server import MockDify
from services.errors import ProviderError
from services.models import ProviderIds, Query
from services.providers.dify.provider import WITHOUT_SECONDS, DifyProvider, SuggestedQuestions
from tests.support.servers.processes import FakeClock
from tests.unit.providers.dify.conftest import Make
from utils.deadline import Deadline

QUERY = Query("年假", "u1")


@pytest.fixture
def provider(make: Make, dify: MockDify) -> DifyProvider:
    dify.suggested = ("病假呢", "婚假呢")
    return make()


def ask(provider: DifyProvider) -> ProviderIds:
    """Ask, and return the ids of the answer."""
    events = list(provider.stream_query(QUERY, Deadline(60.0)))
    return [event for event in events if isinstance(event, ProviderIds)][-1]


def suggested(provider: DifyProvider, ids: ProviderIds, seconds: float = 60.0) -> list[str]:
    assert provider.suggest
    return list(provider.suggest(QUERY, ids, Deadline(seconds)))


def test_an_app_suggests_questions(dify: MockDify, provider: DifyProvider) -> None:
    """They are asked for by the answer's id, as the person who asked."""
    ids = ask(provider)

    assert suggested(provider, ids) == ["病假呢", "婚假呢"]
    assert dify.look_ups[-1].query == {"user": "u1"}
    assert dify.calls[f"GET /v1/messages/{ids.message_id}/suggested?user=u1"] == 1


def test_an_app_without_the_feature_is_asked_once(dify: MockDify, provider: DifyProvider) -> None:
    """Dify replies 400; later answers cost no call."""
    dify.suggested = None
    ids = ask(provider)

    assert [suggested(provider, ids) for _ in range(3)] == [[], [], []]
    assert dify.looked_up()["suggested"] == 1


@pytest.mark.parametrize("name", ["403-forbidden", "404-wrong-path", "400-bad_request"])
def test_an_app_is_asked_again_after_a_while(dify: MockDify, provider: DifyProvider, name: str) -> None:
    """The feature may have been switched on meanwhile; an old Dify does not know the address."""
    clock = FakeClock()
    source = SuggestedQuestions(provider._service, authorization=lambda token: "Bearer app-fake", clock=clock)
    ids = ask(provider)
    dify.outage = ERROR_REPLIES[name]
    assert source.after(QUERY, ids, Deadline(60.0)) == ()

    dify.outage = None
    clock.now += WITHOUT_SECONDS - 1
    before = source.after(QUERY, ids, Deadline(60.0))
    clock.now += 2

    assert before == ()
    assert source.after(QUERY, ids, Deadline(60.0)) == ["病假呢", "婚假呢"]


def test_a_failure_is_not_remembered(dify: MockDify, provider: DifyProvider) -> None:
    """Dify may be well again after the next answer."""
    ids = ask(provider)
    dify.outage = ERROR_REPLIES["500-internal_server_error"]
    with pytest.raises(ProviderError):
        suggested(provider, ids)

    dify.outage = None

    assert suggested(provider, ids) == ["病假呢", "婚假呢"]


def test_the_deadline_ends_the_wait(dify: MockDify, provider: DifyProvider) -> None:
    """A model writes the suggestions, which may take long."""
    dify.suggested_after = 30.0

    with pytest.raises(ProviderError) as caught:
        suggested(provider, ask(provider), 0.2)

    assert caught.value.code == "answer_timeout"


def test_an_answer_without_an_id_has_none(dify: MockDify, provider: DifyProvider) -> None:
    """Nothing is requested."""
    assert suggested(provider, ProviderIds("c1")) == []
    assert dify.looked_up()["suggested"] == 0


def test_wrong_values_are_left_out(dify: MockDify, provider: DifyProvider) -> None:
    """Only texts are suggestions."""
    dify.suggested = ("病假呢", 5, None, "")  # type: ignore[assignment]

    assert suggested(provider, ask(provider)) == ["病假呢"]
