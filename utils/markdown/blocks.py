"""Render an answer's Markdown as safe HTML, block by block while it grows.

A top-level block that is followed by another one never changes again, so it is rendered once. Only the last block is
open. It is rendered again after it has grown by a fraction of its size, which keeps the work linear in the text even
for an endless list. After each rendering there is a pause of several times its duration.

Measured with 50 deltas of 20 characters a second, on Markdown with links, tables and coloured code (CPU per answer,
updates seen, longest single rendering), beside one rendering of the whole text:

    answer     block by block             whole text, once
      2 KB     0.05 s    67   2 ms        6 ms
     20 KB     0.35 s   631   2 ms        65 ms
    100 KB     1.7 s   3125   2 ms        280 ms

To render the whole text with each delta would take a hundred times the CPU, and block other greenlets each time.
"""

from __future__ import annotations

import re
import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, islice, pairwise
from typing import Any

from utils.markdown.elements.inline import STOPS
from utils.markdown.elements.thinking import CLOSING, PageThinking, ThinkingMarks
from utils.markdown.elements.thinking import TOKEN as THINKING
from utils.markdown.html import COUNTERS, render_html, render_plain, top_level

#: Characters, lines, and characters that may be marks, of the part of a text that is rendered as Markdown; the rest is
#: shown as plain text. A rendering blocks all other greenlets of the process: up to 25 µs for a line and 30 µs for a
#: mark.
MOST = 64 * 1024
MOST_LINES, MOST_MARKS = 2_500, 4_500
#: Characters of one block of plain text.
PLAIN = 8 * 1024
#: Up to this many characters, an open block is rendered with each piece.
SMALL = 4 * 1024
#: Fraction of its size by which a larger block must grow before it is rendered again; LARGE_GROWTH from LARGE on.
GROWTH = 1 / 8
LARGE = 16 * 1024
LARGE_GROWTH = 1 / 2
#: Pause after a rendering, as a multiple of its duration.
REST = 4

_LINE_ENDS = re.compile(r"\r\n?")
_LINE_FEED = re.compile("\n")
_MARKS = re.compile(rf"{STOPS}|\||://|www\.", re.IGNORECASE)
#: Characters before a new piece that are searched again, because a pattern may start there.
_BEFORE = 16
#: A blank line followed by a line that cannot continue a list or a quote.
_NEXT_BLOCK = re.compile(r"\n[ \t]*\n(?=[^\s>*+\-\d])")
_BEGUN = re.compile(_NEXT_BLOCK.pattern + r".\Z")
#: An incomplete last line of marks only: it may turn the line before into a heading, or start a list.
_MARK = re.compile(r"\n[ \t]*(?:[-=]+|[*+#>|`~$]+|\d{1,9}[.)]?)[ \t]*\Z")
_FENCE_END = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*")


@dataclass(frozen=True, slots=True)
class RenderedBlock:
    """A rendered block: HTML that replaces the block with the same number."""

    block: int
    html: str


def render_markdown(text: str, *, thinking: PageThinking = "fold") -> str:
    """Render Markdown to HTML that is safe to insert into a page."""
    return "".join(render_slices([text], thinking=thinking))


def render_slices(slices: Iterable[str], *, thinking: PageThinking = "fold") -> Iterator[str]:
    """Yield the result of `render_markdown` in pieces for a text in slices; slices are consumed on demand."""
    coming = _with_line_feeds(_marked(slices, ThinkingMarks(thinking)))
    room, text, end = _Room(), "", 0
    for piece in coming:
        end = len(text) + room.take(piece)
        text += piece
        if end < len(text):
            end = text.rfind("\n", 0, end) + 1 or end
            break
    head, text = text[:end], text[end:]
    yield _rendered(head)
    del head
    for piece in chain([""], coming):
        text += piece
        while len(text) >= PLAIN:
            yield render_plain(text[:PLAIN])
            text = text[PLAIN:]
    if text:
        yield render_plain(text)


