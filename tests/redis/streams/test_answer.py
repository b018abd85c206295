"""From a question to the provider's events: who asks, whose turn it is, which conversation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from channels.registry import CHANNELS
from services.answers.answer import Answerer, Backend, LateHead
from services.answers.conversation_memory import MemoryStores
from services.answers.conversation_store import ConversationStore, Memory
from services.answers.history_store import HistoryStore
from services.channels import Channels
from services.errors import (
    AnswerError,
    AuthError,
    ConversationGone,
    ProviderError,
    RunFailed,
    StoreUnavailable,
    StreamBroken,
    Unrecoverable,
)
from services.identity.callers import Callers
from services.models import (
    Complete,
    Delta,
    Identity,
    Mocked,
    Past,
    ProviderEvent,
    ProviderIds,
    Query,
    Question,
    Recovered,
    Replacement,
    Turn,
    Usage,
    UserInfo,
)
from services.providers.base import BaseRAGProvider
from services.redis.store import ScriptRunner, connect
from services.streams.answer_events import Asking, Resumed, Waiting, anew, difference
from services.streams.records import NewStream
from services.streams.store import StreamStore
from tests.support.servers.processes import FakeClock
from utils.deadline import Deadline

QUESTION = Question("年假?", "wecom", "default", "zhangsan", inputs={"a": "1"})


class ScriptedProvider(BaseRAGProvider):
    """A provider that says what the test wrote, and keeps what it was asked."""

    name = "scripted"
    app = "app1"

    def __init__(self) -> None:
        self.queries: list[Query] = []
        self.cancelled: list[tuple[ProviderIds, str]] = []
        self.script: Callable[[Query], Iterator[ProviderEvent]] = lambda query: iter(
            [ProviderIds("c1", "m1", "t1"), Delta("答")]
        )

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        self.queries.append(query)
        yield from self.script(query)

    def health_check(self) -> bool:
        return True

    def cancel(self, ids: ProviderIds, user: str) -> None:
        self.cancelled.append((ids, user))


class Doorkeeper:
    """Authenticates everybody, or nobody."""

    def __init__(self) -> None:
        self.error: AuthError | None = None

    def authenticate(self, userid: str, corp: str = "") -> Identity:
        if self.error:
            raise self.error
        return Identity("cached", UserInfo(f"E-{userid}-{corp}"), "token")


class Desk:
    def __init__(self, url: str) -> None:
        self.client = connect(url, pool_size=4, timeout=5.0)
        runner = ScriptRunner(self.client)
        self.provider, self.auth = ScriptedProvider(), Doorkeeper()
        self.streams = StreamStore(runner, lease=0.3)
        self.conversations = ConversationStore(runner, secret=b"s", ttl=100.0)
        self.naps = 0
        self.answerer = Answerer(
            auth=self.auth,
            backends={"default": Backend(self.provider, corp="acme")},
            memory=MemoryStores(self.conversations, HistoryStore(runner, ttl=100.0), timeout=0.3),
            streams=self.streams,
            channels=Channels(CHANNELS, {}),
            sleep=self._nap,
        )
        self.key = self.answerer.conversation(QUESTION)
        self.deadline = Deadline(10.0)

    def _nap(self, seconds: float) -> None:
        self.naps += 1
        threading.Event().wait(0.05)

    def hears(self, stream_id: str = "s") -> list[Any]:
        return list(self.answerer.answer(QUESTION, stream_id, self.deadline))

    @property
    def remembered(self) -> str:
        return self.conversations.load(self.key).conversation_id


@pytest.fixture
def desk(any_redis_url: str) -> Iterator[Desk]:
    desk = Desk(any_redis_url)
    yield desk
    desk.client.close()


def test_an_answer_is_authenticated_first(desk: Desk) -> None:
    """The provider is asked as the user the authentication found."""
    events = desk.hears()

    assert isinstance(events[0], Identity)
    assert events[-1] == Delta("答")
    query = desk.provider.queries[0]
    assert (query.text, query.user, query.conversation_id, query.inputs) == ("年假?", "E-zhangsan-acme", "", {"a": "1"})


def test_nobody_unauthenticated_reaches_the_provider(desk: Desk) -> None:
    """Fail closed."""
    desk.auth.error = AuthError(code="unknown_user")

    with pytest.raises(AuthError):
        desk.hears()

    assert desk.provider.queries == []


@pytest.mark.parametrize("channel", ["chat", "realtime"])
def test_a_sockets_question_is_for_who_checks_sockets(desk: Desk, channel: str) -> None:
    """Where nobody does, WeCom's authentication does not stand in, whatever it would say."""
    question = replace(QUESTION, channel=channel)

    with pytest.raises(AuthError):
        list(desk.answerer.answer(question, "1", desk.deadline))

    assert desk.provider.queries == []


