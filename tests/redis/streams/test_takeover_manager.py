"""Streams of owners that are gone: found by polls and sweeps, gone on with by exactly one, whatever was done before."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from channels.registry import CHANNELS
from services.answers.answer import Answerer, Backend
from services.answers.conversation_memory import MemoryStores
from services.answers.conversation_store import ConversationStore
from services.answers.takeover import MAX_LOOK_UPS, MAX_TAKEOVERS, TakeoverManager
from services.channels import Channels
from services.errors import ProviderError, StoreUnavailable, Unrecoverable
from services.identity.auth_service import AuthService
from services.models import Delta, ProviderEvent, ProviderIds, Query, Question, Recovered
from services.providers.base import BaseRAGProvider
from services.redis.store import ScriptRunner, connect
from services.streams.manager import StreamLimits, StreamManager
from services.streams.records import Chunk, NewStream, Snapshot, Write, taken_stream
from services.streams.store import StreamStore, stream_keys
from tests.support.servers.processes import free_port, wait_until
from utils.deadline import Deadline

QUESTION = Question("年假?", "wecom", "default", "zhangsan")
IDS = {"conversation_id": "c1", "message_id": "m1", "task_id": "t1", "run_id": "r1"}


class RememberingProvider(BaseRAGProvider):
    """A provider that answers, and may still have what it was asked before."""

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


class Replica:
    """A replica's parts that take over; its provider is the test's."""

    def __init__(self, url: str, *, max_streams: int = 100) -> None:
        self.client = connect(url, pool_size=10, timeout=5.0)
        runner = ScriptRunner(self.client)
        self.store = StreamStore(runner, lease=3.0, max_seconds=60.0)
        self.provider = RememberingProvider()
        self.answerer = Answerer(
            auth=AuthService("none"),
            backends={"default": Backend(self.provider)},
            memory=MemoryStores(ConversationStore(runner, secret=b"s", ttl=100.0)),
            streams=self.store,
            channels=Channels(CHANNELS, {}),
        )
        self.manager = StreamManager(
            self.store,
            self.answerer.answer,
            sentence=lambda code: f"<{code}>",
            limits=StreamLimits(max_streams, max_bytes=100_000),
        )
        self.takeovers = TakeoverManager(self.store, self.manager, self.answerer)
        self.manager.start()

    def sees(self, stream_id: str = "s") -> Snapshot:
        snapshot = self.store.read(stream_id)
        assert snapshot
        return snapshot

    def sees_end(self, stream_id: str = "s") -> Snapshot:
        wait_until(lambda: self.sees(stream_id).status != "processing")
        wait_until(lambda: self.manager.running == 0)
        return self.sees(stream_id)

    def close(self) -> None:
        self.takeovers.close()
        self.manager.drain(3.0)
        self.manager.close()
        self.client.close()


@pytest.fixture
def replica(any_redis_url: str) -> Iterator[Replica]:
    replica = Replica(any_redis_url)
    yield replica
    replica.close()


def leave_behind(replica: Replica, redis_client: redis.Redis, text: str = "一半", **fields: str) -> None:
    """Leave a stream as an owner does that was killed long enough ago, its person's place and turn still taken."""
    start = {"status": "processing", "question": QUESTION.to_json(), "asks": "0", **fields}
    store, key = replica.store, replica.answerer.conversation(QUESTION)
    new = NewStream("s", "dead", start, frame_seconds=330.0)
    store.open(
        new,
        store.enter_call("default", "zhangsan", "s", slots=3, seconds=300.0),
        ConversationStore(ScriptRunner(replica.client), secret=b"s", ttl=100.0).turn_call(key, "s"),
        *store.running_calls(["s"], seconds=0.0),
    )
    if text:
        store.write([Write("s", 1, "dead", 0, 0, (Chunk(text, "t"),))])
    lapse(redis_client)


def lapse(redis_client: redis.Redis) -> None:
    redis_client.hset(stream_keys("s").hash, mapping={"lease": "1", "suspect": "1"})


def test_what_was_never_asked_is_asked(replica: Replica, redis_client: redis.Redis) -> None:
    """The owner died before it came to that: nothing to recover, nothing counted as a second time."""
    leave_behind(replica, redis_client, text="")

    assert replica.takeovers.attempt("s") == "taken"

    end = replica.sees_end()
    assert (end.status, end.text, end.epoch) == ("completed", "新的答案", 2)
    assert (len(replica.provider.asked), replica.provider.recovered) == (1, [])
    assert redis_client.hget(stream_keys("s").hash, "asks") == "1"


