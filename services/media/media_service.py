"""Fetches the file of a message: from WeCom's store, from the web, or from Redis, where it came with the question.

Undecrypted bytes of WeCom's store do not leave this module.
"""

from __future__ import annotations

from collections.abc import Callable

from services.attachments import Media, MediaFile
from services.errors import AnswerError
from services.files.kinds import file_of, recognized
from services.files.sent_store import SentFileStore
from services.http.fetcher import Fetcher
from utils.deadline import Deadline

#: Bytes that encryption adds at most.
PADDING = 32

#: Returns the function that decrypts a file of a message to a bot. Both may raise AnswerError (`media_undecryptable`).
Decryptor = Callable[[str, Media], Callable[[bytes], bytes]]


class MediaService:
    """The files of all bots. Thread-safe."""

    def __init__(self, fetcher: Fetcher, decryptor: Decryptor, sent: SentFileStore, *, max_bytes: int) -> None:
        """`max_bytes` is the size of the largest decrypted file."""
        self.sent = sent
        self._fetcher = fetcher
        self._decryptor = decryptor
        self._max_bytes = max_bytes

    def fetch(self, bot: str, media: Media, deadline: Deadline) -> MediaFile:
        """Return a file of a message to this bot.

        Raises:
            FetchError: it cannot be fetched.
            AnswerError: `media_undecryptable`, `media_too_large`, `media_wrong_type`: it is no picture although the
                message says so.
            ProviderError: `interrupted` after `deadline.abort`.
            StoreUnavailable: it is in Redis, which is away.
        """
        name, content = self._read(bot, media, deadline)
        if len(content) > self._max_bytes:
            raise AnswerError("too large", code="media_too_large")
        # A wrong key decrypts one file in 256 to random bytes with a valid end.
        if media.kind == "image" and not recognized(name, content, media.kind).is_picture:
            raise AnswerError("a picture that is none", code="media_wrong_type")
        return file_of(media.kind, name, content)

    def _read(self, bot: str, media: Media, deadline: Deadline) -> tuple[str, bytes]:
        """Return the name that a file's place gives it, "" for none, and its bytes."""
        match media.place:
            case "redis" | "upload":
                return self.sent.read(bot, media)
            case "web":
                fetched = self._fetcher.fetch(media.url, deadline, self._max_bytes)
                return fetched.name, fetched.content
            case _:
                return self._decrypted(bot, media, deadline)

    def _decrypted(self, bot: str, media: Media, deadline: Deadline) -> tuple[str, bytes]:
        decrypt = self._decryptor(bot, media)
        fetched = self._fetcher.fetch(media.url, deadline, self._max_bytes + PADDING)
        return fetched.name, decrypt(fetched.content)

    def close(self) -> None:
        """Close the pooled connections."""
        self._fetcher.close()
