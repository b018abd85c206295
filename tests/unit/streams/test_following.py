"""Following a stream from a cursor: each chunk once, on any replica, through takeovers, outages and lost data."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from services.errors import StoreUnavailable, StreamUnknown
from services.models import Attempt, Delta, Question, Replacement, Status
from services.redis.store import ScriptRunner
from services.streams.following import MAX_MISSES, Following, Misses, Update
from services.streams.long_text import FullAnswer
from services.streams.manager import StreamLimits, StreamManager
from services.streams.readers import StreamReaders
from services.streams.records import Chunk, ChunkPage, NewStream, Standing, Write
from services.streams.store import StreamStore, stream_keys
from tests.support.properties import examples
from tests.support.servers.processes import FakeClock, wait_until
from tests.support.streams.handlers import answers_of
from tests.support.texts import KEYS
from utils.deadline import Deadline

ID = "s"
SECONDS = 20.0


class Script:
    """Steps that the producers of a test wait for."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.changed = threading.Condition()
        self.over = False

    def say(self, *pieces: str) -> None:
        with self.changed:
            self.steps += pieces
            self.changed.notify_all()

    def end(self) -> None:
        with self.changed:
            self.over = True
            self.changed.notify_all()

    def answer(
        self, question: Question, stream_id: str, deadline: Deadline, attempt: Attempt | None
    ) -> Iterator[Delta | Replacement]:
        yielded = 0
        while True:
            with self.changed:
                while len(self.steps) == yielded:
                    if self.over or not self.changed.wait(SECONDS):
                        return
                piece = self.steps[yielded]
            yielded += 1
            yield Replacement(piece[1:]) if piece.startswith("!") else Delta(piece)


class Replica:
    """One replica: a store, a manager and readers; its takeover attempts are recorded in `tried`."""

    def __init__(self, client: redis.Redis, script: Script) -> None:
        self.store = StreamStore(ScriptRunner(client), lease=60.0)
        self.manager = StreamManager(
            self.store, self.store, answers_of(script.answer), texts=KEYS, limits=StreamLimits(10, max_bytes=100_000)
        )
        self.tried: list[str] = []
        self.readers = StreamReaders(self.store, self.manager, attempt=self.attempt)
        self.clock = FakeClock()
        self.misses = Misses(4.0, clock=self.clock)
        self.manager.start()
        self.readers.start()

    def attempt(self, stream_id: str) -> str:
        self.tried.append(stream_id)
        return "suspect"

    def asks(self) -> NewStream:
        new = NewStream(ID, self.manager.new_owner(), {"status": "processing", "access": "me"})
        assert self.manager.reserve() == ""
        self.store.open(new)
        self.manager.produce(new, Question("问", "chat", "default", "p"))
        return new

    def follows(self, cursor: int = 0, *, stream_id: str = ID, allowed: bool = True) -> Following:
        return Following(self.readers, stream_id, cursor, allows=lambda _: allowed, misses=self.misses)

    def close(self) -> None:
        self.readers.close()
        self.manager.drain(0.0)
        self.manager.close()


class Pair:
    """Two replicas that produce the same answer."""

    def __init__(self, client: redis.Redis) -> None:
        self.script = Script()
        self.here, self.there = Replica(client, self.script), Replica(client, self.script)
        self.client = client


@pytest.fixture
def pair(redis_client: redis.Redis) -> Iterator[Pair]:
    pair = Pair(redis_client)
    yield pair
    pair.script.end()
    pair.here.close()
    pair.there.close()


@pytest.fixture(params=["here", "there"])
def reader(request: pytest.FixtureRequest, pair: Pair) -> Replica:
    """The replica that writes the stream, or another one."""
    replica: Replica = getattr(pair, request.param)
    return replica


def see(following: Following, text: str = "") -> tuple[str, Update]:
    """Follow until there is an update; return the text so far, and the update."""
    update: list[Update] = []

    def found() -> bool:
        if something := following.next(1.0):
            update.append(something)
        return bool(update)

    wait_until(found, SECONDS)
    return ("" if update[0].reset else text) + "".join(chunk.content for chunk in update[0].chunks), update[0]


def see_text(following: Following, wanted: str, text: str = "") -> Update:
    """Follow until the text is complete, and check that it is a prefix of the wanted text at any moment."""
    while True:
        text, update = see(following, text)
        assert wanted.startswith(text)
        if text == wanted:
            return update


