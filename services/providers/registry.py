"""Builds the answer provider that `RAG_PROVIDER` names, and wraps it with the search and the mock fallback if set.

Providers of other packages are found by the name of an entry point or by their import path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from pydantic import SecretStr

from config.errors import SettingsError
from config.groups import ProviderSettings
from config.plugins import GROUP
from config.texts import Texts
from services.providers.base import BaseRAGProvider, BaseSearchProvider
from services.providers.client.inputs import InputsTemplate
from services.providers.client.limits import ClientLimits
from services.providers.custom.provider import LIMITS as CUSTOM_LIMITS
from services.providers.custom.provider import CustomProvider
from services.providers.dify.provider import DifyCredential, DifyProvider
from services.providers.dify.service import DifyUrls
from services.providers.mock import MockFallback, MockProvider
from services.providers.openai.provider import ModelOptions, OpenAIProvider
from services.providers.search.provider import SearchFirst
from services.providers.search.serper import SerperSearch
from utils.questions.search_intent import router

T = TypeVar("T")
Build = Callable[[ProviderSettings, str, int], BaseRAGProvider]


def build_provider(settings: ProviderSettings, *, bot: str, pool_size: int, texts: Texts) -> BaseRAGProvider:
    """Build a bot's answer provider. It connects when it is asked its first question.

    Raises:
        SettingsError: the provider's name is unknown, or its settings are invalid.
    """
    provider = _rag(settings, bot, pool_size)
    if settings.search_provider:
        provider = SearchFirst(
            provider,
            _search(settings, bot, pool_size),
            wants=router(settings.search_route, settings.search_prefix),
            show=settings.search_results,
            texts=texts,
            timeout=settings.serper_timeout,
        )
    if settings.mock_fallback and not isinstance(provider, MockProvider):
        return MockFallback(provider, MockProvider())
    return provider


def _rag(settings: ProviderSettings, bot: str, pool_size: int) -> BaseRAGProvider:
    build = PROVIDERS.get(settings.rag_provider)
    if build:
        return build(settings, bot, pool_size)
    name, known = settings.rag_provider, sorted(PROVIDERS)
    return load_plugin("RAG_PROVIDER", name, BaseRAGProvider, settings, known=known)  # type: ignore[type-abstract]


def _search(settings: ProviderSettings, bot: str, pool_size: int) -> BaseSearchProvider:
    name = settings.search_provider or ""
    if name != "serper":
        known = ["serper"]
        return load_plugin("SEARCH_PROVIDER", name, BaseSearchProvider, settings, known=known)  # type: ignore[type-abstract]
    return SerperSearch(
        api_key=_revealed(settings.serper_api_key),
        base_url=settings.serper_base_url,
        timeout=settings.serper_timeout,
        gl=settings.serper_gl,
        hl=settings.serper_hl,
        num=settings.serper_num,
        pool_size=pool_size,
    )


def _dify(settings: ProviderSettings, bot: str, pool_size: int) -> BaseRAGProvider:
    # In the mode `user_token` (a patched Dify) the bot's code precedes the user's token. Without a key, the code is the
    # bot's name.
    code = (bot,) if settings.dify_auth_mode == "user_token" else ()
    credential = DifyCredential(
        settings.dify_api_keys or code, mode=settings.dify_auth_mode, prefix=settings.dify_auth_prefix
    )
    return DifyProvider(
        DifyUrls.build(settings.dify_base_url, settings.dify_chat_endpoint),
        credential,
        inputs=InputsTemplate(settings.dify_inputs),
        user=settings.dify_user,
        limits=ClientLimits(settings.dify_timeout, pool_size=pool_size),
        max_concurrent=settings.dify_max_concurrent,
    )


def _openai(settings: ProviderSettings, bot: str, pool_size: int) -> BaseRAGProvider:
    return OpenAIProvider(
        name="openai",
        api_key=_revealed(settings.openai_api_key),
        base_url=settings.openai_base_url,
        options=ModelOptions(
            settings.openai_model,
            system_prompt=settings.openai_system_prompt,
            max_tokens=settings.openai_max_tokens,
            temperature=settings.openai_temperature,
            body=settings.openai_body,
        ),
        headers=settings.openai_headers.get_secret_value(),
        limits=ClientLimits(settings.openai_timeout, pool_size=pool_size),
    )


def _context(settings: ProviderSettings, bot: str, pool_size: int) -> BaseRAGProvider:
    return OpenAIProvider(
        name="context",
        api_key=_revealed(settings.context_api_key),
        base_url=settings.context_base_url,
        options=ModelOptions(
            settings.context_model,
            system_prompt=settings.context_system_prompt,
            max_tokens=settings.context_max_tokens,
            temperature=settings.context_temperature,
        ),
        limits=ClientLimits(settings.context_timeout, pool_size=pool_size),
    )


def _custom(settings: ProviderSettings, bot: str, pool_size: int) -> BaseRAGProvider:
    return CustomProvider(
        api_url=settings.custom_rag_api_url or "",
        api_key=_revealed(settings.custom_rag_api_key),
        headers=settings.custom_rag_headers.get_secret_value(),
        health_url=settings.custom_rag_health_url or "",
        inputs=InputsTemplate(settings.custom_rag_inputs),
        limits=replace(CUSTOM_LIMITS, timeout=settings.custom_rag_timeout, pool_size=pool_size),
    )


def _revealed(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def _mock(settings: ProviderSettings, bot: str, pool_size: int) -> BaseRAGProvider:
    return MockProvider()


PROVIDERS: Mapping[str, Build] = {
    "dify": _dify,
    "openai": _openai,
    "context": _context,
    "custom": _custom,
    "mock": _mock,
}


def load_plugin(variable: str, name: str, base: type[T], settings: ProviderSettings, *, known: Sequence[str]) -> T:
    """Instantiate the class that `name` refers to: an entry point of the group `GROUP`, or `package.module:Class`.

    If the class has `from_settings`, that is called with the bot's settings; otherwise the class is called without
    arguments. Error messages contain `variable`, the setting's name, and `known`, the built-in providers.

    Raises:
        SettingsError: the class cannot be imported, is not a subclass of `base`, or its constructor raises.
    """
    found = _class(variable, name, known)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise SettingsError(f"{variable}: {name} is no {base.__name__}")
    try:
        make: Callable[[ProviderSettings], Any] | None = getattr(found, "from_settings", None)
        made = make(settings) if make else found()
    except SettingsError:
        raise
    except Exception as exc:
        raise SettingsError(f"{variable}: {name} cannot be made: {type(exc).__name__}: {exc}") from exc
    if not isinstance(made, base):
        raise SettingsError(f"{variable}: {name} made no {base.__name__}")
    return made


def _class(variable: str, name: str, known: Sequence[str]) -> Any:
    module, _, attribute = name.partition(":")
    try:
        if attribute:
            return getattr(import_module(module), attribute)
        found = entry_points(group=GROUP, name=name)
        if found:
            return next(iter(found)).load()
    except Exception as exc:
        raise SettingsError(f"{variable}: {name} cannot be imported: {type(exc).__name__}: {exc}") from exc
    others = ", ".join(known)
    raise SettingsError(f"{variable}: {name}, expected {others}, an installed provider's name, or package.module:Class")
