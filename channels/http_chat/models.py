"""What POST /api/chat takes, and the data of its answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, model_validator

from channels.asking import MAX_CONTENT, MAX_CURSOR, MAX_ID
from channels.web.rest import RestModel

#: The largest whole number that every reader of JSON has exactly; no number beyond it is taken.
MAX_NUMBER = 2**53 - 1

InputName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID)]
InputValue = (
    Annotated[str, StringConstraints(max_length=MAX_CONTENT)]
    | bool
    | Annotated[int, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
    | Annotated[FiniteFloat, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
)


class ChatQuestion(RestModel):
    """A question; `question` is another name of `query`."""

    @model_validator(mode="before")
    @classmethod
    def _other_name(cls, given: Any) -> Any:
        """Take `question` for `query`; of both, one is too many."""
        if isinstance(given, dict) and "question" in given and "query" not in given:
            return {("query" if name == "question" else name): value for name, value in given.items()}
        return given

    query: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] = Field(
        description="The question, up to `QUESTION_MAX_BYTES`. Blanks around it do not count.",
        examples=["年假怎么申请？"],
    )
    id: InputName | None = Field(
        None,
        # No example: whoever sends it twice would get the first question's answer.
        description="The client's own id of the question, best a random one: sent again, it finds its answer.",
    )
    conversation: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = Field(
        None, description="The conversation it belongs to; without one it stands for itself.", examples=["desk-7"]
    )
    inputs: Annotated[dict[InputName, InputValue], Field(max_length=50)] = Field(
        default_factory=dict, description="Inputs of the provider's app.", examples=[{"department": "HR"}]
    )
    stream: bool | None = Field(
        None, description="Answer as server-sent events; unless said here, the Accept header tells."
    )


class ChatPlace(RestModel):
    """Where a reader is; the header Last-Event-ID goes before it."""

    cursor: Annotated[int, Field(ge=0, le=MAX_CURSOR)] = Field(0, description="The id of the last event there was.")


class ChatUsage(RestModel):
    """What the answer cost, as the provider counted it; 0 and "" where it did not say."""

    total_tokens: int
    prompt_tokens: int
    completion_tokens: int
    total_price: str = Field(description="A decimal number.", examples=["0.0012"])
    currency: str = Field(examples=["USD"])


class ChatMetadata(BaseModel):
    """Who answered, under which ids; one that is not known is left out, and providers may tell more."""

    model_config = ConfigDict(extra="allow")

    provider: str = Field("", examples=["dify"])
    message_id: str = ""
    conversation_id: str = ""


class ChatAnswered(RestModel):
    """A whole answer."""

    stream_id: str
    content: str
    status: Literal["completed"]
    sources: list[dict[str, Any]] = Field(description="What it rests on, as the provider says it.")
    usage: ChatUsage
    metadata: ChatMetadata
    mock: bool = Field(False, description="True where the built-in mock spoke and not the provider; else left out.")


class ChatFailed(RestModel):
    """An answer that did not come to its end, as far as it came."""

    reason: str = Field(description="A stable word for what happened.", examples=["provider_timeout"])
    stream_id: str = Field("", description="Left out where nobody was asked.")
    content: str = ""
    usage: ChatUsage | None = Field(None, description="Left out where the provider counted nothing.")
    retry_after: int = Field(
        0, description="Seconds for which the provider wants to be left alone; left out where it did not say."
    )


class ChatCancelled(RestModel):
    """What became of an answer that was to be cancelled."""

    stream_id: str
    status: Literal["cancelled", "completed", "error"] = Field(
        description="cancelled, or how it had ended before that."
    )
