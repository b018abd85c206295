"""An incremental decoder of server-sent events: bytes in, cut anywhere; events out, the same for every cut.

It cuts bytes and decodes whole lines only: neither a character split over two reads nor a U+2028 in an answer harms it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

#: A workflow's `node_finished` carries whole prompts, so a line may be long; this is the bound of memory, in bytes.
MAX_BYTES = 4 * 1024 * 1024

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventTooLong(ValueError):
    """A line, or the data of one event, is longer than the decoder accepts."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One block up to a blank line. `data` is None where none was sent: a ping or a comment, a sign of life only."""

    name: str = ""
    data: str | None = None


class SSEDecoder:
    """Feed it bytes as they come, flush it at the end."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._skip_newline = False
        self._first_line = True
        self._begin_event()
        #: Lines that were not UTF-8; their bad bytes became U+FFFD.
        self.damaged_lines = 0

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """Yield the events that this chunk completes.

        Raises:
            EventTooLong: more than `max_bytes` without an end.
        """
        for line in self._lines(chunk):
            yield from self._take(line)

    def flush(self) -> Iterator[ServerSentEvent]:
        """Yield the event the stream ended in the middle of: servers forget the last blank line."""
        if self._tail_bytes:
            yield from self._take(self._whole_line(b""))
        yield from self._take(b"")

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        if not chunk:
            return
        # A "\r" that ended the last chunk already ended its line: the "\n" of the pair may come now.
        if self._skip_newline and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._skip_newline = chunk.endswith(b"\r")
        *ends, rest = _LINE_END.split(chunk)
        for end in ends:
            yield self._whole_line(end)
        self._keep(rest)

    def _keep(self, piece: bytes) -> None:
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
        self._data: list[str] = []
        self._data_bytes = 0
        self._alive = False

    def _take(self, line: bytes) -> Iterator[ServerSentEvent]:
        if line:
            self._field(line)
        elif self._alive:
            event = ServerSentEvent(self._name, "\n".join(self._data) if self._data else None)
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
            self._data.append(self._decode(value))
        elif name == b"event":
            self._name = self._decode(value)

    def _decode(self, value: bytes) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError:
            self.damaged_lines += 1
            return value.decode(errors="replace")