def see_end(following: Following, text: str = "") -> tuple[str, Update]:
    while True:
        text, update = see(following, text)
        if update.ended:
            return text, update


def test_an_answer_is_followed_while_it_grows(pair: Pair, reader: Replica) -> None:
    """Readers of every replica get the text in order and once, and then the end."""
    pair.here.asks()
    following = reader.follows()

    pair.script.say("年", "假")
    see_text(following, "年假")
    pair.script.say("怎么", "申请")
    update = see_text(following, "年假怎么申请", "年假")
    pair.script.end()
    text, end = see_end(following, "年假怎么申请")

    assert not update.ended
    assert (text, end.status, end.error_code, end.sentence) == ("年假怎么申请", "completed", "", "")
    assert following.full_answer() == FullAnswer("年假怎么申请", "completed")


def test_a_reader_continues_from_its_cursor_on_another_replica(pair: Pair, reader: Replica) -> None:
    """The reader gets only the chunks after its cursor, without a reset."""
    pair.here.asks()
    pair.script.say("年假")
    seen = see_text(reader.follows(), "年假")

    pair.script.say("怎么申请")
    back = pair.there if reader is pair.here else pair.here
    update = see_text(back.follows(seen.cursor), "怎么申请")

    assert (update.first, update.reset) == (1, False)


def test_a_reader_of_replaced_text_gets_one_reset(pair: Pair, reader: Replica) -> None:
    """The new text follows the reset; a reader that had no text gets no reset."""
    pair.here.asks()
    early, late = reader.follows(), reader.follows()
    pair.script.say("年假")
    see_text(early, "年假")

    pair.script.say("!病假")
    pair.script.say("怎么请")
    pair.script.end()
    resets, text = 0, "年假"
    numbers: list[int] = []
    while True:
        text, update = see(early, text)
        resets += update.reset
        numbers += range(update.first, update.first + len(update.chunks))
        if update.ended:
            break

    assert (text, resets) == ("病假怎么请", 1)
    assert numbers == list(range(len(numbers))), "chunks are numbered within the text, from 0 again"
    assert see_end(late)[0] == "病假怎么请"


def test_a_cursor_beyond_the_end_gets_a_reset(pair: Pair, reader: Replica) -> None:
    """Redis may have lost chunks: the reader gets the text from its beginning."""
    pair.here.asks()
    pair.script.say("年假")
    see_text(reader.follows(), "年假")

    following = reader.follows(7)
    _, update = see(following, "什么")

    assert (update.reset, update.chunks) == (True, ())
    see_text(following, "年假")


def test_an_error_ends_the_stream_with_a_sentence(pair: Pair, reader: Replica) -> None:
    """The sentence is not part of the text."""
    pair.here.store.open(NewStream(ID, "o", {"status": "processing", "access": "me"}))
    following = reader.follows()
    chunks = (Chunk("年假", "t"), Chunk("出错了", "t", is_error=True, is_final=True))
    fields = {"status": "error", "error_code": "provider_error", "sources": '[{"title":"手册"}]', "mock": "1"}
    pair.here.store.write([Write(ID, 1, "o", 0, 0, chunks, fields, "finish")])

    text, end = see_end(following)

    assert (text, end.status, end.error_code, end.sentence) == ("年假", "error", "provider_error", "出错了")
    assert following.full_answer() == FullAnswer("年假", "error", "provider_error", ({"title": "手册"},), True)


def test_a_stream_without_access_is_unknown(pair: Pair, reader: Replica) -> None:
    """A stream id alone gives no access."""
    pair.here.asks()
    pair.script.say("年假")

    with pytest.raises(StreamUnknown):
        see(reader.follows(allowed=False))


def test_a_stream_that_redis_lost_is_followed_on(pair: Pair, reader: Replica) -> None:
    """The owner writes the stream again, and its readers get no chunk twice."""
    pair.here.asks()
    following = reader.follows()
    pair.script.say("年假")
    see_text(following, "年假")

    pair.client.delete(*stream_keys(ID))
    pair.script.say("怎么申请")
    pair.script.end()

    assert see_end(following, "年假")[0] == "年假怎么申请"


def test_a_stream_that_expires_while_it_is_followed_is_unknown(pair: Pair) -> None:
    """Readers wait for a stream that vanished only until the timeout."""
    pair.there.store.open(NewStream(ID, "gone", {"status": "processing", "access": "me"}))
    following = pair.there.follows()
    see(following)

    pair.client.delete(*stream_keys(ID))
    wait_until(lambda: following.next(0.0) is None and ID in pair.there.misses._since)
    pair.there.clock.advance(4.0)

    with pytest.raises(StreamUnknown):
        see(following)