class _Room:
    """The part of a growing text that is still rendered as Markdown."""

    def __init__(self) -> None:
        self.characters, self._lines, self._marks = MOST, MOST_LINES, MOST_MARKS

    def take(self, piece: str) -> int:
        """Return how many characters of the next piece are part of it; after a smaller number there is no next one."""
        lines, marks = piece.count("\n"), len(_MARKS.findall(piece))
        end = min(len(piece), self.characters)
        if lines > self._lines:
            end = min(end, _end_of(_LINE_FEED, piece, self._lines))
        if marks > self._marks:
            end = min(end, _end_of(_MARKS, piece, self._marks))
        self.characters -= end
        self._lines -= lines
        self._marks -= marks
        return end


def _end_of(pattern: re.Pattern[str], text: str, count: int) -> int:
    """Return the place before which a text has `count` matches."""
    return next(islice(pattern.finditer(text), count, None)).start()


#: Caches the rendering, so that many readers of one answer cost the CPU time of one.
_rendered = lru_cache(maxsize=8)(render_html)


def _marked(slices: Iterable[str], marks: ThinkingMarks) -> Iterator[str]:
    yield from map(marks.feed, slices)
    yield marks.end()


def _with_line_feeds(slices: Iterable[str]) -> Iterator[str]:
    """Yield a text with LF line ends; a CR at the end of a slice is held back until the next slice."""
    held = ""
    for piece in slices:
        text = held + piece
        held = "\r" if text.endswith("\r") else ""
        yield _LINE_ENDS.sub("\n", text.removesuffix("\r"))
    if held:
        yield "\n"


