"""Keys: how a secret becomes one for a single purpose, and several of them where one takes another's place."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence

#: The keys of one purpose: a single one, or a function that returns them all. The first of them writes, signs or
#: seals; all of them read, verify or open. The function may raise `StoreUnavailable`: a key may lie in Redis.
Keyring = bytes | Callable[[], Sequence[bytes]]


def keys_of(keyring: Keyring) -> Sequence[bytes]:
    """Return all keys, at least one, the one to write with first."""
    return (keyring,) if isinstance(keyring, bytes) else keyring()


def derive(secret: bytes, purpose: str) -> bytes:
    """Return HKDF-SHA256 (RFC 5869, one block of 32 bytes) of a secret for `purpose`."""
    extracted = hmac.digest(b"wechatlaibao", secret, hashlib.sha256)
    return hmac.digest(extracted, purpose.encode() + b"\x01", hashlib.sha256)
