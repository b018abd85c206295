"""Turn Markdown into text for a table's cell, without its marks, and any text into one short plain line.

Every repetition ends at the next character of its kind, so that the time is linear in any text.
"""

from __future__ import annotations

import re
import unicodedata
from html import unescape

from utils.stream_utils import joined
from utils.thinking import fold_thinking

#: Characters that are Markdown or HTML syntax, and white space of any kind.
_SYNTAX = re.compile(r"[\[\]()<>`*_~#|\\\s]+")
#: Characters of a text that are examined per character of the result.
_EXAMINED = 8
_MORE = "…"


def plain_line(text: str, most: int) -> str:
    """Return `text` without markup, line breaks and invisible characters, cut to `most` characters with an ellipsis.

    A cut does not split a composed character, unless that is longer than `most`.
    """
    begun = text[: most * _EXAMINED]
    visible = "".join(each if _is_visible(each) else " " for each in begun)
    line = _SYNTAX.sub(" ", visible).strip()
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


#: Lines whose marks are removed; the rest of a text stays as it is. A line takes about 10 µs.
MOST_LINES = 5_000
#: A line without these has no marks.
_MARK = re.compile(r"[`~*_\[<>#&|\\=+-]")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_RULE = re.compile(r"[\s|:*_=-]*")
_CODE = re.compile(r"(`{1,3})([^`]+)\1")
_BULLETS = (("[ ] ", "☐ "), ("[x] ", "☑ "), ("[X] ", "☑ "))
_ITEM = re.compile(r"(\s*)[-*+]\s+(?=\S)")
#: Marks within a line, in this order.
_MARKS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^\s{0,3}(?:>\s?)+"), ""),
    (re.compile(r"^\s{0,3}#{1,6}\s+"), ""),
    (re.compile(r"!\[([^\[\]]*)\]\([^()\s]*\)"), r"\1"),
    (re.compile(r"\[([^\[\]]+)\]\(<?(https?://[^()\s<>]+)>?\)"), r"\1 (\2)"),
    (re.compile(r"\[([^\[\]]+)\]\([^()\s]*\)"), r"\1"),
    (re.compile(r"<(https?://[^<>\s]+)>"), r"\1"),
    (re.compile(r"(?<![*\\0-9A-Za-z])\*(?=[^\s*])([^*]+)(?<=\S)\*(?!\*)"), r"\1"),
    (re.compile(r"(?<!\\)\*{2,3}(?=[^\s*])([^*]+)(?<=\S)\*{2,3}"), r"\1"),
    (re.compile(r"(?<!\w)(_{1,3})(?=[^\s_])([^_]+)(?<=\S)\1(?!\w)"), r"\2"),
    (re.compile(r"~~(?=[^\s~])([^~]+)(?<=\S)~~"), r"\1"),
    (re.compile(r"\\([!-/:-@\[-`{-~])"), r"\1"),
)
_BREAK = re.compile(r"<br ?/?>", re.IGNORECASE)


def plain_text(markdown: str, most: int) -> str:
    """Return the text of the first `most` characters of Markdown: lists with bullets, tables with bars, no thinking.

    An address stays, behind the words of its link. Code keeps every character.
    """
    lines: list[str] = []
    fence = ""
    for number, line in enumerate(fold_thinking(markdown[:most], "hide").splitlines()):
        if not _MARK.search(line) or number >= MOST_LINES:
            lines.append(line)
            continue
        marker = _FENCE.match(line)
        if fence:
            if marker and marker[1].startswith(fence) and not line[marker.end() :].strip():
                fence = ""
            else:
                lines.append(line)
        elif marker:
            fence = marker[1]
        elif not _RULE.fullmatch(line):
            lines.append(_line(line))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _line(line: str) -> str:
    bare = line.strip()
    if bare.startswith("|") and bare.endswith("|") and len(bare) > 1:
        return " | ".join(_outside_code(cell.strip()) for cell in bare[1:-1].split("|"))
    item = _ITEM.match(line)
    if item is None:
        return _outside_code(line)
    rest = line[item.end() :]
    for box, shown in _BULLETS:
        if rest.startswith(box):
            return item[1] + shown + _outside_code(rest[len(box) :])
    return f"{item[1]}• {_outside_code(rest)}"


def _outside_code(line: str) -> str:
    """Remove the marks of a line; the content of code spans stays as it is."""
    # Text, marks and content of each span in turn.
    parts = _CODE.split(line)
    return "".join(part if at % 3 else _without_marks(part) for at, part in enumerate(parts) if at % 3 != 1)


def _without_marks(text: str) -> str:
    for mark, shown in _MARKS:
        text = mark.sub(shown, text)
    return unescape(_BREAK.sub("\n", text))
