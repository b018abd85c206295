"""Turn a text from outside into one short plain line, to be put into a sentence."""

from __future__ import annotations

import re
import unicodedata

from utils.stream_utils import joined

#: Characters that are Markdown or HTML syntax, and white space of any kind.
_MARKS = re.compile(r"[\[\]()<>`*_~#|\\\s]+")
#: Characters of a text that are examined per character of the result.
_EXAMINED = 8
_MORE = "…"


def plain_line(text: str, most: int) -> str:
    """Return `text` without markup, line breaks and invisible characters, cut to `most` characters with an ellipsis.

    A cut does not split a composed character, unless that is longer than `most`.
    """
    begun = text[: most * _EXAMINED]
    visible = "".join(each if _is_visible(each) else " " for each in begun)
    line = _MARKS.sub(" ", visible).strip()
    if len(line) <= most:
        return line
    end = most - len(_MORE)
    while end > 0 and joined(line, end):
        end -= 1
    return line[: end or most - len(_MORE)].rstrip() + _MORE


def _is_visible(character: str) -> bool:
    """Return False for control characters, marks that turn the writing direction, private and unassigned characters."""
    # The zero-width joiner composes emoji.
    return character == "\u200d" or not unicodedata.category(character).startswith("C")
