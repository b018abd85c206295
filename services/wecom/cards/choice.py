"""Choose the card that goes with a finished frame: one at most, as WeCom allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

from config.texts import Texts
from services.forms import OfferedChoices
from services.streams.records import Snapshot
from services.wecom.cards.block import parted
from services.wecom.cards.build import Card, form_card, free_card, suggestion_card


class ChosenCard(NamedTuple):
    """A card, and what it stands for: a block of the text, a form, or the suggested questions."""

    card: Card
    kind: Literal["block", "form", "suggestions"]


class CardChoice:
    """Chooses the cards of all answers.

    A click is answered by a late message, so answers without one (`Snapshot.late`) have no cards.
    """

    def __init__(self, texts: Texts) -> None:
        self._texts = texts

    def of(self, snapshot: Snapshot, *, cut: bool, single: bool) -> ChosenCard | None:
        """Return the card of an ended answer in a `single` chat or a group; `cut`: its text may go on.

        The block in the text comes first: what was shown while the text grew lacks it. Forms and suggestions have
        words in the frame where they get no card.
        """
        if not snapshot.late:
            return None
        stream_id = snapshot.stream_id
        if block := parted(snapshot.text, growing=cut).card:
            return ChosenCard(free_card(stream_id, block), "block")
        if not single or snapshot.status != "completed" or cut:
            return None
        if snapshot.choices:
            card = form_card(stream_id, OfferedChoices.from_json(snapshot.choices), self._texts.get("card_choose"))
            return ChosenCard(card, "form") if card else None
        questions = [question for question in snapshot.note.split("\n") if question]
        if questions:
            title = self._texts.get("suggestions_heading")
            return ChosenCard(suggestion_card(stream_id, questions, title), "suggestions")
        return None


def without_block(snapshot: Snapshot, *, cut: bool) -> Snapshot:
    """Return what a frame shows beside its card: the answer without the card's block."""
    if not snapshot.late:
        return snapshot
    text = parted(snapshot.text, growing=cut).text
    return snapshot if text is snapshot.text else replace(snapshot, text=text)


def without_shown_block(whole: str, seen: Snapshot | None, *, cut: bool) -> str:
    """Return an answer's whole text without the card that came with its frame; None for no frame.

    In the place of a card that did not come are its words: a late message is text or a card.
    """
    shown = parted(seen.text, growing=cut).card if seen and seen.late else None
    text, card = parted(whole, growing=False)
    return text if card == shown else parted(whole, growing=False, worded=True).text
