"""The decoder of server-sent events: any cut of the same bytes gives the same events."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.formats.sse import EventTooLong, ServerSentEvent, SSEDecoder


def decoded(*chunks: bytes, max_bytes: int = 1000) -> list[ServerSentEvent]:
    decoder = SSEDecoder(max_bytes=max_bytes)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + list(decoder.flush())


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    return [whole[start:end] for start, end in itertools.pairwise(bounds)]


PING = ServerSentEvent("ping")


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        (b'data: {"a":1}\n\n', [ServerSentEvent(data=b'{"a":1}')]),
        (b"data:x\n\n", [ServerSentEvent(data=b"x")]),
        (b"data:  x\n\n", [ServerSentEvent(data=b" x")]),
        (b"data: x\r\n\r\n", [ServerSentEvent(data=b"x")]),
        (b"data: x\r\rdata: y\r\r", [ServerSentEvent(data=b"x"), ServerSentEvent(data=b"y")]),
        (b"data: x\ndata: y\n\n", [ServerSentEvent(data=b"x\ny")]),
        (b"data\n\n", [ServerSentEvent(data=b"")]),
        (b"event: ping\n\n", [PING]),
        (b"event: ping\n\ndata: x\n\n", [PING, ServerSentEvent(data=b"x")]),
        (b"event: ping\ndata: x\n\n", [ServerSentEvent("ping", b"x")]),
        (b"data: x\nevent: ping\n\n", [ServerSentEvent("ping", b"x")]),
        (b": keep-alive\n\n", [ServerSentEvent()]),
        (b"id: 7\nretry: 10\n\n", [ServerSentEvent()]),
        (b"\n\n\n", []),
        (b"", []),
        (b"\xef\xbb\xbfdata: x\n\n", [ServerSentEvent(data=b"x")]),
    ],
)
def test_each_form_of_the_wire_gives_its_events(wire: bytes, events: list[ServerSentEvent]) -> None:
    """Line ends, spaces, comments, pings and byte order mark are read as the format says."""
    assert decoded(wire) == events


@pytest.mark.parametrize("wire", [b"data: x", b"data: x\n", b"data: x\r", b"data: x\r\n"])
def test_a_last_event_without_its_blank_line_counts(wire: bytes) -> None:
    """The tail is flushed at the end of the stream."""
    assert decoded(wire) == [ServerSentEvent(data=b"x")]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_only_cr_and_lf_end_a_line(separator: str) -> None:
    """An answer may hold what str.splitlines() would cut at."""
    text = f"左{separator}右"

    assert decoded(f"data: {text}\n\n".encode()) == [ServerSentEvent(data=text.encode())]


def test_bad_utf8_comes_through_as_it_is() -> None:
    """What it means is for whoever reads the data; the event's name loses its bad bytes."""
    events = decoded(b"event: \xff\ndata: a\xffb\n\ndata: c\n\n")

    assert events == [ServerSentEvent("\ufffd", b"a\xffb"), ServerSentEvent(data=b"c")]


def test_an_event_is_there_with_its_last_byte() -> None:
    """Nothing waits for the event after it."""
    decoder = SSEDecoder()

    assert list(decoder.feed(b"data: x\n")) == []
    assert list(decoder.feed(b"\n")) == [ServerSentEvent(data=b"x")]


def test_an_endless_line_is_refused() -> None:
    """Memory has a bound, also when the line comes in many pieces, and what came before it is delivered."""
    decoder = SSEDecoder(max_bytes=10)
    events = iter(decoder.feed(b"data: x\n\n" + b"data: 12345"))

    assert next(events) == ServerSentEvent(data=b"x")
    with pytest.raises(EventTooLong):
        next(events)


@pytest.mark.parametrize("line", [b"data: 12345\n", b"data: 1234\n" * 3])
def test_a_line_or_event_past_the_bound_is_refused(line: bytes) -> None:
    """The bound holds for a whole line and for the data of an event of many lines."""
    with pytest.raises(EventTooLong):
        decoded(line, max_bytes=10)


def test_lines_within_the_bound_never_add_up() -> None:
    """The bound is per event, not per stream."""
    assert len(decoded(b"data: 123\n\n" * 50, max_bytes=10)) == 50


LINES = st.lists(
    st.sampled_from(["data: 年假🙂", "data:x", "event: ping", ": hm", "", "", "data: a\u2028b", "junk", "data"]),
    max_size=20,
)


