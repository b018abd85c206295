"""Classify lines of Markdown and decide where markdown_v2 needs a blank line: the rules for `utils.markdown.wecom`.

A scan by lines, linear in the text. It implements only as much of CommonMark's blocks as these two tasks need.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, auto
from itertools import accumulate, pairwise

_FENCE = re.compile(r"(`{3,})[^`]*$|(~{3,})")
_HEADING = re.compile(r"#{1,6}(?:[ \t]|$)")
_ITEM = re.compile(r"(?:[-*+]|\d{1,9}[.)])(?:[ \t]+|$)")
_BACKTICKS = re.compile(r"(`+)")
#: A line outside of lists that opens a fence: its indentation and its marker.
_OPENING = re.compile(r"(?<![^\r\n])( {0,3})(`{3,}(?=[^`\r\n]*(?:[\r\n]|\Z))|~{3,})")
#: The lines that may close a fence, by the character of its marker: their indentation and their marker.
_CLOSING = {mark: re.compile(rf"(?<![^\r\n])([ \t]*)({mark}{{3,}})[ \t]*(?:[\r\n]|\Z)") for mark in "`~"}
_QUOTED = re.compile(r"[ \t]*>[ \t]?")
#: First characters of lines of which a paragraph is not the only kind; those with a bar may be a table's.
_MARKS = frozenset(" \t`~#>=-*+_0123456789")


class LineKind(IntEnum):
    """The kind of a line."""

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
    #: Indented by four spaces or more, outside a list.
    INDENTED = auto()
    #: A fence, or any line inside one, including blank lines.
    FENCE = auto()


#: Pairs of kinds between which a single line break is lost: the second line would continue the first one's paragraph.
_SWALLOWED = {
    (LineKind.PARAGRAPH, LineKind.PARAGRAPH),
    (LineKind.PARAGRAPH, LineKind.ITEM),
    (LineKind.PARAGRAPH, LineKind.INDENTED),
    (LineKind.ITEM, LineKind.PARAGRAPH),
    (LineKind.QUOTE, LineKind.PARAGRAPH),
    (LineKind.TABLE, LineKind.PARAGRAPH),
    (LineKind.INDENTED, LineKind.PARAGRAPH),
}


@dataclass(frozen=True, slots=True)
class Fence:
    """An opening code fence: line number, indentation in columns, and marker (backticks or tildes)."""

    line: int
    indent: int
    marker: str

    def closed_by(self, line: str) -> bool:
        rest = line.strip(" \t")
        same = len(rest) >= len(self.marker) and not rest.strip(self.marker[0])
        return same and _indent(line) <= self.indent + 3


@dataclass(frozen=True, slots=True)
class LineState:
    """The context of a line: whether it is inside a list, and the open code fence."""

    in_list: bool = False
    fence: Fence | None = None


_OUTSIDE = LineState()


def render_lines(lines: Sequence[str], state: LineState) -> tuple[str, LineState]:
    """Insert blank lines where they are needed; return the text and the state after it.

    `lines` must start at the beginning of the text or after a blank line.
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
    """Return the quoted lines that would continue the quoted paragraph above, so that they become separate quotes."""
    breaks: set[int] = set()
    if LineKind.QUOTE not in kinds:
        return breaks
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
    """Return the start and end of each inline code span in a line."""
    # Every second piece is a run of backticks.
    sizes = list(map(len, _BACKTICKS.split(line)))
    ends = list(accumulate(sizes))
    return [(ends[2 * a], ends[2 * b + 1]) for a, b in _pairs(sizes[1::2])]


def opening_fence(text: str, start: int) -> re.Match[str] | None:
    """Return the next opening of a code fence outside of lists, at the beginning of a line after `start`."""
    return _OPENING.search(text, start)


def end_of_fence(text: str, opening: re.Match[str]) -> int:
    """Return where the code of an opening ends, after its closing line or at the end of the text."""
    indent, marker = opening.groups()
    for line in _CLOSING[marker[0]].finditer(text, opening.end()):
        if len(line[2]) >= len(marker) and len(line[1].expandtabs(4)) <= len(indent) + 3:
            return line.end()
    return len(text)


class FenceTracker:
    """Tracks code fences line by line; inside a fence, nothing else is Markdown."""

    def __init__(self, fence: Fence | None = None) -> None:
        """Start inside `fence`, which earlier lines opened, or outside of any fence."""
        self.fence = fence
        #: The number of the present line.
        self.line = -1

    def inside(self, line: str, *, in_list: bool = False) -> bool:
        """Process the next line; return whether it is a fence or inside one."""
        self.line += 1
        if self.fence is None:
            if "```" in line or "~~~" in line:
                self.fence = self._opened_by(line, in_list)
            return self.fence is not None
        if self.fence.closed_by(line):
            self.fence = None
        return True

    def opened_at(self, line: int) -> bool:
        return self.fence is not None and self.fence.line == line

    def opened_in_item(self, item: str, marker: re.Match[str]) -> None:
        """Record a fence that follows a list item's marker on the same line."""
        if found := _FENCE.match(item, marker.end()):
            width = _indent(item) + marker.end() - _offset(item)
            self.fence = Fence(self.line, width, found[1] or found[2])

    def _opened_by(self, line: str, in_list: bool) -> Fence | None:
        found = _FENCE.match(line, _offset(line))
        if not found or (_indent(line) > 3 and not in_list):
            return None
        return Fence(self.line, _indent(line), found[1] or found[2])


