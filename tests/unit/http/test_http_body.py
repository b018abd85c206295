"""Chunked bodies: the same bytes decode to the same content however they are cut, as with http.client."""

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
    """Return the content of the pieces; raises `BrokenBody` if they are not a complete body."""
    body = ChunkedBody()
    content = b"".join(body.feed(piece) for piece in pieces)
    if not body.over:
        body.end()
    return content


def cut(whole: bytes, positions: list[int]) -> list[bytes]:
    bounds = [0, *sorted(position % (len(whole) + 1) for position in positions), len(whole)]
    return [whole[start:end] for start, end in itertools.pairwise(bounds) if start < end]


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n" % (len(data), extension, data)


class _Wire:
    """A socket whose file has the head of a reply and these bytes."""

    def __init__(self, wire: bytes) -> None:
        self._wire = wire

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + self._wire)


def read_by_python(wire: bytes) -> bytes:
    response = http.client.HTTPResponse(_Wire(wire))  # type: ignore[arg-type]
    response.begin()
    return response.read()


POSITIONS = st.lists(st.integers(0, 10_000), max_size=30)


@given(
    chunks=st.lists(
        st.binary(min_size=1, max_size=50) | st.sampled_from([chunk(b"hello"), chunk(b"x") * 3]), max_size=8
    ),
    extension=st.sampled_from([b"", b";a=b", b" "]),
    trailer=st.sampled_from([b"", b"X-Ends: well\r\n"]),
    positions=POSITIONS,
)
def test_a_body_cut_anywhere_decodes_as_in_http_client(
    chunks: list[bytes], extension: bytes, trailer: bytes, positions: list[int]
) -> None:
    """This includes cuts in sizes, extensions, line breaks within the data, and the trailer."""
    wire = b"".join(chunk(data, extension) for data in chunks) + b"0\r\n" + trailer + b"\r\n"

    assert decoded(*cut(wire, positions)) == read_by_python(wire) == b"".join(chunks)


@given(
    wire=st.lists(st.sampled_from([b"1", b"a", b"\r\n", b"\n", b"0\r\n", b"x", b";", END]), max_size=12),
    positions=POSITIONS,
)
def test_the_cut_of_any_bytes_does_not_change_the_outcome(wire: list[bytes], positions: list[int]) -> None:
    """Random bytes give the same content or the same BrokenBody, however they are cut."""

    def outcome(*pieces: bytes) -> bytes | None:
        try:
            return decoded(*pieces)
        except BrokenBody:
            return None

    whole = b"".join(wire)
    assert outcome(*cut(whole, positions)) == outcome(whole)


def test_bytes_of_a_chunk_are_returned_at_once() -> None:
    """A complete chunk does not wait for the next one, and the first part of a chunk not for the rest."""
    body = ChunkedBody()

    assert [body.feed(piece) for piece in (chunk(b"one"), b"5\r\ntw", b"o!!\r", b"\n")] == [b"one", b"tw", b"o!!", b""]


@pytest.mark.parametrize(
    "pieces",
    [
        *((wire,) for wire in (b"", b"5\r\n", b"5\r\nab", b"2\r\nab", b"2\r\nab\r\n", b"2\r\nab\r\n0")),
        *((wire, b"\n") for wire in (b"zz\r\nab\r\n", b"-2\r\nab\r\n", b"\r\nab\r\n", b"2\r\nabc\r\n")),
        # A line is bounded, and with it the memory.
        (b"x" * (MAX_LINE + 2), b"\n"),
        (b"2\r\nabcd", END),
    ],
)
def test_an_incomplete_or_malformed_body_is_broken(pieces: tuple[bytes, ...]) -> None:
    """A body cut short, a size that is no number, data longer than its size, or without a line break after it."""
    with pytest.raises(BrokenBody):
        decoded(*pieces)


def test_the_end_of_the_trailer_may_be_missing() -> None:
    """A body whose last chunk has arrived is complete without the empty line."""
    assert decoded(chunk(b"ab"), b"0\r\n") == b"ab"


def test_bytes_after_the_end_are_ignored() -> None:
    """Bytes after the last chunk and the trailer are not part of the body."""
    body = ChunkedBody()

    assert (body.feed(chunk(b"ab") + END + b"HTTP/1.1"), body.over) == (b"ab", True)


def test_content_may_look_like_a_chunk() -> None:
    """A read may begin in the middle of a chunk, with bytes that alone would be a whole chunk."""
    body = ChunkedBody()

    assert body.feed(b"f\r\nabcde") == b"abcde"
    assert body.feed(b"5\r\nhello\r\n") == b"5\r\nhello\r\n"
    assert body.feed(b"\r\n0\r\n\r\n") == b""
    assert body.over
