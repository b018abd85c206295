"""Separates a model's thinking from its answer while the text grows, for clients that cannot take text back.

The rules are those of `utils.thinking`, but for one: a closing tag without an opening one comes after text that was
sent as the answer, so it is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from utils.markdown.lines import FenceTracker, code_spans
from utils.thinking import TAG, without_partial_tag

_BACKTICKS = re.compile("`+")
#: Characters at the beginning of a line that decide whether it is a code fence.
_HEAD = 500
#: Characters of a line that are held back until it is known whether a tag in it is code.
_MAX_HELD = 8 * 1024


class Piece(NamedTuple):
    """A piece of the text without tags."""

    thinking: bool
    text: str


class ThinkingStream:
    """Splits one growing text. A tag that is cut between two deltas is in no piece."""

    def __init__(self) -> None:
        self._thinking = False
        self._fences = FenceTracker()
        #: The text that is held back, within the present line.
        self._held = ""
        #: Of the present line: its beginning, the lengths of its runs of backticks so far, and whether it began within
        #: the answer.
        self._head = ""
        self._runs: list[int] = []
        self._in_answer = True
        #: Whether line breaks are dropped because a passage has just begun.
        self._begins = False

    def feed(self, text: str) -> Iterator[Piece]:
        """Yield the pieces that a delta adds."""
        *lines, rest = (self._held + text).split("\n")
        for line in lines:
            yield from self._take(f"{line}\n", complete=True)
            self._head, self._runs, self._in_answer = "", [], not self._thinking
        yield from self._take(rest, complete=False)

    def end(self) -> Iterator[Piece]:
        """Yield the pieces that were held back, after the end of the text."""
        yield from self._take(self._held, complete=True)

    def _take(self, rest: str, *, complete: bool) -> Iterator[Piece]:
        """Yield the pieces of the line's rest; a part that cannot be decided before the line's end is held back."""
        self._held = ""
        fenced = self._fences.fence is not None and self._in_answer
        if complete and self._in_answer:
            fenced = self._fences.inside((self._head + rest)[:_HEAD].rstrip("\r\n"))
        while not fenced and (tag := TAG.search(rest)):
            before = rest[: tag.start()]
            if not self._thinking and self._may_be_code(before):
                if not complete and len(rest) < _MAX_HELD:
                    yield from self._shown(before)
                    self._held = rest[tag.start() :]
                    return
                if self._is_code(before, rest[tag.end() :]):
                    yield from self._shown(rest[: tag.end()])
                    rest = rest[tag.end() :]
                    continue
            yield from self._shown(before)
            # A fence stands at the beginning of its line: one that follows a tag is none.
            self._head += tag[0]
            rest = rest[tag.end() :]
            self._switch(closing=bool(tag[1]))
        shown = rest if complete or fenced else without_partial_tag(rest)
        if not complete:
            # The next delta may add to a run of backticks.
            shown = shown.rstrip("`")
        self._held = rest[len(shown) :]
        yield from self._shown(shown)

    def _shown(self, text: str) -> Iterator[Piece]:
        if len(self._head) < _HEAD:
            self._head = (self._head + text)[:_HEAD]
        self._runs += [len(run) for run in _BACKTICKS.findall(text)]
        if self._begins:
            text = text.lstrip("\r\n")
            self._begins = not text
        if text:
            yield Piece(self._thinking, text)

    def _switch(self, *, closing: bool) -> None:
        """Begin the next passage; a tag that changes nothing is dropped."""
        if closing == self._thinking:
            self._thinking, self._begins = not closing, True

    def _may_be_code(self, before: str) -> bool:
        return bool(self._runs) or "`" in before or (self._head + before).lstrip().startswith("~~~")

    def _is_code(self, before: str, after: str) -> bool:
        """Return whether a tag between these parts of the present line is inside a code span."""
        runs = [*self._runs, *(len(run) for run in _BACKTICKS.findall(before))]
        # Only the lengths of the runs matter, so the rest of the line is not kept.
        line = " ".join("`" * run for run in runs) + " "
        place = len(line)
        return any(start < place < end for start, end in code_spans(f"{line} {after}"))