def classify(lines: Sequence[str], state: LineState) -> Iterator[tuple[LineKind, LineState]]:
    """Yield each line's kind and the state after it; `state` is the state before the first line."""
    tracker = FenceTracker(state.fence)
    previous, in_list = LineKind.BLANK, state.in_list
    for index, line in enumerate(lines):
        following = lines[index + 1] if index + 1 < len(lines) else ""
        if kind := _simple(line, following, previous, tracker.fence):
            previous, tracker.line = kind, index
            if kind is not LineKind.FENCE and kind is not LineKind.BLANK:
                in_list, state = False, _OUTSIDE
            yield kind, state
            continue
        if tracker.inside(line, in_list=in_list):
            previous = LineKind.FENCE
        else:
            previous = _kind(line, following, previous, in_list)
        if previous is LineKind.ITEM and (marker := _ITEM.match(line, _offset(line))):
            tracker.opened_in_item(line, marker)
        # Lines inside a fence, and the indentation of its end, do not affect the surrounding list.
        if previous is not LineKind.BLANK and (previous is not LineKind.FENCE or tracker.opened_at(index)):
            in_list = previous is LineKind.ITEM or (in_list and _indent(line) > 1)
        if state.in_list != in_list or state.fence is not tracker.fence:
            state = LineState(in_list, tracker.fence)
        yield previous, state


def _simple(line: str, following: str, previous: LineKind, fence: Fence | None) -> LineKind | None:
    """Return the kind of a line that a few characters determine, as of most lines; None for any other."""
    if fence:
        return None if fence.marker[:3] in line else LineKind.FENCE
    if not line:
        return LineKind.BLANK
    if line[0] in _MARKS:
        return None
    return (_table(line.strip(" \t"), following, previous) if "|" in line else None) or LineKind.PARAGRAPH


def _kind(line: str, following: str, previous: LineKind, in_list: bool) -> LineKind:
    """Return the kind of a line outside fences. Only spaces and tabs count as blank, not other Unicode spaces."""
    rest = line.strip(" \t")
    if not rest:
        return LineKind.BLANK
    if in_list and _indent(line) > 1:
        return LineKind.ITEM
    if _indent(line) > 3:
        return LineKind.INDENTED
    return _block(rest, previous) or _table(rest, following, previous) or LineKind.PARAGRAPH


def _block(rest: str, previous: LineKind) -> LineKind | None:
    """Return the kind of a line that its first characters determine."""
    if previous is LineKind.PARAGRAPH and (not rest.strip("=") or (len(rest) > 1 and not rest.strip("-"))):
        return LineKind.UNDERLINE
    if rest[0] in "-*_":
        compact = rest.replace(" ", "").replace("\t", "")
        if len(compact) > 2 and not compact.strip(compact[0]):
            return LineKind.RULE
    if rest[0] == "#" and _HEADING.match(rest):
        return LineKind.HEADING
    if rest[0] == ">":
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
    """Return the lines into which inline code of the previous line extends; a blank line would split the code."""
    held: set[int] = set()
    if len(lines) < 2 or not any("`" in line for line in lines):
        return held
    runs: list[tuple[int, int]] = []
    for index, kind in enumerate([*kinds, LineKind.BLANK]):
        if kind is LineKind.PARAGRAPH:
            runs.extend((index, len(run)) for run in _BACKTICKS.findall(lines[index]))
        elif runs:
            for a, b in _pairs([length for _, length in runs]):
                if runs[a][0] < runs[b][0]:
                    held.update(range(runs[a][0] + 1, runs[b][0] + 1))
            runs = []
    return held


def _pairs(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of backtick runs that enclose code: a run is closed by the next run of the same length."""
    last = dict(zip(lengths, range(len(lengths)), strict=True))
    index = 0
    while index < len(lengths):
        if last[lengths[index]] > index:
            # The search ends where the loop goes on, so all searches together visit each run once.
            closing = lengths.index(lengths[index], index + 1)
            yield index, closing
            index = closing
        index += 1


def _offset(line: str) -> int:
    """Return the index of the first character after the indentation."""
    return len(line) - len(line.lstrip(" \t"))


def _indent(line: str) -> int:
    """Return the width of the indentation in columns."""
    return 0 if line[:1] not in " \t" else len(line[: _offset(line)].expandtabs(4))
