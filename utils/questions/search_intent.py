"""Does a question want the web, and what is to be searched for.

Next to a company's own papers: a search is wanted where somebody asks for one in words, and where the answer changes by
the day and is in nobody's papers (weather, news, prices, scores). By rules alone: no model, no network, and time in
proportion to the text's length. What counts is told beside the labelled texts, in
`tests/unit/questions/searches/README.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Literal

from utils.questions import search_intent_en, search_intent_zh
from utils.questions.detection import sentences

SearchRoute = Literal["rules", "prefix", "always"]
#: Returns what to search for, None for nothing.
Wants = Callable[[str], str | None]

#: Sentences of a text that are judged, and characters of each: what is longer was pasted, not asked.
MAX_SENTENCES = 50
MAX_SENTENCE = 300
#: Characters of a query.
MAX_QUERY = 400

_HAN = re.compile(r"[\u4e00-\u9fff]")
_WORDS_OF_PREFIX = re.compile(r"(?:搜索|search)\s*[:：]\s*", re.IGNORECASE)
_AROUND = " \t\r\n,，。;；:：!！?？、"


def router(route: SearchRoute, prefix: str = "/search") -> Wants:
    """Return how to choose: by rules or the prefix, by the prefix alone, or everything."""
    chosen: dict[SearchRoute, Wants] = {
        "rules": lambda text: by_prefix(text, prefix) or by_rules(text),
        "prefix": partial(by_prefix, prefix=prefix),
        "always": lambda text: by_prefix(text, prefix) or _query(text),
    }
    return chosen[route]


def by_prefix(text: str, prefix: str) -> str | None:
    """Return what stands behind the prefix, or behind `搜索:` and `search:`."""
    text = text.strip()
    if said := _WORDS_OF_PREFIX.match(text):
        return _query(text[said.end() :])
    rest = text[len(prefix) :]
    begins = prefix and text[: len(prefix)].lower() == prefix.lower()
    # /searching is another word.
    return _query(rest) if begins and not re.match(r"[A-Za-z0-9_-]", rest) else None


def by_rules(text: str) -> str | None:
    """Return the sentences that want the web, without the words that only ask for a search."""
    first = islice(sentences(text), MAX_SENTENCES)
    wanted = [query for sentence in first if (query := _wanted(sentence[:MAX_SENTENCE])) is not None]
    return _query(" ".join(wanted) or text) if wanted else None


def _wanted(sentence: str) -> str | None:
    """Return what a sentence wants to be searched for, "" where that stands elsewhere, None for nothing."""
    if _HAN.search(sentence):
        return search_intent_zh.wanted(sentence)
    return search_intent_en.wanted(sentence)


def _query(text: str) -> str | None:
    return " ".join(text.split()).strip(_AROUND)[:MAX_QUERY] or None