def test_the_second_question_goes_on_where_the_first_was(desk: Desk) -> None:
    """The provider's conversation id comes back to it."""
    desk.hears("1")
    desk.conversations.leave(desk.key, "1")
    desk.hears("2")

    assert [query.conversation_id for query in desk.provider.queries] == ["", "c1"]


def test_the_conversation_is_kept_from_the_first_event_on(desk: Desk) -> None:
    """An answer that breaks off after some text has a conversation all the same."""

    def script(query: Query) -> Iterator[ProviderEvent]:
        yield ProviderIds("c1", "m1")
        yield Delta("一半")
        raise ProviderError(code="provider_truncated")

    desk.provider.script = script
    with pytest.raises(ProviderError):
        desk.hears()

    assert desk.remembered == "c1"


def test_a_first_turn_without_text_is_no_conversation(desk: Desk) -> None:
    """An orphaned first turn would leave an empty answer in the history."""

    def script(query: Query) -> Iterator[ProviderEvent]:
        yield ProviderIds("c1", "m1")
        raise ProviderError(code="provider_error")

    desk.provider.script = script
    with pytest.raises(ProviderError):
        desk.hears()

    assert desk.remembered == ""


def test_a_forgotten_conversation_is_asked_once_more_as_a_new_one(desk: Desk) -> None:
    """The provider lost it: the user need not know."""
    desk.conversations.remember(desk.key, Memory("stale", "0"))

    def script(query: Query) -> Iterator[ProviderEvent]:
        if query.conversation_id:
            raise ConversationGone
        yield ProviderIds("c2")
        yield Delta("新的")

    desk.provider.script = script
    events = desk.hears()

    assert [query.conversation_id for query in desk.provider.queries] == ["stale", ""]
    assert (events[-1], desk.remembered) == (Delta("新的"), "c2")


def test_a_new_conversation_that_is_gone_is_an_error(desk: Desk) -> None:
    """Asking again has an end."""

    def script(query: Query) -> Iterator[ProviderEvent]:
        raise ConversationGone
        yield

    desk.provider.script = script
    with pytest.raises(ConversationGone):
        desk.hears()

    assert len(desk.provider.queries) == 1


def test_a_question_waits_for_the_one_before(desk: Desk) -> None:
    """Until then it says that it waits, and the provider is not asked."""
    desk.streams.open(NewStream("first", "o", {"status": "processing"}))
    desk.streams.lease = 60.0
    desk.conversations.enter(desk.key, "first")
    events = desk.answerer.answer(QUESTION, "second", desk.deadline)
    heard = [next(events), next(events)]

    assert heard[1] == Waiting(True)
    assert desk.provider.queries == []
    desk.conversations.leave(desk.key, "first")
    assert Waiting(False) in list(events)
    assert len(desk.provider.queries) == 1


