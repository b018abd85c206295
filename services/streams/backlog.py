"""What an owner has said and what Redis has of it: chunks whose boundaries never change again once they were sent."""

from __future__ import annotations

from collections.abc import Sequence

from services.streams.records import Chunk, Write, timestamp

#: Bytes of text one write carries: what goes over a slow line within a socket's timeout.
WRITE_BYTES = 256 * 1024
#: Bytes of text one chunk has at the most: a reader's place is between two of them.
CHUNK_BYTES = 16 * 1024


class Backlog:
    """The chunks of one stream; not safe in threads by itself. All of them are kept: Redis may lose what it had."""

    def __init__(self, chunks: Sequence[Chunk], start: int) -> None:
        """Take the chunks Redis has, and the index the text begins at."""
        self.chunks = list(chunks)
        self.start = start
        #: How many chunks Redis has, and the beginning it knows of.
        self.acked = len(self.chunks)
        self.acked_start = start
        self._pending: list[str] = []
        #: Bytes of text since the beginning, and those of what Redis has not.
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
        """Add so many bytes to the text; they become a chunk, with all else that waits, when the next write is made."""
        self._pending.append(piece)
        self.text_bytes += size
        self.unsent_bytes += size

    def begin_anew(self) -> None:
        """Leave the text behind: what comes next is the beginning."""
        self.unsent_bytes -= sum(_bytes(piece) for piece in self._pending)
        self._pending.clear()
        self.start, self.text_bytes = len(self.chunks), 0

    def freeze(self, stamp: str, *, final: bool = False, sentence: str = "") -> None:
        """Make a chunk of what waits, or several of much, and the last one at the end: `sentence`, or an empty one."""
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
        """Return what Redis has from `cursor` on: so many chunks and bytes at the most, and the first one always."""
        page: list[Chunk] = []
        for chunk in self.chunks[cursor : min(self.acked, cursor + count)]:
            room -= _bytes(chunk.content)
            if page and room < 0:
                break
            page.append(chunk)
        return page

    def unsent(self) -> tuple[Chunk, ...]:
        """Return the chunks Redis lacks, as many as one write carries and at least one."""
        count = len(self.chunks) - self.acked
        if count <= 1:
            # Nearly always: the one that was made of what waited.
            return (self.chunks[-1],) if count else ()
        unsent = tuple(self.chunks[self.acked :])
        size = 0
        for count, chunk in enumerate(unsent):
            size += _bytes(chunk.content)
            if count and size > WRITE_BYTES:
                return unsent[:count]
        return unsent

    def acknowledge(self, write: Write) -> None:
        """Take in that Redis has what a write carried."""
        self.has(max(self.acked, write.index + len(write.chunks)))
        self.acked_start = write.start

    def has(self, length: int) -> None:
        """Take in that Redis has so many chunks."""
        self.acked = length
        if length == len(self.chunks) and not self._pending:
            self.unsent_bytes = 0
            return
        unsent = [chunk.content for chunk in self.chunks[length:]] + self._pending
        self.unsent_bytes = sum(map(_bytes, unsent))


def _pieces(text: str) -> list[str]:
    """Return a text as what one chunk each may have; an empty one is one piece."""
    # No character has more than four bytes.
    if len(text) <= CHUNK_BYTES // 4:
        return [text]
    data, pieces, place = text.encode(), [], 0
    while place < len(data):
        piece = data[place : place + CHUNK_BYTES].decode(errors="ignore")
        pieces.append(piece)
        place += _bytes(piece)
    return pieces


def _bytes(text: str) -> int:
    return len(text.encode())
