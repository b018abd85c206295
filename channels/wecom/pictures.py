"""The pictures of a finished frame: WeCom takes them only there, as base64 with their MD5."""

from __future__ import annotations

from typing import Any

from services.files.store import FileStore, ShownFiles
from services.streams.records import Snapshot


def shown_files(store: FileStore | None, snapshot: Snapshot) -> ShownFiles:
    """Return the files of an answer that ended within its frame; all others cost no round trip.

    Raises:
        StoreUnavailable: Redis is away.
    """
    if store is None or not snapshot.has_files or snapshot.status == "processing" or snapshot.frame_over:
        return ShownFiles()
    return store.shown(snapshot.stream_id)


def picture_items(shown: ShownFiles) -> list[dict[str, Any]]:
    """Return the frame's `msg_item`."""
    return [
        {"msgtype": "image", "image": {"base64": shown.pictures[stored.entry], "md5": stored.md5}}
        for stored in shown.files
        if stored.entry in shown.pictures
    ]