@pytest.mark.parametrize(
    ("kept", "start"), [("一半和另一半", 0), ("一半", 0), ("完全不同", 1)], ids=["extended", "unchanged", "replaced"]
)
def test_what_the_provider_has_is_not_asked_again(
    replica: Replica, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture, kept: str, start: int
) -> None:
    """Its whole answer extends the text, or takes its place."""
    caplog.set_level(logging.INFO)
    leave_behind(replica, redis_client, asks="1", **IDS)
    replica.provider.kept = kept

    replica.takeovers.attempt("s")

    end = replica.sees_end()
    assert (end.status, end.text, end.start) == ("completed", kept, start)
    assert (replica.provider.asked, replica.provider.cancelled) == ([], [])
    assert replica.provider.recovered == [ProviderIds("c1", "m1", "t1", "r1")]
    line = next(record.__dict__ for record in caplog.records if record.getMessage() == "answer recovered")
    outcome = {"一半和另一半": "extended", "一半": "unchanged", "完全不同": "replaced"}[kept]
    assert (line["outcome"], line["former_owner"], line["owner"]) == (outcome, "dead", end.owner)


def test_what_cannot_be_recovered_is_asked_once_more(
    replica: Replica, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """The old run is stopped, and the new answer takes the old text's place."""
    leave_behind(replica, redis_client, asks="1", **IDS)

    replica.takeovers.attempt("s")

    end = replica.sees_end()
    assert (end.status, end.text, end.start) == ("completed", "新的答案", 1)
    assert replica.store.load("s")[1][0].content == "一半", "the list only grows"
    assert (len(replica.provider.asked), replica.provider.cancelled) == (1, [ProviderIds("c1", "m1", "t1", "r1")])
    assert redis_client.hget(stream_keys("s").hash, "asks") == "2"
    line = next(record.__dict__ for record in caplog.records if record.getMessage() == "question asked again")
    assert (line["cause"], line["former_owner"], line["owner"]) == ("it is gone", "dead", end.owner)


def test_nothing_is_asked_three_times(replica: Replica, redis_client: redis.Redis) -> None:
    """The text so far stays, with a sentence."""
    leave_behind(replica, redis_client, asks="2", **IDS)

    replica.takeovers.attempt("s")

    end = replica.sees_end()
    assert (end.status, end.error_code, end.text) == ("error", "interrupted", "一半")
    assert replica.provider.asked == []


def test_a_stream_that_loses_owner_after_owner_ends(replica: Replica, redis_client: redis.Redis) -> None:
    """A question that kills whoever answers it is not handed round for ever."""
    leave_behind(replica, redis_client, asks="1", takeovers=str(MAX_LOOK_UPS - 1), **IDS)

    replica.takeovers.attempt("s")

    end = replica.sees_end()
    assert (end.error_code, end.text) == ("interrupted", "一半")
    assert replica.provider.recovered == []


@pytest.mark.parametrize("takeovers", [MAX_TAKEOVERS, MAX_LOOK_UPS - 1])
def test_after_many_owners_an_answer_is_looked_up_and_not_asked_again(
    replica: Replica, redis_client: redis.Redis, takeovers: int
) -> None:
    """The provider may have finished it; where it has not, the text so far stays, with a sentence."""
    leave_behind(replica, redis_client, asks="1", takeovers=str(takeovers - 1), **IDS)

    replica.takeovers.attempt("s")

    end = replica.sees_end()
    assert (end.error_code, end.text) == ("interrupted", "一半")
    assert (len(replica.provider.recovered), replica.provider.asked) == (1, [])


@pytest.mark.parametrize("kept", ["一半", "一半和另一半"])
def test_what_the_provider_finished_is_never_interrupted(
    replica: Replica, redis_client: redis.Redis, kept: str
) -> None:
    """However many owners were lost, and however often it was asked."""
    leave_behind(replica, redis_client, asks="2", takeovers=str(MAX_TAKEOVERS), **IDS)
    replica.provider.kept = kept

    replica.takeovers.attempt("s")

    end = replica.sees_end()
    assert (end.status, end.error_code, end.text) == ("completed", "", kept)


@pytest.mark.parametrize(
    "fields",
    [{"takeovers": str(MAX_LOOK_UPS + 1)}, {"asks": "2"}, {"bot": "gone"}],
    ids=["owners", "asks", "bot"],
)
def test_a_text_known_to_be_whole_only_gets_its_end(
    replica: Replica, redis_client: redis.Redis, fields: dict[str, str]
) -> None:
    """Its owner had heard the provider's last word: nobody is asked anything, and nothing is interrupted."""
    leave_behind(replica, redis_client, **{"asks": "1", **IDS, **fields}, whole=str(len("一半".encode())))
    redis_client.hset(stream_keys("s").hash, "deadline", "2")

    replica.takeovers.attempt("s")

    end = replica.sees_end()
    assert (end.status, end.error_code, end.text) == ("completed", "", "一半")
    assert (replica.provider.asked, replica.provider.recovered) == ([], [])


def test_a_text_that_redis_has_lost_a_part_of_is_not_whole(replica: Replica, redis_client: redis.Redis) -> None:
    """The mark names its length."""
    leave_behind(replica, redis_client, asks="1", whole="1000", **IDS)
    replica.provider.kept = "一半和另一半"

    replica.takeovers.attempt("s")

    assert replica.sees_end().text == "一半和另一半"


def test_a_handover_is_no_loss(replica: Replica, redis_client: redis.Redis) -> None:
    """An owner that leaves counts for nothing, and needs no suspicion."""
    leave_behind(replica, redis_client, asks="1", takeovers=str(MAX_TAKEOVERS - 1), **IDS)
    redis_client.hset(stream_keys("s").hash, mapping={"lease": "0", "suspect": "0"})
    replica.provider.kept = "一半和另一半"

    replica.takeovers.attempt("s")

    assert replica.sees_end().text == "一半和另一半"


def test_a_stream_whose_time_is_over_ends(replica: Replica, redis_client: redis.Redis) -> None:
    """No new owner begins what no owner may finish."""
    leave_behind(replica, redis_client, asks="1", **IDS)
    redis_client.hset(stream_keys("s").hash, "deadline", "2")

    replica.takeovers.attempt("s")

    end = replica.sees_end()
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
def test_a_question_nobody_can_ask_ends(replica: Replica, redis_client: redis.Redis, question: str) -> None:
    """It cannot be read, or this replica lacks its bot or channel: its readers get a sentence."""
    leave_behind(replica, redis_client)
    redis_client.hset(stream_keys("s").hash, "question", question)

    replica.takeovers.attempt("s")

    assert replica.sees_end().error_code == "interrupted"


def test_an_ended_stream_of_an_unknown_channel_stops_no_sweep(replica: Replica, redis_client: redis.Redis) -> None:
    """Another replica's channel, during a rolling update: the stream leaves the index, the others are swept."""
    leave_behind(replica, redis_client)
    question = '{"text":"?","channel":"toy","bot":"default","principal":"z"}'
    redis_client.hset(stream_keys("s").hash, mapping={"question": question, "status": "completed"})

    assert not replica.takeovers.sweep()

    assert replica.store.lapsed() == []


def test_what_the_person_held_is_given_back(replica: Replica, redis_client: redis.Redis) -> None:
    """Place and turn are free again when the stream has ended."""
    leave_behind(replica, redis_client)

    replica.takeovers.attempt("s")

    replica.sees_end()
    assert redis_client.exists("dify_user:default:zhangsan") == 0
    assert redis_client.keys("*:turns") == []


def test_of_all_who_try_at_once_one_gets_it(any_redis_url: str, redis_client: redis.Redis) -> None:
    """Fifty polls on two replicas: one new owner, one question to the provider."""
    pair = [Replica(any_redis_url), Replica(any_redis_url)]
    leave_behind(pair[0], redis_client, text="")

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(lambda n: pair[n % 2].takeovers.attempt("s"), range(50)))

    assert outcomes.count("taken") == 1
    assert pair[0].sees_end().epoch == 2
    wait_until(lambda: pair[1].manager.running == 0)
    assert sum(len(replica.provider.asked) for replica in pair) == 1
    for replica in pair:
        replica.close()


