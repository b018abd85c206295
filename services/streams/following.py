"""Following a stream for one reader: its updates after a cursor, until its end, whichever replica writes it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from services.errors import StoreUnavailable, StreamUnknown
from services.models import Status
from services.streams.long_text import FullAnswer
from services.streams.readers import StreamReaders
from services.streams.records import Chunk, ChunkPage, Standing
from utils.running_time import running_time

#: Seconds between reads of a stream that Redis lacks, and between attempts while Redis is away.
PAUSE = 0.2
#: Number of streams remembered as missing; the oldest are dropped, and then get the full timeout again.
MAX_MISSES = 1000


@dataclass(frozen=True, slots=True)
class Update:
    """The change of a stream since a reader's cursor."""

    #: The reader's next cursor: an absolute list index.
    cursor: int
    #: The new chunks of text in order, without empty chunks and errors.
    chunks: tuple[Chunk, ...] = ()
    #: The list index of the first of `chunks`: the cursor before chunk k is `index + k`.
    index: int = 0
    #: The text shown so far is replaced; `chunks` begin the new one.
    reset: bool = False
    #: The index of the first of `chunks` within the text, from 0.
    first: int = 0
    #: Whether the stream has ended.
    ended: bool = False
    status: Status = "processing"
    error_code: str = ""
    #: The error's sentence for the user, "" for none.
    sentence: str = ""
    #: Whether the question waits for earlier ones of its conversation.
    waiting: bool = False
    #: The running step while there is no text, "" for none.
    step: str = ""


class Misses:
    """Streams that Redis lacks, and since when; bounded, and safe in threads.

    A Redis that lost its data gets each running stream again from its owner, within moments. Until the timeout such a
    stream is not reported as unknown, because that would end it for its readers.
    """

    def __init__(self, timeout: float, *, clock: Callable[[], float] = running_time) -> None:
        """Take the seconds that an owner may need to write its stream again."""
        self._timeout = timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._since: OrderedDict[str, float] = OrderedDict()

    def note(self, stream_id: str) -> bool:
        """Note that a stream is missing; return whether its owner may still write it again."""
        with self._lock:
            since = self._since.setdefault(stream_id, self._clock())
            if len(self._since) > MAX_MISSES:
                self._since.popitem(last=False)
            return self._clock() - since < self._timeout

    def forget(self, stream_id: str) -> None:
        """Note that the stream is there."""
        with self._lock:
            self._since.pop(stream_id, None)


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
        """Take the reader's cursor, an absolute list index, and a function that checks the stream's access field.

        Without `text` the reader waits only for the end, and may get some chunks.
        """
        self.stream_id = stream_id
        self._readers = readers
        self._cursor = cursor
        self._allows = allows
        self._misses = misses
        self._text = text
        self._sleep = sleep
        #: The standing of the stream at the last read; None before the first.
        self._seen: Standing | None = None
        #: Whether the next read must not wait for updates.
        self._behind = True

    def next(self, timeout: float) -> Update | None:
        """Return the next update, None if there is none within `timeout` seconds or after the end.

        It waits through an outage of Redis, and through the absence of a stream that its owner may be writing again.

        Raises:
            StreamUnknown: there is no such stream, it has expired, or the reader has no access.
        """
        try:
            page = self._page(timeout)
        except StoreUnavailable:
            self._behind = True
            self._sleep(min(timeout, PAUSE))
            return None
        return self._update(page) if page else None

    def full_answer(self) -> FullAnswer:
        """Return the stream's whole text in one round trip; call it after the end.

        Raises:
            StreamUnknown: it has expired.
            StoreUnavailable: Redis is away.
        """
        if (full := self._readers.full_answer(self.stream_id)) is None:
            raise StreamUnknown(self.stream_id)
        return full

    def _page(self, timeout: float) -> ChunkPage | None:
        if self._seen and not self._behind:
            page = self._readers.wait(self.stream_id, self._cursor, self._seen, timeout)
            # No page may mean that the stream is gone: the next read finds out.
            self._behind = page is None
            return page
        page = self._readers.page(self.stream_id, self._cursor)
        if page is None:
            # Wait for a stream that Redis lacks; a living owner writes it again.
            if not self._misses.note(self.stream_id):
                raise StreamUnknown(self.stream_id)
            self._sleep(min(timeout, PAUSE))
            return None
        self._misses.forget(self.stream_id)
        if self._seen is None and not self._allows(page.access):
            raise StreamUnknown(self.stream_id)
        nothing_new = page.standing == self._seen and not page.chunks
        self._behind = False
        return None if nothing_new else page

    def _update(self, page: ChunkPage) -> Update | None:
        standing, chunks = page.standing, list(page.chunks)
        anew = self._begins_anew(standing)
        index = standing.start if anew else self._cursor
        reset = anew and self._cursor > 0
        if index != self._cursor:
            chunks = chunks[index - self._cursor :] if index > self._cursor else []
        cursor = index + len(chunks)
        if index == self._cursor and self._cursor > standing.length:
            # Redis lost chunks that were shown, and the owner is writing them again.
            cursor = self._cursor
        if not self._text:
            # Leave the last chunk of an ended stream: it may have the error's sentence.
            cursor = max(cursor, standing.length - (standing.status != "processing"))
        self._cursor, self._seen = cursor, standing
        self._behind = cursor < standing.length
        first = max(0, index - standing.start)
        return self._filled(page, chunks, Update(cursor, index=index, reset=reset, first=first))

    def _filled(self, page: ChunkPage, chunks: list[Chunk], update: Update) -> Update:
        standing = page.standing
        words = tuple(chunk for chunk in chunks if chunk.content and not chunk.is_error)
        sentence = "".join(chunk.content for chunk in chunks if chunk.is_error)
        update = replace(update, chunks=words, sentence=sentence, waiting=standing.waiting, step=standing.step)
        if standing.status == "processing" or self._behind:
            return update
        return replace(update, ended=True, status=standing.status, error_code=standing.error_code)

    def _begins_anew(self, standing: Standing) -> bool:
        """Tell whether to read from the text's beginning: it was replaced, or is shorter than the text shown.

        It is shorter if Redis lost chunks: the same owner writes the same again, another owner may write another text.
        """
        if self._seen is None:
            # A reader that returns with the cursor at the text's beginning may have seen an earlier text.
            return self._cursor <= standing.start or self._cursor > standing.length
        if standing.start > self._seen.start:
            return True
        same_owner = (self._seen.epoch, self._seen.owner) == (standing.epoch, standing.owner)
        if standing.epoch == self._seen.epoch and not same_owner:
            # Redis lost the whole stream, and the question was asked again.
            return True
        return self._cursor > standing.length and not (same_owner and standing.status == "processing")
