"""The invariants of a stream under any order of events: lost requests, lost replies, redelivery, polls, lost data."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import fakeredis
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.redis.store import ScriptRunner
from services.streams.owned_stream import MAX_REPLACEMENTS, OwnedStream
from services.streams.records import Appended, NewStream, Snapshot, Write
from services.streams.store import StreamStore, stream_keys
from tests.support.properties import examples
from utils.deadline import Deadline

ID = "s"
TEXT = st.text(max_size=12)
EMIT = st.tuples(st.just("emit"), TEXT)
REPLACE = st.tuples(st.just("replace"), TEXT)
FLUSH = st.tuples(st.just("flush"), st.sampled_from(["ok", "ok", "lost request", "lost reply", "late copy"]))
POLL = st.tuples(st.just("poll"), st.just(""))
LOSS = st.tuples(st.just("loss"), st.sampled_from(["everything", "the tail"]))


class World:
    """One stream, its owner, a Redis, and a connection between them that loses requests and replies on demand."""

    def __init__(self) -> None:
        self.redis = fakeredis.FakeRedis(decode_responses=True, encoding_errors="ignore")
        self.redis.flushall()
        self.store = StreamStore(ScriptRunner(self.redis))
        new = NewStream(ID, "owner", {"status": "processing"})
        self.store.open(new)
        self.owned = OwnedStream(new, deadline=Deadline(1000.0), changed=lambda _: None, max_bytes=10_000)
        self.written = ""
        self.replaced = 0
        self.seen: list[Snapshot] = []
        self._old: Write | None = None

    def emit(self, text: str) -> None:
        self.written += text.encode("utf-8", "replace").decode()
        self.owned.emit(text)

    def replace(self, text: str) -> None:
        if self.replaced == MAX_REPLACEMENTS:
            return
        self.replaced += 1
        self.written = text.encode("utf-8", "replace").decode()
        self.owned.replace(text)

    def flush(self, outcome: str) -> None:
        write = self.owned.next_write()
        if write is None or outcome == "lost request":
            return
        (reply,) = self.store.write([write])
        assert isinstance(reply, Appended)
        if outcome == "late copy" and self._old:
            self.store.write([self._old])
        self._old = write
        if outcome != "lost reply":
            self._settle(write, reply)

    def poll(self, _: str) -> None:
        snapshot = self.store.read(ID)
        assert snapshot
        self.seen.append(snapshot)

    def loss(self, extent: str) -> None:
        """Redis restarts without some acknowledged writes."""
        if extent == "everything":
            self.redis.flushall()
        elif self.redis.llen(stream_keys(ID).messages) > int(str(self.redis.hget(stream_keys(ID).hash, "start") or 0)):
            last = self.store.load(ID)[1][-1].content
            text = str(self.redis.get(stream_keys(ID).text) or "")
            self.redis.rpop(stream_keys(ID).messages)
            self.redis.set(stream_keys(ID).text, text[: len(text) - len(last)], keepttl=True)

    def end(self) -> None:
        """Finish the stream, and flush until Redis has all of it."""
        self.owned.finish("completed")
        for _ in range(10):
            self.flush("ok")
        assert self.owned.closed == "done"

    def text_is_the_chunks(self) -> None:
        """Check that the text is the chunks from `start` on, without errors."""
        start = int(str(self.redis.hget(stream_keys(ID).hash, "start")))
        chunks = self.store.load(ID)[1][start:]
        words = "".join(chunk.content for chunk in chunks if not chunk.is_error)
        assert words == (self.redis.get(stream_keys(ID).text) or "")

    def settled(self, owner: OwnedStream, write: Write) -> str:
        """Send an owner's write and settle the reply; return the outcome."""
        (reply,) = self.store.write([write])
        assert isinstance(reply, Appended)
        return owner.settle(write, reply)

    def _settle(self, write: Write, reply: Appended) -> None:
        if self.owned.settle(write, reply) == "gone":
            whole = self.owned.as_new()
            self.owned.rewritten(whole, self.store.open(whole)[0])

    def play(self, events: Sequence[tuple[str, str]]) -> None:
        for name, argument in events:
            getattr(self, name)(argument)


@settings(max_examples=examples(200))
@given(st.lists(EMIT | REPLACE | FLUSH | POLL, max_size=30))
def test_between_replacements_text_only_grows(events: list[tuple[str, str]]) -> None:
    """Invariants 1 and 2: at any moment the text is the list's chunks, and polls with one start never show less."""
    world = World()

    for event in events:
        world.play([event])
        world.text_is_the_chunks()
    world.end()
    world.poll("")

    assert world.seen[-1].text == world.written
    for earlier, later in pairwise(world.seen):
        assert later.start >= earlier.start
        assert later.start > earlier.start or later.text.startswith(earlier.text)


@settings(max_examples=examples(150))
@given(st.lists(EMIT | REPLACE | FLUSH | LOSS, max_size=30))
@example([("emit", "a"), ("flush", "ok"), ("loss", "the tail")])
@example([("emit", "a"), ("flush", "ok"), ("replace", "b"), ("flush", "ok"), ("loss", "everything")])
def test_an_owner_restores_text_that_redis_lost(events: list[tuple[str, str]]) -> None:
    """The owner sends lost chunks again, until the text is complete, with each chunk once."""
    world = World()

    world.play(events)
    world.end()
    world.poll("")

    assert (world.seen[-1].text, world.seen[-1].status) == (world.written, "completed")


@settings(max_examples=examples(100))
@given(st.lists(st.tuples(st.sampled_from("ab"), TEXT), max_size=20), st.integers(0, 20))
def test_only_one_owner_appends(writes: list[tuple[str, str]], takeover_at: int) -> None:
    """Invariant 4: no write of the old owner after a takeover changes anything."""
    world = World()
    other: OwnedStream | None = None
    written = {"a": "", "b": ""}

    for number, (name, text) in enumerate(writes):
        if number == takeover_at:
            world.redis.hset(stream_keys(ID).hash, mapping={"lease": "0", "suspect": "0"})
            taken = world.store.takeover(ID, "b")
            chunks = world.store.load(ID)[1]
            new = NewStream(ID, "b", {}, chunks, epoch=taken.epoch)
            other = OwnedStream(new, deadline=Deadline(1000.0), changed=lambda _: None, max_bytes=10_000)
        owner = world.owned if name == "a" else other
        if owner is None or owner.closed:
            continue
        owner.emit(text)
        write = owner.next_write()
        if write and world.settled(owner, write) == "ok":
            written[name] += text.encode("utf-8", "replace").decode()

    world.poll("")
    assert world.seen[-1].text == written["a"] + written["b"]