def test_a_stream_nobody_polls_is_found_by_the_sweep(replica: Replica, redis_client: redis.Redis) -> None:
    """First it becomes suspect, then it is gone on with; what has ended is forgotten."""
    leave_behind(replica, redis_client, text="")
    redis_client.hdel(stream_keys("s").hash, "suspect")

    assert replica.takeovers.sweep(), "now it is suspect"
    assert replica.takeovers.sweep(), "and not ripe"
    lapse(redis_client)
    assert not replica.takeovers.sweep()

    assert replica.sees_end().text == "新的答案"
    wait_until(lambda: not redis_client.keys("dify_streams:running:*"))


def test_the_sweep_forgets_what_ended(replica: Replica, redis_client: redis.Redis) -> None:
    """Ids whose stream is gone, or ended without its owner's saying so, leave the index."""
    replica.store.write([], *replica.store.running_calls(["gone", "ended"], seconds=0.0))
    replica.store.open(NewStream("ended", "dead", {"status": "completed"}))

    assert not replica.takeovers.sweep()

    assert redis_client.keys("dify_streams:running:*") == []


def test_the_sweep_gives_back_what_an_ended_stream_still_holds(replica: Replica, redis_client: redis.Redis) -> None:
    """Its owner was killed between its last word and that."""
    leave_behind(replica, redis_client)
    redis_client.hset(stream_keys("s").hash, "status", "completed")
    assert redis_client.exists("dify_user:default:zhangsan")

    replica.takeovers.sweep()

    assert redis_client.exists("dify_user:default:zhangsan") == 0
    assert redis_client.keys("*:turns") == []
    assert redis_client.keys("dify_streams:running:*") == []


