"""Keys as earlier versions derived them, only to read with: an update loses no conversation and no sealed token.

Delete this module and its uses in `services/identity/keys.py` once no process of a version without `SECRET_KEY`
(0.1.0, or a build of before that setting) has run for `CONVERSATION_TTL`, seven days by default: by then whatever is
still in use was carried over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from pydantic import SecretStr

from config.settings import Settings
from services.wecom.callback import derive_key


def former_own(settings: Settings, purpose: str) -> bytes:
    """Return the key that named all conversations and sealed all tokens: it changed with every bot.

    It was derived from all bots' first AES keys; without a bot from the first key there is, or from the public
    `APP_NAME`. So what it opens proves nothing about its writer.
    """
    if bots := [bot for _, bot in sorted(settings.bots.items()) if bot.aes_keys]:
        secret = b"".join(derive_key(bot.aes_keys[0], purpose) for bot in bots)
    else:
        secret = f"{purpose}:{next(_given(settings)).get_secret_value()}".encode()
    return hashlib.sha256(secret).digest()


def _given(settings: Settings) -> Iterator[SecretStr]:
    provider = settings.provider
    yield from (*settings.api_keys, *provider.dify_api_key)
    yield from filter(None, (provider.openai_api_key, provider.context_api_key, provider.custom_rag_api_key))
    yield SecretStr(settings.app_name)
