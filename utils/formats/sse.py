"""An incremental decoder of server-sent events: takes bytes split anywhere, yields the same events for every split.

It splits lines as bytes, so characters that are split over two reads and U+2028 inside an answer do no harm. Data stays
bytes, which JSON parsers accept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

#: Maximum size of a line or an event in bytes. Lines may be long: a workflow's `node_finished` contains whole prompts.
MAX_BYTES = 4 * 1024 * 1024

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventTooLong(ValueError):
    """A line, or the data of one event, is longer than the decoder accepts."""


class ServerSentEvent(NamedTuple):
    """One block up to a blank line. `data` is None for a block without data: a ping or a comment."""

    name: str = ""
    data: bytes | None = None


class SSEDecoder:
    """Decodes one stream: call `feed` with each chunk and `flush` at the end."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._skip_newline = False
        self._first_line = True
        self._in_comment = False
        #: Number of comment pieces received. They show that the server is alive, but yield no event.
        self.comments = 0
        self._begin_event()

    def feed(self, chunk: bytes) -> Iterable[ServerSentEvent]:
        """Return the events that this chunk completes; consume them all before feeding the next chunk.

        Raises:
            EventTooLong: a line or event has more than `max_bytes`; raised while the events are consumed.
        """
        if self._tail_bytes or self._alive or (blocks := _whole_events(chunk)) is None or len(chunk) > self._max_bytes:
            return self._by_lines(chunk)
        self._skip_newline = self._first_line = False
        return [ServerSentEvent("", block) for block in blocks]

    def flush(self) -> Iterator[ServerSentEvent]:
        """Yield the event that the stream ended without its blank line; some servers omit the last one."""
        if self._tail_bytes:
            yield from self._take(self._whole_line(b""))
        yield from self._take(b"")

    def _by_lines(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        for line in self._lines(chunk):
            yield from self._take(line)

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        if not chunk:
            return
        # A "\r" at the end of the previous chunk already ended its line; skip the "\n" of a "\r\n" pair.
        if self._skip_newline and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._skip_newline = chunk.endswith(b"\r")
        *ends, rest = _LINE_END.split(chunk)
        for end in ends:
            yield self._whole_line(end)
        self._keep(rest)

    def _keep(self, piece: bytes) -> None:
        if piece and not self._tail_bytes:
            self._in_comment = piece.startswith(b":")
        self.comments += bool(piece) and self._in_comment
        self._tail_bytes += len(piece)
        if self._tail_bytes > self._max_bytes:
            raise EventTooLong(f"a line of more than {self._max_bytes} bytes")
        self._tail.append(piece)

    def _whole_line(self, end: bytes) -> bytes:
        self._keep(end)
        line = b"".join(self._tail)
        self._tail, self._tail_bytes = [], 0
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(_BOM)
        return line

    def _begin_event(self) -> None:
        self._name = ""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._alive = False

    def _take(self, line: bytes) -> Iterator[ServerSentEvent]:
        if line:
            self._field(line)
        elif self._alive:
            event = ServerSentEvent(self._name, b"\n".join(self._data) if self._data else None)
            self._begin_event()
            yield event

    def _field(self, line: bytes) -> None:
        self._alive = True
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data_bytes += len(value)
            if self._data_bytes > self._max_bytes:
                raise EventTooLong(f"an event of more than {self._max_bytes} bytes")
            self._data.append(value)
        elif name == b"event":
            self._name = value.decode(errors="replace")


def _whole_events(chunk: bytes) -> list[bytes] | None:
    """Return each event's data if a chunk consists of complete events of one line `data: …`, otherwise None.

    Nearly every read is like this; decoding it line by line takes six times as long.
    """
    if not (chunk.startswith(b"data: ") and chunk.endswith(b"\n\n")) or b"\r" in chunk:
        return None
    blocks = chunk[6:-2].split(b"\n\ndata: ")
    return blocks if chunk.count(b"\n") == 2 * len(blocks) else None
