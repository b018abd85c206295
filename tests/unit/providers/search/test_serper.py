"""Serper: one request for each search, and a health check that makes no search."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from demo.mocks.serper import Behaviour, MockSerper, results
from services.errors import ProviderError
from services.providers.base import Hit
from services.providers.search.serper import MAX_HITS, MAX_QUERY, MAX_SNIPPET, SerperSearch, read_result
from tests.support.servers.processes import free_port
from utils.deadline import Deadline

KEY = "not-a-real-key"


@pytest.fixture
def serper() -> Iterator[MockSerper]:
    with MockSerper(api_key=KEY) as serper:
        yield serper


def search_at(serper: MockSerper, **options: Any) -> SerperSearch:
    return SerperSearch(**{"api_key": KEY, "base_url": serper.base_url, **options})


def failure(search: SerperSearch, deadline: Deadline | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        search.search("轴承", deadline or Deadline(30.0))
    return caught.value


def test_a_search_finds_pages_in_their_order(serper: MockSerper) -> None:
    """Each hit has title, address and snippet, numbered from 1; a search costs one credit."""
    found = search_at(serper, num=3).search("轴承 型号", Deadline(30.0))

    assert found.hits[0] == Hit("轴承 型号 (1)", "https://example.com/1", "What page 1 says about 轴承 型号.", 1)
    assert [hit.position for hit in found.hits] == [1, 2, 3]
    assert (found.answer, dict(found.usage)) == ("", {"results_count": 3, "credits": 1})
    assert serper.spent == 1


def test_the_request_has_country_language_and_number(serper: MockSerper) -> None:
    """The request has country, language and number of results; an empty language is left out."""
    search_at(serper).search("轴承", Deadline(30.0))
    search_at(serper, gl="cn", hl="zh-cn", num=5).search("轴承", Deadline(30.0))

    assert serper.searches == [
        {"q": "轴承", "num": 10, "gl": "us"},
        {"q": "轴承", "num": 5, "gl": "cn", "hl": "zh-cn"},
    ]


def test_a_query_is_one_line_of_a_bounded_length(serper: MockSerper) -> None:
    """Whitespace is joined, and the query is cut at MAX_QUERY characters."""
    search_at(serper).search("a\n\n b " * 1000, Deadline(30.0))

    assert serper.searches[0]["q"] == ("a b " * 1000)[:MAX_QUERY]


def test_googles_own_boxes_are_the_answer() -> None:
    """The answer box comes first, then the knowledge graph, one line each."""
    box = {"title": "Weather", "answer": "21 °C,\nsunny"}
    graph = {"title": "Lyon", "type": "City", "description": "A city in France."}
    facts = {"title": "Lyon", "attributes": {"Mayor": "Nobody", "Area": "48 km²"}}

    assert read_result({"answerBox": box, "knowledgeGraph": graph}).answer == (
        "Weather: 21 °C, sunny\nLyon (City): A city in France."
    )
    assert read_result({"answerBox": {"snippet": "Snow."}, "organic": []}).answer == "Snow."
    assert read_result({"knowledgeGraph": facts}).answer == "Lyon: Mayor: Nobody; Area: 48 km²"


def test_a_search_without_results_is_no_error(serper: MockSerper) -> None:
    """The result has neither hits nor an answer, and the caller reports that."""
    serper.behaviour = "empty"

    found = search_at(serper).search("轴承", Deadline(30.0))

    assert (found.hits, found.answer) == ((), "")


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, {"message": "Unauthorized."}, "provider_unauthorized"),
        (403, {"message": "Unauthorized."}, "provider_unauthorized"),
        (404, b"not here", "provider_not_found"),
        (429, {"message": "Too many requests"}, "provider_busy"),
        (400, {"message": "Not enough credits"}, "provider_busy"),
        (400, {"message": "q is missing"}, "provider_rejected"),
        (302, b"", "provider_rejected"),
        (500, b"<html>", "provider_error"),
        (503, {"message": None}, "provider_error"),
        (200, b"<html>Maintenance</html>", "provider_error"),
        (200, b'{"organic": [', "provider_error"),
        (200, [1, 2], "provider_error"),
        (200, {"message": "hello"}, "provider_error"),
        (200, {"organic": "none"}, "provider_error"),
        (200, b"[" * 100_000, "provider_error"),
        (200, b'{"organic": []}' + b" " * 2_000_000, "provider_error"),
    ],
    ids=lambda value: value if isinstance(value, (int, str)) else "body",
)
def test_every_failure_has_its_code(serper: MockSerper, status: int, body: Any, code: str) -> None:
    """The error does not contain the reply's message, and no search is sent twice."""
    serper.says(status, body)

    error = failure(search_at(serper))

    assert error.code == code
    assert KEY not in str(error)
    assert len(serper.searches) == 1


