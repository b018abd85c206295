"""The settings of the answer providers and of web search: type, default, unit and meaning of each variable."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, Secret, TypeAdapter, ValidationError, model_validator

from config.fields import (
    ApiKey,
    ApiKeys,
    BaseUrl,
    Count,
    Group,
    Headers,
    HttpUrl,
    Inputs,
    Lower,
    ProviderName,
    RequestFields,
    RequestHeaders,
    Seconds,
    Temperature,
    UrlPath,
    setting,
)

DIFY_CLOUD = "https://api.dify.ai/v1"
MOCK_SWITCHES = ("mock_mode", "use_mock_rag")


class ProviderSettings(Group):
    """Settings of the answer provider and of web search; each bot of `WECHAT_BOTS` may override any of them."""

    rag_provider: ProviderName = setting(
        "dify",
        "provider: dify, openai, context, custom, mock, the name of an installed one, or package.module:Class",
    )
    dify_base_url: HttpUrl = setting(DIFY_CLOUD, "address of Dify, with or without /v1")
    dify_chat_endpoint: UrlPath = setting("/v1/chat-messages", "path of Dify's chat API")
    dify_auth_prefix: str = setting("Bearer", "first word of Dify's Authorization header")
    dify_api_key: ApiKeys = setting((), "key of the Dify app; a list: the first is used")
    dify_auth_mode: Annotated[Literal["app_key", "user_token"], Lower] = setting(
        "app_key",
        "app_key sends '{prefix} {key}'; "
        "user_token sends '{prefix} {DIFY_API_KEY, else the bot's name} {user token}' (a patched Dify)",
    )
    dify_timeout: Seconds = setting(60, "seconds of the longest silence without a data event, the first included")
    dify_user: str = setting("default-user", "Dify's end user for questions without a known user")
    dify_inputs: Inputs = setting(
        {},
        "JSON template of the app's inputs; may use {user_code} {user_name} {gender} {token} {time_info} "
        "{userid} {name} {department} {chatid} {chattype} {bot} {msgid}",
    )
    dify_max_concurrent: Count = setting(1000, "concurrent questions to Dify, per process")
    dify_api_url: HttpUrl | None = setting(None, "another name of DIFY_BASE_URL")
    openai_api_key: ApiKey | None = setting(None, "key of an OpenAI-compatible service")
    openai_base_url: BaseUrl = setting(
        "https://api.openai.com",
        "its address; a bare host gets /v1, one with a path or a / at its end is used as it is",
    )
    openai_model: str = setting("gpt-3.5-turbo", "its model")
    openai_timeout: Seconds = setting(60, "seconds of the longest silence")
    openai_system_prompt: str = setting("", "system prompt of each conversation; empty: none")
    openai_max_tokens: Count | None = setting(None, "tokens of the longest answer; empty: the service decides")
    openai_temperature: Temperature | None = setting(None, "0 to 2; empty: the service decides")
    openai_headers: RequestHeaders = setting(
        Secret({}), 'JSON: more headers for it, such as {"api-key": "k"}; they may replace the key'
    )
    openai_body: RequestFields = setting({}, 'JSON: more fields of its requests, such as {"enable_thinking": false}')
    context_api_key: ApiKey | None = setting(None, "key of the Context service")
    context_base_url: BaseUrl = setting("https://api.context.ai", "its address, read as OPENAI_BASE_URL")
    context_model: str = setting("gpt-4", "its model")
    context_timeout: Seconds = setting(30, "seconds of the longest silence")
    context_system_prompt: str = setting("", "system prompt of each conversation; empty: none")
    context_max_tokens: Count | None = setting(1000, "tokens of the longest answer")
    context_temperature: Temperature | None = setting(0.7, "0 to 2")
    custom_rag_api_url: HttpUrl | None = setting(None, "full address of your own service")
    custom_rag_api_key: ApiKey | None = setting(None, "its key, sent as Bearer; empty: none is sent")
    custom_rag_timeout: Seconds = setting(30, "seconds of the longest silence")
    custom_rag_headers: Headers = setting(Secret({}), 'JSON: more headers for it, such as {"X-Tenant": "a"}')
    custom_rag_inputs: Inputs = setting(
        {}, "JSON template of the `inputs` it gets; may use the placeholders of DIFY_INPUTS"
    )
    custom_rag_health_url: HttpUrl | None = setting(None, "its health address; empty: CUSTOM_RAG_API_URL + /health")
    search_provider: ProviderName | None = setting(None, "web search: serper, or package.module:Class; empty: none")
    search_route: Annotated[Literal["rules", "prefix", "always"], Lower] = setting(
        "rules",
        "questions to search for: rules (chosen by built-in rules), prefix (those with SEARCH_PREFIX) or always",
    )
    search_prefix: str = setting("/search", "the prefix that asks for a search; 搜索: is another")
    search_results: Annotated[Literal["context", "list"], Lower] = setting(
        "context", "use of the results: context (RAG_PROVIDER answers from them) or list (they are the answer)"
    )
    serper_api_key: ApiKey | None = setting(None, "key of serper.dev")
    serper_base_url: HttpUrl = setting("https://google.serper.dev", "its address")
    serper_timeout: Seconds = setting(10, "seconds for a search")
    serper_gl: str = setting("us", "country of the results")
    serper_hl: str = setting("", "language of the results; empty: the service decides")
    serper_num: Annotated[int, Field(ge=1, le=100)] = setting(10, "results per search")
    mock_mode: bool = setting(False, "answer with the built-in mock, whatever RAG_PROVIDER says")
    use_mock_rag: bool = setting(False, "another name of MOCK_MODE")
    mock_fallback: bool = setting(False, "answer with the mock, marked as such, when the provider fails")

    @model_validator(mode="before")
    @classmethod
    def _aliases(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Default `DIFY_BASE_URL` to `DIFY_API_URL`, and set `RAG_PROVIDER` to mock if a mock switch is on."""
        filled = dict(given)
        if given.get("dify_api_url"):
            filled.setdefault("dify_base_url", given["dify_api_url"])
        if any(_is_on(given.get(switch)) for switch in MOCK_SWITCHES):
            filled["rag_provider"] = "mock"
        return filled

    @property
    def dify_api_keys(self) -> tuple[str, ...]:
        return tuple(key.get_secret_value() for key in self.dify_api_key)


def _is_on(switch: Any) -> bool:
    try:
        return TypeAdapter(bool).validate_python(switch)
    except ValidationError:
        return False  # validation of the switch's own field reports the error


def same_base(one: str, other: str) -> bool:
    """Return whether two URLs of Dify are equal apart from a trailing /v1."""
    return re.sub(r"/v1$", "", one) == re.sub(r"/v1$", "", other)
