"""Decrypts the files of messages that WeCom stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from services.attachments import Media
from services.errors import AnswerError
from services.wecom.callback import key_name
from services.wecom.crypto import CryptError, decode_key, decrypt_media


class MediaKeys:
    """The keys of all bots' files."""

    def __init__(self, aes_keys: Mapping[str, Sequence[str]]) -> None:
        """Take each bot's EncodingAESKeys."""
        self._keys = {bot: {key_name(key): decode_key(key) for key in keys} for bot, keys in aes_keys.items()}

    def decryptor(self, bot: str, media: Media) -> Callable[[bytes], bytes]:
        """Return the function that decrypts a file of a message to this bot.

        Both raise AnswerError (`media_undecryptable`): for want of the key, or because it is a wrong one.
        """
        return partial(_decrypted, self._key(bot, media))

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


def _decrypted(key: bytes, content: bytes) -> bytes:
    try:
        return decrypt_media(content, key)
    except CryptError as exc:
        raise AnswerError(f"a file of {len(content)} bytes: {exc}", code="media_undecryptable") from None
