"""Parses Serper's reply into hits. Any key may be missing or have another type."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from services.errors import ProviderError
from services.providers.base import Hit, SearchResult
from services.providers.client.json_fields import count, mapping, mappings, text

#: Maximum number of hits, and of characters in their fields. A longer text is cut; a hit with a longer URL is dropped.
MAX_HITS = 20
MAX_TITLE = 200
MAX_SNIPPET = 600
MAX_URL = 2000


def read_result(reply: Mapping[str, Any]) -> SearchResult:
    """Return the hits in their order, and the answer of Google's own boxes.

    Raises:
        ProviderError: the object is not the reply to a search.
    """
    organic = reply.get("organic", [])
    if not isinstance(organic, list) or not ({"organic", "searchParameters"} & reply.keys() or _answer(reply)):
        raise ProviderError("the reply has no results, not even none", code="provider_error", http_status=200)
    found = (each for each in mappings(organic) if _address(each))
    hits = tuple(_hit(each, number) for number, each in enumerate(islice(found, MAX_HITS), 1))
    usage = {"results_count": len(hits), "credits": count(reply.get("credits"))}
    return SearchResult(hits, _answer(reply), usage)


def _hit(result: Mapping[str, Any], position: int) -> Hit:
    address = _address(result)
    title = _line(result.get("title"), MAX_TITLE) or address
    snippet = _line(result.get("snippet"), MAX_SNIPPET)
    date = _line(result.get("date"), 40)
    return Hit(title, address, f"{date} — {snippet}" if date and snippet else snippet, position)


def _answer(reply: Mapping[str, Any]) -> str:
    """Return the answer box and the knowledge graph, one line each."""
    return "\n".join(line for line in (_box(mapping(reply.get("answerBox"))), _graph(reply)) if line)


def _box(box: Mapping[str, Any]) -> str:
    said = _line(box.get("answer"), MAX_SNIPPET) or _line(box.get("snippet"), MAX_SNIPPET)
    title = _line(box.get("title"), MAX_TITLE)
    return _labelled(title, said) if said else ""


def _graph(reply: Mapping[str, Any]) -> str:
    graph = mapping(reply.get("knowledgeGraph"))
    title, kind = _line(graph.get("title"), MAX_TITLE), _line(graph.get("type"), MAX_TITLE)
    said = _line(graph.get("description"), MAX_SNIPPET) or _facts(mapping(graph.get("attributes")))
    return _labelled(f"{title} ({kind})" if title and kind else title, said) if said else ""


def _facts(attributes: Mapping[str, Any]) -> str:
    facts = (f"{_line(name, 60)}: {_line(value, 120)}" for name, value in islice(attributes.items(), 5))
    return "; ".join(facts)


def _labelled(title: str, said: str) -> str:
    return f"{title}: {said}" if title and title != said else said


def _address(result: Mapping[str, Any]) -> str:
    """Return a result's URL; "" if it is not a valid http(s) URL, such as `javascript:`."""
    address = text(result.get("link")).strip()
    web = address.startswith(("http://", "https://")) and len(address) <= MAX_URL
    return address if web and not any(letter.isspace() for letter in address) else ""


def _line(value: Any, longest: int) -> str:
    """Return a text as one line of at most `longest` characters, so that it cannot break the Markdown around it."""
    line = " ".join(text(value).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
