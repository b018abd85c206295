"""Every sentence that users can see, in Chinese (the default) and in English.

A sentence says what happened and what to do next; it never contains an address, an error code or an exception's text.
`TEXTS_FILE` can replace any sentence. They stand in four groups:

- CONVERSATIONS: what people read beside answers, and as replies to commands, files and cards
- SOCKETS: frames of the two WebSocket channels
- REQUESTS: searches, and refusals of REST addresses
- ANSWERS: answers that failed or were refused; each key is an error code
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from config.environment import did_you_mean
from config.errors import SettingsError
from config.texts import en, zh
from config.texts.requests import in_chinese

__all__ = ["ANSWER_CODES", "EN", "FALLBACK", "LOCALES", "ZH", "Texts", "check_overrides"]

ZH: Mapping[str, str] = {**zh.CONVERSATIONS, **zh.SOCKETS, **zh.REQUESTS, **zh.ANSWERS}
EN: Mapping[str, str] = {**en.CONVERSATIONS, **en.SOCKETS, **en.REQUESTS, **en.ANSWERS}

#: The codes of answers that failed or were refused.
ANSWER_CODES = tuple(zh.ANSWERS)

#: Key of the sentence for errors without one of their own.
FALLBACK = "answer_failed"

LOCALES: Mapping[str, Mapping[str, str]] = {"zh": ZH, "en": EN}


class Texts:
    """The sentences of one locale, with `overrides` applied."""

    def __init__(self, locale: str = "zh", overrides: Mapping[str, str] | None = None) -> None:
        self.locale = locale
        self._sentences = {**LOCALES[locale], **check_overrides(overrides or {})}

    def get(self, key: str, **params: object) -> str:
        """Return the sentence for `key` with `params` filled in.

        Raises:
            KeyError: the key is unknown, which is a bug.
        """
        return self._sentences[key].format(**params)

    def template(self, key: str) -> str:
        """Return the sentence for `key` with its placeholders."""
        return self._sentences[key]

    def known(self, code: str) -> str:
        """Return the sentence for a code, or "" if there is none."""
        return self._sentences.get(code, "")

    def error(self, code: str) -> str:
        """Return the sentence for an error code; for an unknown code that of `FALLBACK`."""
        return self.get(code if code in self._sentences else FALLBACK)

    def translated(self, sentence: str) -> str:
        """Return an English sentence about a wrong request (`config.texts.requests`) in this locale."""
        return in_chinese(sentence) if self.locale == "zh" else sentence


def check_overrides(overrides: Mapping[str, Any]) -> Mapping[str, str]:
    """Check the sentences of `TEXTS_FILE` and return them unchanged.

    Raises:
        SettingsError: a key is unknown, or a sentence is empty, not a string, or has a placeholder that the built-in
            sentence does not have.
    """
    for key, sentence in overrides.items():
        if key not in ZH:
            raise SettingsError(f"TEXTS_FILE: {key} is not the key of a sentence{did_you_mean(key, ZH)}")
        if not isinstance(sentence, str) or not sentence.strip():
            raise SettingsError(f"TEXTS_FILE: {key} is wrong: expected a sentence, got {sentence!r}")
        if not _placeholders(key, sentence) <= _placeholders(key, ZH[key]):
            raise SettingsError(f"TEXTS_FILE: {key} is wrong: expected no {{…}} that our own sentence lacks")
    return overrides


def _placeholders(key: str, sentence: str) -> set[str]:
    try:
        return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}
    except ValueError as exc:
        raise SettingsError(f"TEXTS_FILE: {key} is wrong: {exc}; a brace is written twice") from exc
