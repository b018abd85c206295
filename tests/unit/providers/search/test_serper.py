"""Serper is asked once for each search, told what is wanted, and never for its health."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from demo.mocks.serper import Behaviour, MockSerper, results
from services.errors import ProviderError, SettingsError
from services.providers.base import Hit
from services.providers.search.serper import MAX_QUERY, SerperSearch
from services.providers.search.serper_results import MAX_HITS, MAX_SNIPPET, read_result
from tests.support.servers.processes import free_port, wait_until
from utils.deadline import Deadline

KEY = "not-a-real-key"


@pytest.fixture
def serper() -> Iterator[MockSerper]:
    with MockSerper(api_key=KEY) as serper:
        yield serper


def searching(serper: MockSerper, **options: Any) -> SerperSearch:
    return SerperSearch(**{"api_key": KEY, "base_url": serper.base_url, **options})


def failure(search: SerperSearch, deadline: Deadline | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        search.search("轴承", deadline or Deadline(30.0))
    return caught.value


def test_a_search_finds_pages_in_their_order(serper: MockSerper) -> None:
    """Each hit has title, address and snippet, numbered from 1; the search cost one credit."""
    found = searching(serper, num=3).search("轴承 型号", Deadline(30.0))

    assert found.hits[0] == Hit("轴承 型号 (1)", "https://example.com/1", "What page 1 says about 轴承 型号.", 1)
    assert [hit.position for hit in found.hits] == [1, 2, 3]
    assert (found.answer, dict(found.usage)) == ("", {"results_count": 3, "credits": 1})
    assert serper.spent == 1


def test_what_is_wanted_is_told(serper: MockSerper) -> None:
    """Country, language and number go along; a language that is not set does not."""
    searching(serper).search("轴承", Deadline(30.0))
    searching(serper, gl="cn", hl="zh-cn", num=5).search("轴承", Deadline(30.0))

    assert serper.searches == [
        {"q": "轴承", "num": 10, "gl": "us"},
        {"q": "轴承", "num": 5, "gl": "cn", "hl": "zh-cn"},
    ]


def test_a_query_is_one_line_of_a_bounded_length(serper: MockSerper) -> None:
    """A pasted page is no query."""
    searching(serper).search("a\n\n b " * 1000, Deadline(30.0))

    assert serper.searches[0]["q"] == ("a b " * 1000)[:MAX_QUERY]


def test_googles_own_boxes_are_the_answer() -> None:
    """The answer box comes first, then the knowledge graph, a line each."""
    box = {"title": "Weather", "answer": "21 °C,\nsunny"}
    graph = {"title": "Lyon", "type": "City", "description": "A city in France."}
    facts = {"title": "Lyon", "attributes": {"Mayor": "Nobody", "Area": "48 km²"}}

    assert read_result({"answerBox": box, "knowledgeGraph": graph}).answer == (
        "Weather: 21 °C, sunny\nLyon (City): A city in France."
    )
    assert read_result({"answerBox": {"snippet": "Snow."}, "organic": []}).answer == "Snow."
    assert read_result({"knowledgeGraph": facts}).answer == "Lyon: Mayor: Nobody; Area: 48 km²"


def test_nothing_found_is_no_failure(serper: MockSerper) -> None:
    """No hits and no answer: the caller says so."""
    serper.behaviour = "empty"

    found = searching(serper).search("轴承", Deadline(30.0))

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
    """Its words stay out of ours, and nothing is asked twice."""
    serper.says(status, body)

    error = failure(searching(serper))

    assert error.code == code
    assert KEY not in str(error)
    assert len(serper.searches) == 1


@pytest.mark.parametrize("behaviour", ["hang", "drip", "slow"])
def test_a_silent_or_dripping_search_ends(serper: MockSerper, behaviour: Behaviour) -> None:
    """The bound is on the whole search, however many bytes come."""
    serper.behaviour, serper.delay = behaviour, 0.2 if behaviour == "drip" else 30.0

    assert failure(searching(serper, timeout=0.5)).code == "provider_timeout"


@pytest.mark.parametrize("behaviour", ["hang", "drip"])
def test_a_search_ends_with_the_answers_time(serper: MockSerper, behaviour: Behaviour) -> None:
    """Whatever its own bound."""
    serper.behaviour, serper.delay = behaviour, 0.1

    assert failure(searching(serper, timeout=60.0), Deadline(0.5)).code == "answer_timeout"


def test_an_abort_interrupts_a_search_that_waits(serper: MockSerper) -> None:
    """A blocked read ends when somebody ends the answer."""
    serper.behaviour, deadline = "hang", Deadline(60.0)
    failures: list[ProviderError] = []
    thread = threading.Thread(target=lambda: failures.append(failure(searching(serper, timeout=60.0), deadline)))
    thread.start()
    wait_until(lambda: serper.searches)

    deadline.abort("cancelled")
    thread.join(30.0)

    assert [error.code for error in failures] == ["interrupted"]


def test_a_server_that_is_away_is_told() -> None:
    """No connection is a failure like any other."""
    search = SerperSearch(api_key=KEY, base_url=f"http://127.0.0.1:{free_port()}")

    assert failure(search).code == "provider_unreachable"
    assert not search.health_check()


@pytest.mark.parametrize(
    ("behaviour", "well"),
    [("normal", True), ("empty", True), ("unauthorized", False), ("no_credits", False), ("error", False)],
)
def test_health_never_spends_a_credit(serper: MockSerper, behaviour: Behaviour, well: bool) -> None:
    """It looks at the account: a wrong key and an empty account are seen, and no search is made."""
    serper.behaviour = behaviour

    assert searching(serper).health_check() is well
    assert searching(serper).health_check() is well
    assert serper.requests == [("GET", "/account")] * 2
    assert (serper.spent, serper.searches) == (0, [])


def test_health_of_a_key_that_is_not_let_in(serper: MockSerper) -> None:
    """The account is that of the key."""
    assert not searching(serper, api_key="another").health_check()


def test_a_server_without_accounts_is_well() -> None:
    """One of the same format need not have the page: it answered."""
    with MockSerper() as serper:
        search = SerperSearch(api_key=KEY, base_url=f"{serper.base_url}/mirror")

        assert search.health_check()
        assert serper.requests == [("GET", "/mirror/account")]


def test_hits_that_are_no_pages_are_left_out() -> None:
    """Only addresses of the web can be followed; what has none cannot be cited."""
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


def test_what_others_wrote_stays_in_its_line_and_its_length() -> None:
    """A title cannot begin a line of ours, and nothing grows without bound."""
    organic = [{"title": "a\n[1] b", "link": f"https://example.com/{n}", "snippet": "s " * 5000} for n in range(100)]

    hits = read_result({"organic": organic}).hits

    assert hits[0].title == "a [1] b"
    assert len(hits[0].snippet) == MAX_SNIPPET
    assert len(hits) == MAX_HITS


def test_a_date_goes_with_its_snippet() -> None:
    """How old a page is tells how much to believe it."""
    (hit,) = read_result({"organic": [{**results("q", 1)[0], "date": "2 days ago"}]}).hits

    assert hit.snippet == "2 days ago — What page 1 says about q."


@pytest.mark.parametrize(
    ("options", "variable"),
    [({"api_key": ""}, "SERPER_API_KEY"), ({"api_key": KEY, "base_url": "google.serper.dev"}, "SERPER_BASE_URL")],
)
def test_what_is_missing_is_named(options: dict[str, str], variable: str) -> None:
    """The line says which setting."""
    with pytest.raises(SettingsError, match=variable):
        SerperSearch(**options)  # type: ignore[arg-type]


def test_neither_key_nor_query_is_logged(serper: MockSerper, caplog: pytest.LogCaptureFixture) -> None:
    """What people search for is theirs."""
    serper.behaviour = "unauthorized"
    with caplog.at_level(logging.DEBUG):
        failure(searching(serper))
        searching(serper).health_check()

    assert KEY not in caplog.text
    assert "轴承" not in caplog.text
