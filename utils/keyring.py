"""Derive keys for single purposes from a secret, and hold several keys during a key rotation."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence

#: The keys of one purpose: a single key, or a function that returns all keys. The first key signs or encrypts; all keys
#: verify or decrypt. The function may raise `StoreUnavailable`, because a key may be stored in Redis.
Keyring = bytes | Callable[[], Sequence[bytes]]


def keys_of(keyring: Keyring) -> Sequence[bytes]:
    """Return all keys, at least one; the first signs or encrypts."""
    return (keyring,) if isinstance(keyring, bytes) else keyring()


def decode_aes_key(text: str) -> bytes:
    """Return the 32 bytes of an EncodingAESKey: 43 characters of base64.

    Raises:
        ValueError: it is something else.
    """
    key = base64.b64decode(text + "=", validate=True)
    if len(text) != 43 or len(key) != 32:
        raise ValueError("not an EncodingAESKey")
    return key


def derive(secret: bytes, purpose: str) -> bytes:
    """Derive a 32-byte key for `purpose` from a secret: one block of HKDF-SHA256 (RFC 5869)."""
    extracted = hmac.digest(b"wechatlaibao", secret, hashlib.sha256)
    return hmac.digest(extracted, purpose.encode() + b"\x01", hashlib.sha256)
