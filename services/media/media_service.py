"""Fetches the file of a message: from WeCom's store, from the web, or from Redis, where it came with the question.

Undecrypted bytes of WeCom's store do not leave this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.attachments import Media, MediaFile
from services.errors import AnswerError
from services.files.kinds import file_of, recognized
from services.files.sent_store import SentFileStore
from services.http.fetcher import Fetcher
from services.wecom.callback import key_name
from services.wecom.crypto import CryptError, decode_key, decrypt_media
from utils.deadline import Deadline

#: Bytes that encryption adds at most.
PADDING = 32


class MediaService:
    """The files of all bots. Thread-safe."""

    def __init__(
        self, fetcher: Fetcher, aes_keys: Mapping[str, Sequence[str]], sent: SentFileStore, *, max_bytes: int
    ) -> None:
        """Take each bot's EncodingAESKeys, and the size of the largest decrypted file."""
        self.sent = sent
        self._fetcher = fetcher
        self._keys = {bot: {key_name(key): decode_key(key) for key in keys} for bot, keys in aes_keys.items()}
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
        key = self._key(bot, media)
        fetched = self._fetcher.fetch(media.url, deadline, self._max_bytes + PADDING)
        try:
            return fetched.name, decrypt_media(fetched.content, key)
        except CryptError as exc:
            raise AnswerError(f"a file of {len(fetched.content)} bytes: {exc}", code="media_undecryptable") from None

    def _key(self, bot: str, media: Media) -> bytes:
        if not media.aeskey:
            if key := self._keys.get(bot, {}).get(media.key):
                return key
            raise AnswerError("the key of the callback is no longer set", code="media_undecryptable")
        try:
            # WeCom leaves the padding out; with it the key is the same.
            return decode_key(media.aeskey.rstrip("="))
        except CryptError:
            raise AnswerError("the message's aeskey is no key", code="media_undecryptable") from None

    def close(self) -> None:
        """Close the pooled connections."""
        self._fetcher.close()
