"""The sources of an answer: with the same members from every provider, and as a short numbered list."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

#: Limits: sources in the list, characters of a title, characters of a URL.
MOST = 5
TITLE_CHARACTERS = 80
URL_CHARACTERS = 300
#: Fields in which providers send a source's title, in order of preference.
NAMES = ("title", "document_name", "name", "url")
#: Fields of a source's address, of its passage and of its score, in order of preference.
ADDRESSES = ("url", "link")
PASSAGES = ("snippet", "content", "text")
SCORES = ("score", "similarity")
#: Characters of a snippet and of an address.
SNIPPET_CHARACTERS = 600
ADDRESS_CHARACTERS = 2000

#: Characters of a title that are Markdown syntax or break the line.
_MARKS = re.compile(r"[\[\]()<>`*_#|\\\s]+")


def citation_lines(sources: Sequence[Mapping[str, Any]]) -> str:
    """Return the sources as a numbered Markdown list without duplicates; "" if none has a title."""
    named: dict[str, str] = {}
    for source in sources:
        title = _title(source)
        if title and title not in named and len(named) < MOST:
            named[title] = source_link(source.get("url"))
    lines = (f"[{title}]({url})" if url else title for title, url in named.items())
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


def typed_source(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a source with the members `title`, `url`, `snippet` and `score`, before the provider's other members.

    A text is "" and the score None where the provider sent none; the address is an http or https URL.
    """
    address = next((url for name in ADDRESSES if (url := _address(source.get(name)))), "")
    passage = next((source[name] for name in PASSAGES if isinstance(source.get(name), str)), "")
    typed = {
        "title": source_title(source) or address,
        "url": address,
        "snippet": passage[:SNIPPET_CHARACTERS],
        "score": next((source[name] for name in SCORES if _is_number(source.get(name))), None),
    }
    return {**typed, **{name: value for name, value in source.items() if name not in typed}}


def _address(value: Any) -> str:
    """Return an http or https URL, "" for any other value."""
    if not isinstance(value, str) or len(value) > ADDRESS_CHARACTERS or re.search(r"\s", value):
        return ""
    try:
        parts = urlsplit(value)
    except ValueError:
        return ""
    return value if parts.scheme in ("http", "https") and parts.hostname else ""


def _is_number(value: Any) -> bool:
    # An integer may have thousands of digits.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def source_title(source: Mapping[str, Any]) -> str:
    """Return a source's title as its provider sent it, "" for none."""
    return next((source[name] for name in NAMES if isinstance(source.get(name), str) and source[name].strip()), "")


def _title(source: Mapping[str, Any]) -> str:
    return _MARKS.sub(" ", source_title(source)).strip()[:TITLE_CHARACTERS].rstrip()


def source_link(url: Any) -> str:
    """Return `url` if it is an http or https URL that is safe in a Markdown link, otherwise ""."""
    address = _address(url)
    return "" if len(address) > URL_CHARACTERS or re.search(r"[()<>\\]", address) else address
