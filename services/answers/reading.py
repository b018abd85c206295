"""Reads what a stream shows, also while Redis is away or lacks what its owner wrote.

While Redis is away, and shortly after, only the stream's owner shows a running stream: another replica might show less
than its reader has seen. A stream that Redis lacks is unknown only after its owner had time to write it again.
"""

from __future__ import annotations

from services.errors import StoreUnavailable
from services.streams.following import Misses
from services.streams.manager import StreamManager
from services.streams.records import Snapshot
from services.streams.shared_reads import SharedReads
from services.streams.store import StreamStore


class StreamReading:
    """Snapshots from Redis, or from this replica's memory where Redis may have less."""

    def __init__(self, store: StreamStore, manager: StreamManager) -> None:
        self._store = store
        self._reads = SharedReads(store)
        self._manager = manager
        # An owner writes with each renewal, a third of the lease apart, and tries again twice a second.
        self.misses = Misses(store.lease / 3 + 2)

    def snapshot(self, stream_id: str) -> Snapshot | None:
        """Return what the stream shows now; None where it is unknown or expired.

        Raises:
            StoreUnavailable: nothing can be shown now; read again later.
        """
        try:
            snapshot = self._reads.read(stream_id)
        except StoreUnavailable as exc:
            return self._owned(stream_id, otherwise=exc)
        return self._checked(stream_id, snapshot) if snapshot else self._missed(stream_id)

    def _owned(self, stream_id: str, *, otherwise: StoreUnavailable) -> Snapshot:
        """Return a stream that this replica writes, from memory.

        Raises:
            StoreUnavailable: `otherwise`, where this replica does not write it.
        """
        snapshot = self._manager.known(stream_id)
        if snapshot is None:
            raise otherwise
        return snapshot

    def _checked(self, stream_id: str, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot from Redis, or the owner's where Redis may have less than was shown."""
        self.misses.forget(stream_id)
        growing = snapshot.status == "processing" and not snapshot.frame_over
        if not growing or not self._store.away(stream_id):
            return snapshot
        newer = StoreUnavailable("after an outage only the stream's owner has all of its text", code="owner_only")
        return max(snapshot, self._owned(stream_id, otherwise=newer), key=lambda seen: seen.size)

    def _missed(self, stream_id: str) -> Snapshot | None:
        """Return the owner's snapshot of a stream that Redis lacks; None once its owner had time to write it again."""
        snapshot = self._manager.known(stream_id)
        if snapshot is None and self.misses.note(stream_id):
            raise StoreUnavailable("the stream's owner may be writing it again", code="stream_missing")
        return snapshot
