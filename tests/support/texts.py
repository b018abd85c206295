"""Sentences that show their own keys, and texts to compare without their white space."""

from __future__ import annotations

from config.texts import ZH, Texts

#: Each sentence is its key in angle brackets: `<thinking>`.
KEYS = Texts(overrides={key: f"<{key}>" for key in ZH})


def squeezed(text: str) -> str:
    return "".join(text.split())
