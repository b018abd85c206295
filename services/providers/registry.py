"""Builds the answer provider that `RAG_PROVIDER` names, and wraps it with the search and the mock fallback if set.

Providers of other packages are found by the name of an entry point or by their import path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from pydantic import SecretStr

from config.checks import GROUP
from config.errors import SettingsError
from config.groups import ProviderSettings
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


def build_provider(settings: ProviderSettings, *, bot: str, pool_size: int, texts: Texts) -> BaseRAGProvider:
    """Build a bot's answer provider. It connects when it is asked its first question.

    Raises:
        SettingsError: the provider's name is unknown, or its settings are invalid.
    """
    builder = _Builder(settings, bot, pool_size)
    provider = builder.rag()
    if settings.search_provider:
        provider = SearchFirst(
            provider,
            builder.search(),
            wants=router(settings.search_route, settings.search_prefix),
            show=settings.search_results,
            texts=texts,
            timeout=settings.serper_timeout,
        )
    if settings.mock_fallback and not isinstance(provider, MockProvider):
        return MockFallback(provider, MockProvider())
    return provider


@dataclass(frozen=True, slots=True)
class _Builder:
    """Builds the parts of one bot's provider; `pool_size` is the number of connections to each party."""

    settings: ProviderSettings
    bot: str
    pool_size: int

    def rag(self) -> BaseRAGProvider:
        """Build the provider that `RAG_PROVIDER` names, here or in another package."""
        build = PROVIDERS.get(self.settings.rag_provider)
        if build:
            return build(self)
        name, known = self.settings.rag_provider, sorted(PROVIDERS)
        return load_plugin("RAG_PROVIDER", name, BaseRAGProvider, self.settings, known=known)  # type: ignore[type-abstract]

    def search(self) -> BaseSearchProvider:
        """Build the search that `SEARCH_PROVIDER` names, here or in another package."""
        name = self.settings.search_provider or ""
        if name != "serper":
            known = ["serper"]
            return load_plugin("SEARCH_PROVIDER", name, BaseSearchProvider, self.settings, known=known)  # type: ignore[type-abstract]
        return SerperSearch(
            api_key=_revealed(self.settings.serper_api_key),
            base_url=self.settings.serper_base_url,
            timeout=self.settings.serper_timeout,
            gl=self.settings.serper_gl,
            hl=self.settings.serper_hl,
            num=self.settings.serper_num,
            pool_size=self.pool_size,
        )

    def dify(self) -> BaseRAGProvider:
        # In the mode `user_token` (a patched Dify) the bot's code precedes the user's token. Without a key, the code is
        # the bot's name.
        code = (self.bot,) if self.settings.dify_auth_mode == "user_token" else ()
        credential = DifyCredential(
            self.settings.dify_api_keys or code,
            mode=self.settings.dify_auth_mode,
            prefix=self.settings.dify_auth_prefix,
        )
        return DifyProvider(
            DifyUrls.build(self.settings.dify_base_url, self.settings.dify_chat_endpoint),
            credential,
            inputs=InputsTemplate(self.settings.dify_inputs),
            user=self.settings.dify_user,
            limits=ClientLimits(self.settings.dify_timeout, pool_size=self.pool_size),
            max_concurrent=self.settings.dify_max_concurrent,
        )

    def openai(self) -> BaseRAGProvider:
        return OpenAIProvider(
            name="openai",
            api_key=_revealed(self.settings.openai_api_key),
            base_url=self.settings.openai_base_url,
            options=ModelOptions(
                self.settings.openai_model,
                system_prompt=self.settings.openai_system_prompt,
                max_tokens=self.settings.openai_max_tokens,
                temperature=self.settings.openai_temperature,
                body=self.settings.openai_body,
            ),
            headers=self.settings.openai_headers.get_secret_value(),
            limits=ClientLimits(self.settings.openai_timeout, pool_size=self.pool_size),
        )

    def context(self) -> BaseRAGProvider:
        return OpenAIProvider(
            name="context",
            api_key=_revealed(self.settings.context_api_key),
            base_url=self.settings.context_base_url,
            options=ModelOptions(
                self.settings.context_model,
                system_prompt=self.settings.context_system_prompt,
                max_tokens=self.settings.context_max_tokens,
                temperature=self.settings.context_temperature,
            ),
            limits=ClientLimits(self.settings.context_timeout, pool_size=self.pool_size),
        )

    def custom(self) -> BaseRAGProvider:
        return CustomProvider(
            api_url=self.settings.custom_rag_api_url or "",
            api_key=_revealed(self.settings.custom_rag_api_key),
            headers=self.settings.custom_rag_headers.get_secret_value(),
            health_url=self.settings.custom_rag_health_url or "",
            inputs=InputsTemplate(self.settings.custom_rag_inputs),
            limits=replace(CUSTOM_LIMITS, timeout=self.settings.custom_rag_timeout, pool_size=self.pool_size),
        )

    def mock(self) -> BaseRAGProvider:
        return MockProvider()


PROVIDERS: Mapping[str, Callable[[_Builder], BaseRAGProvider]] = {
    "dify": _Builder.dify,
    "openai": _Builder.openai,
    "context": _Builder.context,
    "custom": _Builder.custom,
    "mock": _Builder.mock,
}


def _revealed(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


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
