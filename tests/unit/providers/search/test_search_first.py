"""A search before the provider: its results are the answer, or what it rests on; its failure costs no answer."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from config.texts import Texts
from demo.mocks.serper import Behaviour, MockSerper
from services import metrics
from services.errors import ConversationGone, ProviderError, Unrecoverable
from services.models import (
    Delta,
    Mocked,
    ProviderEvent,
    ProviderIds,
    Query,
    Recovered,
    Replacement,
    Turn,
    Usage,
)
from services.providers.base import BaseRAGProvider, BaseSearchProvider, Hit, SearchResult
from services.providers.mock import MockProvider, mock_answer
from services.providers.mock_fallback import MockFallback
from services.providers.search.provider import SearchFirst, Show
from services.providers.search.serper import SerperSearch
from services.providers.search.words import CONTEXT_CHARACTERS, as_context, as_list, citable
from services.streams.answer_events import difference
from services.streams.store import stream_keys
from tests.support.servers.processes import wait_until
from tests.support.streams.desk import Desk, SlowProvider
from utils.deadline import Deadline
from utils.questions.search_intent import by_prefix, router

HITS = (
    Hit("轴承大全", "https://example.com/a", "各种轴承。", 1),
    Hit("{braces}", "https://example.com/b", "", 2),
)
SOURCES = tuple({**hit.to_dict(), "type": "web"} for hit in HITS)
FAILED = Texts("zh").get("search_failed")
EMPTY = Texts("zh").get("search_empty")
OWN_USAGE = Usage(30, 20, 10, "0.1", "USD", ({"title": "手册", "position": 1},))


class Scripted(BaseRAGProvider):
    """Says and raises what the test wants; keeps what it was asked."""

    name = "scripted"
    app = "app"
    keeps_conversations = False

    def __init__(self, *said: ProviderEvent, errors: tuple[Exception | None, ...] = ()) -> None:
        self._said = said
        self._errors = list(errors)
        self.queries: list[Query] = []
        self.calls: list[Any] = []
        self.closed = 0
        #: Held on to, so that only a close ends them.
        self.streams: list[Iterator[ProviderEvent]] = []

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        self.queries.append(query)
        self.streams.append(self._stream())
        return self.streams[-1]

    def _stream(self) -> Iterator[ProviderEvent]:
        try:
            error = self._errors.pop(0) if self._errors else None
            if isinstance(error, ConversationGone):
                raise error
            yield from self._said
            if error:
                raise error
        finally:
            self.closed += 1

    def health_check(self) -> bool:
        return False

    def missing_inputs(self) -> list[str]:
        return ["dept"]

    def recover(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        return Recovered("整个答案", OWN_USAGE)

    def cancel(self, ids: ProviderIds, user: str) -> None:
        self.calls.append((ids, user))

    def close(self) -> None:
        self.calls.append("close")


class FakeSearch(BaseSearchProvider):
    """Finds or raises what the test wants, and keeps what it was asked."""

    name = "fake"

    def __init__(self, found: SearchResult | Exception | None = None) -> None:
        self._found = found or SearchResult(HITS)
        self.searched: list[str] = []
        self.checks = 0
        self.closed = False

    def search(self, query: str, deadline: Deadline) -> SearchResult:
        self.searched.append(query)
        if isinstance(self._found, Exception):
            raise self._found
        return self._found

    def health_check(self) -> bool:
        self.checks += 1
        return True

    def close(self) -> None:
        self.closed = True


def joined(rag: BaseRAGProvider, search: BaseSearchProvider, show: Show = "context", **options: Any) -> SearchFirst:
    wants = options.pop("wants", lambda text: by_prefix(text, "/search"))
    return SearchFirst(rag, search, wants=wants, show=show, sentence=Texts("zh").get, **options)


def told(
    provider: BaseRAGProvider, text: str = "/search 轴承", deadline: Deadline | None = None
) -> list[ProviderEvent]:
    return list(provider.stream_query(Query(text, "u"), deadline or Deadline(30.0)))


def answer(events: list[ProviderEvent]) -> str:
    text = ""
    for event in events:
        if isinstance(event, Replacement):
            text = event.text
        elif isinstance(event, Delta):
            text += event.text
    return text


def test_what_wants_no_search_is_the_providers_alone() -> None:
    """Nothing is searched, and nothing added to what it says."""
    rag, search = Scripted(ProviderIds("c"), Delta("年假"), OWN_USAGE), FakeSearch()

    events = told(joined(rag, search), "年假?")

    assert events == [ProviderIds("c"), Delta("年假"), OWN_USAGE]
    assert search.searched == []
    assert rag.queries == [Query("年假?", "u")]


def test_results_are_what_the_provider_answers_from() -> None:
    """It is asked the question with the numbered results, and all else as it was."""
    rag, search = Scripted(Delta("用深沟球轴承 [1]。"), OWN_USAGE), FakeSearch()
    asked = Query("/search 轴承", "u", "c1", {"a": 1}, ("f1",), channel="chat", history=(Turn("q", "a"),))

    events = list(joined(rag, search).stream_query(asked, Deadline(30.0)))

    (query,) = rag.queries
    assert search.searched == ["轴承"]
    assert "[1] 轴承大全\nhttps://example.com/a\n各种轴承。" in query.text
    assert "[2] {braces}\nhttps://example.com/b" in query.text
    assert query.text.endswith("问题：/search 轴承")
    assert (query.user, query.conversation_id, query.inputs, query.files) == ("u", "c1", {"a": 1}, ("f1",))
    assert (query.channel, query.history) == ("chat", (Turn("q", "a"),))
    assert answer(events) == "用深沟球轴承 [1]。"


def test_what_is_cited_joins_the_sources() -> None:
    """The hits come first, as the answer numbers them; a provider that tells no usage has them all the same."""
    own = told(joined(Scripted(Delta("a"), OWN_USAGE), FakeSearch()))
    none = told(joined(Scripted(Delta("a")), FakeSearch()))

    assert own[0] == Usage(sources=SOURCES)
    assert own[-1] == Usage(30, 20, 10, "0.1", "USD", (*SOURCES, {"title": "手册", "position": 1}))
    assert [event for event in none if isinstance(event, Usage)] == [Usage(sources=SOURCES)]


def test_query_returns_the_whole_with_its_sources() -> None:
    """The collecting call has what the stream has."""
    result = joined(Scripted(Delta("a"), Delta("b")), FakeSearch()).query(Query("/search x", "u"), Deadline(30.0))

    assert (result.content, tuple(result.sources)) == ("ab", SOURCES)


def test_results_can_be_the_answer_themselves() -> None:
    """A list of them, with their addresses; the provider is not asked."""
    rag = Scripted(Delta("never"))

    events = told(joined(rag, FakeSearch(SearchResult(HITS, "Answer: 42")), "list"))

    assert events == [
        Delta(
            "Answer: 42\n\n**相关搜索结果:**\n\n1. 轴承大全\n各种轴承。\nhttps://example.com/a\n\n"
            "2. {braces}\nhttps://example.com/b"
        ),
        Usage(sources=SOURCES),
    ]
    assert rag.queries == []


def test_an_answer_without_hits_is_one() -> None:
    """Google's own box is enough, shown or to answer from."""
    boxed = SearchResult((), "Weather: 21 °C")
    rag = Scripted(Delta("21 度"))

    assert answer(told(joined(Scripted(), FakeSearch(boxed), "list"))) == "Weather: 21 °C"
    assert answer(told(joined(rag, FakeSearch(boxed)))) == "21 度"
    assert "Weather: 21 °C" in rag.queries[0].text


