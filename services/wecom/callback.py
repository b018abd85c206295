"""WeCom's callback in our terms: its codes become `CallbackRefused`, its JSON a `Message`, our replies its envelope.

No I/O and no state beyond the keys: URL verification has one second, and every poll passes here. The checks run in
this order and `CallbackRefused.code` names the one that failed:

    missing_parameter, stale_timestamp, xml_body | bad_json, bad_signature, bad_ciphertext

Every failure after the signature (base64, padding, length, receiveid, JSON, the message's shape, another bot) is
`bad_ciphertext`, after the same work: a sender who could tell them apart could decrypt other people's messages.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from services.errors import CallbackRefused, LaibaoError, SettingsError
from services.wecom.crypto import CryptError, WXBizJsonMsgCrypt, decode_key
from utils.keyring import derive

#: Query names of the signature: the documented one, then those Tencent's own plugin tolerates.
SIGNATURE_NAMES = ("msg_signature", "msgsignature", "signature")

#: A name without spaces: all that can be recognised while the bot's own name is not configured.
ANY_MENTION = re.compile(r"^\s*@\S+\s*")

#: Characters of the longest echo; WeCom sends some twenty. No message fits: a sender with the token could otherwise
#: have recorded ones decrypted as echoes.
MAX_ECHO = 128

#: The code of every failure after the signature's check.
UNUSABLE = "bad_ciphertext"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Message:
    """A callback that passed every check. Its repr shows ids only: no words, no one-time URL."""

    msgid: str
    #: text, image, mixed, voice, file, video, stream, event, or one we do not know yet.
    msgtype: str
    #: "" only in an event that nobody caused.
    userid: str
    chattype: str = "single"
    #: The group; "" in a single chat.
    chatid: str = ""
    aibotid: str = ""
    #: Of a text message, in a group without the mention of the bot; "" for every other type.
    text: str = field(default="", repr=False)
    #: Of a stream refresh: the id we gave the stream.
    stream_id: str = ""
    #: Of an event: its eventtype.
    event: str = ""
    #: A credential: whoever has it can post one reply.
    response_url: str = field(default="", repr=False)
    #: The whole decrypted object: quote, media, the event's details.
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    #: Which token and key opened it; hand it to `seal`, so that the reply goes back under the same.
    pair: int = 0


class WechatService:
    """One bot's callback. Every pair of its tokens and keys verifies (rotation), the first signs by default."""

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
        """Take the console's tokens and EncodingAESKeys. `timestamp_window` is in seconds, 0 accepts any time.

        Raises: SettingsError when there is no token, or a key is not one.
        """
        self.bot = bot
        self._aibotid = aibotid
        self._window = timestamp_window
        self._clock = clock
        _check(bot, tokens, aes_keys)
        self._pairs = [WXBizJsonMsgCrypt(*pair, receive_id) for pair in itertools.product(tokens, aes_keys)]
        self._mention = _mention_of(bot_name) if bot_name else ANY_MENTION

    def verify_url(self, args: Mapping[str, str]) -> str:
        """Return the text to answer a URL verification with, byte for byte. Raises: CallbackRefused."""
        signed = self._signed(args)
        # A proxy may have turned the plus signs into spaces; a space is never valid base64.
        return self._open(_argument(args, "echostr").replace(" ", "+"), *signed, read=_echo)

    def open(self, args: Mapping[str, str], body: bytes) -> Message:
        """Return the message of a POST; its size was checked before. Raises: CallbackRefused."""
        signed = self._signed(args)
        return self._open(_encrypted(body), *signed, read=self._message)

    def seal(self, reply: Mapping[str, Any], nonce: str, *, pair: int = 0) -> bytes:
        """Return the JSON envelope around `reply`, stamped now; `nonce` is that of the callback's URL."""
        try:
            text = orjson.dumps(reply)
        except TypeError:
            # Half a surrogate pair, out of some JSON escape, has no UTF-8 form; it must not cost the whole reply.
            text = json.dumps(reply, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        try:
            return self._pairs[pair].seal(text, nonce, int(self._clock()))
        except CryptError as exc:
            raise LaibaoError(f"the reply could not be encrypted: {exc.code}", code="seal_failed") from exc

    def _signed(self, args: Mapping[str, str]) -> tuple[str, str, str]:
        """Return signature, timestamp and nonce of a URL whose time is acceptable."""
        timestamp, nonce = _argument(args, "timestamp"), _argument(args, "nonce")
        signed = _argument(args, *SIGNATURE_NAMES)
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
            raise CallbackRefused(code="stale_timestamp")
        if self._window and abs(self._clock() - int(timestamp)) > self._window:
            raise CallbackRefused(code="stale_timestamp")
        return signed, timestamp, nonce

    def _open(self, encrypted: str, *signed: str, read: Callable[[str, int], T]) -> T:
        """Return what `read` makes of the decrypted text and the number of the pair that opened it.

        `read` is called after a failure too, on what there is, so that each failure costs the same time.
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
        message = _message(_payload(text), mention=self._mention, pair=pair)
        if self._aibotid and message.aibotid != self._aibotid:
            raise _unusable()
        return message


def derive_key(aes_key: str, purpose: str) -> bytes:
    """Return 32 secret bytes of one of a bot's AES keys for one purpose, equal on every process."""
    return derive(decode_key(aes_key), purpose)


def _echo(text: str, pair: int) -> str:
    if len(text) > MAX_ECHO:
        raise _unusable()
    return text


def _unusable() -> CallbackRefused:
    return CallbackRefused(code=UNUSABLE)


def _check(bot: str, tokens: Sequence[str], aes_keys: Sequence[str]) -> None:
    """Look at all keys; a wrong one must stop the start, not a callback."""
    if not tokens or not all(tokens):
        raise SettingsError(f"bot {bot}: WECHAT_TOKEN is missing; expected the Token of the bot's API settings")
    try:
        decoded = [decode_key(key) for key in aes_keys]
    except CryptError:
        decoded = []
    if not decoded:
        expected = "expected the 43 characters of the bot's API settings"
        raise SettingsError(f"bot {bot}: WECHAT_ENCODING_AES_KEY is missing or not a key; {expected}")


def _mention_of(name: str) -> re.Pattern[str]:
    """Match `@name` and the spaces or U+2005 that clients put after it; any of them may stand inside the name."""
    spaced = r"\s+".join(re.escape(word) for word in name.split())
    return re.compile(rf"@{spaced}(?:\s+|$)")


def _argument(args: Mapping[str, str], *names: str) -> str:
    for name in names:
        if value := args.get(name):
            return value
    raise CallbackRefused(code="missing_parameter")


def _encrypted(body: bytes) -> str:
    """Return the ciphertext of a POST. XML comes when the URL was entered at an application instead of a bot."""
    if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise CallbackRefused(code="xml_body")
    envelope = _json_object(body, code="bad_json")
    encrypted = envelope.get("encrypt") or envelope.get("Encrypt")
    if not encrypted:
        raise CallbackRefused(code="missing_parameter")
    if not isinstance(encrypted, str):
        raise CallbackRefused(code="bad_json")
    return encrypted


def _json_object(text: str | bytes, *, code: str) -> dict[str, Any]:
    try:
        value = _loads(text)
    except (ValueError, RecursionError) as exc:
        raise CallbackRefused(code=code) from exc
    if not isinstance(value, dict):
        raise CallbackRefused(code=code)
    return value


def _loads(text: str | bytes) -> Any:
    """Parse what the strict parser does, several times as fast, and what only the lenient one takes."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def _payload(text: str) -> dict[str, Any]:
    """Return the decrypted object, without half surrogate pairs, which no store or socket can encode."""
    payload = _json_object(text, code=UNUSABLE)
    if "\\ud" not in text and "\\uD" not in text:
        return payload
    whole = json.dumps(payload, ensure_ascii=False).encode("utf-8", "replace")
    return _json_object(whole, code=UNUSABLE)


def _message(payload: dict[str, Any], *, mention: re.Pattern[str], pair: int) -> Message:
    msgtype = _required(payload, "msgtype")
    chattype = _optional(payload, "chattype") or "single"
    chatid = _optional(payload, "chatid") if msgtype == "event" else _chatid(payload, chattype)
    return Message(
        # A refresh or an event is never deduplicated, so it may come without an id.
        msgid=(_optional if msgtype in ("stream", "event") else _required)(payload, "msgid"),
        msgtype=msgtype,
        userid=_userid(payload, msgtype),
        chattype=chattype,
        chatid=chatid,
        aibotid=_optional(payload, "aibotid"),
        text=_words(payload, mention if chatid else None) if msgtype == "text" else "",
        stream_id=_required(_member(payload, "stream"), "id") if msgtype == "stream" else "",
        event=_required(_member(payload, "event"), "eventtype") if msgtype == "event" else "",
        response_url=_optional(payload, "response_url"),
        payload=payload,
        pair=pair,
    )


def _chatid(payload: dict[str, Any], chattype: str) -> str:
    if chattype == "group":
        return _required(payload, "chatid")
    if chattype != "single":
        raise _unusable()
    return ""


def _userid(payload: dict[str, Any], msgtype: str) -> str:
    """Return the sender; "" where an event comes from the system itself: there is nobody to answer."""
    if msgtype != "event":
        return _required(_member(payload, "from"), "userid")
    userid = _optional(_member(payload, "from"), "userid") if "from" in payload else ""
    return "" if userid == "sys" else userid


def _words(payload: dict[str, Any], mention: re.Pattern[str] | None) -> str:
    """Return a text message's words, in a group without the first mention of the bot."""
    content = _optional(_member(payload, "text"), "content")
    return mention.sub("", content, count=1).strip() if mention else content


def _member(payload: dict[str, Any], name: str) -> dict[str, Any]:
    value = payload.get(name)
    if not isinstance(value, dict):
        raise _unusable()
    return value


def _required(payload: dict[str, Any], name: str) -> str:
    value = _optional(payload, name)
    if not value:
        raise _unusable()
    return value


def _optional(payload: dict[str, Any], name: str) -> str:
    """Return a text, "" where there is none; a number or an object in its place is refused."""
    value = payload.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _unusable()
    return value
