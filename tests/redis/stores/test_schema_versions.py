"""Two versions side by side, as during a rolling update: each reads, ends and continues the other's streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from services.redis.store import ScriptRunner
from services.streams.records import Appended, Chunk, NewStream, Snapshot, Takeover, Write, taken_stream
from services.streams.store import SCHEMA_VERSION, StreamStore, stream_keys
from tests.redis.streams.test_takeover_manager import Replica
from tests.support.schema_1.replica import FIELDS, OldReplica

ID = "s"
KEYS = stream_keys(ID)
LEASE, FRAME = 6.0, 330.0
#: Seconds from a suspicion to the takeover of a silent owner's stream.
GRACE = LEASE / 3 + 1
NEWER = str(int(SCHEMA_VERSION) + 1)


class Pair:
    """A replica of the old version and the present store on one Redis, with one clock."""

    def __init__(self, runner: ScriptRunner, client: redis.Redis) -> None:
        self.store = StreamStore(runner, lease=LEASE)
        self.old = OldReplica(client)
        self.client = client
        self._now = 1_000.0
        self.pass_time(0.0)

    def pass_time(self, seconds: float) -> None:
        self._now += seconds
        self.store.now = self.old.now = str(self._now)

    def opens(self) -> None:
        """Open the stream as this version does, with a first chunk."""
        assert self.store.open(NewStream(ID, "new", {**FIELDS, "asks": "0"}, frame_seconds=FRAME))[0]
        assert self.writes("年", index=0) == Appended("ok", 1)

    def writes(self, *texts: str, index: int, epoch: int = 1) -> Any:
        chunks = tuple(Chunk(text, "t") for text in texts)
        return self.store.write([Write(ID, epoch, "new", 0, index, chunks)])[0]

    def sees(self) -> Snapshot:
        snapshot = self.store.read(ID)
        assert snapshot
        return snapshot

    def takes_over(self) -> Takeover:
        """Take the stream over after a lapsed lease and an old enough suspicion."""
        self.pass_time(LEASE)
        assert self.store.takeover(ID, "new").outcome == "suspect"
        self.pass_time(GRACE)
        return self.store.takeover(ID, "new")


@pytest.fixture
def pair(runner: ScriptRunner, redis_client: redis.Redis) -> Pair:
    return Pair(runner, redis_client)


def test_writes_of_the_old_version_are_read_as_they_come(pair: Pair) -> None:
    """This version reads its text, its replacement and its end."""
    pair.old.open()
    seen = []

    for write, text in ((pair.old.append, "年"), (pair.old.replace, "病"), (pair.old.finish, "假")):
        pair.pass_time(LEASE - 1)
        assert write(text)[0] == "ok"
        snapshot = pair.sees()
        seen.append((snapshot.text, snapshot.status, snapshot.start, snapshot.lapsed))

    assert seen == [("年", "processing", 0, False), ("病", "processing", 1, False), ("病假", "completed", 1, False)]
    page = pair.store.chunks(ID, 1)
    assert page
    assert [chunk.content for chunk in page.chunks] == ["病", "假"]


def test_writes_of_this_version_are_read_by_the_old_one(pair: Pair) -> None:
    """The old version reads snapshot, chunks and standing."""
    pair.opens()
    pair.pass_time(LEASE - 1)
    pair.writes("假", index=1)

    seen = pair.old.read()

    assert (seen["text"], seen["status"], seen["epoch"], seen["lapsed"]) == ("年假", "processing", 1, 0)
    assert pair.old.chunks(1) == ["假"]
    pair.pass_time(LEASE + 1)
    assert pair.old.standing() == ("processing", 1.0)


@pytest.mark.parametrize("writer", ["old", "new"])
def test_both_versions_show_the_text_at_the_frames_end(pair: Pair, writer: str) -> None:
    """Whichever version wrote and ended the frame, later text is stored but no longer shown in it."""
    if writer == "old":
        pair.old.open()
        pair.old.append("年")
    else:
        pair.opens()
    pair.pass_time(FRAME)

    if writer == "old":
        pair.sees()
        pair.old.append("假")
    else:
        pair.old.read()
        pair.writes("假", index=1)

    assert (pair.sees().text, pair.sees().frame_over) == ("年", True)
    assert (pair.old.read()["text"], pair.old.read()["over"]) == ("年", 1)
    assert pair.client.get(KEYS.text) == "年假"


def test_a_stream_is_not_opened_again_by_the_other_version(pair: Pair) -> None:
    """A message delivered to both has one stream and one producer."""
    pair.old.open()
    pair.old.append("年")

    ours, snapshot, _ = pair.store.open(NewStream(ID, "new", FIELDS))

    assert (ours, snapshot.text, snapshot.owner) == (False, "年", "old")
    pair.client.delete(*KEYS)
    pair.opens()
    assert not pair.old.open()


def test_a_dead_owners_stream_of_the_old_version_is_taken_over(pair: Pair) -> None:
    """Fields that the old version lacks have their defaults; the old owner is refused when it comes back."""
    pair.old.open()
    pair.old.append("年")

    taken = pair.takes_over()

    fields, chunks = pair.store.load(ID)
    new = taken_stream(ID, "new", taken, fields, chunks, pair.store.max_seconds)
    assert (taken.outcome, taken.epoch, taken.former_owner) == ("taken", 2, "old")
    assert (taken.kind, taken.takeovers) == ("takeover", 1)
    assert taken.seconds_left == pytest.approx(pair.store.max_seconds - LEASE - GRACE)
    assert (new.epoch, new.start, new.frame_seconds, new.age) == (2, 0, FRAME, LEASE + GRACE)
    assert pair.writes("假", index=1, epoch=2) == Appended("ok", 2)
    assert pair.old.append("日") == ["refused", "2", "new"]
    assert pair.sees().text == "年假"


def test_a_stream_that_the_old_version_released_is_a_handover(pair: Pair) -> None:
    """It is taken over at once, and does not count as a lost owner."""
    pair.old.open()
    pair.old.append("年", op="release")

    taken = pair.store.takeover(ID, "new")

    assert (taken.outcome, taken.kind, taken.takeovers, taken.former_owner) == ("taken", "handover", 0, "old")


def test_the_versions_share_the_suspicion(pair: Pair) -> None:
    """A mark of either version counts for both, and a renewal of either owner clears it."""
    pair.old.open()
    pair.pass_time(LEASE)

    other = OldReplica(pair.client, owner="other")
    other.now = pair.old.now
    assert other.reap() == "suspect"
    pair.pass_time(GRACE - 0.1)
    assert pair.store.takeover(ID, "new").outcome == "suspect"
    pair.old.append("年")
    pair.pass_time(LEASE)
    assert pair.store.takeover(ID, "new").outcome == "suspect"
    pair.pass_time(GRACE)
    assert pair.store.takeover(ID, "new").outcome == "taken"


def test_the_old_version_ends_this_ones_lapsed_stream(pair: Pair) -> None:
    """The old version cannot continue it; this version's owner is then refused, and both show that end."""
    pair.opens()
    pair.pass_time(LEASE)
    assert pair.old.reap() == "suspect"
    pair.pass_time(GRACE)

    assert pair.old.reap() == "taken"

    assert (pair.sees().text, pair.sees().status, pair.sees().error_code) == ("年", "error", "interrupted")
    assert pair.writes("假", index=1) == Appended("refused", epoch=2, owner="old")