@pytest.mark.parametrize("show", ["list", "context"])
@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (ProviderError(code="provider_unauthorized"), FAILED),
        (ProviderError(code="provider_timeout"), FAILED),
        (ProviderError(code="answer_timeout"), FAILED),
        (ZeroDivisionError(), FAILED),
        (SearchResult(()), EMPTY),
    ],
    ids=["unauthorized", "timeout", "own bound", "strange", "empty"],
)
def test_a_search_without_results_costs_no_answer(show: Show, found: Any, sentence: str) -> None:
    """The provider answers the person's own question, and the first words say what is missing."""
    rag = Scripted(ProviderIds("c"), Delta("年"), Delta("假"), OWN_USAGE)

    events = told(joined(rag, FakeSearch(found), show))

    assert events == [ProviderIds("c"), Delta(f"{sentence}\n\n年"), Delta("假"), OWN_USAGE]
    assert rag.queries == [Query("/search 轴承", "u")]


def test_the_sentence_stays_before_what_takes_the_answers_place() -> None:
    """A replacement is the answer anew, and says it anew; an emptied answer says it with its next words."""
    said = (Delta("年"), Replacement("病假"), Delta("！"), Replacement(""), Delta("事"), Delta("假"))

    events = told(joined(Scripted(*said), FakeSearch(SearchResult(()))))

    assert events[1] == Replacement(f"{EMPTY}\n\n病假")
    assert events[2] == Delta("！")
    assert answer(events) == f"{EMPTY}\n\n事假"


def test_the_sentence_is_no_answer() -> None:
    """Where the provider says nothing, nothing is said."""
    assert told(joined(Scripted(ProviderIds("c"), Delta("")), FakeSearch(SearchResult(())))) == [
        ProviderIds("c"),
        Delta(""),
    ]


