"""Estimate the number of tokens of a text without a model's tokenizer: for limits, not for billing."""

from __future__ import annotations

import re

#: Characters of about one token each: Chinese, Japanese, Korean, their punctuation, emoji.
_WIDE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U0001f000-\U0003ffff]")
#: Characters per token of other text.
_NARROW = 4


def estimate_tokens(text: str) -> int:
    """Return the estimated number of tokens, rounded up."""
    wide = len(_WIDE.findall(text))
    return wide + -(-(len(text) - wide) // _NARROW)
