"""The models that several channels share: the options of a question, for whom an answer is read, and its sources.

`POST /api/chat` and the chat socket take the same options, and refuse them alike.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints

from channels.asking import MAX_CONTENT, MAX_ID, on_behalf_of
from channels.web.rest import RestError, RestModel, wrong_field
from config.bots import DEFAULT_BOT
from config.texts import Texts
from services.identity.callers import Caller
from services.models import Question

#: A name of one of the client's own users. It may be any printable text.
EndUser = Annotated[str, StringConstraints(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]


#: The largest integer that all JSON parsers represent exactly; larger numbers are refused.
MAX_NUMBER = 2**53 - 1

ShortName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID)]
InputValue = (
    Annotated[str, StringConstraints(max_length=MAX_CONTENT)]
    | bool
    | Annotated[int, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
    | Annotated[FiniteFloat, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
)

#: How a model's thinking is returned: within the text, not at all, or beside it.
ThinkingMode = Literal["show", "hide", "separate"]
_THINKING: Any = Field(
    "show",
    description="Where a model's thinking goes: show: within the text, in `<think>` tags; hide: nowhere; separate: "
    "into the member `reasoning`, and into events `reasoning`.",
)


class AnswerReader(TypedDict):
    """For whom an answer is read, rated or cancelled."""

    bot: str
    principal: str


class ChatReader(RestModel):
    """For whom an answer is read: the bot and the user of its question."""

    bot: str = Field(DEFAULT_BOT, max_length=MAX_ID, description="The bot that was asked.")
    user: EndUser = Field("", description="The `user` of the question.")


class ChatView(ChatReader):
    """For whom an answer is read, and how it is shown."""

    thinking: ThinkingMode = _THINKING


class AnswerSource(BaseModel):
    """A document or page that an answer is based on; members of the provider's own may follow."""

    model_config = ConfigDict(extra="allow", frozen=True)

    title: str = Field(description="Its name or, without one, its address.", examples=["员工手册.md"])
    url: str = Field(description='An http or https address; "" if it has none.', examples=["https://hr.example/leave"])
    snippet: str = Field(description="The beginning of the passage that was found.", examples=["年假十天。"])
    score: float | None = Field(description="How well it fits, as the provider counts; null if it did not say.")


class QuestionOptions(RestModel):
    """The options of one question."""

    bot: str = Field(
        DEFAULT_BOT, max_length=MAX_ID, description='`default`, or a bot of `WECHAT_BOTS` that says `"api": true`.'
    )
    user: EndUser = Field(
        "",
        description="One of your own users: limits, conversations and the provider's user follow it. Another user "
        "cannot read the answer. Without effect for a person's own token.",
        examples=["zhangsan"],
    )
    inputs: Annotated[dict[ShortName, InputValue], Field(max_length=50)] = Field(
        default_factory=dict,
        description="Inputs of the provider's app; 422 where the bot's provider takes none.",
        examples=[{"department": "HR"}],
    )
    model: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]*$")] | None = Field(
        None, description="The model that answers; 422 where the bot's provider does not take one."
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None, description="The model's temperature; 422 where the bot's provider does not take one."
    )
    thinking: ThinkingMode = _THINKING


class AskableBots:
    """Makes questions and readers for the bots that programs may ask."""

    def __init__(self, bots: Mapping[str, Collection[str]], texts: Texts) -> None:
        """Take the bots, with the options that the provider of each takes."""
        self._bots = bots
        self._texts = texts

    def question(
        self, text: str, asked: QuestionOptions, caller: Caller, address: str, *, channel: str, msgid: str, session: str
    ) -> tuple[Question, str]:
        """Return the question of a caller at this address, and the address by which it is counted.

        A `text` of "" asks about the question's files alone.

        Raises:
            RestError: 404 there is no such bot; 422 its provider does not take an option.
        """
        taken = self._options(asked.bot)
        asker, counted = on_behalf_of(caller, asked.user, address)
        question = Question(
            text or self._texts.get("media_question"),
            channel,
            asked.bot,
            asker.principal,
            msgid=msgid,
            inputs=asked.inputs,
            model=asked.model or "",
            temperature=asked.temperature,
            session=session,
            credential=asker.credential,
        )
        if refused := next((name for name in question.options if name not in taken), ""):
            raise wrong_field(refused, self._texts.get("option_unsupported"))
        return question, counted

    def reader(self, asked: ChatReader, caller: Caller) -> AnswerReader:
        """Return for whom an answer is read.

        Raises:
            RestError: 404 there is no such bot.
        """
        self._options(asked.bot)
        return AnswerReader(bot=asked.bot, principal=on_behalf_of(caller, asked.user, "")[0].principal)

    def _options(self, bot: str) -> Collection[str]:
        if bot not in self._bots:
            code, headers = "bot_unknown", {"Cache-Control": "no-store"}
            raise RestError(404, self._texts.error(code), reason=code, headers=headers)
        return self._bots[bot]