def test_the_providers_own_failure_is_its_own() -> None:
    """A search does not hide it."""
    rag = Scripted(Delta("年"), errors=(ProviderError(code="provider_truncated"),))

    with pytest.raises(ProviderError) as caught:
        told(joined(rag, FakeSearch()))

    assert caught.value.code == "provider_truncated"


def test_a_forgotten_conversation_is_asked_anew_without_a_second_search() -> None:
    """The error goes through as it is; the same answer's next attempt has what was found already."""
    rag, search, deadline = Scripted(Delta("a"), errors=(ConversationGone(),)), FakeSearch(), Deadline(30.0)
    provider = joined(rag, search)
    with pytest.raises(ConversationGone):
        told(provider, deadline=deadline)

    events = told(provider, deadline=deadline)

    assert answer(events) == "a"
    assert search.searched == ["轴承"]
    assert "轴承大全" in rag.queries[1].text
    told(provider)
    assert len(search.searched) == 2


@pytest.mark.parametrize(("aborted", "code"), [(True, "interrupted"), (False, "answer_timeout")])
def test_the_end_of_the_answer_is_no_failed_search(aborted: bool, code: str) -> None:
    """Who cancelled or ran out of time gets no answer without results instead."""
    rag, deadline = Scripted(Delta("a")), Deadline(30.0 if aborted else 0.0)
    if aborted:
        deadline.abort("cancelled")

    with pytest.raises(ProviderError) as caught:
        told(joined(rag, FakeSearch(ProviderError(code="provider_timeout"))), deadline=deadline)

    assert caught.value.code == code
    assert rag.queries == []


def test_whoever_closes_it_closes_the_provider() -> None:
    """The connection goes with the answer nobody wants, with results, without, and where none were wanted."""
    for found, text in ((SearchResult(HITS), "/search x"), (SearchResult(()), "/search x"), (SearchResult(HITS), "x")):
        rag = Scripted(ProviderIds("c"), Delta("a"), Delta("b"))
        events = joined(rag, FakeSearch(found)).stream_query(Query(text, "u"), Deadline(30.0))
        next(event for event in events if isinstance(event, Delta))

        events.close()  # type: ignore[attr-defined]

        assert rag.closed == 1


def test_all_else_is_the_providers() -> None:
    """Name, app and manners, health without a search, cancel; closing closes both."""
    rag, search = Scripted(), FakeSearch()
    provider = joined(rag, search)

    assert (provider.name, provider.app, provider.provider_type) == ("scripted", "app", "RAG")
    assert provider.keeps_conversations is False
    assert provider.search_provider is search
    assert provider.health_check() is False
    assert provider.missing_inputs() == ["dept"]
    provider.cancel(ProviderIds(task_id="t"), "u")
    provider.close()
    assert rag.calls == [(ProviderIds(task_id="t"), "u"), "close"]
    assert search.closed
    assert (search.searched, search.checks) == ([], 0)


def recovered(said: str, sources: tuple[Any, ...] = ()) -> Recovered:
    search = FakeSearch()
    query = Query("/search 轴承", "u", said=said, sources=sources)
    result = joined(Scripted(), search).recover(query, ProviderIds("c", "m"), Deadline(30.0))
    assert search.searched == []
    return result


@pytest.mark.parametrize("sentence", [FAILED, EMPTY])
def test_another_owner_of_the_answer_keeps_its_first_words(sentence: str) -> None:
    """What was said stays said: the recovered answer goes on where the lost owner stopped."""
    said = f"{sentence}\n\n整个"

    assert recovered(said).text == f"{sentence}\n\n整个答案"
    assert difference(said, recovered(said).text)[1] == Delta("答案")
    assert recovered("整个").text == "整个答案"


def test_another_owner_of_the_answer_keeps_the_hits() -> None:
    """Those that the first one stored; the provider's own are as it tells them now."""
    stored = (*SOURCES, {"title": "手册", "position": 1})

    assert recovered("整", stored).usage.sources == (*SOURCES, {"title": "手册", "position": 1})
    assert recovered("整").usage == OWN_USAGE