def test_a_turn_that_came_with_the_question_is_not_waited_for(desk: Desk) -> None:
    """Whoever opened the stream knows whose turn it is and what is remembered: neither is asked for again."""
    desk.conversations.enter(desk.key, "first")
    desk.conversations.remember(desk.key, Memory("later", "0"))

    events = list(desk.answerer.answer(QUESTION, "second", desk.deadline, turn=Memory("c0", "0")))

    assert not any(isinstance(event, Waiting) for event in events)
    assert desk.provider.queries[0].conversation_id == "c0"
    assert [event.resets for event in events if isinstance(event, Asking)] == ["0"]


def test_a_conversation_that_goes_on_is_not_written(desk: Desk) -> None:
    """Its question prolonged its life already; one that is lost meanwhile stays lost."""
    desk.conversations.remember(desk.key, Memory("c1", "0"))

    def lose_it(query: Query) -> Iterator[ProviderEvent]:
        desk.conversations.remember(desk.key, Memory("", "0"))
        yield ProviderIds("c1", "m1", "t1")
        yield Delta("答")

    desk.provider.script = lose_it

    assert desk.hears()[-1] == Delta("答")
    assert desk.remembered == ""


@pytest.mark.parametrize("status", ["completed", ""])
def test_an_ended_or_vanished_head_gives_way(desk: Desk, status: str) -> None:
    """Nobody waits for a stream that is no longer written."""
    desk.conversations.enter(desk.key, "first")
    if status:
        desk.streams.open(NewStream("first", "o", {"status": status}))

    assert desk.hears("second")[-1] == Delta("答")


def test_a_head_whose_owner_died_gives_way(desk: Desk) -> None:
    """A lease that has been over for twice its length no longer holds the line."""
    desk.streams.open(NewStream("first", "dead", {"status": "processing"}))
    desk.conversations.enter(desk.key, "first")

    assert desk.hears("second")[-1] == Delta("答")
    assert desk.naps > 3


def test_a_full_line_is_said(desk: Desk) -> None:
    """At most three wait."""
    desk.streams.lease = 60.0
    for number in range(4):
        desk.streams.open(NewStream(str(number), "o", {"status": "processing"}))
        desk.conversations.enter(desk.key, str(number))

    with pytest.raises(AnswerError) as raised:
        desk.hears("fifth")

    assert raised.value.code == "turns_full"


def test_a_full_line_of_the_dead_gives_way(desk: Desk) -> None:
    """A replica that died with a whole line keeps nobody out."""
    for number in range(4):
        desk.conversations.enter(desk.key, str(number))

    assert desk.hears("fifth")[-1] == Delta("答")


def test_waiting_has_a_limit(desk: Desk) -> None:
    """The stream's own deadline ends the wait."""
    desk.streams.open(NewStream("first", "o", {"status": "processing"}))
    desk.streams.lease = 60.0
    desk.conversations.enter(desk.key, "first")
    desk.deadline = Deadline(0.2)

    with pytest.raises(AnswerError) as raised:
        desk.hears("second")

    assert raised.value.code == "answer_timeout"


def test_closing_an_answer_stops_the_provider(desk: Desk) -> None:
    """Whoever no longer wants the answer tells the provider, with the run's ids and the same user."""
    events = desk.answerer.answer(QUESTION, "s", desk.deadline)
    while next(events) != Delta("答"):
        pass
    events.close()  # type: ignore[attr-defined]

    assert desk.provider.cancelled == [(ProviderIds("c1", "m1", "t1"), "E-zhangsan-acme")]


@pytest.mark.parametrize(("reason", "told"), [("cancelled", 1), ("fenced", 0), ("released", 0)])
def test_only_an_owner_that_stays_tells_the_provider_to_stop(desk: Desk, reason: str, told: int) -> None:
    """A fenced or leaving owner leaves the run to its successor."""

    def script(query: Query) -> Iterator[ProviderEvent]:
        yield ProviderIds("c1", "m1", "t1")
        yield Delta("一")
        desk.deadline.abort(reason)
        raise ProviderError(code="interrupted")

    desk.provider.script = script
    with pytest.raises(ProviderError):
        desk.hears()

    assert len(desk.provider.cancelled) == told


