"""The requests of OpenAI clients, with the fields that have an effect, and the replies.

Fields that are not listed here are ignored, as by other servers of this API.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from channels.options import EndUser

#: Messages of one request at most, and parts of one message.
MAX_MESSAGES = 2000
MAX_PARTS = 100


class OpenAIModel(BaseModel):
    """A request or reply; unknown fields of requests are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ImageUrl(OpenAIModel):
    """A picture."""

    url: str = Field(description="An https address, or a `data:` URL with base64.")


class ContentPart(OpenAIModel):
    """A part of a message."""

    type: str = Field(examples=["text"])
    text: str | None = None
    image_url: ImageUrl | None = None


class ChatMessage(OpenAIModel):
    """One message of the conversation; the last one is the question."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[ContentPart], Field(max_length=MAX_PARTS, fail_fast=True)] | None = Field(
        None, examples=["年假怎么申请？"]
    )


class StreamOptions(OpenAIModel):
    """Options of a stream."""

    include_usage: bool | None = Field(None, description="Send the tokens in a last chunk.")


class CompletionRequest(OpenAIModel):
    """A request for an answer. Sampling parameters are the provider's: those sent here have no effect."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "default", "messages": [{"role": "user", "content": "年假怎么申请？"}]}]
        }
    )

    model: str = Field(description="`default`, or a bot that `GET /v1/models` lists.", examples=["default"])
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: EndUser | None = Field(None, description="The end user: limits, conversations and Dify's user follow it.")
    metadata: dict[str, Any] | None = Field(
        None, description="`conversation_id` names the conversation.", examples=[{"conversation_id": "desk-7"}]
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None, description="The model's temperature; ignored where the bot's provider takes none."
    )
    n: int | None = Field(None, description="1; more are refused.")
    tool_choice: Any = Field(None, description="A tool that has to be called is refused: the gateway calls no tools.")
    response_format: Any = Field(None, description='`{"type": "text"}`; JSON is refused.')


class UrlCitation(OpenAIModel):
    """A document that the whole answer is based on."""

    title: str
    url: str = Field(description="The document's address, empty for none.")
    start_index: int
    end_index: int


class Annotation(OpenAIModel):
    """A source of the answer."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class CompletionMessage(OpenAIModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = Field(None, description="Always null.")
    reasoning_content: str | None = Field(None, description="The model's thinking; left out when there is none.")
    annotations: list[Annotation] | None = Field(None, description="The sources; left out when there are none.")


class CompletionChoice(OpenAIModel):
    """The one choice of a reply."""

    index: Literal[0] = 0
    message: CompletionMessage
    logprobs: dict[str, Any] | None = Field(None, description="Always null.")
    finish_reason: Literal["stop", "length", "content_filter"]


class CompletionUsage(OpenAIModel):
    """The tokens as the provider counted them, 0 where it did not."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(OpenAIModel):
    """A whole answer."""

    id: str = Field(examples=["chatcmpl-0f8c"])
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(description="Seconds since 1970.")
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage


class ListedModel(OpenAIModel):
    """One model."""

    id: str = Field(examples=["default"])
    object: Literal["model"] = "model"
    created: Literal[0] = 0
    owned_by: str


class ModelList(OpenAIModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ListedModel]


class OpenAIErrorObject(OpenAIModel):
    """The description of an error."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str | None = Field(examples=["model_not_found"])


class OpenAIError(OpenAIModel):
    """An error in OpenAI's shape."""

    error: OpenAIErrorObject
