"""Read the event of a click on one of our cards: which question, or which choice of a form, it stands for.

The id of a card begins with its kind, and the stream's id follows: `form-` for a form's choices, `ask-` where a
button's key is the question. WeCom's tables spell the members without underscores; its samples have them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_TASK_ID = re.compile(r"(form|ask)-[0-9a-f]{32}")
#: The key of a form's button: what `clicked_choice` writes, and the button's text.
_FORM_KEY = re.compile(r"([0-9a-f]{24} \d{1,2}) (.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Click:
    """A click on one of our cards."""

    task_id: str
    #: The key of the button.
    key: str = field(repr=False)
    #: The words that it stands for.
    text: str = field(repr=False)
    #: The choice of a form, as `Question.choice`; "" for a question.
    choice: str = ""


def read_click(payload: Mapping[str, Any]) -> Click:
    """Return the click of a callback with a `template_card_event`.

    Raises:
        ValueError: it is malformed, or its card is none of ours.
    """
    told = _member(_member(payload, "event"), "template_card_event")
    task_id, key = _text(told, "task_id"), _text(told, "event_key")
    if not key.strip() or not (kind := _TASK_ID.fullmatch(task_id)):
        raise ValueError("a card that is none of ours")
    if kind[1] == "ask":
        return Click(task_id, key, "\n".join([key, *_selected(told)]))
    if not (button := _FORM_KEY.fullmatch(key)):
        raise ValueError("a button that is none of ours")
    return Click(task_id, key, button[2], button[1])


def _selected(told: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each list of the card, with the ids of the options that were selected."""
    items = _member(told, "selected_items").get("selected_item")
    for item in items if isinstance(items, list) else []:
        if not isinstance(item, Mapping):
            continue
        chosen = _member(item, "option_ids")
        ids = chosen.get("option_id", chosen.get("optionid"))
        names = [each for each in ids if isinstance(each, str)] if isinstance(ids, list) else []
        yield f"{_text(item, 'question_key')}: {', '.join(names)}"


def _member(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name, value.get(name.replace("_", "")))
    return found if isinstance(found, Mapping) else {}


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name, value.get(name.replace("_", "")))
    return found if isinstance(found, str) else ""
