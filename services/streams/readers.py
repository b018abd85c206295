"""The readers of this process: one thread polls Redis for all streams that other replicas write.

A reader of a stream that this replica writes waits for its owner's next commit, and reads from memory what Redis is
known to have. Streams of other replicas are read in one pipeline every 50 ms, however many there are.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from services.errors import StoreUnavailable
from services.streams.long_text import FullAnswer
from services.streams.manager import StreamManager
from services.streams.records import ChunkPage, Standing
from services.streams.store import StreamStore

log = logging.getLogger(__name__)

#: Seconds between two pipelines, and after one that failed.
INTERVAL = 0.05
PAUSE = 0.5
#: Streams read in one pipeline.
LOOKS = 200
#: Seconds that `close` waits for the last pipeline.
STOP_SECONDS = 2.0


class _Look:
    """One reader's wait for an update of a stream that another replica writes."""

    def __init__(self, stream_id: str, cursor: int, seen: Standing) -> None:
        self.stream_id = stream_id
        self.cursor = cursor
        self.seen = seen
        self.over = threading.Event()
        self.page: ChunkPage | None = None


class StreamReaders:
    """Gives readers the pages of streams, and triggers the takeover of lapsed ones."""

    def __init__(
        self,
        store: StreamStore,
        manager: StreamManager,
        *,
        attempt: Callable[[str], str],
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the store, the manager of this replica's streams, and `TakeoverManager.attempt`."""
        self._store = store
        self._manager = manager
        self._attempt = attempt
        self._interval = interval
        self._clock = clock
        self._looks: set[_Look] = set()
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="readers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def page(self, stream_id: str, cursor: int) -> ChunkPage | None:
        """Return the stream's chunks from `cursor` now; None if there is no such stream.

        Raises:
            StoreUnavailable: this replica does not write the stream, and Redis is away.
        """
        if (owned := self._manager.owned(stream_id)) and (page := owned.page(cursor)):
            return page
        page = self._store.chunks(stream_id, cursor)
        if page and page.lapsed:
            self._take_over(stream_id)
        return page

    def wait(self, stream_id: str, cursor: int, seen: Standing, timeout: float) -> ChunkPage | None:
        """Return the chunks from `cursor` once the stream's standing differs from `seen`; None after `timeout`.

        It also returns None for a stream that is gone, has no living owner, or whose node is away: call `page` then,
        which detects this and triggers the takeover.
        """
        if owned := self._manager.owned(stream_id):
            page = owned.wait_page(cursor, seen, timeout)
            return page if page and page.standing != seen else None
        look = _Look(stream_id, cursor, seen)
        with self._lock:
            self._looks.add(look)
        self._wanted.set()
        try:
            look.over.wait(timeout)
            return look.page
        finally:
            with self._lock:
                self._looks.discard(look)

    def full_answer(self, stream_id: str) -> FullAnswer | None:
        """Return a stream's whole text, None if there is no such stream; raises `StoreUnavailable`."""
        return self._store.full_answer(stream_id)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wanted.wait()
            began = self._clock()
            pause = self._interval
            try:
                self._look()
            except StoreUnavailable:
                pause = PAUSE
            except Exception:
                log.exception("streams not looked at")
                pause = PAUSE
            self._stopping.wait(max(0.0, pause - (self._clock() - began)))

    def _look(self) -> None:
        with self._lock:
            looks = list(self._looks)
            if not looks and not self._stopping.is_set():
                self._wanted.clear()
        for first in range(0, len(looks), LOOKS):
            self._look_at(looks[first : first + LOOKS])

    def _look_at(self, looks: Sequence[_Look]) -> None:
        pages = self._store.pages([(look.stream_id, look.cursor) for look in looks])
        for look, page in zip(looks, pages, strict=True):
            if page is None:
                look.over.set()
            elif not isinstance(page, StoreUnavailable) and page.standing != look.seen:
                look.page = page
                look.over.set()

    def _take_over(self, stream_id: str) -> None:
        """Mark a lapsed stream, or take it over if the mark is old enough; a Redis outage here is no error."""
        try:
            self._attempt(stream_id)
        except StoreUnavailable:
            log.debug("stream not taken over", extra={"stream_id": stream_id})
