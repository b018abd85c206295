"""What a bubble of the product shows while there is no answer: sentences, one of which names the running step."""

from __future__ import annotations

import re

from config.texts import LOCALES

#: Keys of the sentences without a part that varies.
PLACEHOLDERS = ("thinking", "queued")
#: The sentence that names the running step, in all languages; a title is one line of 40 characters at most.
_STEPS = [re.compile(re.escape(sentences["step"]).replace(r"\{step\}", ".{1,40}")) for sentences in LOCALES.values()]


def product_placeholders() -> list[str]:
    """Return the product's placeholders in all its languages, without the one that names a step."""
    return [sentences[key] for sentences in LOCALES.values() for key in PLACEHOLDERS]


def names_step(content: str) -> bool:
    """Return whether a bubble shows the sentence that names the running step."""
    return any(sentence.fullmatch(content) for sentence in _STEPS)
