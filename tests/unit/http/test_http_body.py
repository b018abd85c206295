"""Chunked bodies: any cut of the same bytes holds the same, and Python's own reader agrees."""

from __future__ import annotations

import http.client
import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.http.body import MAX_LINE, BrokenBody, ChunkedBody

END = b"0\r\n\r\n"


def decoded(*pieces: bytes) -> bytes:
    """Return what the pieces hold; raises `BrokenBody` where they are no whole body."""
    body = ChunkedBody()
    held = b"".join(body.feed(piece) for piece in pieces)
    if not body.over:
        body.end()
    return held


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    return [whole[start:end] for start, end in itertools.pairwise(bounds) if start < end]


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n" % (len(data), extension, data)


class _Wire:
    """A socket that says these bytes."""

    def __init__(self, wire: bytes) -> None:
        self._wire = wire

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + self._wire)


def read_by_python(wire: bytes) -> bytes:
    response = http.client.HTTPResponse(_Wire(wire))  # type: ignore[arg-type]
    response.begin()
    return response.read()


PLACES = st.lists(st.integers(0, 10_000), max_size=30)


@given(
    chunks=st.lists(
        st.binary(min_size=1, max_size=50) | st.sampled_from([chunk(b"hello"), chunk(b"x") * 3]), max_size=8
    ),
    extension=st.sampled_from([b"", b";a=b", b" "]),
    trailer=st.sampled_from([b"", b"X-Ends: well\r\n"]),
    places=PLACES,
)
def test_any_cut_of_a_body_holds_what_python_reads(
    chunks: list[bytes], extension: bytes, trailer: bytes, places: list[int]
) -> None:
    """Sizes, extensions, line ends within the data and the trailer are told apart wherever the network cuts."""
    wire = b"".join(chunk(data, extension) for data in chunks) + b"0\r\n" + trailer + b"\r\n"

    assert decoded(*cut(wire, places)) == read_by_python(wire) == b"".join(chunks)


@given(
    wire=st.lists(st.sampled_from([b"1", b"a", b"\r\n", b"\n", b"0\r\n", b"x", b";", END]), max_size=12), places=PLACES
)
def test_any_cut_of_any_bytes_comes_to_the_same(wire: list[bytes], places: list[int]) -> None:
    """Noise is refused, or it is not, whatever the cut."""

    def outcome(*pieces: bytes) -> bytes | None:
        try:
            return decoded(*pieces)
        except BrokenBody:
            return None

    whole = b"".join(wire)
    assert outcome(*cut(whole, places)) == outcome(whole)


def test_a_chunk_is_there_with_its_last_byte() -> None:
    """Nothing waits for the chunk after it, and what has come of one is handed on."""
    body = ChunkedBody()

    assert [body.feed(piece) for piece in (chunk(b"one"), b"5\r\ntw", b"o!!\r", b"\n")] == [b"one", b"tw", b"o!!", b""]


@pytest.mark.parametrize("wire", [b"", b"5\r\n", b"5\r\nab", b"2\r\nab", b"2\r\nab\r\n", b"2\r\nab\r\n0"])
def test_a_body_that_ends_before_its_end_is_broken(wire: bytes) -> None:
    """A connection that broke is told from one that was closed in order."""
    with pytest.raises(BrokenBody):
        decoded(wire)


def test_a_server_may_leave_the_last_line_out() -> None:
    """The last chunk was there."""
    assert decoded(chunk(b"ab"), b"0\r\n") == b"ab"


@pytest.mark.parametrize(
    "wire", [b"zz\r\nab\r\n", b"-2\r\nab\r\n", b"\r\nab\r\n", b"2\r\nabc\r\n", b"x" * (MAX_LINE + 2)]
)
def test_what_is_no_chunk_is_broken(wire: bytes) -> None:
    """A size that is none, data longer than it, or a line that never ends: memory has a bound."""
    with pytest.raises(BrokenBody):
        decoded(wire, b"\n")


def test_a_chunk_ends_with_its_line() -> None:
    """Two bytes that are no line end are not passed over for one."""
    with pytest.raises(BrokenBody):
        decoded(b"2\r\nabcd", END)


def test_what_follows_the_end_is_nobodys() -> None:
    """No byte after the last chunk belongs to the body."""
    body = ChunkedBody()

    assert (body.feed(chunk(b"ab") + END + b"HTTP/1.1"), body.over) == (b"ab", True)


def test_what_looks_like_a_chunk_within_a_chunk_is_its_content() -> None:
    """A read may begin in the middle of a chunk, with bytes that would be one by themselves."""
    body = ChunkedBody()

    assert body.feed(b"f\r\nabcde") == b"abcde"
    assert body.feed(b"5\r\nhello\r\n") == b"5\r\nhello\r\n"
    assert body.feed(b"\r\n0\r\n\r\n") == b""
    assert body.over
