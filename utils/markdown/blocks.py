"""An answer's Markdown as safe HTML, block by block while it grows.

A top-level block that another one follows never changes again: it is rendered once. Only the last one is open; it is
rendered again when it grew by a part of its size, so that the work stays in proportion to the text, also for a list
that never ends. And it rests after a rendering that took long, whatever the reason.

The alternative is to render the whole text again for at most a tenth of the time. It was measured with 50 deltas of 20
characters a second, on mixed Markdown (CPU per answer, updates seen, longest single rendering):

    answer     block by block             whole text again
      2 KB     0.05 s   100    2 ms       0.15 s    45     9 ms
     20 KB     0.7 s   1000    3 ms       2.0 s    102    90 ms
    100 KB     2.3 s   4308    7 ms      10.2 s    151   296 ms

Whole rendering costs three to four times the CPU, updates a 100 KB answer every few seconds at its end, and holds up
the other greenlets for 0.3 s each time. Only a short answer that is one list is cheaper that way (0.15 s, not 0.28 s).
"""

from __future__ import annotations

import re
import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, pairwise
from typing import Any

from utils.markdown.html import render_html, render_plain, top_level

#: Characters that are rendered as Markdown; what is beyond is shown as it is. A list or table of this size takes about
#: a third of a second, and nobody else of this process has a turn meanwhile.
MOST = 64 * 1024
#: Characters of one block of what is beyond.
PLAIN = 8 * 1024
#: Characters of an open block that is rendered with each piece.
SMALL = 4 * 1024
#: The part of its size that a larger one grows by before it is rendered again, and of one that is LARGE.
GROWTH = 1 / 8
LARGE = 16 * 1024
LARGE_GROWTH = 1 / 2
#: A rendering is followed by this many times its own length without another.
REST = 4

_LINE_ENDS = re.compile(r"\r\n?")
#: How far back to look for what may have begun before a piece.
_BEFORE = 16
#: A blank line, and a line that neither a list nor a quote can take.
_NEXT_BLOCK = re.compile(r"\n[ \t]*\n(?=[^\s>*+\-\d])")
_BEGUN = re.compile(_NEXT_BLOCK.pattern + r".\Z")
#: A mark whose line has only begun: it may make a heading of what is before it, or be the first of a list.
_MARK = re.compile(r"\n[ \t]*(?:[-=]+|[*+#>|`~]+|\d{1,9}[.)]?)[ \t]*\Z")
_FENCE_END = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*")


@dataclass(frozen=True, slots=True)
class RenderedBlock:
    """A block of an answer: HTML that takes the place of what had this number before."""

    block: int
    html: str


def render_markdown(text: str) -> str:
    """Render Markdown to HTML that may be put into a page as it is."""
    return "".join(render_slices([text]))


def render_slices(slices: Iterable[str]) -> Iterator[str]:
    """Yield what `render_markdown` returns of a text that comes in slices; each is taken when it is needed."""
    coming = _with_line_feeds(slices)
    text = ""
    for text in accumulate(coming, initial=""):
        if len(text) > MOST:
            break
    end = len(text) if len(text) <= MOST else text.rfind("\n", 0, MOST) + 1 or MOST
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


#: Many readers of one answer share one rendering, which also takes its time only once.
_rendered = lru_cache(maxsize=8)(render_html)


def _with_line_feeds(slices: Iterable[str]) -> Iterator[str]:
    """Yield a text with its line ends as Markdown has them; a carriage return waits for what follows."""
    held = ""
    for piece in slices:
        text = held + piece
        held = "\r" if text.endswith("\r") else ""
        yield _LINE_ENDS.sub("\n", text.removesuffix("\r"))
    if held:
        yield "\n"


