"""Takeover of streams without an owner: found by polls and sweeps, and continued by exactly one replica."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from services.answers.takeover import MAX_LOOK_UPS, MAX_TAKEOVERS
from services.errors import ProviderError, StoreUnavailable, Unrecoverable
from services.models import Delta, ProviderEvent, ProviderIds, Query, Question
from services.providers.base import BaseRAGProvider, Recovered
from services.streams.records import Chunk, NewStream, Snapshot, Write, taken_stream
from services.streams.store import stream_keys
from tests.support.servers.processes import free_port, wait_until
from tests.support.streams.desk import Desk
from utils.deadline import Deadline

QUESTION = Question("年假?", "wecom", "default", "zhangsan")
IDS = {"conversation_id": "c1", "message_id": "m1", "task_id": "t1", "run_id": "r1"}


class RememberingProvider(BaseRAGProvider):
    """A provider that answers, and that may have kept the answer to an earlier request."""

    name = "remembering"
    app = "app"

    def __init__(self) -> None:
        self.kept = ""
        self.asked: list[Query] = []
        self.recovered: list[ProviderIds] = []
        self.cancelled: list[ProviderIds] = []

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        self.asked.append(query)
        yield ProviderIds("c2", "m2", "t2")
        yield Delta("新的")
        yield Delta("答案")

    def recover(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        self.recovered.append(ids)
        if not self.kept:
            raise Unrecoverable("it is gone")
        return Recovered(self.kept)

    def cancel(self, ids: ProviderIds, user: str) -> None:
        self.cancelled.append(ids)

    def health_check(self) -> bool:
        return True


class Replica(Desk):
    """A replica with a provider that remembers; its sweep, once it is started, begins at once."""

    def __init__(self, url: str) -> None:
        self.provider = RememberingProvider()
        super().__init__(url, self.provider, lease=60.0, variables={"STREAM_MAX_SECONDS": "600"})
        self.store, self.takeovers = self.streams, self.container.takeovers
        self.takeovers._dice = lambda low, high: low

    def sees(self, stream_id: str = "s") -> Snapshot:
        snapshot = self.store.read(stream_id)
        assert snapshot
        return snapshot

    def ends(self) -> Snapshot:
        """Wait until the stream has ended and its producer too, and return it."""
        wait_until(lambda: self.sees().status != "processing")
        wait_until(lambda: self.manager.running == 0)
        return self.sees()


@pytest.fixture
def replica(any_redis_url: str) -> Iterator[Replica]:
    replica = Replica(any_redis_url)
    yield replica
    replica.close()


def leave_behind(replica: Replica, redis_client: redis.Redis, text: str = "一半", **fields: str) -> None:
    """Leave a stream as an owner that was killed long enough ago, with its person's slot and turn still held."""
    start = {"status": "processing", "question": QUESTION.to_json(), "asks": "0", **fields}
    store, key = replica.store, replica.container.answerer.conversation(QUESTION)
    new = NewStream("s", "dead", start, frame_seconds=330.0)
    store.open(
        new,
        store.enter_call("default", "zhangsan", "s", slots=3, seconds=300.0),
        replica.container.conversations.turn_call(key, "s"),
        *store.running_calls(["s"], seconds=0.0),
    )
    if text:
        store.write([Write("s", 1, "dead", 0, 0, (Chunk(text, "t"),))])
    lapse(redis_client)


def lapse(redis_client: redis.Redis) -> None:
    redis_client.hset(stream_keys("s").hash, mapping={"lease": "1", "suspect": "1"})


def test_a_question_that_was_never_asked_is_asked(replica: Replica, redis_client: redis.Redis) -> None:
    """The owner died before that: nothing is recovered, this is the first request, and its end frees slot and turn."""
    leave_behind(replica, redis_client, text="")

    assert replica.takeovers.attempt("s") == "taken"

    end = replica.ends()
    assert (end.status, end.text, end.epoch) == ("completed", "新的答案", 2)
    assert (len(replica.provider.asked), replica.provider.recovered) == (1, [])
    assert redis_client.hget(stream_keys("s").hash, "asks") == "1"
    assert redis_client.exists("dify_user:default:zhangsan") == 0
    assert redis_client.keys("*:turns") == []


