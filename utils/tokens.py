"""About how many tokens a text has, without any model's tokenizer: for bounds, not for bills."""

from __future__ import annotations

import re

#: Characters that are about a token each: Chinese, Japanese, Korean, their punctuation, emoji.
_WIDE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U0001f000-\U0003ffff]")
#: Of other text a token has about so many characters.
_NARROW = 4


def estimate_tokens(text: str) -> int:
    """Return the number of tokens, rather one too many than one too few."""
    wide = len(_WIDE.findall(text))
    return wide + -(-(len(text) - wide) // _NARROW)
