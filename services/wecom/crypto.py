"""Encrypts and decrypts WeCom's envelope, with the names and codes of WeCom's own library.

As in WeCom's library, `VerifyURL`, `EncryptMsg` and `DecryptMsg` return a code of `services.wecom.codes` and a text,
and never raise. `DecryptMsg` also reads envelopes of `EncryptMsg`, whose `msgsignature` is the `msg_signature` of a
callback's URL.

The plaintext (AES-256-CBC, IV = the key's first 16 bytes, PKCS#7 to 32):

    16 random bytes | length of the text, 4 bytes big-endian | text in UTF-8 | receiveid
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from services.wecom import codes as ierror
from utils.keyring import decode_aes_key

#: Bytes. PKCS#7 pads to 32, not to the 16 of AES, so a pad may have 17 to 32 bytes.
BLOCK = 32
PREFIX = 16
HEADER = PREFIX + 4


class CryptError(Exception):
    """A step failed. `code` is one of `services.wecom.codes`."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Opened(NamedTuple):
    """The result of decryption. `text` is set after a failure too, so that callers can do the same work with it."""

    #: The code of the first check that failed, or `WXBizMsgCrypt_OK`.
    code: int
    text: str


def decode_key(encoding_aes_key: str) -> bytes:
    """Decode the 43 characters of the console's EncodingAESKey to 32 bytes.

    Raises: CryptError(IllegalAesKey).
    """
    try:
        return decode_aes_key(encoding_aes_key)
    except (TypeError, ValueError) as exc:
        raise CryptError(ierror.WXBizMsgCrypt_IllegalAesKey) from exc


def signature(token: str, timestamp: str, nonce: str, encrypted: str | bytes) -> str:
    """Return the hex SHA-1 over the four strings, sorted as bytes.

    Raises: CryptError(ComputeSignature): one of them is not a string.
    """
    try:
        ciphertext = encrypted if isinstance(encrypted, bytes) else encrypted.encode()
        parts = sorted((token.encode(), timestamp.encode(), nonce.encode(), ciphertext))
    except (AttributeError, UnicodeEncodeError) as exc:
        raise CryptError(ierror.WXBizMsgCrypt_ComputeSignature_Error) from exc
    digest = hashlib.sha1()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def decrypt_media(encrypted: bytes, key: bytes) -> bytes:
    """Decrypt a downloaded file. It has padding but neither prefix nor length field.

    Raises: CryptError(DecryptAES): wrong key, or the download is an error page instead of a file.
    """
    if not encrypted or len(encrypted) % PREFIX:
        raise CryptError(ierror.WXBizMsgCrypt_DecryptAES_Error)
    return _unpad(_cipher(key).decryptor().update(encrypted))


