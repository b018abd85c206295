"""Separates a model's thinking from its answer, for clients that choose where it goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from channels.options import ThinkingMode
from services.streams.long_text import FullAnswer
from utils.formats.json_slices import Slices, text_member
from utils.thinking import Piece, ThinkingStream, has_tags, split_thinking


class ShownText:
    """A growing text as the pieces that its client is shown."""

    def __init__(self, thinking: ThinkingMode) -> None:
        self._thinking = thinking
        self._split = ThinkingStream()

    def feed(self, text: str) -> Sequence[Piece]:
        """Return the pieces that a delta adds."""
        return [Piece(False, text)] if self._thinking == "show" else self._wanted(self._split.feed(text))

    def end(self) -> Sequence[Piece]:
        """Return the text that was held back; call it at the end of the text."""
        return self._wanted(self._split.end())

    def _wanted(self, pieces: Iterable[Piece]) -> list[Piece]:
        return [piece for piece in pieces if not (piece.thinking and self._thinking == "hide")]


def text_members(full: FullAnswer, thinking: ThinkingMode, most: int = 0) -> dict[str, str | Slices]:
    """Return the text of an ended answer as members of its JSON; one longer than `most` bytes comes in slices.

    Raises:
        StreamUnknown, StoreUnavailable: a long text cannot be read to separate its thinking.
    """
    if thinking == "show":
        return {"content": text_member(full.slices, long=full.long is not None and full.size > most)}
    reasoning, content = thinking_and_answer(full.text)
    return {"content": content, "reasoning": reasoning} if thinking == "separate" else {"content": content}


def thinking_and_answer(text: str) -> tuple[str, str]:
    """Return the thinking and the answer of a whole text, each without tags."""
    if not has_tags(text):
        return "", text
    parts = split_thinking(text)
    thinking, answer = ("\n\n".join(part.text for part in parts if part.thinking is kind) for kind in (True, False))
    return thinking, answer
