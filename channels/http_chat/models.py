"""The request model of POST /api/chat, and the models of its answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, model_validator

from channels.asking import MAX_CONTENT, MAX_CURSOR, MAX_ID
from channels.web.rest import RestModel

#: The largest integer that all JSON parsers represent exactly; larger numbers are refused.
MAX_NUMBER = 2**53 - 1

#: Maximum characters of what a reader says about an answer.
MAX_CONTENT_OF_RATING = 2000

ShortName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID)]
InputValue = (
    Annotated[str, StringConstraints(max_length=MAX_CONTENT)]
    | bool
    | Annotated[int, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
    | Annotated[FiniteFloat, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
)


class ChatQuestion(RestModel):
    """A question; `question` is accepted as another name of `query`."""

    @model_validator(mode="before")
    @classmethod
    def _other_name(cls, given: Any) -> Any:
        """Rename `question` to `query`; a body with both is refused."""
        if isinstance(given, dict) and "question" in given and "query" not in given:
            return {("query" if name == "question" else name): value for name, value in given.items()}
        return given

    query: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] = Field(
        description="The question, up to `QUESTION_MAX_BYTES`. White space around it is removed.",
        examples=["年假怎么申请？"],
    )
    id: ShortName | None = Field(
        None,
        # No example: two people who try it would share one id, and so one answer.
        description="An id chosen by the client, best a random one. Repeating it returns the same answer.",
    )
    conversation: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = Field(
        None, description="The conversation it belongs to; without one it has no history.", examples=["desk-7"]
    )
    inputs: Annotated[dict[ShortName, InputValue], Field(max_length=50)] = Field(
        default_factory=dict, description="Inputs of the provider's app.", examples=[{"department": "HR"}]
    )
    stream: bool | None = Field(None, description="Answer as server-sent events; by default the Accept header decides.")


class ChatPlace(RestModel):
    """A reader's position; the header Last-Event-ID takes precedence."""

    cursor: Annotated[int, Field(ge=0, le=MAX_CURSOR)] = Field(0, description="The id of the last event received.")


class ChatRating(RestModel):
    """A reader's rating of an answer; the last one counts."""

    rating: Literal["like", "dislike"] | None = Field(description="null withdraws an earlier rating and its words.")
    content: Annotated[str, StringConstraints(max_length=MAX_CONTENT_OF_RATING)] = Field(
        "", description="What the reader says about it.", examples=["请更具体一点"]
    )


class ChatRated(RestModel):
    """The rating as it was taken; it is stored and told to the provider soon after."""

    stream_id: str
    rating: Literal["like", "dislike"] | None


class ChatUsage(RestModel):
    """The cost of the answer as reported by the provider; 0 and "" for what it did not report."""

    total_tokens: int
    prompt_tokens: int
    completion_tokens: int
    total_price: str = Field(description="A decimal number.", examples=["0.0012"])
    currency: str = Field(examples=["USD"])


class ChatMetadata(BaseModel):
    """The provider and its ids; unknown ones are left out, and providers may add further members."""

    model_config = ConfigDict(extra="allow")

    provider: str = Field("", examples=["dify"])
    message_id: str = ""
    conversation_id: str = ""


class ChatAnswered(RestModel):
    """A whole answer."""

    stream_id: str
    content: str
    status: Literal["completed"]
    sources: list[dict[str, Any]] = Field(description="The documents it is based on, as reported by the provider.")
    usage: ChatUsage
    metadata: ChatMetadata
    mock: bool = Field(False, description="True when the built-in mock answered instead of a provider; else left out.")


class ChatFailed(RestModel):
    """An answer that was not completed, with its text so far."""

    reason: str = Field(description="A stable error code.", examples=["provider_timeout"])
    stream_id: str = Field("", description="Left out when no stream was opened.")
    content: str = ""
    usage: ChatUsage | None = Field(None, description="Left out when the provider reported none.")
    retry_after: int = Field(0, description="The provider's Retry-After in seconds; left out when it sent none.")


class ChatCancelled(RestModel):
    """The result of cancelling an answer."""

    stream_id: str
    status: Literal["cancelled", "completed", "error"] = Field(
        description="cancelled, or the status with which it had already ended."
    )
