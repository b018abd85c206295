"""The template cards that an app may write: WeCom's documented members, counts and lengths.

A card with any other member, or one that lacks something, is refused as a whole.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, model_validator
from pydantic.functional_validators import AfterValidator


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
