"""What each line of Markdown is, and where markdown_v2 needs a blank one: the rules behind `utils.markdown.wecom`.

A scan by lines, linear in the text. It knows CommonMark's blocks only as far as the questions here need them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from itertools import pairwise


class LineKind(Enum):
    """What a line is."""

    BLANK = auto()
    PARAGRAPH = auto()
    #: A list item, or an indented line under one.
    ITEM = auto()
    QUOTE = auto()
    HEADING = auto()
    #: `===` or `---` right under a paragraph line.
    UNDERLINE = auto()
    RULE = auto()
    TABLE_HEAD = auto()
    TABLE = auto()
    #: Four spaces deep, outside a list.
    INDENTED = auto()
    #: A fence or a line inside it, blank ones too.
    FENCE = auto()


#: A single break between these would be swallowed: the second line would continue the first one's paragraph.
_SWALLOWED = {
    (LineKind.PARAGRAPH, LineKind.PARAGRAPH),
    (LineKind.PARAGRAPH, LineKind.ITEM),
    (LineKind.PARAGRAPH, LineKind.INDENTED),
    (LineKind.ITEM, LineKind.PARAGRAPH),
    (LineKind.QUOTE, LineKind.PARAGRAPH),
    (LineKind.TABLE, LineKind.PARAGRAPH),
    (LineKind.INDENTED, LineKind.PARAGRAPH),
}

_FENCE = re.compile(r"(`{3,})[^`]*$|(~{3,})")
_HEADING = re.compile(r"#{1,6}(?:[ \t]|$)")
_ITEM = re.compile(r"(?:[-*+]|\d{1,9}[.)])(?:[ \t]+|$)")
_BACKTICKS = re.compile(r"`+")
_QUOTED = re.compile(r"[ \t]*>[ \t]?")


@dataclass(frozen=True, slots=True)
class Fence:
    """An opening code fence: its line, the width before it, its marker of backticks or tildes."""

    line: int
    indent: int
    marker: str

    def closed_by(self, line: str) -> bool:
        rest = line.strip(" \t")
        same = len(rest) >= len(self.marker) and not rest.strip(self.marker[0])
        return same and _indent(line) <= self.indent + 3


@dataclass(frozen=True, slots=True)
class LineState:
    """What the lines before say about a line: whether it stands in a list, and the code fence that is open."""

    in_list: bool = False
    fence: Fence | None = None


def render_lines(lines: Sequence[str], state: LineState) -> tuple[str, LineState]:
    """Return the lines with a blank one wherever one is needed, and what they say about those after a blank line.

    They stand after a blank line, or at the beginning.
    """
    seen = list(classify(lines, state))
    kinds = [kind for kind, _ in seen]
    held, quoted = _breaks_in_code(lines, kinds), _breaks_in_quotes(lines, kinds)
    out = list(lines[:1])
    for index in range(1, len(lines)):
        if index in quoted or (index not in held and _needs_blank(kinds[index - 1], kinds[index])):
            out.append("")
        out.append(lines[index])
    after = seen[-1][1]
    return "\n".join(out), replace(after, fence=replace(after.fence, line=-1)) if after.fence else after


def _breaks_in_quotes(lines: Sequence[str], kinds: Sequence[LineKind]) -> set[int]:
    """Return the quoted lines that would continue the quoted paragraph above: two quotes keep them apart."""
    breaks: set[int] = set()
    start = 0
    for end in range(1, len(lines) + 1):
        if end < len(lines) and kinds[end] is kinds[start] is LineKind.QUOTE:
            continue
        if kinds[start] is LineKind.QUOTE and end - start > 1:
            inner = [_QUOTED.sub("", line, count=1) for line in lines[start:end]]
            within = [kind for kind, _ in classify(inner, LineState())]
            held = _breaks_in_code(inner, within)
            pairs = enumerate(pairwise(within), 1)
            plain = (LineKind.PARAGRAPH, LineKind.PARAGRAPH)
            breaks |= {start + index for index, pair in pairs if pair == plain and index not in held}
        start = end
    return breaks


def code_spans(line: str) -> list[tuple[int, int]]:
    """Return where inline code begins and ends in one line."""
    runs = list(_BACKTICKS.finditer(line))
    return [(runs[a].start(), runs[b].end()) for a, b in _pairs([len(run.group()) for run in runs])]


class FenceTracker:
    """Follows code fences line by line: inside one, nothing else is Markdown."""

    def __init__(self, fence: Fence | None = None) -> None:
        """Begin within `fence`, one of lines before, or outside."""
        self.fence = fence
        self._line = -1

    def inside(self, line: str, *, in_list: bool = False) -> bool:
        """Take the next line; return whether it is a fence or within one."""
        self._line += 1
        if self.fence is None:
            self.fence = self._opened_by(line, in_list)
            return self.fence is not None
        if self.fence.closed_by(line):
            self.fence = None
        return True

    def opened_at(self, line: int) -> bool:
        return self.fence is not None and self.fence.line == line

    def opened_in_item(self, item: str, marker: re.Match[str]) -> None:
        """Note a fence that follows a list item's marker on the same line."""
        if found := _FENCE.match(item, marker.end()):
            width = _indent(item) + marker.end() - _offset(item)
            self.fence = Fence(self._line, width, found[1] or found[2])

    def _opened_by(self, line: str, in_list: bool) -> Fence | None:
        found = _FENCE.match(line, _offset(line))
        if not found or (_indent(line) > 3 and not in_list):
            return None
        return Fence(self._line, _indent(line), found[1] or found[2])


