"""Clicks on the buttons of template cards, as WeCom tells a callback of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from demo.wecom.violation import RuleViolation

#: A card as a reply has it, and the ids of the options that are selected, by the key of their list.
Card = Mapping[str, Any]
Selected = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class CardClick:
    """A click on a card."""

    msgid: str
    #: What the card became; None where the reply left it as it was.
    card: Card | None = field(repr=False)
    #: The rules of WeCom that the reply breaks.
    broken: tuple[RuleViolation, ...] = ()

    @property
    def says(self) -> str:
        """The title of the card after the click; "" where it stayed as it was."""
        return str(self.card["main_title"]["title"]) if self.card else ""


def buttons_of(card: Card) -> dict[str, str]:
    """Return the keys of what can be clicked on a card, by its text: buttons, the submit button and the menu."""
    submit = [card["submit_button"]] if "submit_button" in card else []
    menu = card.get("action_menu", {}).get("action_list", [])
    return {each["text"]: each["key"] for each in [*card.get("button_list", []), *submit, *menu]}


def lists_of(card: Card) -> list[Mapping[str, Any]]:
    """Return the lists of options on a card."""
    boxes = [card[name] for name in ("checkbox", "button_selection") if name in card]
    return [*boxes, *card.get("select_list", [])]


def click_event(card: Card, text: str, selected: Selected | None = None) -> dict[str, Any]:
    """Return the event of a click on the card's button with this text, without the fields that all events have.

    Raises:
        LookupError: the card has no such button.
    """
    if text not in buttons_of(card):
        raise LookupError(f"a card with the buttons {list(buttons_of(card))}")
    told = {"card_type": card["card_type"], "event_key": buttons_of(card)[text], "task_id": card.get("task_id", "")}
    if lists_of(card):
        chosen = [(selected or {}).get(each["question_key"], ()) for each in lists_of(card)]
        items = [
            {"question_key": each["question_key"], "option_ids": {"option_id": list(ids)}}
            for each, ids in zip(lists_of(card), chosen, strict=True)
        ]
        told["selected_items"] = {"selected_item": items}
    return {"msgtype": "event", "event": {"eventtype": "template_card_event", "template_card_event": told}}
