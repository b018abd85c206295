"""Make template cards: of a form's choices and of suggested questions, and what a card becomes after a click on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from services.forms import OfferedChoices, clicked_choice
from services.wecom.cards.click import Click
from utils.markdown.plain import plain_line
from utils.stream_utils import clip_utf8

#: A card, or a reply with one, as WeCom documents it.
Card = dict[str, Any]

#: Buttons of one card, and bytes of a button's key.
MOST_BUTTONS, KEY_BYTES = 6, 1024
#: Characters of a button's text. WeCom documents no limit; clients show a part of a long one.
BUTTON_CHARACTERS = 100


class Button(NamedTuple):
    """A button: its text, and the key that the event of a click on it has."""

    text: str
    key: str


def form_card(stream_id: str, choices: OfferedChoices, title: str) -> Card | None:
    """Return the card with a form's choices below the answer of a stream; None where they do not fit on one."""
    # A title that is only markup would be a button without a text.
    titles = [plain_line(each, BUTTON_CHARACTERS) or each.strip() for each in choices.titles]
    if not all(titles) or not 0 < len(titles) <= MOST_BUTTONS:
        return None
    keys = [f"{clicked_choice(choices.form_id, place)} {each}" for place, each in enumerate(titles)]
    return _buttons(f"form-{stream_id}", title, [*map(Button, titles, keys)])


def suggestion_card(stream_id: str, questions: Sequence[str], title: str) -> Card:
    """Return the card with the questions suggested after a stream's answer; a click asks one."""
    buttons = [Button(question, question) for question in questions[:MOST_BUTTONS]]
    return _buttons(f"ask-{stream_id}", title, buttons)


def free_card(stream_id: str, card: Card) -> Card:
    """Return an app's card for a stream's answer: the keys of its buttons are the questions that clicks ask."""
    return {**card, "task_id": f"ask-{stream_id}"}


def clicked_card(click: Click, userid: str, sentence: str) -> Card:
    """Return the reply to a click: for this person the card becomes a sentence and the button that was clicked.

    The button stays because the kinds of card without one need an address to open. A click on it is one more click.
    """
    button = Button(plain_line(click.text, BUTTON_CHARACTERS) or click.text, click.key)
    card = _buttons(click.task_id, plain_line(sentence, BUTTON_CHARACTERS), [button])
    return {"response_type": "update_template_card", "userids": [userid], "template_card": card}


def _buttons(task_id: str, title: str, buttons: Sequence[Button]) -> Card:
    listed = [{"text": button.text, "key": clip_utf8(button.key, KEY_BYTES)} for button in buttons]
    return {
        "card_type": "button_interaction",
        "main_title": {"title": title},
        "button_list": listed,
        "task_id": task_id,
    }
