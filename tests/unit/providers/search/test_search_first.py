"""A search before the provider: results become the answer or its context; a failed search does not fail the answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any, cast

import pytest

from config.texts import Texts
from demo.mocks.serper import Behaviour, MockSerper
from services import metrics
from services.errors import ConversationGone, ProviderError, Unrecoverable
from services.models import Delta, Exchange, Mocked, ProviderEvent, ProviderIds, Query, Replacement, Usage
from services.providers.base import BaseRAGProvider, BaseSearchProvider, Hit, Recovered, SearchResult
from services.providers.mock import MockFallback, MockProvider, mock_answer
from services.providers.search.provider import CONTEXT_CHARACTERS, SearchFirst, Show, as_context, as_list, citable
from services.providers.search.serper import SerperSearch
from services.streams.answer_events import difference
from services.streams.store import stream_keys
from tests.support.servers.processes import when
from tests.support.streams.desk import Desk, SlowProvider
from utils.citations import typed_source
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
    """A provider that emits the given events, raises the given errors in turn, and records its queries and calls."""

    name = "scripted"
    app = "app"
    keeps_conversations = False

    def __init__(self, *events: ProviderEvent, errors: tuple[Exception | None, ...] = ()) -> None:
        self._events = events
        self._errors = list(errors)
        self.queries: list[Query] = []
        self.calls: list[Any] = []
        self.closed = 0
        #: Referenced here, so that only a close ends them, not the garbage collector.
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
            yield from self._events
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
    """A search that returns or raises the given result, and records its queries."""

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
    return SearchFirst(rag, search, wants=wants, show=show, texts=Texts("zh"), **options)


def events_of(
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


def test_a_question_without_search_intent_is_the_providers_alone() -> None:
    """No search is made, and the provider's events are unchanged."""
    rag, search = Scripted(ProviderIds("c"), Delta("年假"), OWN_USAGE), FakeSearch()

    events = events_of(joined(rag, search), "年假?")

    assert events == [ProviderIds("c"), Delta("年假"), OWN_USAGE]
    assert search.searched == []
    assert rag.queries == [Query("年假?", "u")]


def test_results_are_context_for_the_provider() -> None:
    """The question to the provider contains the numbered results; its other fields are unchanged."""
    rag, search = Scripted(Delta("用深沟球轴承 [1]。"), OWN_USAGE), FakeSearch()
    asked = Query("/search 轴承", "u", "c1", {"a": 1}, ("f1",), channel="chat", history=(Exchange("q", "a"),))

    events = list(joined(rag, search).stream_query(asked, Deadline(30.0)))

    (query,) = rag.queries
    assert search.searched == ["轴承"]
    assert "[1] 轴承大全\nhttps://example.com/a\n各种轴承。" in query.text
    assert "[2] {braces}\nhttps://example.com/b" in query.text
    assert query.text.endswith("问题：/search 轴承")
    assert (query.user, query.conversation_id, query.inputs, query.files) == ("u", "c1", {"a": 1}, ("f1",))
    assert (query.channel, query.history) == ("chat", (Exchange("q", "a"),))
    assert answer(events) == "用深沟球轴承 [1]。"


def test_the_speaker_of_a_shared_group_is_not_searched_for() -> None:
    """The search sees the person's words; the provider still learns who asks."""
    rag, search = Scripted(Delta("a")), FakeSearch()
    asked = Query("张三: /search 轴承", "u", speaker="张三")

    list(joined(rag, search).stream_query(asked, Deadline(30.0)))

    assert search.searched == ["轴承"]
    assert rag.queries[0].text.endswith("问题：张三: /search 轴承")


def test_hits_are_added_to_the_sources() -> None:
    """The hits come first, numbered as in the answer; without usage of the provider they are still emitted."""
    own = events_of(joined(Scripted(Delta("a"), OWN_USAGE), FakeSearch()))
    none = events_of(joined(Scripted(Delta("a")), FakeSearch()))

    assert own[0] == Usage(sources=SOURCES)
    assert own[-1] == Usage(30, 20, 10, "0.1", "USD", (*SOURCES, {"title": "手册", "position": 1}))
    assert [event for event in none if isinstance(event, Usage)] == [Usage(sources=SOURCES)]


