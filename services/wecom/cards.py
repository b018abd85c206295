"""Template cards: choosing the card of a finished frame, making it, and reading a click on it. No I/O.

A frame has one card at most. It comes from the app, as JSON in a fenced block of its answer, or has the choices of a
form or the suggested questions:

    ```wecom-card
    {"card_type": "button_interaction", …}
    ```

The first valid block of a text becomes the card, and its lines are removed; a card has WeCom's documented members,
counts and lengths, and one with any other member, or without a required one, is refused as a whole. All other blocks
stay in the text as code. A card's id begins with its kind, and the stream's id follows: `form-` for the choices
of a form, `ask-` where the key of a button is the question that a click asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, model_validator
from pydantic.functional_validators import AfterValidator

from config.texts import Texts
from services.forms import CLICKED_CHOICE, OfferedChoices, clicked_choice
from services.streams.records import Snapshot
from utils.markdown.lines import FenceTracker
from utils.markdown.plain_text import plain_line
from utils.stream_utils import clip_utf8


def _at_most(most: int) -> AfterValidator:
    """Return the check that a text has at most this many bytes of UTF-8."""

    def check(text: str) -> str:
        if len(text.encode("utf-8", "replace")) > most:
            raise ValueError(f"more than {most} bytes")
        return text

    return AfterValidator(check)


#: WeCom documents no limit for these texts; a card with a longer one is refused.
Words = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Key = Annotated[Words, _at_most(1024)]
OptionId = Annotated[Words, _at_most(128)]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]", max_length=2048)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Linked(_Part):
    """A part that opens an address (type 1) or a mini program (type 2)."""

    type: Literal[0, 1, 2] = 0
    url: Url | None = None
    appid: Words | None = None
    pagepath: Words | None = None

    @model_validator(mode="after")
    def _has_target(self) -> Self:
        if (self.type == 1 and not self.url) or (self.type == 2 and not self.appid):
            raise ValueError("no target for its type")
        return self


class _Source(_Part):
    icon_url: Url | None = None
    desc: Words | None = None
    desc_color: Literal[0, 1, 2, 3] = 0


class _Title(_Part):
    title: Words | None = None
    desc: Words | None = None


class _Titled(_Title):
    title: Words


class _Choice(_Part):
    text: Words
    key: Key


class _Button(_Choice):
    style: Literal[1, 2, 3, 4] = 1


class _Menu(_Part):
    desc: Words | None = None
    action_list: list[_Choice] = Field(min_length=1, max_length=3)


class _Quote(_Linked):
    title: Words | None = None
    quote_text: Words | None = None


class _Horizontal(_Part):
    type: Literal[0, 1, 3] = 0
    keyname: Words
    value: Words | None = None
    url: Url | None = None
    userid: Words | None = None

    @model_validator(mode="after")
    def _has_target(self) -> Self:
        if (self.type == 1 and not self.url) or (self.type == 3 and not self.userid):
            raise ValueError("no target for its type")
        return self


class _Jump(_Linked):
    type: Literal[0, 1, 2, 3] = 0  # type: ignore[assignment]
    title: Words
    question: Annotated[Words, _at_most(200)] | None = None

    @model_validator(mode="after")
    def _has_question(self) -> Self:
        if self.type == 3 and not self.question:
            raise ValueError("no question")
        return self


class _Image(_Part):
    url: Url
    aspect_ratio: Annotated[float, Field(ge=1.3, le=2.25, strict=False)] = 1.3


class _ImageText(_Linked):
    title: Words | None = None
    desc: Words | None = None
    image_url: Url


class _Option(_Part):
    id: OptionId
    text: Words


class _CheckOption(_Option):
    is_checked: bool = False


class _Selection(_Part):
    question_key: Key
    title: Words | None = None
    selected_id: OptionId | None = None
    option_list: list[_Option] = Field(min_length=1, max_length=10)


class _Checkbox(_Part):
    question_key: Key
    option_list: list[_CheckOption] = Field(min_length=1, max_length=20)
    mode: Literal[0, 1] = 0


class _CardAction(_Linked):
    type: Literal[1, 2]


class _Card(_Part):
    source: _Source | None = None
    #: Any id: it is replaced by one that is unique.
    task_id: Words | None = None


class _Listed(_Card):
    action_menu: _Menu | None = None
    quote_area: _Quote | None = None
    horizontal_content_list: list[_Horizontal] | None = Field(None, max_length=6)


class _Notice(_Listed):
    card_action: _CardAction
    jump_list: list[_Jump] | None = Field(None, max_length=3)


class _TextNotice(_Notice):
    card_type: Literal["text_notice"]
    main_title: _Title | None = None
    emphasis_content: _Title | None = None
    sub_title_text: Words | None = None

    @model_validator(mode="after")
    def _has_words(self) -> Self:
        if not (self.sub_title_text or (self.main_title and self.main_title.title)):
            raise ValueError("neither main_title.title nor sub_title_text")
        return self


class _NewsNotice(_Notice):
    card_type: Literal["news_notice"]
    main_title: _Titled
    card_image: _Image | None = None
    image_text_area: _ImageText | None = None
    vertical_content_list: list[_Titled] | None = Field(None, max_length=4)

    @model_validator(mode="after")
    def _has_image(self) -> Self:
        if not (self.card_image or self.image_text_area):
            raise ValueError("neither card_image nor image_text_area")
        return self


class _ButtonInteraction(_Listed):
    card_type: Literal["button_interaction"]
    main_title: _Titled
    sub_title_text: Words | None = None
    card_action: _Linked | None = None
    button_selection: _Selection | None = None
    button_list: list[_Button] = Field(min_length=1, max_length=6)


class _VoteInteraction(_Card):
    card_type: Literal["vote_interaction"]
    main_title: _Titled
    checkbox: _Checkbox
    submit_button: _Choice


class _MultipleInteraction(_Card):
    card_type: Literal["multiple_interaction"]
    main_title: _Titled
    select_list: list[_Selection] = Field(min_length=1, max_length=3)
    submit_button: _Choice


_CARDS: TypeAdapter[Any] = TypeAdapter(
    Annotated[
        _TextNotice | _NewsNotice | _ButtonInteraction | _VoteInteraction | _MultipleInteraction,
        Field(discriminator="card_type"),
    ]
)


def read_card(text: str) -> dict[str, Any]:
    """Return the card of a JSON text, with the members that it has.

    Raises:
        ValueError: it is no JSON, or no card that WeCom documents.
    """
    card: dict[str, Any] = _CARDS.validate_json(text).model_dump(exclude_unset=True, exclude_none=True)
    return card


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
