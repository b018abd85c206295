"""How large texts are."""

from __future__ import annotations


def is_longer(text: str, max_bytes: int) -> bool:
    """Tell whether a text has more bytes of UTF-8 than these, also one with half surrogate pairs."""
    # No character has more than four.
    return len(text) * 4 > max_bytes and len(text.encode("utf-8", "surrogatepass")) > max_bytes