def test_query_returns_the_text_with_its_sources() -> None:
    """`query` returns the same text and sources as the stream."""
    result = joined(Scripted(Delta("a"), Delta("b")), FakeSearch()).query(Query("/search x", "u"), Deadline(30.0))

    assert (result.content, tuple(result.sources)) == ("ab", SOURCES)


def test_results_can_be_the_answer() -> None:
    """The answer is a list of the results with their addresses; the provider is not asked."""
    rag = Scripted(Delta("never"))

    events = events_of(joined(rag, FakeSearch(SearchResult(HITS, "Answer: 42")), "list"))

    assert events == [
        Delta(
            "Answer: 42\n\n**相关搜索结果:**\n\n1. 轴承大全\n各种轴承。\nhttps://example.com/a\n\n"
            "2. {braces}\nhttps://example.com/b"
        ),
        Usage(sources=SOURCES),
    ]
    assert rag.queries == []


def test_an_answer_box_without_hits_is_a_result() -> None:
    """Google's answer box alone is enough, as a list and as context."""
    boxed = SearchResult((), "Weather: 21 °C")
    rag = Scripted(Delta("21 度"))

    assert answer(events_of(joined(Scripted(), FakeSearch(boxed), "list"))) == "Weather: 21 °C"
    assert answer(events_of(joined(rag, FakeSearch(boxed)))) == "21 度"
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
def test_a_search_without_results_does_not_fail_the_answer(show: Show, found: Any, sentence: str) -> None:
    """The provider answers the user's own question, and the answer begins with a sentence about the search."""
    rag = Scripted(ProviderIds("c"), Delta("年"), Delta("假"), OWN_USAGE)

    events = events_of(joined(rag, FakeSearch(found), show))

    assert events == [ProviderIds("c"), Delta(f"{sentence}\n\n年"), Delta("假"), OWN_USAGE]
    assert rag.queries == [Query("/search 轴承", "u")]


def test_a_replacement_keeps_the_sentence_about_the_search() -> None:
    """A replacement begins with the sentence again; after an empty replacement the next text does."""
    events = (Delta("年"), Replacement("病假"), Delta("！"), Replacement(""), Delta("事"), Delta("假"))

    shown = events_of(joined(Scripted(*events), FakeSearch(SearchResult(()))))

    assert shown[1] == Replacement(f"{EMPTY}\n\n病假")
    assert shown[2] == Delta("！")
    assert answer(shown) == f"{EMPTY}\n\n事假"


def test_an_empty_answer_has_no_sentence_about_the_search() -> None:
    """If the provider emits no text, the sentence is not emitted either."""
    assert events_of(joined(Scripted(ProviderIds("c"), Delta("")), FakeSearch(SearchResult(())))) == [
        ProviderIds("c"),
        Delta(""),
    ]


def test_a_provider_error_is_passed_on() -> None:
    """A provider error passes the search unchanged."""
    rag = Scripted(Delta("年"), errors=(ProviderError(code="provider_truncated"),))

    with pytest.raises(ProviderError) as caught:
        events_of(joined(rag, FakeSearch()))

    assert caught.value.code == "provider_truncated"


def test_a_missing_conversation_is_asked_again_without_a_second_search() -> None:
    """The error is passed on; the second attempt of the same answer reuses the results."""
    rag, search, deadline = Scripted(Delta("a"), errors=(ConversationGone(),)), FakeSearch(), Deadline(30.0)
    provider = joined(rag, search)
    with pytest.raises(ConversationGone):
        events_of(provider, deadline=deadline)

    events = events_of(provider, deadline=deadline)

    assert answer(events) == "a"
    assert search.searched == ["轴承"]
    assert "轴承大全" in rag.queries[1].text
    events_of(provider)
    assert len(search.searched) == 2