def classify(lines: Sequence[str], state: LineState) -> Iterator[tuple[LineKind, LineState]]:
    """Yield each line's kind, and what is known after it; `state` is what was known before the first."""
    tracker = FenceTracker(state.fence)
    previous, in_list = LineKind.BLANK, state.in_list
    for index, line in enumerate(lines):
        if tracker.inside(line, in_list=in_list):
            previous = LineKind.FENCE
        else:
            following = lines[index + 1] if index + 1 < len(lines) else ""
            previous = _kind(line, following, previous, in_list)
        if previous is LineKind.ITEM and (marker := _ITEM.match(line, _offset(line))):
            tracker.opened_in_item(line, marker)
        # What code holds, and how deep its end is, says nothing about the list around it.
        if previous is not LineKind.BLANK and (previous is not LineKind.FENCE or tracker.opened_at(index)):
            in_list = previous is LineKind.ITEM or (in_list and _indent(line) > 1)
        yield previous, LineState(in_list, tracker.fence)


def _kind(line: str, following: str, previous: LineKind, in_list: bool) -> LineKind:
    """Return the kind of a line outside fences. Spaces and tabs make a blank line, wider spaces a paragraph."""
    rest = line.strip(" \t")
    if not rest:
        return LineKind.BLANK
    if in_list and _indent(line) > 1:
        return LineKind.ITEM
    if _indent(line) > 3:
        return LineKind.INDENTED
    return _block(rest, previous) or _table(rest, following, previous) or LineKind.PARAGRAPH


def _block(rest: str, previous: LineKind) -> LineKind | None:
    """Return the kind that a line's first characters give it."""
    if previous is LineKind.PARAGRAPH and (not rest.strip("=") or (len(rest) > 1 and not rest.strip("-"))):
        return LineKind.UNDERLINE
    compact = rest.replace(" ", "").replace("\t", "")
    if len(compact) > 2 and compact[0] in "-*_" and not compact.strip(compact[0]):
        return LineKind.RULE
    if _HEADING.match(rest):
        return LineKind.HEADING
    if rest.startswith(">"):
        return LineKind.QUOTE
    return LineKind.ITEM if _ITEM.match(rest) else None


def _table(rest: str, following: str, previous: LineKind) -> LineKind | None:
    if "|" not in rest:
        return None
    if previous in (LineKind.TABLE_HEAD, LineKind.TABLE):
        return LineKind.TABLE
    return LineKind.TABLE_HEAD if "|" in following and not following.strip("|-: \t") else None


def _needs_blank(before: LineKind, after: LineKind) -> bool:
    return (before, after) in _SWALLOWED or (after is LineKind.TABLE_HEAD and before is not LineKind.BLANK)


def _breaks_in_code(lines: Sequence[str], kinds: Sequence[LineKind]) -> set[int]:
    """Return the lines that inline code of the line before reaches into: a blank line would break it in two."""
    held: set[int] = set()
    runs: list[tuple[int, int]] = []
    for index, kind in enumerate([*kinds, LineKind.BLANK]):
        if kind is LineKind.PARAGRAPH:
            runs.extend((index, len(run)) for run in _BACKTICKS.findall(lines[index]))
        elif runs:
            for a, b in _pairs([length for _, length in runs]):
                held.update(range(runs[a][0] + 1, runs[b][0] + 1))
            runs = []
    return held


def _pairs(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield which runs of backticks enclose code: the next one of the same length closes, what is between is code."""
    closing: dict[int, int] = {}
    latest: dict[int, int] = {}
    for index in range(len(lengths) - 1, -1, -1):
        if lengths[index] in latest:
            closing[index] = latest[lengths[index]]
        latest[lengths[index]] = index
    index = 0
    while index < len(lengths):
        if index in closing:
            yield index, closing[index]
            index = closing[index]
        index += 1


def _offset(line: str) -> int:
    """Return where a line's indentation ends."""
    return len(line) - len(line.lstrip(" \t"))


def _indent(line: str) -> int:
    """Return how wide a line's indentation is, in columns."""
    return len(line[: _offset(line)].expandtabs(4))
