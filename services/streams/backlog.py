"""The chunks of a stream, and which of them Redis has. Their boundaries never change after they were sent."""

from __future__ import annotations

from collections.abc import Sequence

from services.streams.records import Chunk, Write, timestamp

#: Bytes of text in one write: a slow connection carries them within a socket's timeout.
WRITE_BYTES = 256 * 1024
#: Maximal bytes of text in one chunk. A reader's cursor is between two chunks.
CHUNK_BYTES = 16 * 1024


class Backlog:
    """The chunks of one stream; not thread-safe. All are kept, because Redis may lose them."""

    def __init__(self, chunks: Sequence[Chunk], start: int) -> None:
        """Take the chunks that Redis has, and the list index at which the text begins."""
        self.chunks = list(chunks)
        self.start = start
        #: The number of chunks that Redis has, and the start index that it knows.
        self.acked = len(self.chunks)
        self.acked_start = start
        self._pending: list[str] = []
        #: Bytes of text from `start` on, and of the text that Redis lacks.
        self.text_bytes = sum(_bytes(chunk.content) for chunk in self.chunks[start:] if not chunk.is_error)
        self.unsent_bytes = 0

    @property
    def text(self) -> str:
        said = "".join(chunk.content for chunk in self.chunks[self.start :] if not chunk.is_error)
        return said + "".join(self._pending)

    @property
    def acked_text(self) -> str:
        """The text that Redis is known to have."""
        return "".join(chunk.content for chunk in self.chunks[self.start : self.acked] if not chunk.is_error)

    @property
    def behind(self) -> bool:
        """Whether there are chunks that Redis lacks."""
        return self.acked < len(self.chunks)

    @property
    def start_unknown(self) -> bool:
        """Whether Redis does not know yet where the text begins."""
        return self.start > self.acked_start

    def add(self, piece: str, size: int) -> None:
        """Add a piece of `size` bytes; the next `freeze` makes one chunk of all waiting pieces."""
        self._pending.append(piece)
        self.text_bytes += size
        self.unsent_bytes += size

    def begin_anew(self) -> None:
        """Drop the current text; the next piece begins a new one."""
        self.unsent_bytes -= sum(_bytes(piece) for piece in self._pending)
        self._pending.clear()
        self.start, self.text_bytes = len(self.chunks), 0

    def freeze(self, stamp: str, *, final: bool = False, sentence: str = "") -> None:
        """Make chunks of the waiting text; if `final`, mark the last one, or add one for `sentence`."""
        if self.chunks and self.chunks[-1].is_final:
            return
        text = "".join(self._pending)
        self._pending.clear()
        if text or (final and not sentence):
            stamp = stamp or timestamp()
            *others, last = _pieces(text)
            self.chunks += [Chunk(piece, stamp) for piece in others]
            self.chunks.append(Chunk(last, stamp, False, final and not sentence))
        if sentence:
            self.chunks.append(Chunk(sentence, stamp or timestamp(), True, True))

    def page(self, cursor: int, count: int, room: int) -> list[Chunk]:
        """Return the chunks that Redis has from `cursor` on: up to `count`, of `room` bytes, but at least one."""
        page: list[Chunk] = []
        for chunk in self.chunks[cursor : min(self.acked, cursor + count)]:
            room -= _bytes(chunk.content)
            if page and room < 0:
                break
            page.append(chunk)
        return page

    def unsent(self) -> tuple[Chunk, ...]:
        """Return the chunks that Redis lacks: as many as one write carries, but at least one."""
        count = len(self.chunks) - self.acked
        if count <= 1:
            # The usual case: one chunk, made of the waiting text.
            return (self.chunks[-1],) if count else ()
        unsent = tuple(self.chunks[self.acked :])
        size = 0
        for count, chunk in enumerate(unsent):
            size += _bytes(chunk.content)
            if count and size > WRITE_BYTES:
                return unsent[:count]
        return unsent

    def acknowledge(self, write: Write) -> None:
        """Note that Redis has the chunks of a write."""
        self.has(max(self.acked, write.index + len(write.chunks)))
        self.acked_start = write.start

    def has(self, length: int) -> None:
        """Note that Redis has the first `length` chunks."""
        self.acked = length
        if length == len(self.chunks) and not self._pending:
            self.unsent_bytes = 0
            return
        unsent = [chunk.content for chunk in self.chunks[length:]] + self._pending
        self.unsent_bytes = sum(map(_bytes, unsent))


def _pieces(text: str) -> list[str]:
    """Split a text into pieces of at most `CHUNK_BYTES`; an empty text is one piece."""
    # A character has at most four bytes in UTF-8.
    if len(text) <= CHUNK_BYTES // 4:
        return [text]
    data, pieces, position = text.encode(), [], 0
    while position < len(data):
        piece = data[position : position + CHUNK_BYTES].decode(errors="ignore")
        pieces.append(piece)
        position += _bytes(piece)
    return pieces


def _bytes(text: str) -> int:
    return len(text.encode())