@pytest.mark.parametrize(("aborted", "code"), [(True, "interrupted"), (False, "answer_timeout")])
def test_an_abort_or_deadline_is_not_a_failed_search(aborted: bool, code: str) -> None:
    """If the answer was cancelled or its time is over, the provider is not asked without results."""
    rag, deadline = Scripted(Delta("a")), Deadline(30.0 if aborted else 0.0)
    if aborted:
        deadline.abort("cancelled")

    with pytest.raises(ProviderError) as caught:
        events_of(joined(rag, FakeSearch(ProviderError(code="provider_timeout"))), deadline=deadline)

    assert caught.value.code == code
    assert rag.queries == []


def test_closing_the_answer_closes_the_provider() -> None:
    """The provider's connection is closed in each case: with results, without results, without a search."""
    for found, text in ((SearchResult(HITS), "/search x"), (SearchResult(()), "/search x"), (SearchResult(HITS), "x")):
        rag = Scripted(ProviderIds("c"), Delta("a"), Delta("b"))
        events = joined(rag, FakeSearch(found)).stream_query(Query(text, "u"), Deadline(30.0))
        next(event for event in events if isinstance(event, Delta))

        events.close()  # type: ignore[attr-defined]

        assert rag.closed == 1


def test_closing_closes_provider_and_search() -> None:
    """Everything else is as with any wrapper; health checks spend no search."""
    rag, search = Scripted(), FakeSearch()
    provider = joined(rag, search)

    assert provider.search_provider is search
    assert provider.health_check() is False
    provider.close()
    assert (rag.calls, search.closed, search.searched, search.checks) == (["close"], True, [], 0)


def recovered(said: str, sources: tuple[Any, ...] = ()) -> Recovered:
    search = FakeSearch()
    query = Query("/search 轴承", "u", stored_text=said, sources=sources)
    result = joined(Scripted(), search).recover(query, ProviderIds("c", "m"), Deadline(30.0))
    assert search.searched == []
    return result


@pytest.mark.parametrize("sentence", [FAILED, EMPTY])
def test_a_recovered_answer_keeps_its_first_sentence(sentence: str) -> None:
    """The recovered text begins with the same sentence, so that it extends the text of the lost owner."""
    said = f"{sentence}\n\n整个"

    assert recovered(said).text == f"{sentence}\n\n整个答案"
    assert difference(said, recovered(said).text)[1] == Delta("答案")
    assert recovered("整个").text == "整个答案"


def test_a_recovered_answer_keeps_the_hits() -> None:
    """The hits are those stored with the stream; the provider's sources and usage come from the recovery."""
    stored = (*SOURCES, {"title": "手册", "position": 1})

    assert recovered("整", stored).usage.sources == (*SOURCES, {"title": "手册", "position": 1})
    assert recovered("整").usage == OWN_USAGE


