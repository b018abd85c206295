"""Server-sent events: every form of the format is decoded, and cuts of the bytes do not change the events."""

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


def cut(whole: bytes, positions: list[int]) -> list[bytes]:
    bounds = [0, *sorted(position % (len(whole) + 1) for position in positions), len(whole)]
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
def test_each_form_of_the_format_is_decoded(wire: bytes, events: list[ServerSentEvent]) -> None:
    """Line ends, spaces, comments, pings and the byte order mark are read as the format defines."""
    assert decoded(wire) == events


@pytest.mark.parametrize("wire", [b"data: x", b"data: x\n", b"data: x\r", b"data: x\r\n"])
def test_a_last_event_without_its_blank_line_is_returned(wire: bytes) -> None:
    """`flush` returns it at the end of the stream."""
    assert decoded(wire) == [ServerSentEvent(data=b"x")]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_only_cr_and_lf_end_a_line(separator: str) -> None:
    """An answer may contain other characters at which str.splitlines() splits."""
    text = f"左{separator}右"

    assert decoded(f"data: {text}\n\n".encode()) == [ServerSentEvent(data=text.encode())]


def test_invalid_utf8_in_data_is_unchanged() -> None:
    """Decoding the data is left to its reader; in an event's name invalid bytes become U+FFFD."""
    events = decoded(b"event: \xff\ndata: a\xffb\n\ndata: c\n\n")

    assert events == [ServerSentEvent("\ufffd", b"a\xffb"), ServerSentEvent(data=b"c")]


def test_an_event_is_returned_with_its_last_byte() -> None:
    """It does not wait for the next event."""
    decoder = SSEDecoder()

    assert list(decoder.feed(b"data: x\n")) == []
    assert list(decoder.feed(b"\n")) == [ServerSentEvent(data=b"x")]


def test_a_line_beyond_the_limit_is_refused_after_earlier_events() -> None:
    """An incomplete line of more than max_bytes raises EventTooLong; the event before it is returned first."""
    decoder = SSEDecoder(max_bytes=10)
    events = iter(decoder.feed(b"data: x\n\n" + b"data: 12345"))

    assert next(events) == ServerSentEvent(data=b"x")
    with pytest.raises(EventTooLong):
        next(events)


@pytest.mark.parametrize("line", [b"data: 12345\n", b"data: 1234\n" * 3])
def test_a_line_or_event_beyond_the_limit_is_refused(line: bytes) -> None:
    """The limit applies to a complete line, and to the data of an event of several lines."""
    with pytest.raises(EventTooLong):
        decoded(line, max_bytes=10)


def test_the_limit_is_per_event() -> None:
    """50 events within the limit are accepted, although together they exceed it."""
    assert len(decoded(b"data: 123\n\n" * 50, max_bytes=10)) == 50


LINES = st.lists(
    st.sampled_from(["data: 年假🙂", "data:x", "event: ping", ": hm", "", "", "data: a\u2028b", "junk", "data"]),
    max_size=20,
)


@given(lines=LINES, end=st.sampled_from(["\n", "\r\n", "\r"]), positions=st.lists(st.integers(0, 10_000), max_size=30))
def test_any_cut_of_the_same_bytes_gives_the_same_events(lines: list[str], end: str, positions: list[int]) -> None:
    """This also holds for each kind of line end."""
    wire = end.join(lines).encode()

    assert decoded(*cut(wire, positions)) == decoded(wire) == decoded("\n".join(lines).encode())


@given(wire=st.binary(max_size=200), positions=st.lists(st.integers(0, 200), max_size=20))
def test_any_cut_of_any_bytes_gives_the_same_events(wire: bytes, positions: list[int]) -> None:
    """This holds for random bytes, too."""
    assert decoded(*cut(wire, positions)) == decoded(wire)


def reference_decoder(wire: bytes) -> list[ServerSentEvent]:
    """Decode the whole stream line by line, as the format defines; the end of the stream also ends an event."""
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
    st.sampled_from([
        b"data: x\n\n", b"data: {}\n\n", b"data: \n\n", b"data: data: x\n\n", b"data: \xe5\xb9\xb4\xff\n\n",
        b"data: a\ndata: b\n\n", b"data: a\rdata: b\n\n", b"data: x\r\n\r\n", b"event: ping\n\n", b": hm\n\n",
        b"\xef\xbb\xbf", b"data: ", b"y\n\n", b"\n", b"\r",
    ]),
    max_size=12,
)  # fmt: skip


@given(blocks=BLOCKS, positions=st.lists(st.integers(0, 10_000), max_size=6))
def test_the_shortcut_for_whole_events_gives_the_same_events(blocks: list[bytes], positions: list[int]) -> None:
    """It gives the events of the format's definition, whatever precedes and follows the whole events."""
    wire = b"".join(blocks)

    assert decoded(*blocks) == decoded(*cut(wire, positions)) == reference_decoder(wire)


def test_the_limit_applies_to_whole_events_too() -> None:
    """A chunk of several events may be longer than max_bytes, one event may not."""
    assert decoded(b"data: 123\n\n" * 5, max_bytes=10) == [ServerSentEvent(data=b"123")] * 5
    with pytest.raises(EventTooLong):
        decoded(b"data: 12345\n\n", max_bytes=10)


@given(comments=st.integers(0, 5), positions=st.lists(st.integers(0, 400), max_size=20))
def test_comments_are_counted_for_any_cut(comments: int, positions: list[int]) -> None:
    """A comment in one piece counts once, a cut one at least once; data and events do not count."""
    other = b"data: :x\n\nevent: ping\r\n\r\ndata: y\n\n"
    wire = b": hm\n\n" * comments + other
    whole, pieces = SSEDecoder(), SSEDecoder()

    for chunk in (wire, *cut(other, positions)):
        list(whole.feed(chunk))
    for chunk in cut(wire, positions):
        list(pieces.feed(chunk))

    assert whole.comments == comments
    assert bool(pieces.comments) == bool(comments)
    assert pieces.comments >= comments


@given(answer=st.text(max_size=50), positions=st.lists(st.integers(0, 400), max_size=20))
def test_json_data_is_unchanged_raw_and_escaped(answer: str, positions: list[int]) -> None:
    """Any text is decoded completely, whether it is sent as UTF-8 or as ASCII escapes."""
    for ascii_only in (False, True):
        line = json.dumps({"answer": answer}, ensure_ascii=ascii_only)

        events = decoded(*cut(f"data: {line}\r\n\r\n".encode(), positions))

        assert [json.loads(event.data or b"") for event in events] == [{"answer": answer}]