class Prpcrypt:
    """Encrypt and decrypt texts with a decoded key. Stateless and thread-safe."""

    def __init__(self, key: bytes, *, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._cipher = _cipher(key)
        self._random = random

    def encrypt(self, text: str, receive_id: str) -> str:
        """Encrypt `text` for `receive_id`; return base64. Raises: CryptError(EncryptAES)."""
        try:
            message, receiver = text.encode(), receive_id.encode()
        except (AttributeError, UnicodeEncodeError) as exc:
            raise CryptError(ierror.WXBizMsgCrypt_EncryptAES_Error) from exc
        return self.encrypt_bytes(message, receiver).decode()

    def encrypt_bytes(self, message: bytes, receiver: bytes) -> bytes:
        """Do the same as `encrypt` with bytes."""
        count = BLOCK - (HEADER + len(message) + len(receiver)) % BLOCK
        length, pad = struct.pack(">I", len(message)), bytes([count]) * count
        plain = b"".join((self._random(PREFIX), length, message, receiver, pad))
        return base64.b64encode(self._cipher.encryptor().update(plain))

    def decrypt(self, encrypted: str, receive_id: str) -> str:
        """Decrypt to text. Raises: CryptError with the code of the first failed check."""
        opened = self.open(encrypted, receive_id.encode("utf-8", "replace"))
        if opened.code:
            raise CryptError(opened.code)
        return opened.text

    def open(self, encrypted: str, receiver: bytes) -> Opened:
        """Decrypt, and run every check even if an earlier one failed.

        The time must not reveal which check failed: otherwise a sender who can sign could decrypt other users'
        messages, one byte in a few hundred tries (a padding oracle).
        """
        blocks, is_base64, is_aligned = _decoded(encrypted)
        plain, is_padded = _unpadded(self._cipher.decryptor().update(blocks))
        message, given, is_split = _split(plain)
        is_ours = hmac.compare_digest(given, receiver)
        text, is_utf8 = _text(message)
        passed = (is_base64, is_aligned and is_padded, is_split, is_ours, is_utf8)
        return Opened(next((code for code, good in zip(_CODES, passed, strict=True) if not good), 0), text)


class WXBizJsonMsgCrypt:
    """The envelope of one bot. With a malformed EncodingAESKey every method reports IllegalAesKey."""

    def __init__(self, sToken: str, sEncodingAESKey: str, sReceiveId: str) -> None:
        self._token = sToken
        self._receiver = sReceiveId.encode("utf-8", "replace")
        self._crypt: Prpcrypt | None = None
        try:
            self._crypt = Prpcrypt(decode_key(sEncodingAESKey))
        except CryptError as exc:
            self._key_error = exc

    def VerifyURL(self, sMsgSignature: str, sTimeStamp: str, sNonce: str, sEchoStr: str) -> tuple[int, str | None]:
        """Return the code and the text that answers a URL verification."""
        return self.open(sEchoStr, sMsgSignature, sTimeStamp, sNonce)

    def EncryptMsg(self, sReplyMsg: str, sNonce: str, timestamp: str | int | None = None) -> tuple[int, str | None]:
        """Return the code and the envelope as JSON text. `timestamp=None` means now."""
        try:
            crypt = self._prpcrypt()
            try:
                message = sReplyMsg.encode()
            except (AttributeError, UnicodeEncodeError) as exc:
                raise CryptError(ierror.WXBizMsgCrypt_EncryptAES_Error) from exc
            return ierror.WXBizMsgCrypt_OK, self._sealed(crypt, message, sNonce, _seconds(timestamp)).decode()
        except CryptError as exc:
            return exc.code, None

    def seal(self, message: bytes, nonce: str, seconds: int) -> bytes:
        """Do the same as `EncryptMsg` with bytes, which copies the answer less often.

        Raises: CryptError(IllegalAesKey, ComputeSignature).
        """
        return self._sealed(self._prpcrypt(), message, nonce, seconds)

    def _sealed(self, crypt: Prpcrypt, message: bytes, nonce: str, seconds: int) -> bytes:
        encrypted = crypt.encrypt_bytes(message, self._receiver)
        signed = signature(self._token, str(seconds), nonce, encrypted)
        quoted = json.dumps(nonce, ensure_ascii=False)
        tail = f'","msgsignature":"{signed}","timestamp":{seconds},"nonce":{quoted}}}'
        return b"".join((b'{"encrypt":"', encrypted, tail.encode()))

    def DecryptMsg(
        self, sPostData: str | bytes, sMsgSignature: str, sTimeStamp: str, sNonce: str
    ) -> tuple[int, str | None]:
        """Return the code and the text of an envelope, WeCom's or one made by `EncryptMsg`."""
        try:
            encrypted = json.loads(sPostData)["encrypt"]
        except (ValueError, TypeError, LookupError, RecursionError):
            return ierror.WXBizMsgCrypt_ParseJson_Error, None
        if not isinstance(encrypted, str):
            return ierror.WXBizMsgCrypt_ParseJson_Error, None
        return self.open(encrypted, sMsgSignature, sTimeStamp, sNonce)

    def open(self, encrypted: str, msg_signature: str, timestamp: str, nonce: str) -> tuple[int, str | None]:
        """Check the signature, then decrypt. Shared by `VerifyURL` and `DecryptMsg`."""
        try:
            opened = self.signed(encrypted, msg_signature, timestamp, nonce)
        except CryptError as exc:
            return exc.code, None
        return opened.code, None if opened.code else opened.text

    def signed(self, encrypted: str, msg_signature: str, timestamp: str, nonce: str) -> Opened:
        """Check the signature, then return the result of `Prpcrypt.open`.

        Raises: CryptError(IllegalAesKey, ComputeSignature, ValidateSignature).
        """
        crypt = self._prpcrypt()
        expected = signature(self._token, timestamp, nonce, encrypted)
        if not isinstance(msg_signature, str) or not _equal(expected, msg_signature):
            raise CryptError(ierror.WXBizMsgCrypt_ValidateSignature_Error)
        return crypt.open(encrypted, self._receiver)

    def _prpcrypt(self) -> Prpcrypt:
        if self._crypt is None:
            raise self._key_error
        return self._crypt


def _cipher(key: bytes) -> Cipher[CBC]:
    return Cipher(AES(key), CBC(key[:PREFIX]))


def _equal(expected: str, given: str) -> bool:
    """Compare in constant time. As bytes, because `compare_digest` takes only ASCII strings."""
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))