@pytest.mark.parametrize(
    ("kept", "start"), [("一半和另一半", 0), ("一半", 0), ("完全不同", 1)], ids=["extended", "unchanged", "replaced"]
)
def test_an_answer_that_the_provider_has_is_not_asked_again(
    replica: Replica, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture, kept: str, start: int
) -> None:
    """The provider's whole answer extends the text, or replaces it; the text was whole once, and Redis lost a part."""
    caplog.set_level(logging.INFO)
    leave_behind(replica, redis_client, asks="1", whole="1000", **IDS)
    replica.provider.kept = kept

    replica.takeovers.attempt("s")

    end = replica.ends()
    assert (end.status, end.text, end.start) == ("completed", kept, start)
    assert (replica.provider.asked, replica.provider.cancelled) == ([], [])
    assert replica.provider.recovered == [ProviderIds("c1", "m1", "t1", "r1")]
    line = next(record.__dict__ for record in caplog.records if record.getMessage() == "answer recovered")
    outcome = {"一半和另一半": "extended", "一半": "unchanged", "完全不同": "replaced"}[kept]
    assert (line["outcome"], line["former_owner"], line["owner"]) == (outcome, "dead", end.owner)


def test_an_unrecoverable_answer_is_asked_once_more(
    replica: Replica, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """The old run is stopped, and the new answer replaces the old text."""
    leave_behind(replica, redis_client, asks="1", **IDS)

    replica.takeovers.attempt("s")

    end = replica.ends()
    assert (end.status, end.text, end.start) == ("completed", "新的答案", 1)
    assert replica.store.load("s")[1][0].content == "一半", "the list only grows"
    assert (len(replica.provider.asked), replica.provider.cancelled) == (1, [ProviderIds("c1", "m1", "t1", "r1")])
    assert redis_client.hget(stream_keys("s").hash, "asks") == "2"
    line = next(record.__dict__ for record in caplog.records if record.getMessage() == "question asked again")
    assert (line["cause"], line["former_owner"], line["owner"]) == ("it is gone", "dead", end.owner)


@pytest.mark.parametrize(
    ("asks", "lost", "look_ups"),
    [(2, 0, 1), (1, MAX_TAKEOVERS - 1, 1), (1, MAX_LOOK_UPS - 2, 1), (1, MAX_LOOK_UPS - 1, 0)],
    ids=["asked twice", "many owners", "nearly too many", "too many"],
)
def test_a_stream_ends_after_too_many_takeovers(
    replica: Replica, redis_client: redis.Redis, asks: int, lost: int, look_ups: int
) -> None:
    """It is not asked again, then not looked up either: the text stays, with a sentence."""
    leave_behind(replica, redis_client, asks=str(asks), takeovers=str(lost), **IDS)

    replica.takeovers.attempt("s")

    end = replica.ends()
    assert (end.status, end.error_code, end.text) == ("error", "interrupted", "一半")
    assert (len(replica.provider.recovered), replica.provider.asked) == (look_ups, [])


@pytest.mark.parametrize("kept", ["一半", "一半和另一半"])
def test_an_answer_that_the_provider_finished_is_never_interrupted(
    replica: Replica, redis_client: redis.Redis, kept: str
) -> None:
    """Neither many takeovers nor a second request change that."""
    leave_behind(replica, redis_client, asks="2", takeovers=str(MAX_TAKEOVERS), **IDS)
    replica.provider.kept = kept

    replica.takeovers.attempt("s")

    end = replica.ends()
    assert (end.status, end.error_code, end.text) == ("completed", "", kept)


@pytest.mark.parametrize(
    "fields",
    [{"takeovers": str(MAX_LOOK_UPS + 1)}, {"asks": "2"}, {"bot": "gone"}],
    ids=["owners", "asks", "bot"],
)
def test_a_text_known_to_be_whole_only_gets_its_end(
    replica: Replica, redis_client: redis.Redis, fields: dict[str, str]
) -> None:
    """Its owner had received the provider's end: no provider is asked, and the stream completes."""
    leave_behind(replica, redis_client, **{"asks": "1", **IDS, **fields}, whole=str(len("一半".encode())))
    redis_client.hset(stream_keys("s").hash, "deadline", "2")

    replica.takeovers.attempt("s")

    end = replica.ends()
    assert (end.status, end.error_code, end.text) == ("completed", "", "一半")
    assert (replica.provider.asked, replica.provider.recovered) == ([], [])


def test_a_handover_does_not_count_as_a_lost_owner(replica: Replica, redis_client: redis.Redis) -> None:
    """It needs no suspicion either."""
    leave_behind(replica, redis_client, asks="1", takeovers=str(MAX_TAKEOVERS - 1), **IDS)
    redis_client.hset(stream_keys("s").hash, mapping={"lease": "0", "suspect": "0"})
    replica.provider.kept = "一半和另一半"

    replica.takeovers.attempt("s")

    assert replica.ends().text == "一半和另一半"


def test_a_stream_past_its_deadline_ends(replica: Replica, redis_client: redis.Redis) -> None:
    """The new owner does not ask the provider, because no time is left for an answer."""
    leave_behind(replica, redis_client, asks="1", **IDS)
    redis_client.hset(stream_keys("s").hash, "deadline", "2")

    replica.takeovers.attempt("s")

    end = replica.ends()
    assert (end.error_code, end.text, replica.provider.recovered) == ("answer_timeout", "一半", [])


@pytest.mark.parametrize(
    "question",
    [
        "",
        "{",
        '{"text": 1}',
        '{"text":"?","channel":"wecom","bot":"gone","principal":"z"}',
        '{"text":"?","channel":"toy","bot":"default","principal":"z"}',
        '{"text":"?","channel":"wecom","bot":"default","principal":"z","chat":null}',
    ],
)
def test_a_question_that_cannot_be_asked_ends(replica: Replica, redis_client: redis.Redis, question: str) -> None:
    """It cannot be read, or this replica lacks its bot or channel: its readers get a sentence."""
    leave_behind(replica, redis_client)
    redis_client.hset(stream_keys("s").hash, "question", question)

    replica.takeovers.attempt("s")

    assert replica.ends().error_code == "interrupted"


def test_an_ended_stream_of_an_unknown_channel_does_not_stop_the_sweep(
    replica: Replica, redis_client: redis.Redis
) -> None:
    """A replica of another version has the channel: the stream leaves the index, and the sweep continues."""
    leave_behind(replica, redis_client)
    question = '{"text":"?","channel":"toy","bot":"default","principal":"z"}'
    redis_client.hset(stream_keys("s").hash, mapping={"question": question, "status": "completed"})

    assert not replica.takeovers.sweep()

    assert replica.store.lapsed() == []


def test_of_concurrent_takeovers_one_succeeds(any_redis_url: str, redis_client: redis.Redis) -> None:
    """Fifty polls on two replicas make one new owner and one provider call."""
    pair = [Replica(any_redis_url), Replica(any_redis_url)]
    leave_behind(pair[0], redis_client, text="")

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(lambda n: pair[n % 2].takeovers.attempt("s"), range(50)))

    assert outcomes.count("taken") == 1
    assert pair[0].ends().epoch == 2
    wait_until(lambda: pair[1].manager.running == 0)
    assert sum(len(replica.provider.asked) for replica in pair) == 1
    for replica in pair:
        replica.close()