def test_a_reader_tries_to_take_over_a_lapsed_stream(pair: Pair) -> None:
    """The takeover starts without waiting for the sweep."""
    pair.there.store.open(NewStream(ID, "gone", {"status": "processing", "access": "me"}))
    following = pair.there.follows()
    see(following)

    pair.client.hset(stream_keys(ID).hash, "lease", "1")
    wait_until(lambda: following.next(0.0) is None and pair.there.tried, SECONDS)

    assert set(pair.there.tried) == {ID}


def test_a_cancelled_stream_ends_for_its_readers(pair: Pair, reader: Replica) -> None:
    """Readers get the end even if the owner has no text to write."""
    pair.here.asks()
    pair.script.say("年假")
    following = reader.follows()
    see_text(following, "年假")
    owned = pair.here.manager.owned(ID)
    assert owned

    assert pair.there.store.cancel(ID) == "processing"
    owned.touch()
    text, end = see_end(following, "年假")

    assert (text, end.status, end.error_code) == ("年假", "cancelled", "cancelled")


class Counted(StreamStore):
    """Counts the streams of each pipeline."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(ScriptRunner(client))
        self.pipelines: list[int] = []

    def pages(self, cursors: Sequence[tuple[str, int]]) -> list[ChunkPage | StoreUnavailable | None]:
        self.pipelines.append(len(cursors))
        return super().pages(cursors)


def test_many_readers_share_one_pipeline(pair: Pair) -> None:
    """Fifty readers of another replica's stream cost one pipeline a round, and none after they have left."""
    store = Counted(pair.client)
    readers = StreamReaders(store, pair.there.manager, attempt=lambda _: "")
    store.open(NewStream("elsewhere", "o", {"status": "processing", "access": "me"}))
    seen = Standing("processing", "", 0, 0, 1, owner="o")
    waiting = [threading.Thread(target=readers.wait, args=("elsewhere", 0, seen, SECONDS)) for _ in range(50)]
    for thread in waiting:
        thread.start()
    wait_until(lambda: len(readers._looks) == 50, SECONDS)

    readers.start()
    wait_until(lambda: len(store.pipelines) > 2, SECONDS)
    rounds = store.pipelines[:3]
    store.write([Write("elsewhere", 1, "o", 0, 0, (Chunk("年", "t"),))])
    for thread in waiting:
        thread.join(SECONDS)
    wait_until(lambda: not readers._wanted.is_set(), SECONDS)
    counted = len(store.pipelines)
    threading.Event().wait(0.2)
    readers.close()

    assert rounds == [50, 50, 50]
    assert not any(thread.is_alive() for thread in waiting)
    assert len(store.pipelines) == counted


class Pages:
    """Readers of a list that the test changes, as any owner or a Redis that loses data would."""

    def __init__(self) -> None:
        self.chunks: list[str] = []
        self.start = 0
        self.epoch = 1
        self.owner = "a"
        self.ended = False

    @property
    def standing(self) -> Standing:
        status: Status = "completed" if self.ended else "processing"
        return Standing(status, "", self.start, len(self.chunks), self.epoch, owner=self.owner)

    def page(self, stream_id: str, cursor: int) -> ChunkPage:
        return ChunkPage(self.standing, [Chunk(text, "t") for text in self.chunks[cursor : cursor + 3]], "me")

    def wait(self, stream_id: str, cursor: int, seen: Standing, timeout: float) -> ChunkPage | None:
        return self.page(stream_id, cursor) if self.standing != seen else None

    @property
    def text(self) -> str:
        return "".join(self.chunks[self.start :])


def follow(pages: Pages, cursor: int = 0) -> Following:
    return Following(pages, ID, cursor, allows=lambda _: True, misses=Misses(1.0))  # type: ignore[arg-type]


@pytest.mark.parametrize(("epoch", "reset"), [(1, False), (2, True)])
def test_lost_chunks_cause_a_reset_only_under_another_owner(epoch: int, reset: bool) -> None:
    """The same owner writes the same chunks again, so the reader waits; another owner writes another text."""
    pages = Pages()
    pages.chunks = ["年", "假"]
    following = follow(pages)
    assert see(following)[0] == "年假"

    pages.chunks, pages.epoch = ["年"], epoch
    lost = following.next(0.0)
    pages.chunks = ["年", "假", "怎么"]
    text, update = see(following, "年假" if not reset else "")

    assert lost
    assert (lost.reset, lost.chunks) == (reset, ())
    assert (text, update.reset) == ("年假怎么", False)


