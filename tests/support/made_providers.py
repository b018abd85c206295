"""Providers and their clients, made from the options of one test by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import tzinfo
from typing import Any

from services.providers.client.inputs import InputsTemplate
from services.providers.client.limits import LIMITS, ClientLimits
from services.providers.custom.provider import LIMITS as CUSTOM_LIMITS
from services.providers.custom.provider import CustomProvider
from services.providers.dify.provider import DifyCredential, DifyProvider
from services.providers.dify.service import DifyService, DifyUrls
from services.providers.openai.provider import ModelOptions, OpenAIProvider

CHAT = "/v1/chat-messages"


def _taken(options: dict[str, Any], kind: type) -> dict[str, Any]:
    """Remove the options that are fields of this class, and return them."""
    return {field.name: options.pop(field.name) for field in fields(kind) if field.name in options}


def _limits(options: dict[str, Any], default: ClientLimits = LIMITS) -> ClientLimits:
    return replace(default, **_taken(options, ClientLimits))


def dify_service(*, base_url: str, chat_endpoint: str = CHAT, **options: Any) -> DifyService:
    limits = _limits(options)
    return DifyService(DifyUrls.build(base_url, chat_endpoint), limits=limits, **options)


def dify_provider(
    *,
    base_url: str,
    api_keys: Sequence[str],
    chat_endpoint: str = CHAT,
    auth_mode: Any = "app_key",
    auth_prefix: str = "Bearer",
    inputs: Mapping[str, Any] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    clock: Callable[[], float] = time.time,
    timezone: tzinfo | None = None,
    **options: Any,
) -> DifyProvider:
    """Return a Dify provider; `clock` and `timezone` are those of `{time_info}`, `monotonic` that of silence."""
    credential = DifyCredential(api_keys, auth_mode, auth_prefix)
    template = InputsTemplate(inputs or {}, clock=clock, timezone=timezone)
    limits, urls = _limits(options), DifyUrls.build(base_url, chat_endpoint)
    return DifyProvider(urls, credential, inputs=template, limits=limits, clock=monotonic, **options)


def openai_provider(**options: Any) -> OpenAIProvider:
    if options.get("body", {}) is None:
        del options["body"]
    model, limits = ModelOptions(**_taken(options, ModelOptions)), _limits(options)
    return OpenAIProvider(options=model, limits=limits, **options)


def custom_provider(*, inputs: Mapping[str, Any] | None = None, **options: Any) -> CustomProvider:
    template = InputsTemplate(inputs or {})
    return CustomProvider(inputs=template, limits=_limits(options, CUSTOM_LIMITS), **options)
