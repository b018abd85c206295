"""From a question to the provider's events: authentication, the conversation's queue and memory, recovery."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from channels.registry import CHANNELS
from services.answers.answer import Answerer, Backend, Places
from services.answers.askers import Askers
from services.answers.extras import AnswerExtras
from services.answers.forms.conversation_forms import AnswerForms
from services.answers.forms.form_store import FormStore
from services.answers.queue import EVICT_LEASES, ConversationQueue, LateHead
from services.channels import Channels
from services.conversations.earlier import Earlier, written
from services.conversations.history_store import HistoryStore
from services.conversations.memory import PAUSE, MemoryStores
from services.conversations.store import ConversationStore, Memory
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
from services.identity.name_store import NameStore
from services.models import (
    Attempt,
    Complete,
    Delta,
    Exchange,
    Identity,
    Mocked,
    ProviderEvent,
    ProviderIds,
    Query,
    Question,
    Replacement,
    Usage,
    UserInfo,
)
from services.providers.base import BaseRAGProvider, Recovered
from services.providers.client.inputs import InputsTemplate
from services.redis.store import ScriptRunner, connect
from services.streams.access import Access
from services.streams.answer_events import Asking, Resumed, Waiting, anew, difference
from services.streams.records import NewStream
from services.streams.store import StreamStore, stream_keys
from services.usage.ended_store import EndedStore
from tests.support.rules import no_quotas
from tests.support.servers.processes import FakeClock
from tests.support.streams.handlers import intake_without_files
from tests.support.texts import KEYS
from utils.deadline import Deadline

QUESTION = Question("年假?", "wecom", "default", "zhangsan", inputs={"a": "1"})


class ScriptedProvider(BaseRAGProvider):
    """A provider that yields the test's events, and records its queries."""

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


class StubAuth:
    """Authenticates every user, with a record or without, or raises `error`, at most `errors` times."""

    def __init__(self) -> None:
        self.error: AuthError | None = None
        self.errors = 1000
        self.has_records = True

    def authenticate(self, userid: str, corp: str = "") -> Identity:
        if self.error and self.errors:
            self.errors -= 1
            raise self.error
        return Identity("cached", UserInfo(f"E-{userid}-{corp}"), "token") if self.has_records else Identity("none")


class Replica:
    """An answerer with a scripted provider; the sleeps of questions that wait move its clock, and are counted."""

    def __init__(self, url: str) -> None:
        self.client = connect(url, pool_size=4, timeout=5.0)
        runner = ScriptRunner(self.client)
        self.provider, self.auth = ScriptedProvider(), StubAuth()
        self.streams = StreamStore(runner, lease=60.0)
        self.conversations = ConversationStore(runner, secret=b"s", ttl=100.0)
        self.sleeps = 0
        self.clock = FakeClock()
        self.answerer = Answerer(
            backends={"default": Backend(self.provider, corp="acme")},
            channels=Channels(CHANNELS, {}),
            askers=Askers(self.auth, Callers("none"), {}, NameStore(runner)),
            places=Places(
                ConversationQueue(self.conversations, self.streams, sleep=self._sleep, clock=self.clock),
                no_quotas(runner),
                intake_without_files(runner),
                EndedStore(runner, queues=False),
            ),
            memory=MemoryStores(self.conversations, HistoryStore(runner, ttl=100.0), timeout=0.1),
            forms=AnswerForms(FormStore(runner, Access({}), clock=time.time), KEYS),
            extras=AnswerExtras(),
        )
        self.key = self.answerer.conversation(QUESTION)
        self.deadline = Deadline(1000.0, clock=self.clock)

    def _sleep(self, seconds: float) -> None:
        self.sleeps += 1
        self.clock.advance(seconds)

    def queues(self, *stream_ids: str, status: str = "processing") -> None:
        """Let running streams of another owner wait for the conversation's turn."""
        for stream_id in stream_ids:
            self.streams.open(NewStream(stream_id, "o", {"status": status}))
            self.conversations.enter(self.key, stream_id)

    def ask(self, stream_id: str = "s") -> list[Any]:
        """Ask QUESTION, and return all events of its answer."""
        return list(self.answerer.answer(QUESTION, stream_id, self.deadline))

    @property
    def remembered(self) -> str:
        """The provider's conversation id in memory, "" for none."""
        return self.conversations.load(self.key).conversation_id


