"""Format an answer's sources as a short numbered list."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

#: Limits: sources in the list, characters of a title, characters of a URL.
MOST = 5
TITLE_CHARACTERS = 80
URL_CHARACTERS = 300
#: Fields in which providers send a source's title, in order of preference.
NAMES = ("title", "document_name", "name", "url")

#: Characters of a title that are Markdown syntax or break the line.
_MARKS = re.compile(r"[\[\]()<>`*_#|\\\s]+")


def citation_lines(sources: Sequence[Mapping[str, Any]]) -> str:
    """Return the sources as a numbered Markdown list without duplicates; "" if none has a title."""
    named: dict[str, str] = {}
    for source in sources:
        title = _title(source)
        if title and title not in named and len(named) < MOST:
            named[title] = _link(source.get("url"))
    lines = (f"[{title}]({url})" if url else title for title, url in named.items())
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


def _title(source: Mapping[str, Any]) -> str:
    given = next((source[name] for name in NAMES if isinstance(source.get(name), str) and source[name].strip()), "")
    return _MARKS.sub(" ", given).strip()[:TITLE_CHARACTERS].rstrip()


def _link(url: Any) -> str:
    """Return `url` if it is an http or https URL that is safe in a Markdown link, otherwise ""."""
    if not isinstance(url, str) or len(url) > URL_CHARACTERS or re.search(r"[\s()<>\\]", url):
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme in ("http", "https") and parts.hostname else ""