def _seconds(timestamp: str | int | None) -> int:
    try:
        return int(time.time() if timestamp is None else timestamp)
    except (ValueError, TypeError, OverflowError) as exc:
        raise CryptError(ierror.WXBizMsgCrypt_GenReturnJson_Error) from exc


def _unpad(padded: bytes) -> bytes:
    plain, passed = _unpadded(padded)
    if not passed:
        raise CryptError(ierror.WXBizMsgCrypt_DecryptAES_Error)
    return plain


#: The code of each check of `Prpcrypt.open`, in the order of the checks.
_CODES = (
    ierror.WXBizMsgCrypt_DecodeBase64_Error,
    ierror.WXBizMsgCrypt_DecryptAES_Error,
    ierror.WXBizMsgCrypt_IllegalBuffer,
    ierror.WXBizMsgCrypt_ValidateCorpid_Error,
    ierror.WXBizMsgCrypt_IllegalBuffer,
)


def _decoded(encrypted: str) -> tuple[bytes, bool, bool]:
    """Return the blocks, padded with zeros, whether the text is base64, and whether it has complete blocks only."""
    try:
        raw, is_base64 = base64.b64decode(encrypted, validate=True), True
    except (TypeError, ValueError):
        raw, is_base64 = bytes(len(encrypted) * 3 // 4), False
    is_aligned = len(raw) > 0 and len(raw) % BLOCK == 0
    return raw if is_aligned else raw + bytes(BLOCK - len(raw) % BLOCK), is_base64, is_aligned


def _unpadded(padded: bytes) -> tuple[bytes, bool]:
    """Return the text without padding, and whether the padding was valid. Without a valid one a block is cut off."""
    count = padded[-1] if 1 <= padded[-1] <= BLOCK else BLOCK
    return padded[:-count], hmac.compare_digest(padded[-count:], bytes([count]) * count)


def _split(plain: bytes) -> tuple[bytes, bytes, bool]:
    """Split at the length field: return message and receiveid, and whether the length is possible."""
    length = int(struct.unpack(">I", plain[PREFIX:HEADER])[0]) if len(plain) >= HEADER else 0
    end = HEADER + length
    return plain[HEADER:end], plain[end:], end <= len(plain)


def _text(message: bytes) -> tuple[str, bool]:
    """Decode the message; return it and whether it is UTF-8."""
    try:
        return message.decode(), True
    except UnicodeDecodeError:
        return message.decode("utf-8", "replace"), False