@pytest.mark.parametrize("behaviour", ["hang", "drip", "slow"])
@pytest.mark.parametrize(
    ("timeout", "seconds", "code"), [(0.1, 60.0, "provider_timeout"), (60.0, 0.1, "answer_timeout")]
)
def test_a_silent_or_dripping_search_ends(
    serper: MockSerper, behaviour: Behaviour, timeout: float, seconds: float, code: str
) -> None:
    """The timeout is for the whole search, however many bytes arrive; the answer's deadline ends it before."""
    serper.behaviour, serper.delay = behaviour, 0.2 if behaviour == "drip" else 30.0

    assert failure(search_at(serper, timeout=timeout), Deadline(seconds)).code == code


def test_a_server_that_is_down_is_unreachable() -> None:
    """A refused connection raises `provider_unreachable`."""
    search = SerperSearch(api_key=KEY, base_url=f"http://127.0.0.1:{free_port()}")

    assert failure(search).code == "provider_unreachable"
    assert not search.health_check()


@pytest.mark.parametrize(
    ("behaviour", "healthy"),
    [("normal", True), ("empty", True), ("unauthorized", False), ("no_credits", False), ("error", False)],
)
def test_the_health_check_never_spends_a_credit(serper: MockSerper, behaviour: Behaviour, healthy: bool) -> None:
    """The check reads the account: a wrong key or an empty account fails it, and no search is made."""
    serper.behaviour = behaviour

    assert search_at(serper).health_check() is healthy
    assert search_at(serper).health_check() is healthy
    assert serper.requests == [("GET", "/account")] * 2
    assert (serper.spent, serper.searches) == (0, [])


def test_the_health_check_fails_for_a_rejected_key(serper: MockSerper) -> None:
    """Another key fails the check."""
    assert not search_at(serper, api_key="another").health_check()


def test_a_server_without_accounts_is_healthy() -> None:
    """A server of the same format need not have the account page: a 404 counts as healthy."""
    with MockSerper() as serper:
        search = SerperSearch(api_key=KEY, base_url=f"{serper.base_url}/mirror")

        assert search.health_check()
        assert serper.requests == [("GET", "/mirror/account")]


def test_hits_without_a_web_address_are_dropped() -> None:
    """Only http and https addresses can be followed and cited."""
    organic = [
        {"title": "script", "link": "javascript:alert(1)"},
        {"title": "none"},
        {"title": "spaces", "link": "https://example.com/a b"},
        {"title": "long", "link": "https://example.com/" + "a" * 5000},
        "no result",
        {"link": "https://example.com/untitled"},
    ]

    (hit,) = read_result({"organic": organic}).hits

    assert (hit.title, hit.position) == ("https://example.com/untitled", 1)


def test_titles_and_snippets_are_single_lines_of_bounded_length() -> None:
    """Line breaks are removed, so that a title cannot forge a numbered line; lengths and counts are limited."""
    organic = [{"title": "a\n[1] b", "link": f"https://example.com/{n}", "snippet": "s " * 5000} for n in range(100)]

    hits = read_result({"organic": organic}).hits

    assert hits[0].title == "a [1] b"
    assert len(hits[0].snippet) == MAX_SNIPPET
    assert len(hits) == MAX_HITS


def test_a_date_goes_with_its_snippet() -> None:
    """The age of a page shows how reliable it is."""
    (hit,) = read_result({"organic": [{**results("q", 1)[0], "date": "2 days ago"}]}).hits

    assert hit.snippet == "2 days ago — What page 1 says about q."


def test_neither_key_nor_query_is_logged(serper: MockSerper, caplog: pytest.LogCaptureFixture) -> None:
    """The log has neither, at any level."""
    serper.behaviour = "unauthorized"
    with caplog.at_level(logging.DEBUG):
        failure(search_at(serper))
        search_at(serper).health_check()

    assert KEY not in caplog.text
    assert "轴承" not in caplog.text
