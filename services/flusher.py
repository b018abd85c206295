"""Group commit: what all streams of this replica have to say goes to Redis in one pipeline.

The next flush begins as soon as the last one is back, without a timer. A stream that says nothing has its lease renewed
every `lease / 3` seconds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from services.errors import StoreUnavailable
from services.owned_stream import OwnedStream
from services.stream_records import Write
from services.stream_store import StreamStore

log = logging.getLogger(__name__)

#: Streams in one pipeline: bounds what one round trip has to carry within the socket's timeout.
BATCH = 200
#: Seconds between tries while Redis is away.
RETRY_SECONDS = (0.05, 0.5)


class Flusher:
    """One thread that writes every stream of this replica."""

    def __init__(self, store: StreamStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._streams: dict[str, OwnedStream] = {}
        self._dirty: set[str] = set()
        self._ended: list[str] = []
        self._wake = threading.Event()
        self._stopping = False
        self._renewed = clock()
        self._thread = threading.Thread(target=self._run, name="flusher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Write what is left, then end."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def add(self, stream: OwnedStream) -> None:
        """Take a stream in; its lease is renewed from now on."""
        with self._lock:
            self._streams[stream.stream_id] = stream
        self.changed(stream)

    def changed(self, stream: OwnedStream) -> None:
        """Have the stream's news written soon."""
        with self._lock:
            if stream.stream_id in self._streams:
                self._dirty.add(stream.stream_id)
        self._wake.set()

    def streams(self) -> list[OwnedStream]:
        with self._lock:
            return list(self._streams.values())

    def owned(self, stream_id: str) -> OwnedStream | None:
        with self._lock:
            return self._streams.get(stream_id)

    def _run(self) -> None:
        pause = RETRY_SECONDS[0]
        while True:
            self._wake.wait(self._store.lease / 3)
            self._wake.clear()
            try:
                more = self._flush()
                pause = RETRY_SECONDS[0]
            except StoreUnavailable:
                more = True
                time.sleep(pause)
                pause = min(2 * pause, RETRY_SECONDS[1])
            except Exception:
                log.exception("flush failed")
                more = True
                time.sleep(RETRY_SECONDS[1])
            if more:
                self._wake.set()
            if self._stopping and not self._dirty:
                return

    def _flush(self) -> bool:
        """Send one pipeline; return whether there is more to send."""
        now = self._clock()
        renewing = now - self._renewed >= self._store.lease / 3
        batch = self._collect(renewing)
        if not batch and not self._ended:
            return False
        if renewing:
            self._renewed = now
        streams = {write.stream_id: stream for stream, write in batch}
        lease_end = time.time() + self._store.lease
        hints = self._store.running_calls(dict.fromkeys(streams, lease_end) if renewing else {}, self._ended)
        try:
            replies = self._store.write([write for _, write in batch], *hints)
        except StoreUnavailable:
            self._failed(streams)
            raise
        self._ended = []
        for (stream, write), reply in zip(batch, replies, strict=True):
            self._after(stream, stream.settle(write, reply))
        return bool(self._dirty)

    def _collect(self, renewing: bool) -> list[tuple[OwnedStream, Write]]:
        with self._lock:
            wanted = list(self._streams) if renewing else list(self._dirty)[:BATCH]
            self._dirty.difference_update(wanted)
            streams = [self._streams[stream_id] for stream_id in wanted if stream_id in self._streams]
        writes = [(stream, stream.next_write(renew=renewing)) for stream in streams]
        return [(stream, write) for stream, write in writes if write]

    def _failed(self, streams: dict[str, OwnedStream]) -> None:
        with self._lock:
            self._dirty.update(streams)
        for stream in streams.values():
            stream.failed()
            self._drop_closed(stream)

    def _after(self, stream: OwnedStream, outcome: str) -> None:
        if outcome == "gone":
            self._write_anew(stream)
        elif outcome == "gap":
            self.changed(stream)
        self._drop_closed(stream)

    def _write_anew(self, stream: OwnedStream) -> None:
        """Redis has lost the stream: create it again as its owner knows it."""
        whole = stream.whole()
        ours, snapshot, _ = self._store.open(whole)
        stream.rewritten(whole, ours and snapshot.epoch == stream.epoch)
        log.warning("stream written anew", extra={"stream_id": stream.stream_id, "ours": ours})
        self.changed(stream)

    def _drop_closed(self, stream: OwnedStream) -> None:
        if not stream.closed:
            return
        with self._lock:
            self._streams.pop(stream.stream_id, None)
            self._dirty.discard(stream.stream_id)
            self._ended.append(stream.stream_id)