class BlockRenderer:
    """Renders one text while it grows; its blocks joined equal `render_markdown` of the text.

    The only difference: a link that uses a reference before its definition stays unresolved, because finished blocks
    are not rendered again.
    """

    def __init__(self, *, thinking: PageThinking = "fold", clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._marks = ThinkingMarks(thinking)
        #: Earliest time of the next rendering, and the link references and counters of finished blocks.
        self._rested = clock()
        self._references: dict[str, Any] = {}
        self._counters: dict[str, float] = {}
        #: The open block: its number, its source, and its HTML as last shown.
        self._number = 0
        self._open = ""
        self._shown = ""
        #: The part of the text that is rendered as Markdown.
        self._room = _Room()
        #: Characters before the open block; its characters at the last rendering and at the last search for blocks; and
        #: the size that stands for the cost of rendering it.
        self._settled = 0
        self._seen = 0
        self._parsed = 0
        self._weight = 0
        #: A CR at the end of the last piece, whose LF may follow.
        self._held = ""
        #: The marker that opened the open block if it is a code fence, CLOSING if it is thinking, otherwise "".
        self._fence = ""
        #: Whether the open block seems to be complete.
        self._ended = False
        self._plain = False

    def add(self, text: str) -> list[RenderedBlock]:
        """Add the next piece of the text; return the blocks that have changed."""
        return self._add(self._marks.feed(text))

    def _add(self, text: str) -> list[RenderedBlock]:
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        return self._take(text.removesuffix("\r"))

    def finish(self) -> list[RenderedBlock]:
        """Return the last changed blocks; `add` must not be called after this."""
        changed = self._add(self._marks.end())
        changed += self._take("\n" if self._held else "")
        return changed + self._render(final=True)

    def _take(self, piece: str) -> list[RenderedBlock]:
        before, piece = len(self._open), _LINE_ENDS.sub("\n", piece)
        end = len(piece) if self._plain else self._room.take(piece)
        self._open += piece
        changed = self._end_markdown(before + end) if end < len(piece) else []
        if self._is_due(self._open[max(0, before - _BEFORE) :]):
            changed += self._render()
        return changed

    def _is_due(self, latest: str) -> bool:
        grown = len(self._open) - self._seen
        self._ended = self._ended or bool(self._ends(latest))
        if not grown or self._clock() < self._rested:
            return False
        growth = 0.0 if self._weight <= SMALL else GROWTH if self._weight <= LARGE else LARGE_GROWTH
        return self._ended or grown >= self._weight * growth

    def _ends(self, latest: str) -> bool:
        """Return whether the open block may end in the latest text."""
        if not self._fence:
            return _NEXT_BLOCK.search(latest) is not None
        return any(_closes(line, self._fence[:1]) for line in latest.split("\n")[1:-1])

    def _end_markdown(self, most: int) -> list[RenderedBlock]:
        """Finish the open text up to `most` characters as Markdown; the text after it becomes plain text."""
        end = self._open.rfind("\n", 0, most) + 1 or (0 if self._settled else most)
        rest = self._open[end:]
        self._open = self._open[:end]
        changed = self._render(final=True)
        self._plain = True
        self._open, self._fence = rest, ""
        self._seen = self._parsed = 0
        return changed

    def _render(self, *, final: bool = False) -> list[RenderedBlock]:
        began = self._clock()
        self._ended = False
        changed = self._changed(final)
        self._seen = len(self._open)
        self._weight = max(len(self._open), len(self._shown) // 4)
        ended = self._clock()
        self._rested = ended + REST * (ended - began)
        return changed

    def _changed(self, final: bool) -> list[RenderedBlock]:
        sources = self._sources(final)
        self._open = "" if final else sources.pop()
        changed = [block for source in sources for block in self._settle(source)]
        if self._open:
            changed += self._show(self._html(_MARK.sub("", self._open), {**self._environment(), "growing": True}))
        return changed

    def _sources(self, final: bool) -> list[str]:
        """Split the open text into blocks; all but the last are complete."""
        if self._plain:
            return [self._open[start : start + PLAIN] for start in range(0, len(self._open), PLAIN)]
        lines = self._open if final else self._open[: self._certain()]
        if not final and len(lines) <= self._parsed:
            return [self._open]
        cuts = [0, *self._cuts(lines), len(self._open)]
        self._parsed = len(lines) - cuts[-2]
        return [self._open[start:end] for start, end in pairwise(cuts)]

    def _certain(self) -> int:
        """Return the end of the open text that can be split into blocks.

        That is the end of the last complete line, or one character more if the incomplete line is certain to start
        another block.
        """
        end = self._open.rfind("\n") + 1
        before = self._open[max(0, end - _BEFORE) : end]
        return end + 1 if _BEGUN.search(before + self._open[end : end + 1]) else end

    def _cuts(self, lines: str) -> Iterator[int]:
        """Yield the ends of those blocks that later text cannot change."""
        blocks = top_level(lines, self._environment())
        self._fence = ""
        starts = [0, *accumulate(len(line) + 1 for line in lines.split("\n"))]
        for index, block in enumerate(blocks):
            first, end = block.map or (0, 0)
            if index + 1 < len(blocks):
                yield min(starts[end], len(lines))
            elif marker := CLOSING if block.type == THINKING else block.markup if block.type == "fence" else "":
                closed = end - first > 1 and _closes(lines[starts[end - 1] : starts[end] - 1], marker)
                self._fence = "" if closed else marker
                if closed:
                    yield min(starts[end], len(lines))

    def _settle(self, source: str) -> list[RenderedBlock]:
        """Render a finished block for the last time and start the next one."""
        env = self._environment(self._references)
        changed = self._show(self._html(source, env))
        self._counters = {name: env[name] for name in COUNTERS if name in env}
        self._settled += len(source)
        self._number += bool(self._shown)
        self._shown = ""
        return changed

    def _show(self, html: str) -> list[RenderedBlock]:
        """Return the open block if its HTML has changed."""
        changed = [RenderedBlock(self._number, html)] if html != self._shown else []
        self._shown = html
        return changed

    def _html(self, source: str, env: dict[str, Any]) -> str:
        return render_plain(source) if self._plain else render_html(source, env)

    def _environment(self, references: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the parser's environment with earlier references; keeps new ones only in `references`, if given."""
        known = ChainMap({}, self._references) if references is None else references
        return {"references": known, **self._counters}


def _closes(line: str, markup: str) -> bool:
    if markup == CLOSING:
        return line == CLOSING
    match = _FENCE_END.fullmatch(line)
    return match is not None and match[1].startswith(markup)
