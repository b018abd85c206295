"""The pictures and files of an answer as messages of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from channels.wecom.long_connection.link import Link
from channels.wecom.long_connection.outgoing import markdown
from channels.wecom.long_connection.uploads import FileMessage, UploadDelayed, UploadRefused, Uploads
from services.files.answer_store import FileStore, StoredFile
from services.files.shown import FileOffers
from services.streams.records import Snapshot
from services.wecom.long_connection.protocol import AckMissing

#: Attempts to upload a file over one link, which WeCom's limits may delay.
ATTEMPTS = 10


class AnswerUploads:
    """Reads and uploads the files of answers. Every method may raise `StoreUnavailable`: try again later."""

    def __init__(self, store: FileStore, offers: FileOffers, uploads: Uploads) -> None:
        self._store = store
        self._offers = offers
        self._uploads = uploads

    def listed(self, snapshot: Snapshot) -> tuple[StoredFile, ...]:
        """Return the files to send, pictures first; the same on every replica."""
        files = self._store.files(snapshot.stream_id) if snapshot.has_files else ()
        kept = [stored for stored in files if not stored.is_missing]
        return tuple(sorted(kept, key=lambda stored: not stored.is_picture))

    def message(
        self, link: Link, stream_id: str, stored: StoredFile, wait: Callable[[float], None]
    ) -> FileMessage | None:
        """Upload a file and return the message that shows it; None where WeCom does not take the file.

        Raises:
            LinkLost: the next link goes on with the upload.
        """
        content = b"".join(self._store.slices(stream_id, stored))
        # An answer that expires now may have lost a part of the file.
        for _ in range(ATTEMPTS if len(content) == stored.size else 0):
            try:
                return self._uploads.message(link, stored.name or stored.entry, content)
            except UploadDelayed as exc:
                wait(exc.seconds)
            except AckMissing:
                continue
            except UploadRefused:
                break
        return None

    def forget(self, bot: str, file: FileMessage) -> None:
        """Forget a file that WeCom has not any more: the next `message` uploads it again."""
        self._uploads.forget(bot, file.digest)

    def linked(self, stream_id: str, stored: StoredFile) -> dict[str, Any]:
        """Return a message with a link to a file."""
        return markdown(self._offers.lines(stream_id, (stored,), pictures=True))