def test_the_sweep_takes_over_a_stream_that_is_not_polled(replica: Replica, redis_client: redis.Redis) -> None:
    """The first sweep marks it as suspect, a later one takes it over, and the ended stream leaves the index."""
    leave_behind(replica, redis_client, text="")
    redis_client.hdel(stream_keys("s").hash, "suspect")

    assert replica.takeovers.sweep(), "now it is suspect"
    assert replica.takeovers.sweep(), "the suspicion is not old enough"
    lapse(redis_client)
    assert not replica.takeovers.sweep()

    assert replica.ends().text == "新的答案"
    wait_until(lambda: not redis_client.keys("dify_streams:running:*"))


def test_the_sweep_removes_ended_streams_from_the_index(replica: Replica, redis_client: redis.Redis) -> None:
    """The stream is gone, or ended without its owner removing it."""
    replica.store.write([], *replica.store.running_calls(["gone", "ended"], seconds=0.0))
    replica.store.open(NewStream("ended", "dead", {"status": "completed"}))

    assert not replica.takeovers.sweep()

    assert redis_client.keys("dify_streams:running:*") == []


def test_the_sweep_releases_slot_and_turn_of_an_ended_stream(replica: Replica, redis_client: redis.Redis) -> None:
    """Its owner was killed between the stream's end and the release."""
    leave_behind(replica, redis_client)
    redis_client.hset(stream_keys("s").hash, "status", "completed")
    assert redis_client.exists("dify_user:default:zhangsan")

    replica.takeovers.sweep()

    assert redis_client.exists("dify_user:default:zhangsan") == 0
    assert redis_client.keys("*:turns") == []
    assert redis_client.keys("dify_streams:running:*") == []


