"""An incremental decoder of JSON records in any framing: takes bytes split anywhere, yields records.

Services send objects as server-sent events, as one object per line, or as a single object in the whole body, and their
Content-Type is often wrong. The decoder therefore examines the bytes: a body that starts with a brace is JSON, by line
or as a whole; any other body is read as events, and events that are not JSON objects are skipped.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from utils.formats.sse import MAX_BYTES, EventTooLong, ServerSentEvent, SSEDecoder

_BLANKS = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
#: An escaped surrogate, one half of a character outside the Basic Multilingual Plane.
_HALF_CHARACTER = re.compile(r"\\ud[89a-f]", re.IGNORECASE)


class BrokenRecord(ValueError):
    """Text that starts like a JSON object is not valid JSON: part of the answer is lost."""


@dataclass(frozen=True, slots=True)
class Record:
    """One object; `event` is the event's name if it was one. `last` marks the stream's `[DONE]`, without fields."""

    fields: Mapping[str, Any]
    event: str = ""
    last: bool = False


class JSONRecords:
    """Decodes one body: call `feed` with each chunk and `flush` at the end."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._events = SSEDecoder(max_bytes=max_bytes)
        self._begun = b""
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._take: Callable[[bytes], Iterator[Record]] = self._begin
        #: Number of records that were skipped because they are not JSON objects.
        self.unreadable = 0

    @property
    def comments(self) -> int:
        """Number of comment pieces received; servers send comments to keep the connection alive."""
        return self._events.comments

    def feed(self, chunk: bytes) -> Iterator[Record]:
        """Yield the records that this chunk completes.

        Raises:
            BrokenRecord: a record starts like an object but is not valid JSON.
            EventTooLong: a record has more than `max_bytes`.
        """
        yield from self._take(chunk)

    def flush(self) -> Iterator[Record]:
        """Yield the record that the end of the body completes: the last line, the last event, or the whole body.

        Raises:
            BrokenRecord: the object is incomplete.
        """
        for event in self._events.flush():
            yield from self._from_event(event)
        if rest := b"".join(self._tail).strip(_BLANKS):
            yield from self._from_line(rest)

    def _begin(self, chunk: bytes) -> Iterator[Record]:
        begun = self._begun + chunk
        self._begun = begun if _BOM.startswith(begun) else b""
        start = b"" if self._begun else begun.removeprefix(_BOM).lstrip(_BLANKS)
        if start:
            self._take = self._first_line if start.startswith(b"{") else self._sse
            yield from self._take(start)

    def _first_line(self, chunk: bytes) -> Iterator[Record]:
        """Decide between one object per line and one object in the whole body, once the first line is complete."""
        line, newline, rest = chunk.partition(b"\n")
        self._keep(line)
        if not newline:
            return
        whole = b"".join(self._tail)
        if _parsed(whole.decode(errors="replace")) is None:
            self._take = self._whole
            self._keep(newline)
            yield from self._take(rest)
        else:
            self._take = self._lines
            yield from self._take(newline + rest)

    def _whole(self, chunk: bytes) -> Iterator[Record]:
        self._keep(chunk)
        yield from ()

    def _lines(self, chunk: bytes) -> Iterator[Record]:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._keep(end)
            line = b"".join(self._tail).strip(_BLANKS)
            self._tail, self._tail_bytes = [], 0
            if line:
                yield from self._from_line(line)
        self._keep(rest)

    def _keep(self, piece: bytes) -> None:
        self._tail_bytes += len(piece)
        if self._tail_bytes > self._max_bytes:
            raise EventTooLong(f"a record of more than {self._max_bytes} bytes")
        self._tail.append(piece)

    def _from_line(self, line: bytes) -> Iterator[Record]:
        yield from self._from_text(line.decode(errors="replace"), "")

    def _sse(self, chunk: bytes) -> Iterator[Record]:
        for event in self._events.feed(chunk):
            yield from self._from_event(event)

    def _from_event(self, event: ServerSentEvent) -> Iterator[Record]:
        if not event.data:
            if event.name:
                yield Record({}, event.name)
            return
        data = event.data.decode(errors="replace")
        # If a server or proxy omits the blank line between events, each data line is an object of its own.
        glued = "\n" in data and _parsed(data) is None
        for text in data.split("\n") if glued else [data]:
            yield from self._from_text(text, event.name)

    def _from_text(self, text: str, name: str) -> Iterator[Record]:
        fields = _parsed(text)
        if isinstance(fields, dict):
            yield Record(fields, name)
        elif text.strip() == "[DONE]":
            yield Record({}, name, last=True)
        elif text.lstrip().startswith("{"):
            raise BrokenRecord(f"{len(text)} characters that begin like a JSON object and are none")
        else:
            self.unreadable += 1


def _parsed(text: str) -> Any:
    """Parse JSON; return None if it is invalid. Lone surrogates become U+FFFD, NaN and infinite numbers None."""
    try:
        if _HALF_CHARACTER.search(text):
            whole = json.dumps(json.loads(text), ensure_ascii=False)
            text = whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return json.loads(text, parse_constant=_nothing, parse_float=_finite)
    except (ValueError, RecursionError):
        return None


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


def _nothing(constant: str) -> None:
    """Replace NaN and Infinity, which Python's parser accepts although they are not JSON."""
