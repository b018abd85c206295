"""The files of an answer that grows: what is fetched, when, and what is kept at the end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from services.attachments import AnswerFile
from services.errors import AnswerError, FetchError, StoreUnavailable
from services.files.answer_store import Owner, StoredFile
from services.files.collection import AnswerCollection, CollectionLimits
from services.files.reading import FileContent, Room
from services.files.sources import Source, sources_of
from tests.support.servers.processes import wait_until
from utils.deadline import Deadline

SIGNED = "/files/{name}?timestamp=1&nonce=2&sign=34"


@dataclass
class Stream:
    """What a collection uses of an owner's stream."""

    text: str = ""
    closed: str = ""
    frame_left: float | None = None
    fields: dict[str, str] = field(default_factory=dict)
    stream_id: str = "s0"
    owner: str = "a"
    epoch: int = 1
    age: float = 0.0
    deadline: Deadline = field(default_factory=lambda: Deadline(60.0))
    about: dict[str, str] = field(default_factory=dict)

    def set(self, **fields: str) -> None:
        self.fields |= fields


@dataclass
class Shelf:
    """Where files are stored; `failures` is the number of writes that Redis does not answer."""

    kept: dict[str, StoredFile] = field(default_factory=dict)
    failures: int = 0

    def put(self, owner: Owner, stored: StoredFile, content: bytes = b"") -> bool:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")
        self.kept[stored.entry] = stored
        return True

    def remove(self, owner: Owner, entry: str) -> None:
        del self.kept[entry]


@dataclass
class Counted:
    """The bytes that count, by entry; `room` are those that Redis may have."""

    sizes: dict[str, int] = field(default_factory=dict)
    room: int = 1000

    def count(self, entry: str, size: int) -> None:
        if sum(self.sizes.values()) + size > self.room:
            raise AnswerError("full", code="files_full")
        self.sizes[entry] = size

    def remove(self, entry: str) -> None:
        del self.sizes[entry]


class NoAttachedFiles:
    """A provider that sends no files beside the text."""

    def write(self, files: Sequence[AnswerFile]) -> None:
        pass

    def read(self) -> list[AnswerFile]:
        return []


class Desk:
    """An answer that the test lets grow. Files named `no…` cannot be fetched; all wait while `held` is set."""

    def __init__(self, signed_only: bool) -> None:
        self.stream, self.shelf, self.counted = Stream(), Shelf(), Counted()
        self.fetched: list[str] = []
        self.held = threading.Event()
        self.held.set()
        fakes: Any = {"attached": NoAttachedFiles(), "counted": self.counted}
        parts: Any = (self.stream, self.shelf, self._read)
        self.collection = AnswerCollection(
            *parts,
            **fakes,
            sources=partial(sources_of, signed_only=signed_only),
            limits=CollectionLimits(1000, 60.0),
            expiry=int,
        )

    def _read(self, source: Source, room: Room, deadline: Deadline) -> FileContent:
        self.held.wait(30.0)
        self.fetched.append(source.url)
        if "/no" in source.url:
            raise FetchError("gone")
        return FileContent("p", source.name, "image/png", b"x" * 10)

    def says(self, text: str) -> None:
        self.stream.text += text
        self.collection.grew(text)

    def ends(self) -> list[tuple[str, str]]:
        """End the answer; return the entries that are kept, with their names."""
        self.collection.collect()
        return [(stored.entry, stored.name) for stored in self.shelf.kept.values()]


@pytest.fixture(params=[False, True], ids=["wecom", "web"])
def desk(request: pytest.FixtureRequest) -> Desk:
    """An answer for either kind of channel."""
    return Desk(request.param)


def picture(name: str) -> str:
    return f"![{name}]({SIGNED.format(name=name)})"


def test_an_incomplete_address_waits(desk: Desk) -> None:
    """A signature that is cut off would be refused, and is not tried."""
    begun, rest = picture("b")[:-3], picture("b")[-3:]

    desk.says(f"{picture('a')} {begun}")
    wait_until(lambda: desk.fetched)
    desk.says(rest)

    assert desk.ends() == [("p0", "a"), ("p1", "b")]
    assert desk.fetched == [SIGNED.format(name="a"), SIGNED.format(name="b")]
    assert desk.stream.fields == {"files": "1"}


def test_each_is_tried_once(desk: Desk) -> None:
    """Also one that cannot be had, however often the text names it."""
    for _ in range(3):
        desk.says(f"{picture('a')} {picture('no')} ")

    assert sorted(desk.ends()) == [("p0", "a"), ("x0", "no")]
    assert len(desk.fetched) == 2


def test_chunks_do_not_wait_for_files(desk: Desk) -> None:
    """The producer goes on while a file is fetched; the end waits for it."""
    desk.held.clear()

    desk.says(picture("a"))
    desk.says(picture("b"))
    before = list(desk.fetched)
    desk.held.set()

    assert before == []
    assert desk.ends() == [("p0", "a"), ("p1", "b")]


def test_code_is_no_picture_of_wecom() -> None:
    """What the whole text shows to be code is not fetched; on the web addresses are replaced there too."""
    for signed_only in (False, True):
        desk = Desk(signed_only)
        desk.says("```\n")
        desk.says(f"{picture('a')}\n")

        assert desk.ends() == ([("p0", "a")] if signed_only else [])
        assert len(desk.fetched) == signed_only


def test_a_file_beyond_the_budget_is_missing(desk: Desk) -> None:
    """As one that cannot be fetched; one that the answer does not name any more is not counted."""
    desk.counted.room = 25
    desk.says(f"{picture('a')} {picture('b')} {picture('c')}")
    wait_until(lambda: len(desk.fetched) == 3)

    desk.stream.text = f"{picture('b')} {picture('c')}"

    assert desk.ends() == [("p1", "b"), ("x0", "c")]
    assert desk.counted.sizes == {"p1": 10}


def test_what_redis_did_not_take_is_fetched_again(desk: Desk) -> None:
    """A file that could not be stored while the answer ran is no missing one."""
    desk.shelf.failures = 1
    desk.says(picture("a"))
    wait_until(lambda: not desk.shelf.failures)

    assert desk.ends() == [("p0", "a")]
    assert len(desk.fetched) == 2
