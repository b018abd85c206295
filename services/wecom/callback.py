"""Checks and decrypts WeCom's callbacks and the files of their messages, and encrypts replies.

No I/O and no state beyond the keys: URL verification must answer within one second, and every poll passes these checks.
They run in this order, and `CallbackRefused.code` names the one that failed:

    missing_parameter, stale_timestamp, xml_body | bad_json, bad_signature, bad_ciphertext

Every failure after the signature (base64, padding, length, receiveid, JSON, the message's shape, another bot) is
`bad_ciphertext`, after the same work: a sender who could tell them apart could decrypt other users' messages.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import orjson

from config.errors import LaibaoError
from services.attachments import Media
from services.errors import AnswerError, CallbackRefused
from services.wecom.crypto import CryptError, WXBizJsonMsgCrypt, decode_key, decrypt_media
from services.wecom.message import ANY_MENTION, UNUSABLE, Message, json_object, mention_of, read_message, unusable
from utils.keyring import derive

#: Query names of the signature: the documented one, then those Tencent's own plugin tolerates.
SIGNATURE_NAMES = ("msg_signature", "msgsignature", "signature")

#: Characters of the longest echo; WeCom sends about 20. Messages are longer: otherwise a sender with the token could
#: have recorded messages decrypted as echoes.
MAX_ECHO = 128

T = TypeVar("T")


class WechatService:
    """The callback of one bot. Any pair of its tokens and keys verifies (rotation); the first one signs by default."""

    def __init__(
        self,
        bot: str,
        *,
        tokens: Sequence[str],
        aes_keys: Sequence[str],
        receive_id: str = "",
        bot_name: str = "",
        aibotid: str = "",
        timestamp_window: float = 600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the tokens and EncodingAESKeys of WeCom's console, which `config` has checked.

        `timestamp_window` is in seconds, 0 accepts any time.
        """
        self.bot = bot
        self._aibotid = aibotid
        self._window = timestamp_window
        self._clock = clock
        pairs = list(itertools.product(tokens, aes_keys))
        self._pairs = [WXBizJsonMsgCrypt(*pair, receive_id) for pair in pairs]
        self._key_names = [key_name(aes_key) for _, aes_key in pairs]
        self._mention = mention_of(bot_name) if bot_name else ANY_MENTION

    def verify_url(self, args: Mapping[str, str]) -> str:
        """Return the exact text that answers a URL verification. Raises: CallbackRefused."""
        signed = self._signed(args)
        # A proxy may have turned plus signs into spaces; a space is never valid base64.
        return self._open(_argument(args, "echostr").replace(" ", "+"), *signed, read=_echo)

    def open(self, args: Mapping[str, str], body: bytes) -> Message:
        """Return the message of a POST. The caller has checked its size. Raises: CallbackRefused."""
        signed = self._signed(args)
        return self._open(_encrypted(body), *signed, read=self._message)

    def seal(self, reply: Mapping[str, Any], nonce: str, *, pair: int = 0) -> bytes:
        """Return the JSON envelope around `reply` with the current time. `nonce` comes from the callback's URL."""
        try:
            text = orjson.dumps(reply)
        except TypeError:
            # Half a surrogate pair from a JSON escape has no UTF-8 form; it must not make the whole reply fail.
            text = json.dumps(reply, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        try:
            return self._pairs[pair].seal(text, nonce, int(self._clock()))
        except CryptError as exc:
            raise LaibaoError(f"the reply could not be encrypted: {exc.code}", code="seal_failed") from exc

    def media(self, message: Message) -> tuple[Media, ...]:
        """Return the files of a message and of its quote, each once, with the name of the key that decrypts them."""
        found = dict.fromkeys((*message.media, *message.quoted_media))
        return tuple(replace(media, key=self._key_names[message.pair]) for media in found)

    def _signed(self, args: Mapping[str, str]) -> tuple[str, str, str]:
        """Return signature, timestamp and nonce of the URL, and check the timestamp."""
        timestamp, nonce = _argument(args, "timestamp"), _argument(args, "nonce")
        signed = _argument(args, *SIGNATURE_NAMES)
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
            raise CallbackRefused(code="stale_timestamp")
        if self._window and abs(self._clock() - int(timestamp)) > self._window:
            raise CallbackRefused(code="stale_timestamp")
        return signed, timestamp, nonce

    def _open(self, encrypted: str, *signed: str, read: Callable[[str, int], T]) -> T:
        """Return `read(text, pair)` for the decrypted text and the number of the pair that opened it.

        `read` is called after a failure too, with the text so far, so that every failure takes the same time.
        """
        code = "bad_signature"
        for number, crypt in enumerate(self._pairs):
            try:
                opened = crypt.signed(encrypted, *signed)
            except CryptError:
                continue
            code = UNUSABLE
            with suppress(CallbackRefused):
                found = read(opened.text, number)
                if not opened.code:
                    return found
        raise CallbackRefused(code=code)

    def _message(self, text: str, pair: int) -> Message:
        message = read_message(text, mention=self._mention, pair=pair)
        if self._aibotid and message.aibotid != self._aibotid:
            raise unusable()
        return message


def derive_key(aes_key: str, purpose: str) -> bytes:
    """Derive 32 secret bytes from a bot's AES key for one purpose; equal in every process."""
    return derive(decode_key(aes_key), purpose)


def key_name(aes_key: str) -> str:
    """Return a name of a bot's AES key that does not reveal it; equal in every process."""
    return derive_key(aes_key, "name").hex()[:8]


class MediaKeys:
    """The keys that decrypt the files of all bots' messages."""

    def __init__(self, aes_keys: Mapping[str, Sequence[str]]) -> None:
        """Take each bot's EncodingAESKeys."""
        self._keys = {bot: {key_name(key): decode_key(key) for key in keys} for bot, keys in aes_keys.items()}

    def decryptor(self, bot: str, media: Media) -> Callable[[bytes], bytes]:
        """Return the function that decrypts a file of a message to this bot.

        Raises:
            AnswerError: `media_undecryptable`: the key is malformed, or no longer set. The function raises the same
                for a file that the key does not decrypt.
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


def _echo(text: str, pair: int) -> str:
    if len(text) > MAX_ECHO:
        raise unusable()
    return text


def _argument(args: Mapping[str, str], *names: str) -> str:
    for name in names:
        if value := args.get(name):
            return value
    raise CallbackRefused(code="missing_parameter")


def _encrypted(body: bytes) -> str:
    """Return the ciphertext of a POST. XML comes if the URL was configured for an application instead of a bot."""
    if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise CallbackRefused(code="xml_body")
    envelope = json_object(body, code="bad_json")
    encrypted = envelope.get("encrypt") or envelope.get("Encrypt")
    if not encrypted:
        raise CallbackRefused(code="missing_parameter")
    if not isinstance(encrypted, str):
        raise CallbackRefused(code="bad_json")
    return encrypted


def _decrypted(key: bytes, content: bytes) -> bytes:
    try:
        return decrypt_media(content, key)
    except CryptError as exc:
        raise AnswerError(f"a file of {len(content)} bytes: {exc}", code="media_undecryptable") from None
