"""Prepare Markdown for WeCom's markdown_v2: keep line breaks, and find the code fence that is open at the end.

Every poll renders its whole text again, so this must be cheap. The rules in `utils.markdown.lines` look at each line.
This module splits a text into stretches between blank lines. One regular expression recognizes most stretches; the
results for the others are cached, because only the last stretch of a growing text changes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from utils.markdown.lines import Fence, LineState, classify, render_lines

#: Maximum characters of a cached stretch, and size of the cache: 35 MB if all stretches were that long.
STRETCH_CHARACTERS, STRETCHES = 1024, 8192

OUTSIDE, IN_LIST = LineState(), LineState(in_list=True)
IN_FENCE = LineState(fence=Fence(-1, 0, "```"))

#: First characters of a line that can only belong to a paragraph.
_PLAIN = r"(?:[^\s`~#>|=\-*+_\d]|\*\*[^\s*]|\d+[^\s\d.)|`])"
#: Text after a list item's marker that is neither a code fence nor makes the line a thematic break.
_CONTENT = r"(?:[^\s`~*_\-]|\*\*[^\s*])[^\n]*"
_MARKER = r"(?:[-*+]|\d{1,9}[.)])[ \t]+"
_LINE = re.compile(rf"{_PLAIN}|#{{1,6}}[ \t]|>")
_HEADINGS = re.compile(r"(?:#{1,6}[ \t][^\n]*\n)+")
_LINES = rf"{_PLAIN}[^\n`|]*(?:\n{_PLAIN}[^\n`|]*)*"
_LIST = rf"{_MARKER}{_CONTENT}(?:\n[ \t]*{_MARKER}{_CONTENT})*"
_ITEMS = re.compile(_LIST)
_PARAGRAPH = re.compile(rf"({_LINES})(?:\n({_LIST}))?")
_CODE = re.compile(r"```[^`\n]*(\n[^`]*)?(\n```[ \t]*)?")
_CODE_END = re.compile(r"(?:[^`]*\n)?```[ \t]*")


@dataclass(frozen=True, slots=True)
class OpenFence:
    """An unclosed code fence: start and end of its marker in the text, and the line that would close it."""

    start: int
    end: int
    closer: str


def render_markdown(text: str) -> str:
    """Insert a blank line wherever markdown_v2 would lose a single line break or not recognize a table's start.

    Uses blank lines because the two-space hard break is not known to work in markdown_v2, and trailing spaces may be
    stripped in transport. Code, lists and tables are unchanged inside; a quoted paragraph of several lines becomes
    several quotes. Only white space changes, and rendering the result again changes nothing.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    *settled, last = text.split("\n\n")
    state, out = OUTSIDE, []
    for stretch in settled:
        rendered, state = _simple(stretch, state) or _remembered(stretch, state)
        out.append(rendered)
    # Not cached: the last stretch of a growing text changes with the next poll.
    out.append((_simple(last, state) or _by_rules(last, state))[0])
    return "\n\n".join(out)


def open_fence(text: str) -> OpenFence | None:
    """Return the code fence that is open at the end of `text`, or None; `text` must have `\\n` line ends only."""
    if "```" not in text and "~~~" not in text:
        return None
    state, position = OUTSIDE, 0
    starts: list[tuple[int, str, LineState]] = []
    for stretch in text.split("\n\n"):
        starts.append((position, stretch, state))
        state = (_simple(stretch, state) or _remembered(stretch, state))[1]
        position += len(stretch) + 2
    return _opened(starts) if state.fence else None


def _opened(starts: Sequence[tuple[int, str, LineState]]) -> OpenFence | None:
    """Return the fence that is open at the end; `starts` has position, text and initial state of each stretch."""
    for position, stretch, state in reversed(starts):
        if state.fence and state.fence.marker[:3] not in stretch:
            continue
        lines = stretch.split("\n")
        fence = [after.fence for _, after in classify(lines, state)][-1]
        if fence and fence.line >= 0:
            start = position + sum(len(line) + 1 for line in lines[: fence.line])
            start += lines[fence.line].index(fence.marker)
            return OpenFence(start, start + len(fence.marker), " " * fence.indent + fence.marker)
    return None


def _simple(stretch: str, state: LineState) -> tuple[str, LineState] | None:
    """Return the same result as the rules for a stretch of a common kind; None for any other."""
    if state.fence:
        if state.fence.marker[:3] not in stretch:
            return stretch, state
        return (stretch, LineState(state.in_list)) if state == IN_FENCE and _CODE_END.fullmatch(stretch) else None
    if "\n" not in stretch and _LINE.match(stretch):
        return stretch, OUTSIDE
    # Check the first characters before trying the more expensive patterns.
    if stretch.startswith("```"):
        code = _CODE.fullmatch(stretch)
        return (stretch, OUTSIDE if code[2] else IN_FENCE) if code else None
    if headings := _HEADINGS.match(stretch):
        below = _simple(stretch[headings.end() :], OUTSIDE)
        return (headings[0] + below[0], below[1]) if below else None
    if _ITEMS.fullmatch(stretch):
        return stretch, IN_LIST
    if not (paragraph := _PARAGRAPH.fullmatch(stretch)):
        return None
    lines, items = paragraph.groups()
    lines = lines.replace("\n", "\n\n")
    return (f"{lines}\n\n{items}", IN_LIST) if items else (lines, OUTSIDE)


def _by_rules(stretch: str, state: LineState) -> tuple[str, LineState]:
    return render_lines(stretch.split("\n"), state)


_kept = lru_cache(STRETCHES)(_by_rules)


def _remembered(stretch: str, state: LineState) -> tuple[str, LineState]:
    return _kept(stretch, state) if len(stretch) <= STRETCH_CHARACTERS else _by_rules(stretch, state)