def test_what_cannot_be_recovered_is_told_as_it_is() -> None:
    """It is asked again then, and searched again."""

    class Forgetful(Scripted):
        def recover(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
            raise Unrecoverable("gone")

    with pytest.raises(Unrecoverable):
        joined(Forgetful(), FakeSearch()).recover(Query("/search x", "u"), ProviderIds(), Deadline(30.0))


def test_the_mock_stands_in_for_a_provider_that_fails_after_its_search() -> None:
    """It quotes the person's question, not what the provider was asked."""
    for found in (SearchResult(HITS), ProviderError()):
        rag = Scripted(errors=(ProviderError(code="provider_unauthorized"),))

        events = told(MockFallback(joined(rag, FakeSearch(found)), MockProvider(delay=0.0)))

        assert Mocked() in events
        assert answer(events) == mock_answer("/search 轴承")


def test_a_mock_behind_a_search_stays_marked() -> None:
    """What the wrapped provider tells about itself passes."""
    assert Mocked() in told(joined(Scripted(Mocked(), Delta("a")), FakeSearch(ProviderError())))


def counted(outcome: str) -> float:
    labels = {"provider": "fake", "outcome": outcome}
    return metrics.REGISTRY.get_sample_value("wechatlaibao_searches_total", labels) or 0.0


def test_what_is_searched_for_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """How it went is, and is counted: outcome, hits, milliseconds, and the cause of a failure."""
    before = [counted("found"), counted("failed")]
    with caplog.at_level(logging.DEBUG):
        told(joined(Scripted(Delta("a")), FakeSearch()))
        told(joined(Scripted(Delta("a")), FakeSearch(ProviderError("HTTP 429", code="provider_busy"))))

    lines = [vars(record) for record in caplog.records if record.getMessage() == "searched"]
    assert [(line["search"], line["outcome"]) for line in lines] == [("fake", "found"), ("fake", "failed")]
    assert lines[0]["hits"] == 2
    assert lines[1]["code"] == "provider_busy"
    assert not any("轴承" in str(line) for line in lines)
    assert [counted("found"), counted("failed")] == [count + 1 for count in before]


def test_a_context_has_a_bound_and_the_questions_language() -> None:
    """Hits that do not fit are neither given nor cited."""
    many = tuple(Hit(f"t{n}", f"https://example.com/{n}", "s" * 590, n) for n in range(1, 21))
    result = SearchResult(many, "a" * 1000)
    hits = citable(result)

    context = as_context(result, hits, "What is it?")

    assert 0 < len(hits) < 20
    assert len(context) < CONTEXT_CHARACTERS + 500
    assert f"[{len(hits)}]" in context
    assert f"[{len(hits) + 1}]" not in context
    assert context.endswith("Question: What is it?")
    assert as_context(result, hits, "是什么？").endswith("问题：是什么？")


def test_a_list_shows_the_first_five() -> None:
    """As the original did."""
    many = tuple(Hit(f"t{n}", f"https://example.com/{n}", "s", n) for n in range(1, 11))

    shown = as_list(SearchResult(many), "H")

    assert shown.startswith("**H**\n\n1. t1\ns\nhttps://example.com/1")
    assert "5. t5" in shown
    assert "6. t6" not in shown


@pytest.mark.parametrize(
    "behaviour", ["hang", "drip", "slow", "unauthorized", "busy", "error", "no_credits", "malformed"]
)
def test_serpers_failures_fall_back(behaviour: Behaviour) -> None:
    """Over real HTTP, within the bound of a search; a failed search costs nothing."""
    with MockSerper(behaviour=behaviour, delay=0.2 if behaviour == "drip" else 30.0) as serper:
        search = SerperSearch(api_key="any", base_url=serper.base_url, timeout=60.0)
        provider = joined(
            Scripted(Delta("年假")), search, timeout=0.5 if behaviour in ("hang", "drip", "slow") else 30.0
        )

        assert answer(told(provider)) == f"{FAILED}\n\n年假"
        assert serper.requests == [("POST", "/search")]


def test_a_cancel_interrupts_the_search() -> None:
    """Nobody waits for results that nobody wants."""
    with MockSerper(behaviour="hang") as serper:
        search = SerperSearch(api_key="any", base_url=serper.base_url, timeout=60.0)
        rag, deadline, errors = Scripted(Delta("a")), Deadline(60.0), []

        def ask() -> None:
            with pytest.raises(ProviderError) as caught:
                told(joined(rag, search, timeout=60.0), deadline=deadline)
            errors.append(caught.value.code)

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: serper.searches)
        deadline.abort("cancelled")
        thread.join(30.0)

        assert errors == ["interrupted"]
        assert rag.queries == []


def test_a_stream_keeps_the_persons_question_and_the_hits(redis_url: str) -> None:
    """What Redis holds is what was asked; what the provider was asked with stays between us and it."""
    rag = SlowProvider()
    rag.go_on.set()
    provider = joined(rag, FakeSearch(), wants=router("rules"))
    desk = Desk(redis_url, cast(SlowProvider, provider))
    try:
        asked = desk.asks("上网搜一下轴承")
        desk.sees_end(asked.stream_id)
        stored: Any = desk.client.hgetall(stream_keys(asked.stream_id).hash)
        whole = desk.streams.whole(asked.stream_id)
    finally:
        desk.close()

    assert json.loads(stored["question"])["text"] == stored["content"] == "上网搜一下轴承"
    assert "轴承大全" in rag.asked[0]
    assert whole
    assert whole.sources == SOURCES
