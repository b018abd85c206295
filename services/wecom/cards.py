"""Template cards: choosing the card of a finished frame, making it, and reading a click on it. No I/O.

A frame has one card at most. It comes from the app, as JSON in a fenced block of its answer, or has the choices of a
form or the suggested questions:

    ```wecom-card
    {"card_type": "button_interaction", …}
    ```

The first valid block of a text becomes the card (`card_schema.py` checks it), and its lines are removed. All other
blocks stay in the text as code. A card's id begins with its kind, and the stream's id follows: `form-` for the choices
of a form, `ask-` where the key of a button is the question that a click asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from config.texts import Texts
from services.forms import CLICKED_CHOICE, OfferedChoices, clicked_choice
from services.streams.records import Snapshot
from services.wecom.card_schema import read_card
from utils.markdown.lines import FenceTracker
from utils.markdown.plain_text import plain_line
from utils.stream_utils import clip_utf8

#: A card, or a reply with one, as WeCom documents it.
Card = dict[str, Any]

#: The first line of an app's block.
OPENER = "```wecom-card"
#: Buttons of one card, and bytes of a button's key.
MOST_BUTTONS, KEY_BYTES = 6, 1024
#: Lines of an answer in which its block is found.
MOST_LINES = 20_000
#: Characters of a button's text. WeCom documents no limit; clients show a part of a long one.
BUTTON_CHARACTERS = 100
#: Characters of one text of a card that is written as Markdown.
TEXT_CHARACTERS = 1000

_TASK_ID = re.compile(r"(form|ask)-[0-9a-f]{32}")
#: The key of a form's button: what `clicked_choice` writes, and the button's text.
_FORM_KEY = re.compile(f"({CLICKED_CHOICE}) (.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Click:
    """A click on one of our cards."""

    task_id: str
    #: The key of the button.
    key: str = field(repr=False)
    #: The question or choice for which it stands.
    text: str = field(repr=False)
    #: The choice of a form, as `Question.choice`; "" for a question.
    choice: str = ""


class Button(NamedTuple):
    """A button: its text, and the key that the event of a click on it has."""

    text: str
    key: str


def form_card(stream_id: str, choices: OfferedChoices, title: str) -> Card | None:
    """Return the card with a form's choices below the answer of a stream; None where they do not fit on one."""
    if choices.inputs:
        return None
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


def card_words(card: Card) -> str:
    """Write a valid card as Markdown, for chats and messages where WeCom shows no card."""
    about = [*_title(card.get("main_title", {}), "**"), *_title(card.get("emphasis_content", {}))]
    quote = card.get("quote_area", {})
    about += _plain(card.get("sub_title_text"), quote.get("title"), quote.get("quote_text"))
    about += _title(card.get("image_text_area", {}))
    for part in card.get("vertical_content_list", []):
        about += _title(part)
    listed = [*_listed(card), *_choices(card)]
    return "\n\n".join([*about, *(["\n".join(f"- {line}" for line in listed)] if listed else [])])


def _title(part: Mapping[str, Any], mark: str = "") -> list[str]:
    title, desc = _plain(part.get("title")), _plain(part.get("desc"))
    return [*(f"{mark}{each}{mark}" for each in title), *desc]


def _listed(card: Card) -> Iterator[str]:
    """Yield the lines and links of a card."""
    for line in card.get("horizontal_content_list", []):
        yield _pair(line["keyname"], line.get("value") or line.get("userid") or "", line.get("url"))
    for jump in card.get("jump_list", []):
        yield _pair(jump["title"], jump.get("question", ""), jump.get("url"))
    if url := card.get("card_action", {}).get("url"):
        yield f"<{url}>"


def _choices(card: Card) -> Iterator[str]:
    """Yield the buttons of a card, with the question that each asks, and the options of its lists."""
    menu = card.get("action_menu", {}).get("action_list", [])
    for button in (*card.get("button_list", []), *menu):
        yield _pair(button["text"], button["key"])
    for part in (card.get("button_selection"), card.get("checkbox"), *card.get("select_list", [])):
        for option in part["option_list"] if part else []:
            yield _pair(part.get("title", ""), option["text"])


def _pair(name: str, value: str = "", url: str | None = None) -> str:
    words = ": ".join(dict.fromkeys(_plain(name, value)))
    return f"[{words}]({url})" if url else words


def _plain(*texts: str | None) -> list[str]:
    return [line for text in texts if text and (line := plain_line(text, TEXT_CHARACTERS))]


class Parted(NamedTuple):
    """A text without the block of its card, and the card; None for none."""

    text: str
    card: Card | None = None


def parted(text: str, *, growing: bool, worded: bool = False) -> Parted:
    """Separate a text from its card; `worded` puts the card as Markdown in the place of its block.

    The end of a `growing` text is left out if it may become a block, so that the text shown only grows.
    """
    if OPENER not in text:
        return Parted(_settled(text) if growing else text)
    # The last one is all of the text after the most lines.
    lines = text.split("\n", MOST_LINES)
    tracker, start, thought = FenceTracker(), -1, False
    for number, line in enumerate(lines[:MOST_LINES]):
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


class ChosenCard(NamedTuple):
    """A card and its origin."""

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

        An app's card comes first, because the frames of the growing text did not show its block. A form or suggestions
        without a card are written into the frame.
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
    """Return an answer without the block of the card that its frame has."""
    if not snapshot.late:
        return snapshot
    text = parted(snapshot.text, growing=cut).text
    return snapshot if text is snapshot.text else replace(snapshot, text=text)


def without_shown_block(text: str, seen: Snapshot | None, *, cut: bool) -> str:
    """Return an answer's whole text without the card of its frame; `seen` is None if there was no frame.

    A card that the frame did not have is written as Markdown in its place: a late message has no card.
    """
    shown = parted(seen.text, growing=cut).card if seen and seen.late else None
    rest, card = parted(text, growing=False)
    return rest if card == shown else parted(text, growing=False, worded=True).text


def read_click(payload: Mapping[str, Any]) -> Click:
    """Return the click of a callback with a `template_card_event`.

    WeCom's tables spell the members without underscores; its samples have them.

    Raises:
        ValueError: it is malformed, or the card is another program's.
    """
    event = _member(_member(payload, "event"), "template_card_event")
    task_id, key = _text(event, "task_id"), _text(event, "event_key")
    if not key.strip() or not (kind := _TASK_ID.fullmatch(task_id)):
        raise ValueError("not one of our cards")
    if kind[1] == "ask":
        return Click(task_id, key, "\n".join([key, *_selected(event)]))
    if not (button := _FORM_KEY.fullmatch(key)):
        raise ValueError("not one of our buttons")
    return Click(task_id, key, button[2], button[1])


def _selected(event: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each list of the card, with the ids of the options that were selected."""
    items = _member(event, "selected_items").get("selected_item")
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