def test_an_unrecoverable_answer_stays_unrecoverable() -> None:
    """The caller asks again, which also searches again."""

    class Forgetful(Scripted):
        def recover(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
            raise Unrecoverable("gone")

    with pytest.raises(Unrecoverable):
        joined(Forgetful(), FakeSearch()).recover(Query("/search x", "u"), ProviderIds(), Deadline(30.0))


def test_the_mock_answers_for_a_provider_that_fails_after_its_search() -> None:
    """The mock's answer quotes the user's question, not the question with the results."""
    for found in (SearchResult(HITS), ProviderError()):
        rag = Scripted(errors=(ProviderError(code="provider_unauthorized"),))

        events = events_of(MockFallback(joined(rag, FakeSearch(found)), MockProvider(delay=0.0)))

        assert Mocked() in events
        assert answer(events) == mock_answer("/search 轴承")


def test_a_mock_behind_a_search_stays_marked() -> None:
    """The wrapper passes on the provider's `Mocked` event."""
    assert Mocked() in events_of(joined(Scripted(Mocked(), Delta("a")), FakeSearch(ProviderError())))


def counted(outcome: str) -> float:
    labels = {"provider": "fake", "outcome": outcome}
    return metrics.REGISTRY.get_sample_value("wechatlaibao_searches_total", labels) or 0.0


def test_the_query_of_a_search_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The log line has the outcome, hits, milliseconds and the cause of a failure; a metric counts outcomes."""
    before = [counted("found"), counted("failed")]
    with caplog.at_level(logging.DEBUG):
        events_of(joined(Scripted(Delta("a")), FakeSearch()))
        events_of(joined(Scripted(Delta("a")), FakeSearch(ProviderError("HTTP 429", code="provider_busy"))))

    lines = [vars(record) for record in caplog.records if record.getMessage() == "searched"]
    assert [(line["search"], line["outcome"]) for line in lines] == [("fake", "found"), ("fake", "failed")]
    assert lines[0]["hits"] == 2
    assert lines[1]["code"] == "provider_busy"
    assert not any("轴承" in str(line) for line in lines)
    assert [counted("found"), counted("failed")] == [count + 1 for count in before]


def test_a_context_is_bounded_and_has_the_questions_language() -> None:
    """Hits beyond the limit of characters are neither in the context nor among the sources."""
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
    """Five results, as in the original."""
    many = tuple(Hit(f"t{n}", f"https://example.com/{n}", "s", n) for n in range(1, 11))

    shown = as_list(SearchResult(many), "H")

    assert shown.startswith("**H**\n\n1. t1\ns\nhttps://example.com/1")
    assert "5. t5" in shown
    assert "6. t6" not in shown


@pytest.mark.parametrize(
    ("behaviour", "timeout", "tries"),
    [
        *((name, 0.1, (0, 1)) for name in ("hang", "drip", "slow")),
        *((name, 30.0, (1,)) for name in ("unauthorized", "busy", "error", "no_credits", "malformed")),
    ],
)
def test_serpers_failures_fall_back(behaviour: Behaviour, timeout: float, tries: tuple[int, ...]) -> None:
    """Over real HTTP, within the timeout of a search; a failed search is not retried."""
    with MockSerper(behaviour=behaviour, delay=0.2 if behaviour == "drip" else 30.0) as serper:
        search = SerperSearch(api_key="any", base_url=serper.base_url, timeout=60.0)

        assert answer(events_of(joined(Scripted(Delta("年假")), search, timeout=timeout))) == f"{FAILED}\n\n年假"
        assert len(serper.requests) in tries


def test_a_cancel_interrupts_the_search() -> None:
    """An abort ends the wait for the results."""
    with MockSerper(behaviour="hang") as serper:
        search = SerperSearch(api_key="any", base_url=serper.base_url, timeout=60.0)
        rag, deadline = Scripted(Delta("a")), Deadline(60.0)
        when(lambda: serper.searches, lambda: deadline.abort("cancelled"))

        with pytest.raises(ProviderError) as caught:
            events_of(joined(rag, search, timeout=60.0), deadline=deadline)

    assert caught.value.code == "interrupted"
    assert rag.queries == []


def test_a_stream_stores_the_users_question_and_the_hits(redis_url: str) -> None:
    """Redis stores the user's question; the question with the results is only sent to the provider."""
    rag = SlowProvider()
    rag.go_on.set()
    provider = joined(rag, FakeSearch(), wants=router("rules"))
    desk = Desk(redis_url, cast(SlowProvider, provider))
    try:
        asked = desk.asks("上网搜一下轴承")
        desk.sees_end(asked.stream_id)
        stored: Any = desk.client.hgetall(stream_keys(asked.stream_id).hash)
        whole = desk.streams.full_answer(asked.stream_id)
    finally:
        desk.close()

    assert json.loads(stored["question"])["text"] == stored["content"] == "上网搜一下轴承"
    assert "轴承大全" in rag.asked[0]
    assert whole
    assert whole.sources == tuple(typed_source(source) for source in SOURCES)
