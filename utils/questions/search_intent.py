"""Decide whether a question needs a web search, and with which query.

A search is needed if the user asks for one in words, or if the answer changes daily and is not in a company's documents
(weather, news, prices, scores). Uses rules only: no model, no network, and time linear in the text. The definition, and
the labelled texts that measure the rules, are in `tests/unit/questions/searches/`.
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
#: Takes a question; returns the search query, or None for no search.
Wants = Callable[[str], str | None]

#: Maximum number of sentences that are examined, and of characters in each; longer text was pasted, not asked.
MAX_SENTENCES = 50
MAX_SENTENCE = 300
#: Maximum length of a query in characters.
MAX_QUERY = 400

_HAN = re.compile(r"[\u4e00-\u9fff]")
_WORDS_OF_PREFIX = re.compile(r"(?:搜索|search)\s*[:：]\s*", re.IGNORECASE)
_AROUND = " \t\r\n,，。;；:：!！?？、"


def router(route: SearchRoute, prefix: str = "/search") -> Wants:
    """Return the function that decides: by rules or prefix, by prefix only, or always search."""
    chosen: dict[SearchRoute, Wants] = {
        "rules": lambda text: by_prefix(text, prefix) or by_rules(text),
        "prefix": partial(by_prefix, prefix=prefix),
        "always": lambda text: by_prefix(text, prefix) or _query(text),
    }
    return chosen[route]


def by_prefix(text: str, prefix: str) -> str | None:
    """Return the text after the prefix, `搜索:` or `search:`; None if it has neither."""
    text = text.strip()
    if said := _WORDS_OF_PREFIX.match(text):
        return _query(text[said.end() :])
    rest = text[len(prefix) :]
    begins = prefix and text[: len(prefix)].lower() == prefix.lower()
    # "/searching" does not contain the prefix "/search".
    return _query(rest) if begins and not re.match(r"[A-Za-z0-9_-]", rest) else None


def by_rules(text: str) -> str | None:
    """Return the sentences that need a web search, without the words that only request it; None if there are none."""
    first = islice(sentences(text), MAX_SENTENCES)
    wanted = [query for sentence in first if (query := _wanted(sentence[:MAX_SENTENCE])) is not None]
    return _query(" ".join(wanted) or text) if wanted else None


def _wanted(sentence: str) -> str | None:
    """Return the query in a sentence, "" if another sentence contains it, None for no search."""
    if _HAN.search(sentence):
        return search_intent_zh.wanted(sentence)
    return search_intent_en.wanted(sentence)


def _query(text: str) -> str | None:
    return " ".join(text.split()).strip(_AROUND)[:MAX_QUERY] or None
