"""Find the card that an app writes into its answer, as JSON in a fenced block.

    ```wecom-card
    {"card_type": "button_interaction", …}
    ```

Pure functions of the text, linear in it. The first valid block becomes the card, and its lines are taken out. All other
blocks stay where they are as code: a message has one card, and an invalid one is neither lost nor shown in part.
"""

from __future__ import annotations

from typing import NamedTuple

from services.wecom.cards.build import Card
from services.wecom.cards.schema import read_card
from services.wecom.cards.words import card_words
from utils.markdown.lines import FenceTracker

OPENER = "```wecom-card"


class Parted(NamedTuple):
    """A text without the block of its card, and the card; None for none."""

    text: str
    card: Card | None = None


def parted(text: str, *, growing: bool, worded: bool = False) -> Parted:
    """Part a text from its card; `worded` puts the card's words in the place of its block.

    Of a `growing` text, what may become a card is held back from its first character on: what is shown only grows.
    """
    if OPENER not in text:
        return Parted(_settled(text) if growing else text)
    lines = text.split("\n")
    tracker, start, thought = FenceTracker(), -1, False
    for number, line in enumerate(lines):
        was_open = tracker.fence is not None
        tracker.inside(line)
        if not was_open and tracker.fence and line.strip(" \t\r") == OPENER and not thought:
            start = number
        elif start >= 0 and tracker.fence is None:
            if growing and number == len(lines) - 1:
                break
            if card := _card(lines[start + 1 : number]):
                words = ["", card_words(card), ""] if worded else []
                return Parted("\n".join(lines[:start] + words + lines[number + 1 :]), card)
            start = -1
        if "think>" in line:
            thought = line.rfind("<think>") > line.rfind("</think>")
    if not growing:
        return Parted(text)
    return Parted("\n".join(lines[:start]) if start >= 0 else _settled(text))


def _card(lines: list[str]) -> Card | None:
    try:
        return read_card("\n".join(lines))
    except ValueError:
        return None


def _settled(text: str) -> str:
    """Return a growing text without a last line that may become the first line of a block."""
    start = text.rfind("\n") + 1
    last = text[start:].strip(" \t\r")
    return text[:start] if last and OPENER.startswith(last) else text
