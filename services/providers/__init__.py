"""The answer providers by the name `RAG_PROVIDER` gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from config.groups import ProviderSettings
from services.errors import SettingsError
from services.providers.base import BaseRAGProvider
from services.providers.dify import DifyProvider
from services.providers.mock import MockProvider
from services.providers.mock_fallback import MockFallback


def build_provider(settings: ProviderSettings, *, bot: str, pool_size: int) -> BaseRAGProvider:
    """Return who answers for a bot; it connects when first asked.

    Raises:
        SettingsError: the provider is unknown here, or its settings do not fit together.
    """
    build = PROVIDERS.get(settings.rag_provider)
    if build is None:
        raise SettingsError(f"RAG_PROVIDER: {settings.rag_provider}, expected one of {', '.join(sorted(PROVIDERS))}")
    provider = build(settings, bot, pool_size)
    if settings.mock_fallback and not isinstance(provider, MockProvider):
        return MockFallback(provider, MockProvider())
    return provider


def _dify(settings: ProviderSettings, bot: str, pool_size: int) -> BaseRAGProvider:
    # In the mode of a patched Dify the bot's code precedes the user's token: its name, where no key was given.
    code = (bot,) if settings.dify_auth_mode == "user_token" else ()
    return DifyProvider(
        base_url=settings.dify_base_url,
        api_keys=settings.dify_api_keys or code,
        chat_endpoint=settings.dify_chat_endpoint,
        auth_mode=settings.dify_auth_mode,
        auth_prefix=settings.dify_auth_prefix,
        timeout=settings.dify_timeout,
        user=settings.dify_user,
        inputs=settings.dify_inputs,
        max_concurrent=settings.dify_max_concurrent,
        pool_size=pool_size,
    )


def _mock(settings: ProviderSettings, bot: str, pool_size: int) -> BaseRAGProvider:
    return MockProvider()


PROVIDERS: Mapping[str, Callable[[ProviderSettings, str, int], BaseRAGProvider]] = {"dify": _dify, "mock": _mock}