def test_a_finished_answer_is_not_stopped(desk: Desk) -> None:
    """There is nothing left to stop."""
    desk.hears()

    assert desk.provider.cancelled == []


def breaks(query: Query) -> Iterator[ProviderEvent]:
    yield ProviderIds("c1", "m1", "t1")
    yield Delta("一半")
    raise StreamBroken(code="provider_truncated")


@pytest.mark.parametrize(
    ("kept", "news"),
    [
        ("一半和另一半", [Resumed("extended", reason="stream_broken"), Delta("和另一半"), Usage(7)]),
        ("一半", [Resumed("unchanged", reason="stream_broken"), Usage(7)]),
        ("别的", [Resumed("replaced", reason="stream_broken"), Replacement("别的"), Usage(7)]),
    ],
)
def test_a_broken_streams_answer_is_looked_up(desk: Desk, kept: str, news: list[ProviderEvent]) -> None:
    """What was said, then what came of it and what it lacks; the provider is asked once and not told to stop."""
    looked: list[tuple[Query, ProviderIds]] = []

    def recover(query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        looked.append((query, ids))
        return Recovered(kept, Usage(7))

    desk.provider.script, desk.provider.recover = breaks, recover  # type: ignore[method-assign]

    events = desk.hears()

    assert events[-len(news) - 1 :] == [Delta("一半"), *news]
    assert (len(desk.provider.queries), desk.provider.cancelled) == (1, [])
    assert [(query.said, query.conversation_id, ids) for query, ids in looked] == [
        ("一半", "c1", ProviderIds("c1", "m1", "t1"))
    ]
    assert abs(looked[0][0].asked_at - time.time()) < 60.0
    assert desk.remembered == "c1"


@pytest.mark.parametrize(
    ("found", "code", "stopped"),
    [
        (Unrecoverable("it is gone"), "provider_truncated", True),
        (RunFailed("the run failed"), "provider_error", False),
        (ProviderError(code="provider_paused"), "provider_paused", False),
    ],
)
def test_a_broken_streams_lost_answer_ends_in_its_words(
    desk: Desk, found: ProviderError, code: str, stopped: bool
) -> None:
    """It is not asked again; a run that may go on for nobody is stopped, and the text's conversation is kept."""

    def recover(query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        raise found

    desk.provider.script, desk.provider.recover = breaks, recover  # type: ignore[method-assign]

    with pytest.raises(ProviderError) as caught:
        desk.hears()

    assert caught.value.code == code
    assert len(desk.provider.queries) == 1
    assert [ids for ids, _ in desk.provider.cancelled] == [ProviderIds("c1", "m1", "t1")] * stopped
    assert desk.remembered == "c1"


@pytest.mark.parametrize(("reason", "stopped"), [("cancelled", True), ("fenced", False), ("lost", False)])
def test_an_owner_that_ends_while_it_looks_a_broken_stream_up(desk: Desk, reason: str, stopped: bool) -> None:
    """Who cancels stops the run; who leaves it to another owner does not."""

    def recover(query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        deadline.abort(reason)
        raise ProviderError(code="interrupted")

    desk.provider.script, desk.provider.recover = breaks, recover  # type: ignore[method-assign]

    with pytest.raises(ProviderError):
        desk.hears()

    assert len(desk.provider.cancelled) == stopped


def test_a_broken_stream_without_a_name_is_looked_for_where_it_was_asked(desk: Desk) -> None:
    """The conversation it was asked in is known, or it is a new one; what is found goes on as its conversation."""
    looked: list[ProviderIds] = []

    def breaks_at_once(query: Query) -> Iterator[ProviderEvent]:
        raise StreamBroken(code="provider_timeout")
        yield

    def recover(query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        looked.append(ids)
        return Recovered("答", ids=ProviderIds("c7", "m7"))

    desk.provider.script, desk.provider.recover = breaks_at_once, recover  # type: ignore[method-assign]

    assert ProviderIds("c7", "m7") in desk.hears("1")
    desk.conversations.leave(desk.key, "1")
    assert desk.hears("2")[-2] == Delta("答")
    assert (looked, desk.remembered) == ([ProviderIds(), ProviderIds("c7")], "c7")


def test_a_new_owner_keeps_the_conversation_it_finds(desk: Desk) -> None:
    """The one that was killed had not heard of it."""
    desk.provider.recover = lambda query, ids, deadline: Recovered(  # type: ignore[method-assign]
        "答", ids=ProviderIds("c7", "m7")
    )

    events = list(desk.answerer.answer(QUESTION, "s", desk.deadline, Past(1, ProviderIds(), "", resets="0")))

    assert ProviderIds("c7", "m7") in events
    assert desk.remembered == "c7"


def test_a_memory_that_cannot_be_written_costs_no_answer(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis away for a moment: the answer goes on, the conversation is new next time."""

    def fail(key: str, memory: Memory) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(desk.conversations, "remember", fail)

    assert desk.hears()[-1] == Delta("答")


def test_a_memory_that_could_not_be_written_is_written_at_the_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment's outage while the first event comes does not cost the person the conversation."""
    remember, outages = desk.conversations.remember, iter([True])

    def fail_once(key: str, memory: Memory) -> None:
        if next(outages, False):
            raise StoreUnavailable
        remember(key, memory)

    monkeypatch.setattr(desk.conversations, "remember", fail_once)

    desk.hears()

    assert desk.remembered == "c1"


@pytest.mark.parametrize(
    ("before", "whole", "rest"),
    [
        ("", "答案", ("extended", "案")),
        ("答", "答案", ("extended", "案")),
        ("\n 答", "答案", ("extended", "案")),
        ("答案", "答案", ("unchanged", "")),
        (" 答案\n", "答案", ("unchanged", "")),
        ("别的", "答案", ("replaced", "答案")),
        ("案答", "答案", ("replaced", "答案")),
    ],
)
def test_what_the_provider_kept_is_made_of_what_was_said(before: str, whole: str, rest: tuple[str, str]) -> None:
    """What is missing is added; only another answer takes the text's place."""
    resumed, *news = difference(before, whole)

    assert isinstance(resumed, Resumed)
    assert resumed.outcome == rest[0]
    assert all(piece.text.endswith(rest[1]) for piece in news if isinstance(piece, Delta | Replacement))
    said = {"extended": before, "unchanged": before, "replaced": ""}[rest[0]]
    text = said + "".join(piece.text for piece in news if isinstance(piece, Delta | Replacement))
    assert text.strip() == whole


def test_less_than_was_said_is_no_answer() -> None:
    """An aborted run may keep a part that looks whole."""
    with pytest.raises(Unrecoverable):
        difference("答案很长", "答案")


@pytest.mark.parametrize(
    ("before", "said", "shown"),
    [
        ("", [Delta("新"), Delta("的")], [Delta("新"), Delta("的")]),
        ("年假", [Delta("年"), Delta("假五"), Delta("天")], [Delta("五"), Delta("天")]),
        ("年假", [Delta("年"), Delta("假"), Delta("五天")], [Delta("五天")]),
        ("年假", [Delta("休"), Delta("假五天")], [Replacement("休假五天")]),
        ("年假", [Delta("年")], [Replacement("年")]),
        ("年假", [Delta("年假")], []),
        ("旧的", [Replacement("新"), Delta("的")], [Replacement("新的")]),
        ("旧的", [Delta("新"), Replacement("旧的"), Delta("好")], [Delta("好")]),
        ("年假", [Delta("休"), Usage(1), Complete()], [Usage(1), Replacement("休"), Complete()]),
        ("年假", [], []),
    ],
)
def test_a_second_answer_is_held_until_the_text_need_not_go_back(
    before: str, said: list[ProviderEvent], shown: list[ProviderEvent]
) -> None:
    """It goes on where the first one was, or takes its place once, when whole; what is no text is told at once."""
    events = list(anew((event for event in (ProviderIds("c"), *said)), before))

    assert events == [ProviderIds("c"), *shown]


def test_a_second_answer_that_fails_leaves_the_first_ones_text() -> None:
    """What was held is no answer."""

    def fails() -> Iterator[ProviderEvent]:
        yield Delta("休假")
        raise ProviderError(code="provider_truncated")

    shown: list[Any] = []
    with pytest.raises(ProviderError):
        shown.extend(event for event in anew(fails(), "年假"))

    assert shown == []


def test_what_is_held_has_a_limit() -> None:
    """Past it the new text is shown: the stream says what is too long."""
    events = list(anew((event for event in [Delta("新" * 60), Delta("新" * 60), Delta("的")]), "旧的", most=100))

    assert events == [Replacement("新" * 120), Delta("的")]


def test_a_head_without_a_lease_is_given_time(clock: FakeClock) -> None:
    """However long it has been over: who waits has to see it so for a while, and anew after each renewal."""
    watch = LateHead(3.0, clock)
    assert not watch.over("head", 1_000_000.0)
    clock.advance(3.1)
    assert watch.over("head", 1_000_003.1)

    assert not watch.over("head", 0.0)
    assert not watch.over("head", 1.0)
    clock.advance(2.0)
    assert not watch.over("another", 9.0)
    clock.advance(2.0)
    assert not watch.over("another", 11.0)


def test_an_answer_that_has_begun_is_not_refused_by_a_full_line(desk: Desk) -> None:
    """It was evicted while nobody owned it; it waits until there is room."""
    for number in range(4):
        desk.streams.open(NewStream(f"w{number}", "o", {"status": "processing"}))
        desk.conversations.enter(desk.key, f"w{number}")
    desk.deadline = Deadline(0.5)
    past = Past(1, ProviderIds("c1", "m1"), "一半")

    with pytest.raises(AnswerError) as refused:
        list(desk.answerer.answer(QUESTION, "s", desk.deadline, past))

    assert refused.value.code == "answer_timeout"


@pytest.mark.parametrize(("reason", "stopped"), [("cancelled", True), ("fenced", False), ("released", False)])
def test_who_cancels_while_an_answer_is_recovered_stops_its_run(desk: Desk, reason: str, stopped: bool) -> None:
    """The run goes on at the provider, and nobody wants it any more; a leaving owner leaves it alone."""

    def recover(query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        deadline.abort(reason)
        raise ProviderError(code="interrupted")

    desk.provider.recover = recover  # type: ignore[method-assign]
    past = Past(1, ProviderIds("c1", "m1", "t1"), "一半")

    with pytest.raises(ProviderError):
        list(desk.answerer.answer(QUESTION, "s", desk.deadline, past))

    assert [ids for ids, _ in desk.provider.cancelled] == [ProviderIds("c1", "m1", "t1")] * stopped


def test_a_new_owner_stops_the_old_run_when_its_asking_is_stored(desk: Desk) -> None:
    """Not before: until then it may itself be one that was replaced."""
    past = Past(1, ProviderIds("c1", "m1", "t1"), "一半")
    cancelled: list[int] = []

    for event in desk.answerer.answer(QUESTION, "s", desk.deadline, past):
        if isinstance(event, Resumed | Asking):
            cancelled.append(len(desk.provider.cancelled))

    assert (cancelled, len(desk.provider.cancelled)) == ([0, 0], 1)


def test_a_provider_without_conversations_is_told_what_was_said(desk: Desk) -> None:
    """The turns before, as they were said; and no conversation id of anybody's is kept."""
    desk.provider.keeps_conversations = False
    desk.provider.script = lambda query: iter(
        [Delta("好的"), Replacement(f"第{len(query.history) + 1}个"), Delta("答案")]
    )

    desk.hears("1")
    desk.hears("2")
    desk.hears("3")

    assert [query.history for query in desk.provider.queries] == [
        (),
        (Turn("年假?", "第1个答案"),),
        (Turn("年假?", "第1个答案"), Turn("年假?", "第2个答案")),
    ]
    assert desk.remembered == ""


def test_only_whole_answers_become_history(desk: Desk) -> None:
    """One that broke off, and one without a word, are not told the next time."""
    desk.provider.keeps_conversations = False

    def breaks(query: Query) -> Iterator[ProviderEvent]:
        yield Delta("半")
        raise ProviderError(code="provider_truncated")

    desk.provider.script = breaks
    with pytest.raises(ProviderError):
        desk.hears("1")
    desk.provider.script = lambda query: iter([Delta(" \n")])
    desk.hears("2")
    desk.hears("3")

    assert [query.history for query in desk.provider.queries] == [(), (), ()]


def test_a_provider_with_conversations_is_told_nothing(desk: Desk) -> None:
    """It knows, by its id."""
    desk.hears("1")
    desk.hears("2")

    assert [(query.history, query.conversation_id) for query in desk.provider.queries] == [((), ""), ((), "c1")]


def test_an_independent_question_has_no_history(desk: Desk) -> None:
    """And leaves none."""
    desk.provider.keeps_conversations = False
    callers = Callers("none")
    answerer = Answerer(
        auth=desk.auth,
        backends={"default": Backend(desk.provider)},
        memory=MemoryStores(desk.conversations, HistoryStore(ScriptRunner(desk.client), ttl=100.0)),
        streams=desk.streams,
        channels=Channels(CHANNELS, {}),
        callers=callers,
    )
    question = Question("年假?", "http", "default", "anonymous")

    for stream_id in ("1", "2"):
        list(answerer.answer(question, stream_id, desk.deadline))

    assert [query.history for query in desk.provider.queries] == [(), ()]


def test_an_answer_without_a_word_is_an_error(desk: Desk) -> None:
    """Whoever the provider is: nobody gets an empty bubble without a sentence."""
    desk.provider.script = lambda query: iter([ProviderIds("c1", "m1", "t1")])

    with pytest.raises(ProviderError) as caught:
        desk.hears()

    assert caught.value.code == "provider_empty"
    assert desk.provider.cancelled == []
    assert desk.remembered == ""


@pytest.mark.parametrize("keeps", [True, False], ids=["theirs", "ours"])
def test_a_question_asked_before_a_reset_stays_out_of_what_came_after(desk: Desk, keeps: bool) -> None:
    """Also when another owner asks it again: it neither knows the new conversation nor becomes a part of it."""
    desk.provider.keeps_conversations = keeps
    desk.hears("before")
    desk.conversations._runner.run([desk.conversations.reset_call(desk.key, "command")])
    desk.hears("after")
    kept = (desk.remembered, desk.provider.queries[-1].history)
    past = Past(1, ProviderIds(), "", resets="0")

    list(desk.answerer.answer(QUESTION, "before-too", desk.deadline, past))
    desk.hears("next")

    again, following = desk.provider.queries[-2:]
    assert (again.conversation_id, again.history) == ("", ())
    assert len(following.history) == (0 if keeps else 1)
    assert desk.remembered == kept[0]


def test_what_the_mock_said_is_told_nobody(desk: Desk) -> None:
    """A stand-in's sentence is no part of a conversation with the provider."""
    desk.provider.keeps_conversations = False
    desk.provider.script = lambda query: iter([Mocked(), Delta("模拟")])

    desk.hears("1")
    desk.hears("2")

    assert [query.history for query in desk.provider.queries] == [(), ()]


def test_whoever_asks_notes_the_conversation_it_is_asked_in(desk: Desk) -> None:
    """So that a later owner knows whether it is still the same."""
    asking = next(event for event in desk.hears() if isinstance(event, Asking))

    assert (asking.provider, asking.resets) == ("scripted", "0")
