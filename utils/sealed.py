"""Encrypt secrets that are stored in Redis, with AES-GCM and a key that only the replicas have."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from contextlib import suppress

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
TAG_BYTES = 16


def seal(key: bytes, text: str) -> str:
    """Encrypt `text` with a 32-byte key; return base64, or "" for ""."""
    return seal_bytes(key, text.encode()) if text else ""


def seal_bytes(key: bytes, content: bytes) -> str:
    """Encrypt `content` with a 32-byte key; return base64."""
    nonce = os.urandom(NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, content, None)
    return base64.b64encode(nonce + sealed[-TAG_BYTES:] + sealed[:-TAG_BYTES]).decode()


def unseal_any(keys: Sequence[bytes], sealed: str) -> str:
    """Decrypt the result of `seal` with any of these keys.

    Raises:
        ValueError: the text was encrypted with another key, or is damaged.
    """
    return unseal_bytes_any(keys, sealed).decode() if sealed else ""


def unseal_bytes_any(keys: Sequence[bytes], sealed: str) -> bytes:
    """Decrypt the result of `seal_bytes` with any of these keys.

    Raises:
        ValueError: it was encrypted with another key, or is damaged.
    """
    raw = base64.b64decode(sealed, validate=True)
    nonce, tag, body = raw[:NONCE_BYTES], raw[NONCE_BYTES : NONCE_BYTES + TAG_BYTES], raw[NONCE_BYTES + TAG_BYTES :]
    for key in keys:
        with suppress(InvalidTag):
            return AESGCM(key).decrypt(nonce, body + tag, None)
    raise ValueError("MAC check failed")
