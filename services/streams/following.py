"""One reader's way along one stream: what is new since its cursor, until the end, wherever the stream is written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from services.errors import StoreUnavailable, StreamUnknown
from services.models import Status
from services.streams.misses import Misses
from services.streams.readers import StreamReaders
from services.streams.records import Chunk, ChunkPage, Standing, Whole

#: Seconds between looks at a stream that Redis lacks, or while Redis is away.
PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class News:
    """What became known of a stream since a reader's cursor."""

    #: The reader's next place: an absolute list index.
    cursor: int
    #: The text's new chunks in order, none of them empty or an error.
    chunks: tuple[Chunk, ...] = ()
    #: The list index of the first of `chunks`: the cursor before chunk k is `place + k`.
    place: int = 0
    #: What was shown so far no longer counts; `chunks` begin the text anew.
    reset: bool = False
    #: The number of the first of `chunks` within the text, from 0.
    first: int = 0
    #: Nothing follows.
    ended: bool = False
    status: Status = "processing"
    error_code: str = ""
    #: The error's sentence for the user, "" for none.
    sentence: str = ""
    #: The question waits for its conversation's earlier ones.
    waiting: bool = False


class Following:
    """Follows one stream for one reader; used by one thread at a time."""

    def __init__(
        self,
        readers: StreamReaders,
        stream_id: str,
        cursor: int,
        *,
        allows: Callable[[str], bool],
        misses: Misses,
        text: bool = True,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the place the reader is at, an absolute list index, and who says whether it may read.

        One that wants no `text` is shown some chunks at the most: it waits for the end.
        """
        self.stream_id = stream_id
        self._readers = readers
        self._cursor = cursor
        self._allows = allows
        self._misses = misses
        self._text = text
        self._sleep = sleep
        #: How the stream stood when it was last looked at; None before that.
        self._seen: Standing | None = None
        #: There is more to read at once.
        self._behind = True

    def next(self, timeout: float) -> News | None:
        """Return what is new, None when nothing was within `timeout` seconds. After its end there is no more.

        An outage of Redis is waited through, and so is a stream's absence while its owner may be writing it again.

        Raises:
            StreamUnknown: there is no such stream, it has expired, or it is somebody else's.
        """
        try:
            page = self._page(timeout)
        except StoreUnavailable:
            self._behind = True
            self._sleep(min(timeout, PAUSE))
            return None
        return self._news(page) if page else None

    def whole(self) -> Whole:
        """Return the stream's whole text, in one round trip; meant for after its end.

        Raises:
            StreamUnknown: it has expired.
            StoreUnavailable: Redis is away.
        """
        if (whole := self._readers.whole(self.stream_id)) is None:
            raise StreamUnknown(self.stream_id)
        return whole

    def _page(self, timeout: float) -> ChunkPage | None:
        if self._seen and not self._behind:
            page = self._readers.wait(self.stream_id, self._cursor, self._seen, timeout)
            # Nothing new may mean that the stream is gone: the next look tells.
            self._behind = page is None
            return page
        page = self._readers.page(self.stream_id, self._cursor)
        if page is None:
            self._missed(timeout)
            return None
        self._misses.forget(self.stream_id)
        if self._seen is None and not self._allows(page.access):
            raise StreamUnknown(self.stream_id)
        nothing_new = page.standing == self._seen and not page.chunks
        self._behind = False
        return None if nothing_new else page

    def _missed(self, timeout: float) -> None:
        """Wait for a stream that Redis lacks; an owner that lives writes it again."""
        if not self._misses.note(self.stream_id):
            raise StreamUnknown(self.stream_id)
        self._sleep(min(timeout, PAUSE))

    def _news(self, page: ChunkPage) -> News | None:
        standing, chunks = page.standing, list(page.chunks)
        anew = self._begins_anew(standing)
        place = standing.start if anew else self._cursor
        reset = anew and self._cursor > 0
        if place != self._cursor:
            chunks = chunks[place - self._cursor :] if place > self._cursor else []
        cursor = place + len(chunks)
        if place == self._cursor and self._cursor > standing.length:
            # Redis has lost what was shown, and its owner is writing it again.
            cursor = self._cursor
        if not self._text:
            # Of an ended stream the last chunk is left: it may have the error's sentence.
            cursor = max(cursor, standing.length - (standing.status != "processing"))
        self._cursor, self._seen = cursor, standing
        self._behind = cursor < standing.length
        first = max(0, place - standing.start)
        return self._told(page, chunks, News(cursor, place=place, reset=reset, first=first))

    def _told(self, page: ChunkPage, chunks: list[Chunk], news: News) -> News:
        standing = page.standing
        words = tuple(chunk for chunk in chunks if chunk.content and not chunk.is_error)
        sentence = "".join(chunk.content for chunk in chunks if chunk.is_error)
        news = replace(news, chunks=words, sentence=sentence, waiting=standing.waiting)
        if standing.status == "processing" or self._behind:
            return news
        return replace(news, ended=True, status=standing.status, error_code=standing.error_code)

    def _begins_anew(self, standing: Standing) -> bool:
        """Tell whether the reader must begin at the text's beginning: it was replaced, or less than was shown is left.

        Less means that Redis lost some: the same owner writes the same again, another one goes another way.
        """
        if self._seen is None:
            # One who comes back where the text begins may have seen another one before.
            return self._cursor <= standing.start or self._cursor > standing.length
        if standing.start > self._seen.start:
            return True
        same_owner = (self._seen.epoch, self._seen.owner) == (standing.epoch, standing.owner)
        if standing.epoch == self._seen.epoch and not same_owner:
            # Redis had lost it altogether, and it was asked anew.
            return True
        return self._cursor > standing.length and not (same_owner and standing.status == "processing")