def test_an_error_in_one_stream_does_not_stop_the_sweep(
    replica: Replica, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """After a damaged hash the sweep continues with the next stream."""
    leave_behind(replica, redis_client, text="")
    redis_client.set(stream_keys("a damaged one").hash, "no hash")
    replica.store.write([], *replica.store.running_calls(["a damaged one"], seconds=-60.0))

    replica.takeovers.sweep()

    assert replica.ends().text == "新的答案"


def test_a_taker_with_other_settings_keeps_the_frames_end(replica: Replica, redis_client: redis.Redis) -> None:
    """During a rolling update the new replicas may have another maximal time for producers."""
    replica.store.open(NewStream("s", "dead", {"status": "processing"}, frame_seconds=330.0))
    lapse(redis_client)
    taken = replica.store.takeover("s", "me")
    fields, chunks = replica.store.load("s")

    for max_seconds in (600.0, 6000.0):
        new = taken_stream("s", "me", taken, fields, chunks, max_seconds)
        assert new.frame_seconds
        assert 320 < new.frame_seconds - new.age <= 331


def test_every_replica_sweeps_by_itself(replica: Replica, redis_client: redis.Redis) -> None:
    """No poll is needed."""
    leave_behind(replica, redis_client, text="")

    replica.takeovers.start()

    assert replica.ends().text == "新的答案"


def test_a_full_replica_takes_no_stream_over(any_redis_url: str, redis_client: redis.Redis) -> None:
    """Neither an attempt nor a sweep changes the owner."""
    full = Replica(any_redis_url)
    leave_behind(full, redis_client)
    while not full.manager.reserve():
        pass

    assert full.takeovers.attempt("s") == ""
    assert not full.takeovers.sweep()

    assert full.sees().epoch == 1
    while full.manager.running:
        full.manager.give_back()
    full.close()


def test_a_takeover_without_redis_releases_its_slot() -> None:
    """No stream is taken over, and the reserved slot is free again."""
    replica = Replica(f"redis://127.0.0.1:{free_port()}/0")

    with pytest.raises(StoreUnavailable):
        replica.takeovers.attempt("s")

    assert replica.manager.running == 0
    replica.close()


def test_a_new_owner_that_is_fenced_in_turn_stops_recovering(replica: Replica, redis_client: redis.Redis) -> None:
    """It was paused during the recovery: another owner has the stream, and the provider's run is not stopped."""
    begun, fenced = threading.Event(), threading.Event()

    def recover(query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        begun.set()
        with deadline.interrupting(fenced.set):
            fenced.wait(60.0)
        raise ProviderError(code=("interrupted" if deadline.aborted == "fenced" else "provider_error"))

    replica.provider.recover = recover  # type: ignore[method-assign]
    leave_behind(replica, redis_client, asks="1", **IDS)
    replica.takeovers.attempt("s")
    begun.wait(60.0)
    owned = replica.manager.owned("s")
    assert owned

    def lost() -> bool:
        lapse(redis_client)
        return replica.store.takeover("s", "third").outcome == "taken"

    # A renewal in between clears the suspicion.
    wait_until(lost)
    owned.touch()
    wait_until(lambda: replica.manager.running == 0)
    assert fenced.is_set()
    left = replica.sees()
    assert (left.status, left.text, left.owner, replica.provider.cancelled) == ("processing", "一半", "third", [])
