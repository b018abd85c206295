"""The request model of POST /api/chat, and the models of its answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from channels.asking import FILE_ID, MAX_CURSOR, MAX_FILES
from channels.options import AnswerSource, ChatView, QuestionOptions, ShortName
from channels.rating import MAX_WORDS
from channels.web.rest import RestModel


class _Asked(RestModel):
    """The question itself, which the schema lists before its options."""

    @model_validator(mode="before")
    @classmethod
    def _other_name(cls, given: object) -> object:
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
        # No example: two people who tried it would share an id, and with it the answer.
        description="An id chosen by the client, best a random one. Repeating it returns the same answer.",
    )
    conversation: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = Field(
        None, description="The conversation it belongs to; without one it has no history.", examples=["desk-7"]
    )


class ChatQuestion(QuestionOptions, _Asked):
    """A question; `question` is accepted as another name of `query`."""

    # Of the options, no example is right for every bot.
    model_config = ConfigDict(json_schema_extra={"examples": [{"query": "年假怎么申请？"}]})

    files: Annotated[list[Annotated[str, StringConstraints(pattern=f"^{FILE_ID}$")]], Field(max_length=MAX_FILES)] = (
        Field(default_factory=list, description="Ids of files from `POST /api/files`, uploaded with the same key.")
    )
    stream: bool | None = Field(None, description="Answer as server-sent events; by default the Accept header decides.")


class FileForm(RestModel):
    """A picture or file for a later question."""

    file: bytes = Field(description="Up to `MEDIA_MAX_BYTES`. Its name and its first bytes tell its type.")


class FileTaken(RestModel):
    """An uploaded file. It is kept for ten minutes, and longer once a question names it."""

    file_id: str = Field(description="Name it in `files` of a question.", examples=["0f6e7c1d8b3a4f5e9c2d1a0b7e6f5d4c"])
    name: str = Field(examples=["report.pdf"])
    type: Literal["image", "document", "audio", "video", "custom"]
    size: int = Field(description="Bytes.")


class FileLimits(RestModel):
    """The limits on the files of a question."""

    allowed: bool = Field(description="Whether the provider takes files.")
    max_bytes: int = Field(description="Bytes of the largest one, `MEDIA_MAX_BYTES`.")
    max_files: int = Field(description="Files of one question.")


class ChatOpening(RestModel):
    """How the provider's app opens a chat."""

    opening: str = Field(description='The opening statement in Markdown, "" for none.', examples=["您好，请问。"])
    html: str = Field(description="The same as safe HTML.", examples=["<p>您好，请问。</p>"])
    suggested_questions: list[str] = Field(description="Questions to begin with.", examples=[["年假怎么申请？"]])
    files: FileLimits


class ChatPlace(ChatView):
    """A reader's position; the header Last-Event-ID takes precedence."""

    cursor: Annotated[int, Field(ge=0, le=MAX_CURSOR)] = Field(0, description="The id of the last event received.")


class ChatRating(RestModel):
    """A reader's rating of an answer; the last one counts."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"rating": "like", "content": ""}]})

    rating: Literal["like", "dislike"] | None = Field(description="null withdraws an earlier rating and its words.")
    content: Annotated[str, StringConstraints(max_length=MAX_WORDS)] = Field(
        "", description="The reader's words about the answer.", examples=["请更具体一点"]
    )


class ChatRated(RestModel):
    """The accepted rating; it is stored, and sent to the provider soon after."""

    stream_id: str
    rating: Literal["like", "dislike"] | None


class ChatUsage(RestModel):
    """The cost of the answer as reported by the provider; 0 and "" for figures that it did not report."""

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


class ChatFile(RestModel):
    """A picture or file of the answer, from the provider or from the answer's text."""

    name: str = Field(examples=["report.pdf"])
    type: str = Field(description="The media type.", examples=["application/pdf"])
    size: int = Field(description="Bytes.")
    url: str = Field(
        description="A path on this host; it works for as long as the answer is kept.",
        examples=["/files/0f6e7c1d.s0123456789abcdef.0.00112233445566778899aabbccddeeff.pdf"],
    )


class ChatAnswered(RestModel):
    """A whole answer."""

    stream_id: str
    content: str
    reasoning: str = Field("", description="The model's thinking; left out unless `thinking` is `separate`.")
    status: Literal["completed"]
    sources: list[AnswerSource] = Field(description="The documents and pages it is based on.")
    files: list[ChatFile] = Field(description="Its pictures and files, those that `content` links too.")
    suggestions: list[str] = Field(
        default_factory=list,
        description="Questions that the provider's app suggests after it, with `WEB_SUGGESTIONS`.",
        examples=[["病假需要什么材料？"]],
    )
    usage: ChatUsage
    metadata: ChatMetadata
    mock: bool = Field(False, description="True when the built-in mock answered instead of a provider; else left out.")


class ChatFailed(RestModel):
    """An answer that was not completed, with its text so far."""

    reason: str = Field(description="A stable error code.", examples=["provider_timeout"])
    stream_id: str = Field("", description="Left out when no stream was opened.")
    content: str = ""
    reasoning: str = Field("", description="The model's thinking; left out unless `thinking` is `separate`.")
    usage: ChatUsage | None = Field(None, description="Left out when the provider reported none.")
    retry_after: int = Field(0, description="The provider's Retry-After in seconds; left out when it sent none.")


class ChatStarted(RestModel):
    """The first event of a stream."""

    stream_id: str


class ChatPiece(RestModel):
    """A piece of the answer's text, or of the model's thinking."""

    content: str


class ChatCancelled(RestModel):
    """The result of cancelling an answer."""

    stream_id: str
    status: Literal["cancelled", "completed", "error"] = Field(
        description="cancelled, or the status with which it had already ended."
    )