def test_another_owner_of_the_same_epoch_causes_a_reset() -> None:
    """After Redis lost the stream, the question was asked again: the new owner has epoch 1 too, but another text."""
    pages = Pages()
    pages.chunks = ["年", "假"]
    following = follow(pages)
    assert see(following)[0] == "年假"

    pages.chunks, pages.owner = ["病", "假", "怎么请"], "b"
    first = following.next(0.0)
    text, _ = see(following)

    assert first
    assert (first.reset, first.chunks, text) == (True, (), "病假怎么请")


STEPS = st.lists(st.sampled_from(["append", "replace", "look", "take over", "lose", "come back"]), max_size=40)


@settings(max_examples=examples(400))
@given(STEPS)
def test_a_reader_ends_with_the_text_after_any_events(steps: list[str]) -> None:
    """After appends, replacements, takeovers and losses, the text that a client puts together is the stream's."""
    pages, shown, cursor, count = Pages(), "", 0, 0
    lost: list[str] = []
    following = follow(pages)

    def look() -> Update | None:
        nonlocal shown, cursor
        if update := following.next(0.0):
            shown = ("" if update.reset else shown) + "".join(chunk.content for chunk in update.chunks)
            cursor = update.cursor
        return update

    for step in [*steps, "write again"]:
        match step:
            case "append" if not lost:
                pages.chunks.append(f"<{(count := count + 1)}>")
            case "replace" if not lost:
                pages.start = len(pages.chunks)
                pages.chunks.append(f"<{(count := count + 1)}>")
            case "look":
                look()
            case "come back":
                # The client's socket broke: another reader continues from the client's cursor.
                following = follow(pages, cursor)
            case "lose" if len(pages.chunks) > pages.start + 1 and not lost:
                # Redis loses acknowledged writes; the owner writes them again.
                lost = pages.chunks[pages.start + 1 :]
                del pages.chunks[pages.start + 1 :]
            case "take over" if not lost:
                pages.epoch += 1
            case _ if lost:
                pages.chunks += lost
                lost = []
    pages.ended = True
    while not ((update := look()) and update.ended):
        pass

    assert shown == pages.text


@contextmanager
def unreachable(readers: StreamReaders) -> Iterator[None]:
    """Make Redis unavailable for these readers."""
    store = readers._store

    class Away:
        def chunks(self, *args: object) -> None:
            raise StoreUnavailable("away")

        pages = chunks

    readers._store = Away()  # type: ignore[assignment]
    try:
        yield
    finally:
        readers._store = store


def test_an_outage_is_waited_through(pair: Pair) -> None:
    """A reader of another replica's stream gets no update during the outage, and continues after it."""
    pair.here.asks()
    pair.script.say("年假")
    following = pair.there.follows()
    see_text(following, "年假")

    with unreachable(pair.there.readers):
        pair.script.say("怎么申请")
        assert [following.next(0.1) for _ in range(3)] == [None] * 3

    see_text(following, "年假怎么申请", "年假")


def test_a_missing_stream_may_come_back_until_the_timeout(clock: FakeClock) -> None:
    """The timeout counts from the first miss."""
    misses = Misses(4.0, clock=clock)

    assert misses.note("s")
    clock.advance(3.9)
    assert misses.note("s")
    clock.advance(0.1)
    assert not misses.note("s")
    assert misses.note("another")


def test_a_stream_that_came_back_gets_the_full_timeout_again(clock: FakeClock) -> None:
    """A stream that was never missed may be forgotten too."""
    misses = Misses(4.0, clock=clock)
    misses.note("s")
    clock.advance(5.0)

    misses.forget("s")
    misses.forget("never missed")

    assert misses.note("s")


def test_the_number_of_misses_is_bounded(clock: FakeClock) -> None:
    """Requests for ever new streams use bounded memory; the oldest miss is dropped first."""
    misses = Misses(4.0, clock=clock)

    for number in range(MAX_MISSES + 1):
        misses.note(str(number))
    clock.advance(5.0)

    assert misses.note("0")
    assert not misses.note(str(MAX_MISSES))
