"""Stores files that clients upload for a later question, and returns them for it."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from services import metrics
from services.attachments import FileType, Media, MediaKind
from services.errors import AnswerError
from services.files.kinds import file_of, recognized
from services.files.sent_store import SentFileStore
from services.providers.base import BaseRAGProvider
from utils.keyring import Keyring, keys_of

#: Files of `MEDIA_MAX_BYTES` that one person may upload within `UPLOAD_SECONDS`; smaller ones are counted as
#: `LEAST_COUNTED` bytes at least.
MOST_LARGE, LEAST_COUNTED = 10, 1024 * 1024


@dataclass(frozen=True, slots=True)
class TakenFile:
    """An uploaded file, as the reply to its client describes it."""

    file_id: str
    name: str = field(repr=False)
    type: FileType
    size: int


class FileUploads:
    """The uploads of all clients. Thread-safe."""

    def __init__(self, store: SentFileStore, provider: BaseRAGProvider, *, names: Keyring, max_bytes: int) -> None:
        """Take the default bot's provider, which checks files early; each question's own provider does so again.

        `names` hashes the people whose bytes are counted; `max_bytes` is the size of the largest file.
        """
        self._store = store
        self._provider = provider
        self._names = names
        self.max_bytes = max_bytes

    @property
    def takes_files(self) -> bool:
        return bool(self._provider.takes_files)

    def take(self, principal: str, address: str, name: str, content: bytes) -> TakenFile:
        """Keep a file of this caller; an API key is shared, so its uploads are counted for each client address.

        Raises:
            AnswerError: `media_unsupported`, `media_wrong_type`, `media_too_large`: the provider does not take it;
                `files_full`: this person has uploaded too much.
            StoreUnavailable: Redis is away.
        """
        kind: MediaKind = "image" if recognized(name, content, "file").is_picture else "file"
        try:
            taken = self._taken(principal, address, kind, name, content)
        except AnswerError as exc:
            metrics.MEDIA.labels(kind, exc.code).inc()
            raise
        metrics.MEDIA.labels(kind, "uploaded").inc()
        return taken

    def claim(self, principal: str, file_ids: Sequence[str]) -> tuple[Media, ...]:
        """Return this caller's uploads for a question; without ids no round trip to Redis is made.

        Raises:
            AnswerError: `file_unknown`: one has expired, or is not this caller's.
            StoreUnavailable: Redis is away.
        """
        return self._store.claimed(principal, list(dict.fromkeys(file_ids)))

    def _taken(self, principal: str, address: str, kind: MediaKind, name: str, content: bytes) -> TakenFile:
        if not self.takes_files:
            raise AnswerError("the provider takes no files", code="media_unsupported")
        file = file_of(kind, name, content)
        self._provider.check_file(file)
        person = principal if principal.startswith("user:") else f"{principal}/{address}"
        hashed = hmac.digest(keys_of(self._names)[0], f"upload:{person}".encode(), "sha256").hex()[:24]
        if self._store.uploaded(hashed, max(len(content), LEAST_COUNTED)) > MOST_LARGE * self.max_bytes:
            raise AnswerError("too many uploads", code="files_full")
        return TakenFile(self._store.upload(principal, file), file.name, file.type, len(content))