@pytest.fixture
def replica(any_redis_url: str) -> Iterator[Replica]:
    replica = Replica(any_redis_url)
    yield replica
    replica.client.close()


def test_an_answer_is_authenticated_first(replica: Replica) -> None:
    """The provider is asked as the user that authentication returned."""
    events = replica.ask()

    assert isinstance(events[0], Identity)
    assert events[-1] == Delta("答")
    query = replica.provider.queries[0]
    assert (query.text, query.user, query.conversation_id, query.inputs) == ("年假?", "E-zhangsan-acme", "", {"a": "1"})


def test_an_unauthenticated_question_does_not_reach_the_provider(replica: Replica) -> None:
    """A failed authentication is the answer's error."""
    replica.auth.error = AuthError(code="unknown_user")

    with pytest.raises(AuthError):
        replica.ask()

    assert replica.provider.queries == []


def test_an_answer_that_was_begun_waits_for_authentication(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider has it: a new owner that met an outage would cut it off. A new question gets the error at once."""
    monkeypatch.setattr("services.answers.askers.BACKOFF", 0.001)
    replica.auth.error, replica.auth.errors = AuthError(code="auth_unavailable"), 3
    with pytest.raises(AuthError):
        replica.ask()
    attempt = Attempt(1, ProviderIds("c1", "m1", "t1"), "一半")

    events = list(replica.answerer.answer(QUESTION, "s", replica.deadline, attempt))

    assert replica.auth.errors == 0
    assert any(isinstance(event, Resumed) for event in events)


@pytest.mark.parametrize("channel", ["chat", "http", "openai"])
def test_a_user_that_a_program_names_is_nobody_of_wecom(replica: Replica, channel: str) -> None:
    """Its name comes after the channel, in the provider's user and in inputs; a userid of WeCom stands alone."""
    replica.auth.has_records = False
    inputs = InputsTemplate({"code": "{user_code}", "id": "{userid}", "channel": "{channel}"})

    for question in (replace(QUESTION, principal="ceo"), replace(QUESTION, channel=channel, principal="anonymous/ceo")):
        list(replica.answerer.answer(replace(question, inputs={}), channel, replica.deadline))

    of_wecom, named = ((query.user, inputs.fill(query)) for query in replica.provider.queries)
    assert of_wecom == ("ceo", {"code": "ceo", "id": "ceo", "channel": "wecom"})
    assert named == (f"{channel}:ceo", {"code": f"{channel}:ceo", "id": f"{channel}:ceo", "channel": channel})


@pytest.mark.parametrize("channel", ["chat", "realtime"])
def test_a_socket_question_without_socket_authentication_is_refused(replica: Replica, channel: str) -> None:
    """WeCom's authentication does not apply to socket channels, which have credentials of their own."""
    question = replace(QUESTION, channel=channel)

    with pytest.raises(AuthError):
        list(replica.answerer.answer(question, "1", replica.deadline))

    assert replica.provider.queries == []


def test_the_second_question_continues_the_conversation(replica: Replica) -> None:
    """It is sent with the conversation id of the first answer, and no turns: the provider has them."""
    replica.ask("1")
    replica.conversations.leave(replica.key, "1")
    replica.ask("2")

    assert [(query.conversation_id, query.history) for query in replica.provider.queries] == [("", ()), ("c1", ())]
    assert replica.provider.cancelled == [], "both runs have ended"


@pytest.mark.parametrize(("texts", "kept"), [(["一半"], "c1"), ([], "")])
def test_an_answer_that_fails_after_some_text_keeps_its_conversation(
    replica: Replica, texts: list[str], kept: str
) -> None:
    """The id is stored at the first text, not at the end: no provider's history begins with an empty answer."""

    def script(query: Query) -> Iterator[ProviderEvent]:
        yield ProviderIds("c1", "m1")
        yield from map(Delta, texts)
        raise ProviderError(code="provider_truncated")

    replica.provider.script = script
    with pytest.raises(ProviderError):
        replica.ask()

    assert replica.remembered == kept


def test_a_conversation_that_the_provider_lost_is_started_anew(replica: Replica) -> None:
    """The question is sent once more without a conversation id, and the user sees no error."""
    replica.conversations.remember(replica.key, Memory("stale", "0"))

    def script(query: Query) -> Iterator[ProviderEvent]:
        if query.conversation_id:
            raise ConversationGone
        yield ProviderIds("c2")
        yield Delta("新的")

    replica.provider.script = script
    events = replica.ask()

    assert [query.conversation_id for query in replica.provider.queries] == ["stale", ""]
    assert (events[-1], replica.remembered) == (Delta("新的"), "c2")


def test_a_new_conversation_that_is_gone_is_an_error(replica: Replica) -> None:
    """A question without a conversation id is not sent again."""

    def script(query: Query) -> Iterator[ProviderEvent]:
        raise ConversationGone
        yield

    replica.provider.script = script
    with pytest.raises(ConversationGone):
        replica.ask()

    assert len(replica.provider.queries) == 1


def test_a_question_waits_for_the_earlier_one(replica: Replica) -> None:
    """Until its turn it reports `Waiting`, and the provider is not asked."""
    replica.queues("first")
    events = replica.answerer.answer(QUESTION, "second", replica.deadline)
    first_events = [next(events), next(events)]

    assert first_events[1] == Waiting(True)
    assert replica.provider.queries == []
    replica.conversations.leave(replica.key, "first")
    assert Waiting(False) in list(events)
    assert len(replica.provider.queries) == 1


def test_a_turn_known_at_opening_is_not_looked_up_again(replica: Replica) -> None:
    """The step that opened the stream returned turn and memory, so neither is read again."""
    replica.conversations.enter(replica.key, "first")
    replica.conversations.remember(replica.key, Memory("later", "0"))

    events = list(replica.answerer.answer(QUESTION, "second", replica.deadline, turn=Memory("c0", "0")))

    assert not any(isinstance(event, Waiting) for event in events)
    assert replica.provider.queries[0].conversation_id == "c0"
    assert [event.resets for event in events if isinstance(event, Asking)] == ["0"]


def test_a_continued_conversation_is_not_written_again(replica: Replica) -> None:
    """The question already renewed its TTL; an id that is deleted meanwhile stays deleted."""
    replica.conversations.remember(replica.key, Memory("c1", "0"))

    def lose_it(query: Query) -> Iterator[ProviderEvent]:
        replica.conversations.remember(replica.key, Memory("", "0"))
        yield ProviderIds("c1", "m1", "t1")
        yield Delta("答")

    replica.provider.script = lose_it

    assert replica.ask()[-1] == Delta("答")
    assert replica.remembered == ""


@pytest.mark.parametrize("status", ["completed", ""])
def test_an_ended_or_vanished_head_gives_way(replica: Replica, status: str) -> None:
    """No question waits for a stream that is no longer written."""
    if status:
        replica.queues("first", status=status)
    else:
        replica.conversations.enter(replica.key, "first")

    assert replica.ask("second")[-1] == Delta("答")


def test_a_head_whose_owner_died_gives_way(replica: Replica) -> None:
    """A lease that has been over for three times its length no longer holds the queue."""
    replica.queues("first")
    replica.client.hset(stream_keys("first").hash, "lease", "1")
    replica.streams.lease = 3.0

    assert replica.ask("second")[-1] == Delta("答")
    assert replica.sleeps == pytest.approx(EVICT_LEASES * 3.0 / PAUSE, abs=2)


def test_a_full_queue_is_refused(replica: Replica) -> None:
    """At most three questions wait."""
    replica.queues("0", "1", "2", "3")

    with pytest.raises(AnswerError) as raised:
        replica.ask("fifth")

    assert raised.value.code == "turns_full"


def test_a_full_queue_of_vanished_streams_gives_way(replica: Replica) -> None:
    """A replica that died with a full queue blocks no later question."""
    for number in range(4):
        replica.conversations.enter(replica.key, str(number))

    assert replica.ask("fifth")[-1] == Delta("答")


def test_waiting_has_a_limit(replica: Replica) -> None:
    """The stream's own deadline ends the wait."""
    replica.queues("first")
    replica.deadline = Deadline(2.0, clock=replica.clock)

    with pytest.raises(AnswerError) as raised:
        replica.ask("second")

    assert raised.value.code == "answer_timeout"


def test_closing_an_answer_stops_the_provider(replica: Replica) -> None:
    """The provider is stops to stop, with the run's ids and the same user."""
    events = replica.answerer.answer(QUESTION, "s", replica.deadline)
    while next(events) != Delta("答"):
        pass
    events.close()  # type: ignore[attr-defined]

    assert replica.provider.cancelled == [(ProviderIds("c1", "m1", "t1"), "E-zhangsan-acme")]


ENDINGS = [("cancelled", True), ("fenced", False), ("released", False), ("lost", False)]


@pytest.mark.parametrize(("reason", "stops"), ENDINGS)
@pytest.mark.parametrize("during", ["the answer", "its look-up", "a recovery"])
def test_only_a_cancellation_stops_the_providers_run(replica: Replica, during: str, reason: str, stops: bool) -> None:
    """A fenced or leaving owner leaves the run to its successor; a cancelled one is needed by no reader."""

    def script(query: Query) -> Iterator[ProviderEvent]:
        yield ProviderIds("c1", "m1", "t1")
        yield Delta("一")
        if during == "its look-up":
            raise StreamBroken(code="provider_truncated")
        interrupted()

    def interrupted(*asked: object) -> Recovered:
        replica.deadline.abort(reason)
        raise ProviderError(code="interrupted")

    replica.provider.script, replica.provider.recover = script, interrupted  # type: ignore[assignment, method-assign]
    attempt = Attempt(1, ProviderIds("c1", "m1", "t1"), "一半") if during == "a recovery" else None

    with pytest.raises(ProviderError):
        list(replica.answerer.answer(QUESTION, "s", replica.deadline, attempt))

    assert [ids for ids, _ in replica.provider.cancelled] == [ProviderIds("c1", "m1", "t1")] * stops


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
def test_a_broken_streams_answer_is_looked_up(replica: Replica, kept: str, news: list[ProviderEvent]) -> None:
    """The outcome and the missing text follow the first text; the question is asked once, and its run not stopped."""
    look_ups: list[tuple[Query, ProviderIds]] = []

    def recover(query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        look_ups.append((query, ids))
        return Recovered(kept, Usage(7))

    replica.provider.script, replica.provider.recover = breaks, recover  # type: ignore[method-assign]

    events = replica.ask()

    assert events[-len(news) - 1 :] == [Delta("一半"), *news]
    assert (len(replica.provider.queries), replica.provider.cancelled) == (1, [])
    assert [(query.stored_text, query.conversation_id, ids) for query, ids in look_ups] == [
        ("一半", "c1", ProviderIds("c1", "m1", "t1"))
    ]
    assert abs(look_ups[0][0].asked_at - time.time()) < 60.0
    assert replica.remembered == "c1"


@pytest.mark.parametrize(
    ("found", "code", "stopped"),
    [
        (Unrecoverable("it is gone"), "provider_truncated", True),
        (RunFailed("the run failed"), "provider_error", False),
        (ProviderError(code="provider_paused"), "provider_paused", False),
    ],
)
def test_a_broken_stream_without_an_answer_ends_with_an_error(
    replica: Replica, found: ProviderError, code: str, stopped: bool
) -> None:
    """The question is not asked again, a run that may still go on is stopped, and the conversation is kept."""

    def recover(query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        raise found

    replica.provider.script, replica.provider.recover = breaks, recover  # type: ignore[method-assign]

    with pytest.raises(ProviderError) as caught:
        replica.ask()

    assert caught.value.code == code
    assert len(replica.provider.queries) == 1
    assert [ids for ids, _ in replica.provider.cancelled] == [ProviderIds("c1", "m1", "t1")] * stopped
    assert replica.remembered == "c1"


def test_a_broken_stream_without_ids_is_looked_up_in_its_conversation(replica: Replica) -> None:
    """A new conversation has no id yet; the ids that are found become the conversation's."""
    look_ups: list[ProviderIds] = []

    def breaks_at_once(query: Query) -> Iterator[ProviderEvent]:
        raise StreamBroken(code="provider_timeout")
        yield

    def recover(query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        look_ups.append(ids)
        return Recovered("答", ids=ProviderIds("c7", "m7"))

    replica.provider.script, replica.provider.recover = breaks_at_once, recover  # type: ignore[method-assign]

    assert ProviderIds("c7", "m7") in replica.ask("1")
    replica.conversations.leave(replica.key, "1")
    assert replica.ask("2")[-2] == Delta("答")
    assert (look_ups, replica.remembered) == ([ProviderIds(), ProviderIds("c7")], "c7")


def test_a_new_owner_keeps_the_conversation_that_it_recovers(replica: Replica) -> None:
    """The killed owner did not know its id yet."""
    replica.provider.recover = lambda query, ids, deadline: Recovered(  # type: ignore[method-assign]
        "答", ids=ProviderIds("c7", "m7")
    )

    events = list(replica.answerer.answer(QUESTION, "s", replica.deadline, Attempt(1, ProviderIds(), "", resets="0")))

    assert ProviderIds("c7", "m7") in events
    assert replica.remembered == "c7"


def test_a_new_owner_looks_up_what_was_sent_before_the_question_too(replica: Replica) -> None:
    """A run whose ids were lost is found by the text that it was asked with."""
    asked: list[str] = []

    def recover(query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        asked.append(query.text)
        return Recovered("答")

    replica.provider.recover = recover  # type: ignore[method-assign]
    question = replace(QUESTION, earlier=written(Earlier("Be brief.", (Exchange("甲？", "甲。"),))))

    for conversation_id in ("", "c1"):
        attempt = Attempt(1, ProviderIds(conversation_id), "", resets="0")
        list(replica.answerer.answer(question, f"s{conversation_id}", replica.deadline, attempt))
        replica.conversations.leave(replica.key, f"s{conversation_id}")

    before = "System: Be brief.\n\nUser: 甲？\n\nAssistant: 甲。\n\nUser: "
    assert asked == [before + QUESTION.text, QUESTION.text]


@pytest.mark.parametrize(("lost", "kept"), [(1, "c1"), (1000, "")])
def test_a_memory_that_could_not_be_written_is_written_at_the_end(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, lost: int, kept: str
) -> None:
    """A short outage does not lose the conversation, and a long one costs no answer: the next question begins anew."""
    remember, outages = replica.conversations.remember, iter([True] * lost)

    def fail(key: str, memory: Memory) -> None:
        if next(outages, False):
            raise StoreUnavailable
        remember(key, memory)

    monkeypatch.setattr(replica.conversations, "remember", fail)

    assert replica.ask()[-1] == Delta("答")
    assert replica.remembered == kept


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
def test_a_recovered_answer_extends_the_text_or_replaces_it(before: str, whole: str, rest: tuple[str, str]) -> None:
    """Missing text is added, and only a different answer replaces the text."""
    resumed, *news = difference(before, whole)

    assert isinstance(resumed, Resumed)
    assert resumed.outcome == rest[0]
    assert all(piece.text.endswith(rest[1]) for piece in news if isinstance(piece, Delta | Replacement))
    start = {"extended": before, "unchanged": before, "replaced": ""}[rest[0]]
    text = start + "".join(piece.text for piece in news if isinstance(piece, Delta | Replacement))
    assert text.strip() == whole


def test_an_answer_shorter_than_the_text_is_unrecoverable() -> None:
    """An aborted run may have kept a part that looks complete."""
    with pytest.raises(Unrecoverable):
        difference("答案很长", "答案")


@pytest.mark.parametrize(
    ("before", "second", "shown"),
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
def test_a_second_answer_is_held_until_the_text_can_grow(
    before: str, second: list[ProviderEvent], shown: list[ProviderEvent]
) -> None:
    """It continues the first one's text, or replaces it once when complete; events without text pass at once."""
    events = list(anew((event for event in (ProviderIds("c"), *second)), before))

    assert events == [ProviderIds("c"), *shown]


def test_a_second_answer_that_fails_leaves_the_first_ones_text() -> None:
    """Its held text is dropped."""

    def fails() -> Iterator[ProviderEvent]:
        yield Delta("休假")
        raise ProviderError(code="provider_truncated")

    shown: list[Any] = []
    with pytest.raises(ProviderError):
        shown.extend(event for event in anew(fails(), "年假"))

    assert shown == []


def test_held_text_has_a_limit() -> None:
    """Beyond it the new text is shown, and the stream reports an answer that is too long."""
    events = list(anew((event for event in [Delta("新" * 60), Delta("新" * 60), Delta("的")]), "旧的", most=100))

    assert events == [Replacement("新" * 120), Delta("的")]


def test_a_head_without_a_lease_gives_way_after_a_time(clock: FakeClock) -> None:
    """A waiting question counts the time for which it saw the lease over; a renewal or a new head starts it again."""
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


def test_a_full_queue_does_not_refuse_an_answer_that_has_begun(replica: Replica) -> None:
    """It was removed from the queue while it had no owner, and waits until there is room."""
    replica.queues("0", "1", "2", "3")
    replica.deadline = Deadline(2.0, clock=replica.clock)
    attempt = Attempt(1, ProviderIds("c1", "m1"), "一半")

    with pytest.raises(AnswerError) as refused:
        list(replica.answerer.answer(QUESTION, "s", replica.deadline, attempt))

    assert refused.value.code == "answer_timeout"


def test_a_new_owner_stops_the_old_run_after_asking_is_stored(replica: Replica) -> None:
    """Before that, the new owner may itself have been replaced."""
    attempt = Attempt(1, ProviderIds("c1", "m1", "t1"), "一半")
    cancelled: list[int] = []

    for event in replica.answerer.answer(QUESTION, "s", replica.deadline, attempt):
        if isinstance(event, Resumed | Asking):
            cancelled.append(len(replica.provider.cancelled))

    assert (cancelled, len(replica.provider.cancelled)) == ([0, 0], 1)


def test_a_provider_without_conversations_gets_the_history(replica: Replica) -> None:
    """It gets the earlier turns as they were shown, and no conversation id is kept."""
    replica.provider.keeps_conversations = False
    replica.provider.script = lambda query: iter(
        [Delta("好的"), Replacement(f"第{len(query.history) + 1}个"), Delta("答案")]
    )

    replica.ask("1")
    replica.ask("2")
    replica.ask("3")

    assert [query.history for query in replica.provider.queries] == [
        (),
        (Exchange("年假?", "第1个答案"),),
        (Exchange("年假?", "第1个答案"), Exchange("年假?", "第2个答案")),
    ]
    assert replica.remembered == ""


def test_only_complete_answers_become_history(replica: Replica) -> None:
    """A failed answer and a blank one are not in the next question's history."""
    replica.provider.keeps_conversations = False

    def breaks(query: Query) -> Iterator[ProviderEvent]:
        yield Delta("半")
        raise ProviderError(code="provider_truncated")

    replica.provider.script = breaks
    with pytest.raises(ProviderError):
        replica.ask("1")
    replica.provider.script = lambda query: iter([Delta(" \n")])
    replica.ask("2")
    replica.ask("3")

    assert [query.history for query in replica.provider.queries] == [(), (), ()]


def test_an_independent_question_has_no_history(replica: Replica) -> None:
    """It gets no earlier turns, and adds none."""
    replica.provider.keeps_conversations = False
    question = Question("年假?", "http", "default", "anonymous")

    for stream_id in ("1", "2"):
        list(replica.answerer.answer(question, stream_id, replica.deadline))

    assert [query.history for query in replica.provider.queries] == [(), ()]


def test_an_answer_without_text_is_an_error(replica: Replica) -> None:
    """With any provider the user gets a sentence, not an empty bubble; the conversation is not kept."""
    replica.provider.script = lambda query: iter([ProviderIds("c1", "m1", "t1")])

    with pytest.raises(ProviderError) as caught:
        replica.ask()

    assert caught.value.code == "provider_empty"
    assert replica.provider.cancelled == []
    assert replica.remembered == ""


@pytest.mark.parametrize("keeps", [True, False], ids=["theirs", "ours"])
def test_a_question_from_before_a_reset_stays_out_of_the_new_conversation(replica: Replica, keeps: bool) -> None:
    """Another owner that asks it again gets no history, and its answer is not added to the new conversation."""
    replica.provider.keeps_conversations = keeps
    replica.ask("before")
    replica.conversations._runner.run([replica.conversations.reset_call(replica.key, "command")])
    replica.ask("after")
    kept = (replica.remembered, replica.provider.queries[-1].history)
    attempt = Attempt(1, ProviderIds(), "", resets="0")

    list(replica.answerer.answer(QUESTION, "before-too", replica.deadline, attempt))
    replica.ask("next")

    again, following = replica.provider.queries[-2:]
    assert (again.conversation_id, again.history) == ("", ())
    assert len(following.history) == (0 if keeps else 1)
    assert replica.remembered == kept[0]


def test_a_mocked_answer_is_not_in_the_history(replica: Replica) -> None:
    """The mock's sentence is no part of a conversation with the provider."""
    replica.provider.keeps_conversations = False
    replica.provider.script = lambda query: iter([Mocked(), Delta("模拟")])

    replica.ask("1")
    replica.ask("2")

    assert [query.history for query in replica.provider.queries] == [(), ()]