def test_a_stream_is_cancelled_by_the_other_version(pair: Pair) -> None:
    """The owner gets the cancellation as the reply to its next append."""
    pair.opens()
    assert pair.old.cancel() == "processing"
    assert pair.writes("假", index=1) == Appended("closed", status="cancelled")

    pair.client.delete(*KEYS)
    pair.old.open()
    assert pair.store.cancel(ID) == "processing"
    assert pair.old.append("年") == ["closed", "cancelled"]


def test_a_sweep_finds_streams_that_the_old_version_indexed(pair: Pair) -> None:
    """The old version indexes its streams by its own clock, in the same sorted sets."""
    pair.old.open()
    pair.old.note_running(1_000.0 + LEASE)

    early = pair.store.lapsed()
    pair.pass_time(LEASE)

    assert (early, pair.store.lapsed()) == ([], [ID])


def test_a_newer_versions_stream_is_not_taken_over_before_its_deadline(pair: Pair) -> None:
    """It is read as usual; after the producer's deadline this version takes it over to end it."""
    pair.opens()
    pair.client.hset(KEYS.hash, mapping={"v": NEWER, "unheard_of": "1"})
    pair.pass_time(LEASE)

    outcomes = []
    for seconds in (0.0, GRACE, FRAME):
        pair.pass_time(seconds)
        outcomes.append(pair.store.takeover(ID, "new 2").outcome)

    assert outcomes == ["newer"] * 3
    assert (pair.sees().text, pair.sees().frame_over) == ("年", True)
    assert pair.writes("假", index=1) == Appended("ok", 2)
    pair.pass_time(pair.store.max_seconds)
    assert pair.store.takeover(ID, "new 2").outcome == "suspect"
    pair.pass_time(GRACE)
    assert pair.store.takeover(ID, "new 2").outcome == "taken"


