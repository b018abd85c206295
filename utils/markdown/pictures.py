"""Find the pictures of a Markdown text and its links to signed files, and put words or other addresses in their place.

Pure functions, linear in the text. Code is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from html import escape, unescape
from itertools import islice
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from utils.markdown.lines import LineKind, LineState, classify, code_spans

#: The folder of Dify's files; signed addresses in it are valid for minutes.
FOLDER = "/files/"
#: Characters of a description and of an address. What is longer is no picture here.
MOST_WORDS, MOST_ADDRESS = 300, 2000
#: Lines of a text in which pictures are found, and references that are examined.
MOST_LINES, MOST_REFERENCES = 10_000, 2_000

#: The class of the link that a picture of another host is rendered as.
FOREIGN_PICTURE = "picture"
#: Such a link in rendered HTML.
_FOREIGN = re.compile(rf'(<a class="{FOREIGN_PICTURE}" href="([^"]*)"[^<>]*>)([^<>]*)</a>')

_REFERENCE = re.compile(
    rf"(?P<mark>!?)\[(?P<words>[^\[\]\n]{{0,{MOST_WORDS}}})\]"
    rf"\([ \t]*<?(?P<url>[^()<>\s]{{1,{MOST_ADDRESS}}})>?(?:[ \t]+(?:\"[^\"\n]*\"|'[^'\n]*'))?[ \t]*\)"
)
#: The beginning of a reference at the end of a text.
_BEGUN = re.compile(rf"!?\[[^\[\]\n]{{0,{MOST_WORDS}}}(?:\](?:\([^()\n]{{0,{MOST_ADDRESS}}})?)?\Z")
#: The address of a picture or link, with its words where it has its own.
_TARGET = re.compile(
    rf"(?:(?P<mark>!?)\[(?P<words>[^\[\]\n]{{0,{MOST_WORDS}}}))?\]"
    rf"\([ \t]*<?(?P<url>[^()<>\s]{{1,{MOST_ADDRESS}}})(?=[)>\s]|\Z)"
)
#: The part of an address that a text ends with.
_TARGET_BEGUN = re.compile(rf"\](?:\([ \t]*<?[^()<>\s]{{0,{MOST_ADDRESS}}})?\Z")


class Reference(NamedTuple):
    """A picture, or a link to a signed file."""

    words: str
    url: str
    is_picture: bool


def is_signed(url: str) -> bool:
    """Return whether an address is one of Dify's: below `/files/`, and relative or signed."""
    if url.startswith(FOLDER):
        return True
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if not parts.path.startswith(FOLDER) or parts.scheme not in ("", "http", "https"):
        return False
    return not parts.netloc or {"timestamp", "nonce", "sign"} <= parse_qs(parts.query).keys()


def references(text: str) -> list[Reference]:
    """Return the pictures of a text and its links to signed files, in their order."""
    found: list[Reference] = []

    def note(reference: Reference) -> str:
        found.append(reference)
        return ""

    replaced(text, note)
    return found


def replaced(text: str, replacement: Callable[[Reference], str]) -> str:
    """Return the text with each picture and each link to a signed file replaced."""
    # Telling code from text costs ten times as much as rendering: most texts with links have nothing to replace.
    if "](" not in text or not ("![" in text or FOLDER in text):
        return text
    # The last one is all of the text after the most lines.
    lines = text.split("\n", MOST_LINES)
    left = MOST_REFERENCES
    for number, (kind, _) in enumerate(classify(lines[:MOST_LINES], LineState())):
        if kind is not LineKind.FENCE and "](" in lines[number]:
            matches = list(islice(_REFERENCE.finditer(lines[number]), left))
            left -= len(matches)
            lines[number] = "".join(_pieces(lines[number], matches, replacement))
    return "\n".join(lines)


def in_words(text: str, words: Callable[[Reference], str], *, growing: bool) -> str:
    """Return the text with words in the place of pictures and of links to signed files.

    Of a `growing` text the beginning of a reference at the end is held back, so that the result only grows.
    """
    if "[" not in text and not text.endswith("!"):
        return text
    return replaced(_settled(text) if growing else text, words)


def signed_references(text: str) -> list[Reference]:
    """Return the pictures and links to signed files whose addresses `relinked` replaces, in their order."""
    found = ((match["url"], match["words"] or "", bool(match["mark"])) for match in _targets(text))
    return [Reference(words.strip(), url, is_picture) for url, words, is_picture in found]


def relinked(text: str, address: Callable[[str], str]) -> str:
    """Return the text with another address in the place of each signed file's, also in code."""
    pieces, end = [], 0
    # A text may repeat an address very often.
    address = cache(address)
    for match in _targets(text):
        pieces += [text[end : match.start("url")], address(match["url"])]
        end = match.end("url")
    return "".join([*pieces, text[end:]]) if pieces else text


def with_pictures(html: str, address: Callable[[str], str]) -> str:
    """Return rendered HTML with a picture in each link that stands for one of another host.

    `address` returns the address of the gateway's copy, "" for none. A copy that cannot be shown leaves the words.
    """
    return _FOREIGN.sub(partial(_with_picture, address), html)


def _with_picture(address: Callable[[str], str], link: re.Match[str]) -> str:
    copy = address(unescape(link[2]))
    words = link[3].replace('"', "&quot;")
    return f'{link[1]}<img src="{escape(copy)}" alt="{words}"></a>' if copy else link[0]


def settled_size(text: str) -> int:
    """Return the size of a growing text without the beginning of an address at its end."""
    tail = max(0, len(text) - MOST_ADDRESS - MOST_WORDS)
    begun = _TARGET_BEGUN.search(text, tail)
    return begun.start() if begun else len(text)


def _targets(text: str) -> Iterator[re.Match[str]]:
    return (match for match in _TARGET.finditer(text) if is_signed(match["url"])) if "](" in text else iter(())


def _settled(text: str) -> str:
    # An "!" may begin a picture, and stand within the words of one that has begun before it.
    text = text.removesuffix("!")
    start = text.rfind("[", text.rfind("\n") + 1)
    begun = _BEGUN.match(text, start) if start >= 0 else None
    if not begun:
        return text
    return text[: start - 1] if text[start - 1 : start] == "!" else text[:start]


def _pieces(line: str, matches: Sequence[re.Match[str]], replacement: Callable[[Reference], str]) -> Iterator[str]:
    spans, span, end = code_spans(line) if matches and "`" in line else [], 0, 0
    for match in matches:
        reference = Reference(match["words"].strip(), match["url"], bool(match["mark"]))
        while span < len(spans) and spans[span][1] <= match.start():
            span += 1
        in_code = span < len(spans) and spans[span][0] < match.end()
        if in_code or not (reference.is_picture or is_signed(reference.url)):
            continue
        yield line[end : match.start()]
        yield replacement(reference)
        end = match.end()
    yield line[end:]
