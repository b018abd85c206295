"""Ratings at Dify: set, changed and withdrawn for the user who asked, through every provider that wraps Dify's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from config.groups import ProviderSettings
from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.server import MockDify
from services.errors import ProviderError
from services.models import Identity, ProviderIds, Query
from services.providers.base import BaseRAGProvider
from services.providers.registry import build_provider
from tests.support.texts import KEYS
from utils.deadline import Deadline


def provider_of(dify: MockDify, **changes: object) -> BaseRAGProvider:
    given = {"dify_base_url": dify.base_url, "dify_api_key": ["app-not-a-real-key"], **changes}
    return build_provider(ProviderSettings.model_validate(given), bot="default", pool_size=2, texts=KEYS)


@pytest.fixture
def provider(dify: MockDify) -> Iterator[BaseRAGProvider]:
    with closing(provider_of(dify)) as provider:
        yield provider


def answered(provider: BaseRAGProvider, user: str = "u1") -> str:
    """Return the message id of a whole answer."""
    events = list(provider.stream_query(Query("年假", user), Deadline(60.0)))
    return next(event.message_id for event in reversed(events) if isinstance(event, ProviderIds))


def test_a_rating_is_set_changed_and_withdrawn(provider: BaseRAGProvider, dify: MockDify) -> None:
    """Dify's history shows the last one; a withdrawal where there is none is no error."""
    message_id = answered(provider)
    for rating, content in (("like", ""), ("dislike", "更具体"), ("", ""), ("", "")):
        provider.rate(message_id, "u1", rating, content)  # type: ignore[arg-type]

    run = dify.runs.find(message_id, "u1")
    assert dify.ratings == [(message_id, "like", ""), (message_id, "dislike", "更具体"), (message_id, None, "")]
    assert run
    assert run.feedback is None


def test_another_users_message_is_unknown(provider: BaseRAGProvider, dify: MockDify) -> None:
    """Dify answers 404, as for a message that does not exist."""
    message_id = answered(provider)

    for rated, user in ((message_id, "u2"), ("00000000-0000-4000-8000-000000000000", "u1")):
        with pytest.raises(ProviderError) as caught:
            provider.rate(rated, user, "like", "")
        assert (caught.value.http_status, caught.value.code) == (404, "provider_not_found")
    assert dify.ratings == []


@pytest.mark.parametrize("name", ["400-bad_request", "502-html", "429-too_many_requests"])
def test_an_error_reply_is_raised_without_words(provider: BaseRAGProvider, dify: MockDify, name: str) -> None:
    """The caller decides by the status whether to try again."""
    message_id = answered(provider)
    dify.outage = ERROR_REPLIES[name]

    with pytest.raises(ProviderError) as caught:
        provider.rate(message_id, "u1", "dislike", "机密")

    assert caught.value.http_status == ERROR_REPLIES[name].status
    assert "机密" not in str(caught.value)


def test_a_patched_dify_gets_the_users_token(dify: MockDify) -> None:
    """After the bot's code, as with a question; without a token the code goes alone."""
    seen: list[str] = []
    with closing(provider_of(dify, dify_auth_mode="user_token", dify_api_key=["code"])) as provider:
        dify.record_rating = lambda message_id, body, authorization: seen.append(authorization)  # type: ignore[method-assign]
        identity = Identity("cached", token="t1")
        events = list(provider.stream_query(Query("年假", "u1", identity=identity), Deadline(60.0)))
        message_id = next(event.message_id for event in reversed(events) if isinstance(event, ProviderIds))
        provider.rate(message_id, "u1", "like", "", token="t1")
        provider.rate(message_id, "u1", "like", "")

        assert provider.sends_user_tokens
    assert seen == ["Bearer code t1", "Bearer code"]


def test_the_settings_user_stands_for_nobody(dify: MockDify) -> None:
    """Questions without a person are asked as DIFY_USER; so are their ratings told."""
    with closing(provider_of(dify, dify_user="programs")) as provider:
        provider.rate(answered(provider, ""), "", "like", "")

    assert [rating for _, rating, _ in dify.ratings] == ["like"]