def test_what_is_wrong_with_one_stream_keeps_the_sweep_from_none(
    replica: Replica, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged hash, or a node that is away, is said, and the next one is looked at."""
    leave_behind(replica, redis_client, text="")
    redis_client.set(stream_keys("a damaged one").hash, "no hash")
    replica.store.write([], *replica.store.running_calls(["a damaged one"], seconds=-60.0))

    replica.takeovers.sweep()

    assert replica.sees_end().text == "新的答案"


def test_a_taker_with_other_settings_keeps_the_frames_end(replica: Replica, redis_client: redis.Redis) -> None:
    """During a roll-out the new replicas may allow a producer another time."""
    replica.store.open(NewStream("s", "dead", {"status": "processing"}, frame_seconds=330.0))
    lapse(redis_client)
    taken = replica.store.takeover("s", "me")
    fields, chunks = replica.store.load("s")

    for max_seconds in (60.0, 600.0):
        new = taken_stream("s", "me", taken, fields, chunks, max_seconds)
        assert new.frame_seconds
        assert 320 < new.frame_seconds - new.age <= 331


def test_every_replica_sweeps_by_itself(replica: Replica, redis_client: redis.Redis) -> None:
    """Nobody polls, nobody calls."""
    leave_behind(replica, redis_client, text="")

    replica.takeovers.start()

    assert replica.sees_end().text == "新的答案"


def test_a_full_replica_leaves_it_to_others(any_redis_url: str, redis_client: redis.Redis) -> None:
    """Neither mark nor owner changes."""
    full = Replica(any_redis_url, max_streams=0)
    leave_behind(full, redis_client)

    assert full.takeovers.attempt("s") == ""
    assert not full.takeovers.sweep()

    assert full.sees().epoch == 1
    full.close()


def test_without_redis_a_place_is_given_back() -> None:
    """Nothing is taken over, and nothing leaks."""
    replica = Replica(f"redis://127.0.0.1:{free_port()}/0")

    with pytest.raises(StoreUnavailable):
        replica.takeovers.attempt("s")

    assert replica.manager.running == 0
    replica.close()


def test_a_new_owner_that_is_fenced_in_turn_stops_recovering(replica: Replica, redis_client: redis.Redis) -> None:
    """It was paused while it asked the provider: another one has the stream, and the run is not stopped."""
    begun, fenced = threading.Event(), threading.Event()

    def recover(query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        begun.set()
        with deadline.interrupting(fenced.set):
            fenced.wait(10.0)
        raise ProviderError(code=("interrupted" if deadline.aborted == "fenced" else "provider_error"))

    replica.provider.recover = recover  # type: ignore[method-assign]
    leave_behind(replica, redis_client, asks="1", **IDS)
    replica.takeovers.attempt("s")
    begun.wait(10.0)

    def lost() -> bool:
        lapse(redis_client)
        return replica.store.takeover("s", "third").outcome == "taken"

    # A renewal may come in between.
    wait_until(lost)
    wait_until(lambda: replica.manager.running == 0)
    assert fenced.is_set()
    left = replica.sees()
    assert (left.status, left.text, left.owner, replica.provider.cancelled) == ("processing", "一半", "third", [])