@pytest.fixture
def replica(any_redis_url: str) -> Iterator[Replica]:
    replica = Replica(any_redis_url)
    yield replica
    replica.close()


def lapse(client: redis.Redis, **fields: str) -> None:
    """Set the lease and the suspicion of the stream's owner to long ago."""
    fields |= {"lease": "1", "suspect": "1"}
    client.hset(KEYS.hash, items=[part for pair in fields.items() for part in pair])


def test_an_old_streams_answer_is_recovered(replica: Replica, redis_client: redis.Redis) -> None:
    """The old version did not count its requests, so the provider may have the answer, and it is fetched first."""
    old = OldReplica(redis_client)
    old.open()
    old.append("年假", conversation_id="c1", message_id="m1", task_id="t1", run_id="r1")
    lapse(redis_client)
    replica.provider.kept = "年假十天"

    assert replica.takeovers.attempt(ID) == "taken"

    end = replica.sees_end()
    assert (end.text, end.status) == ("年假十天", "completed")
    assert ([ids.message_id for ids in replica.provider.recovered], replica.provider.asked) == (["m1"], [])


def test_an_old_streams_question_is_asked_again(replica: Replica, redis_client: redis.Redis) -> None:
    """The provider has no answer; the request counts as the stream's second."""
    old = OldReplica(redis_client)
    old.open()
    old.append("一半")
    lapse(redis_client)

    assert replica.takeovers.attempt(ID) == "taken"

    assert (replica.sees_end().text, len(replica.provider.asked)) == ("新的答案", 1)
    assert redis_client.hget(KEYS.hash, "asks") == "2"


def test_a_newer_versions_stream_is_ended_after_its_deadline(replica: Replica, redis_client: redis.Redis) -> None:
    """It keeps its text and gets an error sentence; unknown fields of hash, question and chunks do no harm."""
    question = {**json.loads(FIELDS["question"]), "unheard_of": 1}
    fields = {**FIELDS, "question": json.dumps(question), "asks": "1"}
    replica.store.open(NewStream(ID, "newer", fields, (Chunk("年假", "t"),)))
    chunk = {"content": "年假", "timestamp": "t", "unheard_of": True}
    redis_client.lset(KEYS.messages, 0, json.dumps(chunk, ensure_ascii=False))
    lapse(redis_client, v=NEWER)
    before = replica.takeovers.attempt(ID)
    lapse(redis_client, deadline="2")

    after = replica.takeovers.attempt(ID)

    assert (before, after) == ("newer", "taken")
    end = replica.sees_end()
    assert (end.text, end.status, end.error_code) == ("年假", "error", "answer_timeout")
    assert (replica.provider.asked, replica.provider.recovered) == ([], [])