class BlockRenderer:
    """Renders one text while it grows; its blocks one after the other are `render_markdown` of the text.

    A reference that a link uses before it is defined is the one difference: a block that is rendered stays.
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        #: When the next rendering may be, and the references that earlier blocks define.
        self._rested = clock()
        self._references: dict[str, Any] = {}
        self._filled = 0
        #: The open block's number, its source and how it is shown.
        self._number = 0
        self._open = ""
        self._shown = ""
        #: Characters before the open block; of it, when it was last rendered and when its parts were last told apart;
        #: and what rendering it costs.
        self._settled = 0
        self._seen = 0
        self._parsed = 0
        self._weight = 0
        #: A carriage return whose line feed may follow.
        self._held = ""
        #: What began the code that the open block is, "" for another block.
        self._fence = ""
        #: Whether the open block seems to be whole.
        self._ended = False
        self._plain = False

    def add(self, text: str) -> list[RenderedBlock]:
        """Take the next piece of the text; return the blocks that are to be shown differently now."""
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        return self._take(text.removesuffix("\r"))

    def finish(self) -> list[RenderedBlock]:
        """Return the last blocks that change; nothing may be added any more."""
        changed = self._take("\n" if self._held else "")
        return changed + self._render(final=True)

    def _take(self, piece: str) -> list[RenderedBlock]:
        before = len(self._open)
        self._open += _LINE_ENDS.sub("\n", piece)
        changed = self._end_markdown() if not self._plain and self._settled + len(self._open) > MOST else []
        if self._is_due(self._open[max(0, before - _BEFORE) :]):
            changed += self._render()
        return changed

    def _is_due(self, latest: str) -> bool:
        grown = len(self._open) - self._seen
        self._ended = self._ended or bool(_ends_fence(latest) if self._fence else _NEXT_BLOCK.search(latest))
        if not grown or self._clock() < self._rested:
            return False
        growth = 0.0 if self._weight <= SMALL else GROWTH if self._weight <= LARGE else LARGE_GROWTH
        return self._ended or grown >= self._weight * growth

    def _end_markdown(self) -> list[RenderedBlock]:
        """Settle what may still be rendered; from there on the text is shown as it is."""
        most = MOST - self._settled
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
            changed += self._show(self._html(_MARK.sub("", self._open), self._environment()))
        return changed

    def _sources(self, final: bool) -> list[str]:
        """Return the open text block by block; all but the last are whole."""
        if self._plain:
            return list(_plain_pieces(self._open))
        lines = self._open if final else self._open[: self._certain()]
        if not final and len(lines) <= self._parsed:
            return [self._open]
        cuts = [0, *self._cuts(lines), len(self._open)]
        self._parsed = len(lines) - cuts[-2]
        return [self._open[start:end] for start, end in pairwise(cuts)]

    def _certain(self) -> int:
        """Return where what can be told of the open text's blocks ends: with its last whole line, or where it ends
        itself when the line that has only begun is another block, however it goes on.
        """
        end = self._open.rfind("\n") + 1
        before = self._open[max(0, end - _BEFORE) : end]
        return end + 1 if _BEGUN.search(before + self._open[end : end + 1]) else end

    def _cuts(self, lines: str) -> Iterator[int]:
        """Yield where the blocks of whole lines end that nothing can change any more."""
        blocks = top_level(lines, self._environment())
        self._fence = ""
        starts = [0, *accumulate(len(line) + 1 for line in lines.split("\n"))]
        for index, block in enumerate(blocks):
            first, end = block.map or (0, 0)
            if index + 1 < len(blocks):
                yield min(starts[end], len(lines))
            elif block.type == "fence":
                closed = end - first > 1 and _closes(lines[starts[end - 1] : starts[end] - 1], block.markup)
                self._fence = "" if closed else block.markup
                if closed:
                    yield min(starts[end], len(lines))

    def _settle(self, source: str) -> list[RenderedBlock]:
        """Render a block for good and begin the next."""
        env = self._environment(self._references)
        changed = self._show(self._html(source, env))
        self._filled = env.get("filled", 0)
        self._settled += len(source)
        self._number += bool(self._shown)
        self._shown = ""
        return changed

    def _show(self, html: str) -> list[RenderedBlock]:
        """Return the open block if it is to be shown differently."""
        changed = [RenderedBlock(self._number, html)] if html != self._shown else []
        self._shown = html
        return changed

    def _html(self, source: str, env: dict[str, Any]) -> str:
        return render_plain(source) if self._plain else render_html(source, env)

    def _environment(self, references: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what earlier blocks defined; what is defined now is forgotten unless `references` takes it."""
        known = ChainMap({}, self._references) if references is None else references
        return {"references": known, "filled": self._filled}


def _plain_pieces(text: str) -> Iterator[str]:
    return (text[start : start + PLAIN] for start in range(0, len(text), PLAIN))


def _ends_fence(latest: str) -> bool:
    return any(_FENCE_END.fullmatch(line) for line in latest.split("\n")[1:-1])


def _closes(line: str, markup: str) -> bool:
    match = _FENCE_END.fullmatch(line)
    return match is not None and match[1].startswith(markup)
