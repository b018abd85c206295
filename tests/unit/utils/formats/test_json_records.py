"""JSON records: the same records in any framing and for any cut of the bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.formats.json_records import BrokenRecord, JSONRecords, Record
from utils.formats.sse import EventTooLong

WORDS = ("年假🙂", "a\u2028b", "", '{"x": 1}', "data: no")
OBJECTS = [{"content": word, "n": number} for number, word in enumerate(WORDS)]


def line(payload: Any, **options: Any) -> bytes:
    return json.dumps(payload, ensure_ascii=False, **options).encode()


LINES = b"\n".join(map(line, OBJECTS))
EVENTS = b"".join(b"data: " + line(each) + b"\n\n" for each in OBJECTS)
FORMS = {
    "lines": LINES + b"\n",
    "lines without the last end": LINES,
    "lines with blank ones": b"\n\n" + LINES.replace(b"\n", b"\n\r\n \n"),
    "lines with CRLF": LINES.replace(b"\n", b"\r\n"),
    "lines after a byte order mark": b"\xef\xbb\xbf" + LINES,
    "events": EVENTS,
    "events without the last blank line": EVENTS[:-1],
    "events with CRLF": EVENTS.replace(b"\n", b"\r\n"),
    "events without the space": EVENTS.replace(b"data: {", b"data:{"),
    "events after a comment": b": hello\n\n" + EVENTS,
    "events after a byte order mark": b"\xef\xbb\xbf" + EVENTS,
    "events glued together": EVENTS.replace(b"\n\n", b"\n"),
}


def read(pieces: Iterable[bytes], **options: Any) -> list[Record]:
    records: list[Record] = []
    decoder = JSONRecords(**options)
    for piece in pieces:
        records += decoder.feed(piece)
    return [*records, *decoder.flush()]


def bytewise(data: bytes) -> list[bytes]:
    return [data[position : position + 1] for position in range(len(data))]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_objects(form: str) -> None:
    """This holds for the whole body at once and byte by byte."""
    expected = [Record(each) for each in OBJECTS]

    assert read([FORMS[form]]) == expected
    assert read(bytewise(FORMS[form])) == expected


@pytest.mark.parametrize("indent", [None, 2], ids=["on one line", "pretty"])
def test_a_whole_body_is_one_record(indent: int | None) -> None:
    """A reply that is not streamed, one JSON object over one or several lines, gives one record."""
    body = line({"answer": "好\n的", "sources": [{"title": "a"}]}, indent=indent)

    assert read(bytewise(body)) == [Record({"answer": "好\n的", "sources": [{"title": "a"}]})]


@given(data=st.data(), form=st.sampled_from(sorted(FORMS)))
def test_cuts_do_not_change_the_records(data: st.DataObject, form: str) -> None:
    """Up to eight cuts at any positions give the same records as the whole body."""
    body = FORMS[form]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    assert read(pieces) == [Record(each) for each in OBJECTS]


@given(body=st.binary(max_size=200))
def test_any_bytes_give_records_or_broken_record(body: bytes) -> None:
    """No other error is raised, and only objects become records."""
    try:
        assert all(isinstance(record.fields, dict) for record in read(bytewise(body)))
    except BrokenRecord:
        assert b"{" in body


def test_the_end_mark_and_event_names_are_returned() -> None:
    """`[DONE]` gives a record with `last`; an event's name is returned with its record, or alone if it has no data."""
    body = b'event: delta\ndata: {"a": 1}\n\nevent: done\n\ndata: [DONE]\n\n'

    assert read([body]) == [Record({"a": 1}, "delta"), Record({}, "done"), Record({}, "", last=True)]


@pytest.mark.parametrize("body", [b'data: hello\n\ndata: {"a": 1}\n\n', b'{"a": 1}\nhello\n', b'{"a": 1}\ndata: x\n'])
def test_data_that_is_no_object_is_skipped_and_counted(body: bytes) -> None:
    """`unreadable` counts what was skipped."""
    decoder = JSONRecords()

    assert [*decoder.feed(body), *decoder.flush()] == [Record({"a": 1})]
    assert decoder.unreadable == 1


@pytest.mark.parametrize(
    "body",
    [b'data: {"a": \n\n', b'{"a": 1}\n{"a": \n{"a": 2}\n', b'{"a": 1}\n{"a"', b'{"a":\n', b'{"a":' * 5000],
    ids=["event", "line", "last line", "body", "nested too deep"],
)
def test_a_broken_object_is_an_error(body: bytes) -> None:
    """Text that begins like an object is not skipped, because part of the answer would be lost."""
    with pytest.raises(BrokenRecord):
        read([body])


@pytest.mark.parametrize("begin", [b'{"a": "', b'{\n"a": "', b'{"a": 1}\n', b"data: ", b"<html>"])
def test_a_record_beyond_max_bytes_is_an_error(begin: bytes) -> None:
    """This bounds memory in every framing."""
    with pytest.raises(EventTooLong):
        read([begin, *[b"x" * 100] * 20], max_bytes=1000)
