"""Find the pictures of a Markdown text and its links to signed files, and put words or other addresses in their place.

Pure functions, linear in the text. Code is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from utils.markdown.lines import LineKind, LineState, classify, code_spans

#: The folder of Dify's files; signed addresses in it are valid for minutes.
FOLDER = "/files/"
#: Characters of a description and of an address. What is longer is no picture here.
MOST_WORDS, MOST_ADDRESS = 300, 2000

_REFERENCE = re.compile(
    rf"(?P<mark>!?)\[(?P<words>[^\[\]\n]{{0,{MOST_WORDS}}})\]"
    rf"\([ \t]*<?(?P<url>[^()<>\s]{{1,{MOST_ADDRESS}}})>?(?:[ \t]+(?:\"[^\"\n]*\"|'[^'\n]*'))?[ \t]*\)"
)
#: The beginning of a reference at the end of a text.
_BEGUN = re.compile(rf"!?\[[^\[\]\n]{{0,{MOST_WORDS}}}(?:\](?:\([^()\n]{{0,{MOST_ADDRESS}}})?)?\Z")


class Reference(NamedTuple):
    """A picture, or a link to a signed file."""

    words: str
    url: str
    is_picture: bool


def is_signed(url: str) -> bool:
    """Return whether an address is one of Dify's: below `/files/`, and relative or signed."""
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
    if "](" not in text:
        return text
    lines = text.split("\n")
    for number, (kind, _) in enumerate(classify(lines, LineState())):
        if kind is not LineKind.FENCE and "](" in lines[number]:
            lines[number] = "".join(_pieces(lines[number], replacement))
    return "\n".join(lines)


def in_words(text: str, words: Callable[[Reference], str], *, growing: bool) -> str:
    """Return the text with words in the place of pictures and of links to signed files.

    Of a `growing` text the beginning of a reference at the end is held back, so that the result only grows.
    """
    if "[" not in text and not text.endswith("!"):
        return text
    return replaced(_settled(text) if growing else text, words)


def _settled(text: str) -> str:
    # An "!" may begin a picture, and stand within the words of one that has begun before it.
    text = text.removesuffix("!")
    start = text.rfind("[", text.rfind("\n") + 1)
    begun = _BEGUN.match(text, start) if start >= 0 else None
    if not begun:
        return text
    return text[: start - 1] if text[start - 1 : start] == "!" else text[:start]


def _pieces(line: str, replacement: Callable[[Reference], str]) -> Iterator[str]:
    spans, end = code_spans(line) if "`" in line else [], 0
    for match in _REFERENCE.finditer(line):
        reference = Reference(match["words"].strip(), match["url"], bool(match["mark"]))
        in_code = any(start < match.end() and match.start() < stop for start, stop in spans)
        if in_code or not (reference.is_picture or is_signed(reference.url)):
            continue
        yield line[end : match.start()]
        yield replacement(reference)
        end = match.end()
    yield line[end:]
