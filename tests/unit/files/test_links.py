"""Signed links: only the server makes them, each names one entry of one stream, and each ends."""

from __future__ import annotations

import pytest

from services.files.links import FOLDER, FileLinks, FileRef
from tests.support.servers.processes import FakeClock

REF = FileRef("3f0c7f0e5c7b4a0e", "p0")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_700_000_000.0)


@pytest.fixture
def links(clock: FakeClock) -> FileLinks:
    return FileLinks(b"k" * 32, "https://chat.example.com/", clock=clock)


def token(links: FileLinks, ref: FileRef = REF, suffix: str = "") -> str:
    return links.path(ref, links.expiry(60.0), suffix).removeprefix(FOLDER)


def test_a_link_opens_until_its_end(links: FileLinks, clock: FakeClock) -> None:
    """The suffix is for clients only; the second after its end the link is nothing."""
    linked = token(links, suffix=".png")

    assert links.opened(linked) == REF
    assert links.opened(linked.removesuffix(".png")) == REF
    clock.advance(59.9)
    assert links.opened(linked) == REF
    clock.advance(0.2)
    assert links.opened(linked) is None


def test_a_link_without_an_end_opens_for_ever(links: FileLinks, clock: FakeClock) -> None:
    """Its file ends with the record of the answer. The digest of a file's source names it before it is fetched."""
    ref = FileRef("3f0c7f0e5c7b4a0e", "s0123456789abcdef")
    linked = links.path(ref, 0, ".png").removeprefix(FOLDER)

    clock.advance(1e9)

    assert links.opened(linked) == ref


@pytest.mark.parametrize("part", range(4))
def test_a_link_that_was_changed_opens_nothing(links: FileLinks, part: int) -> None:
    """Stream, entry, expiry and signature are all covered."""
    others = ("3f0c7f0e5c7b4a0f", "p1", "ffffffff", "0" * 32)
    parts = token(links).split(".")
    parts[part] = others[part]

    assert links.opened(".".join(parts)) is None


@pytest.mark.parametrize(
    "wrong", ["", "x", "../../etc/passwd", "a.b.c.d", "a.text.ffffffff", "a.p0.ffffffff." + "é" * 32]
)
def test_what_is_no_token_opens_nothing(links: FileLinks, wrong: str) -> None:
    assert links.opened(wrong) is None


def test_keys_that_were_rotated_still_open(links: FileLinks, clock: FakeClock) -> None:
    """The first key signs, all keys open; another server's key does not."""
    rotated = FileLinks(lambda: (b"n" * 32, b"k" * 32), clock=clock)

    assert rotated.opened(token(links)) == REF
    assert links.opened(token(rotated)) is None


def test_without_a_public_address_there_is_no_url(links: FileLinks, clock: FakeClock) -> None:
    assert links.url(REF, 2**31).startswith("https://chat.example.com/files/")
    assert FileLinks(b"k", clock=clock).url(REF, 2**31) == ""
