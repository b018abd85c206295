"""Secrets that must lie in Redis, sealed with AES-GCM under a key only the replicas have."""

from __future__ import annotations

import base64
import os

from Crypto.Cipher import AES

NONCE_BYTES = 12
TAG_BYTES = 16


def seal(key: bytes, text: str) -> str:
    """Return `text` encrypted under a 32-byte key, as base64; "" stays ""."""
    if not text:
        return ""
    nonce = os.urandom(NONCE_BYTES)
    body, tag = AES.new(key, AES.MODE_GCM, nonce=nonce).encrypt_and_digest(text.encode())
    return base64.b64encode(nonce + tag + body).decode()


def unseal(key: bytes, sealed: str) -> str:
    """Return what was sealed.

    Raises:
        ValueError: it was sealed under another key, or damaged.
    """
    if not sealed:
        return ""
    raw = base64.b64decode(sealed, validate=True)
    nonce, tag, body = raw[:NONCE_BYTES], raw[NONCE_BYTES : NONCE_BYTES + TAG_BYTES], raw[NONCE_BYTES + TAG_BYTES :]
    return AES.new(key, AES.MODE_GCM, nonce=nonce).decrypt_and_verify(body, tag).decode()
