"""Sentences that show their own keys."""

from __future__ import annotations

from config.texts import ZH, Texts

#: Each sentence is its key in angle brackets: `<thinking>`.
KEYS = Texts(overrides={key: f"<{key}>" for key in ZH})