@given(lines=LINES, end=st.sampled_from(["\n", "\r\n", "\r"]), places=st.lists(st.integers(0, 10_000), max_size=30))
def test_any_cut_of_the_same_bytes_gives_the_same_events(lines: list[str], end: str, places: list[int]) -> None:
    """The events do not depend on how the network cuts the bytes, nor on which line end a proxy prefers."""
    wire = end.join(lines).encode()

    assert decoded(*cut(wire, places)) == decoded(wire) == decoded("\n".join(lines).encode())


@given(wire=st.binary(max_size=200), places=st.lists(st.integers(0, 200), max_size=20))
def test_any_cut_of_any_bytes_gives_the_same_events(wire: bytes, places: list[int]) -> None:
    """Not even noise makes the cut matter."""
    assert decoded(*cut(wire, places)) == decoded(wire)


def by_the_book(wire: bytes) -> list[ServerSentEvent]:
    """Decode all at once, line by line as the format is defined; the end of the stream ends an event too."""
    events: list[ServerSentEvent] = []
    name, data, alive = "", None, False
    for line in [*re.split(rb"\r\n|\n|\r", wire.removeprefix(b"\xef\xbb\xbf")), b""]:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if alive:
                events.append(ServerSentEvent(name, data))
            name, data, alive = "", None, False
            continue
        alive = True
        if field == b"data":
            data = value if data is None else data + b"\n" + value
        elif field == b"event":
            name = value.decode(errors="replace")
    return events


BLOCKS = st.lists(
    st.sampled_from(
        [
            *(b"data: x\n\n", b"data: {}\n\n", b"data: \n\n", b"data: data: x\n\n", b"data: \xe5\xb9\xb4\xff\n\n"),
            *(
                b"data: a\ndata: b\n\n",
                b"data: a\rdata: b\n\n",
                b"data: x\r\n\r\n",
                b"event: ping\n\n",
                b": hm\n\n",
                b"\xef\xbb\xbf",
            ),
            *(b"data: ", b"y\n\n", b"\n", b"\r"),
        ]
    ),
    max_size=12,
)


@given(blocks=BLOCKS, places=st.lists(st.integers(0, 10_000), max_size=6))
def test_whole_events_and_parts_of_them_are_read_by_the_book(blocks: list[bytes], places: list[int]) -> None:
    """The short way for whole events gives what the definition gives, whatever came before it and comes behind."""
    wire = b"".join(blocks)

    assert decoded(*blocks) == decoded(*cut(wire, places)) == by_the_book(wire)


def test_whole_events_longer_than_the_bound_are_refused_as_lines_are() -> None:
    """What comes together may be longer than one event may be; one event may not."""
    assert decoded(b"data: 123\n\n" * 5, max_bytes=10) == [ServerSentEvent(data=b"123")] * 5
    with pytest.raises(EventTooLong):
        decoded(b"data: 12345\n\n", max_bytes=10)


@given(comments=st.integers(0, 5), places=st.lists(st.integers(0, 400), max_size=20))
def test_comments_are_counted_wherever_they_are_cut(comments: int, places: list[int]) -> None:
    """Each piece of a comment counts, nothing else does, and a comment in one piece counts once."""
    other = b"data: :x\n\nevent: ping\r\n\r\ndata: y\n\n"
    wire = b": hm\n\n" * comments + other
    whole, pieces = SSEDecoder(), SSEDecoder()

    for chunk in (wire, *cut(other, places)):
        list(whole.feed(chunk))
    for chunk in cut(wire, places):
        list(pieces.feed(chunk))

    assert whole.comments == comments
    assert bool(pieces.comments) == bool(comments)
    assert pieces.comments >= comments


@given(answer=st.text(max_size=50), places=st.lists(st.integers(0, 400), max_size=20))
def test_json_events_survive_raw_and_escaped(answer: str, places: list[int]) -> None:
    """Every text comes through whole, sent as UTF-8 or as ASCII escapes."""
    for ascii_only in (False, True):
        line = json.dumps({"answer": answer}, ensure_ascii=ascii_only)

        events = decoded(*cut(f"data: {line}\r\n\r\n".encode(), places))

        assert [json.loads(event.data or b"") for event in events] == [{"answer": answer}]
