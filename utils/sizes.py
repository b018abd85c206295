"""Measure texts in bytes."""

from __future__ import annotations


def is_longer(text: str, max_bytes: int) -> bool:
    """Return whether a text, which may contain lone surrogates, has more than `max_bytes` bytes as UTF-8."""
    # A character has at most four bytes, so most texts need no encoding.
    return len(text) * 4 > max_bytes and len(text.encode("utf-8", "surrogatepass")) > max_bytes
