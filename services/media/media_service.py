"""Fetches the file of a message from WeCom's store, and decrypts it. Undecrypted bytes do not leave this module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.attachments import Media, MediaFile
from services.errors import AnswerError
from services.http.fetcher import Fetcher
from services.media.kinds import file_of, recognized
from services.wecom.callback import key_name
from services.wecom.crypto import CryptError, decode_key, decrypt_media
from utils.deadline import Deadline

#: Bytes that encryption adds at most.
PADDING = 32


class MediaService:
    """The files of all bots. Thread-safe."""

    def __init__(self, fetcher: Fetcher, aes_keys: Mapping[str, Sequence[str]], *, max_bytes: int) -> None:
        """Take each bot's EncodingAESKeys, and the size of the largest decrypted file."""
        self._fetcher = fetcher
        self._keys = {bot: {key_name(key): decode_key(key) for key in keys} for bot, keys in aes_keys.items()}
        self._max_bytes = max_bytes

    def fetch(self, bot: str, media: Media, deadline: Deadline) -> MediaFile:
        """Return a file of a message to this bot.

        Raises:
            FetchError: it cannot be fetched.
            AnswerError: `media_undecryptable`, `media_too_large`, `media_wrong_type`: it is no picture although WeCom
                says so.
            ProviderError: `interrupted` after `deadline.abort`.
        """
        key = self._keys.get(bot, {}).get(media.key)
        if key is None:
            raise AnswerError("the key of the callback is no longer set", code="media_undecryptable")
        fetched = self._fetcher.fetch(media.url, deadline, self._max_bytes + PADDING)
        try:
            content = decrypt_media(fetched.content, key)
        except CryptError as exc:
            raise AnswerError(f"a file of {len(fetched.content)} bytes: {exc}", code="media_undecryptable") from None
        if len(content) > self._max_bytes:
            raise AnswerError("too large", code="media_too_large")
        # A wrong key decrypts one file in 256 to random bytes with a valid end.
        if media.kind == "image" and not recognized(fetched.name, content, media.kind).is_picture:
            raise AnswerError("a picture that is none", code="media_wrong_type")
        return file_of(media.kind, fetched.name, content)

    def close(self) -> None:
        """Close the pooled connections."""
        self._fetcher.close()
