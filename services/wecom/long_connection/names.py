"""The names of a bot's keys in Redis, and the hashed names within them."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from services.wecom.long_connection.lease_store import lease_key


def bot_key(bot: str, part: str) -> str:
    """Return one of a bot's keys; all of them are in one slot of a Redis Cluster."""
    return f"{{{lease_key(bot)}}}:{part}"


def hidden(key: bytes, kind: str, name: str) -> str:
    """Return 32 hexadecimal digits that stand for a name and reveal it only to holders of the key."""
    return hmac.digest(key, f"long:{kind}:{name}".encode("utf-8", "replace"), "sha256").hex()[:32]


def stands_for(name: str, kind: str, keys: Iterable[bytes], hashed: str) -> bool:
    """Tell whether a hashed name was made from this name with any of the keys."""
    return any(hmac.compare_digest(hidden(key, kind, name), hashed) for key in keys)
