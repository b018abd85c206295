"""Answers with links to the gateway: the same text for every reader, however it is cut and wherever a reader begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.errors import StoreUnavailable
from services.files.links import FileLinks
from services.files.shown import AnswerLinks, LinkedFollowing
from services.streams.following import Update
from services.streams.long_text import FullAnswer, LongText, TextSlice
from services.streams.records import Chunk

SIGNED = "https://dify.example/files/tools/9d1c.png?timestamp=1&nonce=2&sign=3"
TEXT = f"看![猫]({SIGNED})吧 [1] 和 [报告]({SIGNED}) a]("
KEY = b"k" * 32


@dataclass
class ToldFollowing:
    """A stream of chunks that is read one chunk at a time."""

    texts: list[str]
    cursor: int = 0
    stream_id: str = "s0"

    def next(self, timeout: float) -> Update | None:
        index, self.cursor = self.cursor, self.cursor + 1
        ended = self.cursor >= len(self.texts)
        chunks = (Chunk(self.texts[index], ""),) if index < len(self.texts) else ()
        return Update(min(self.cursor, len(self.texts)), chunks, index=index, first=index, ended=ended)

    def full_answer(self) -> FullAnswer:
        """Return the text as one that is read in slices, which are the chunks."""
        ends = list(accumulate(len(text.encode()) for text in self.texts))
        slices = dict(zip([0, *ends[:-1]], zip(self.texts, ends, strict=True), strict=True))
        return FullAnswer("", "completed", long=LongText(lambda start: TextSlice(*slices[start], ends[-1]), ends[-1]))


@dataclass
class Keys:
    """Keys that may be out of reach for a while."""

    failures: int = 0
    asked: int = field(default=0, init=False)

    def __call__(self) -> tuple[bytes, ...]:
        self.asked += 1
        if self.asked <= self.failures:
            raise StoreUnavailable("away")
        return (KEY,)


def follow(told: ToldFollowing, keys: Keys | None = None) -> LinkedFollowing:
    links = AnswerLinks(FileLinks(keys or Keys()), None)  # type: ignore[arg-type]
    return LinkedFollowing(told, links, sleep=lambda _: None)  # type: ignore[arg-type]


def read(following: LinkedFollowing) -> Iterator[Update]:
    """Yield what a reader is shown up to the end."""
    while True:
        update = following.next(1.0)
        if update:
            yield update
        if update and update.ended:
            return


def shown(*update: Update) -> str:
    return "".join(chunk.content for one in update for chunk in one.chunks)


WHOLE = AnswerLinks(FileLinks(KEY), None).text("s0", TEXT)  # type: ignore[arg-type]


@given(st.lists(st.integers(0, len(TEXT)), max_size=12))
def test_a_reader_may_begin_at_any_cursor_it_got(cuts: list[int]) -> None:
    """What it had, and what another reader gets from there on, are the whole text; no address is shown in part."""
    ends = [0, *sorted(set(cuts)), len(TEXT)]
    texts = [TEXT[start:end] for start, end in pairwise(ends) if start < end]

    had: list[Update] = []
    for update in read(follow(ToldFollowing(texts))):
        had.append(update)
        assert "dify.example" not in shown(*had)
        rest = [] if update.ended else list(read(follow(ToldFollowing(texts, update.cursor))))
        assert shown(*had, *rest) == WHOLE
    assert follow(ToldFollowing(texts)).full_answer().text == WHOLE


def test_chunks_without_an_address_stay_as_they_are() -> None:
    """Their reader sees each at once, with its own cursor."""
    texts = ["年假", "在系统里", "申请[1]。"]

    assert [(shown(update), update.cursor) for update in read(follow(ToldFollowing(texts)))] == [
        ("年假", 1),
        ("在系统里", 2),
        ("申请[1]。", 3),
    ]


def test_an_address_in_parts_is_one_chunk() -> None:
    """Its reader's cursor stays before it until it is complete."""
    texts = ["看![猫", "](https://dify.example/files/", SIGNED.rpartition("/")[2], ")吧"]

    *_, before, last = read(follow(ToldFollowing(texts)))

    assert (before.chunks, before.cursor) == ((), 1)
    assert (len(last.chunks), last.cursor, last.index, last.first) == (1, 4, 1, 1)


def test_news_wait_for_the_key() -> None:
    """While Redis, which has the key, is away, nothing is shown; nothing is lost either."""
    following = follow(ToldFollowing([TEXT]), Keys(failures=2))

    assert following.next(1.0) is None
    assert following.next(1.0) is None
    update = following.next(1.0)
    assert update
    assert shown(update) == WHOLE
