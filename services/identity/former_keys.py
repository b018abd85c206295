"""Keys as earlier versions derived them, used only for reading, so that an update keeps conversations and tokens.

Delete this module and its uses in `services/identity/keys.py` once no process of a version without `SECRET_KEY`
(0.1.0, or an earlier build) has run for `CONVERSATION_TTL`, seven days by default: by then everything still in use has
been carried over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from pydantic import SecretStr

from config.settings import Settings
from services.wecom.callback import derive_key


def former_own(settings: Settings, purpose: str) -> bytes:
    """Return the former key of all conversations and tokens, which changed with every new bot.

    It was derived from the first AES keys of all bots; without bots from the first API key, or from the public
    `APP_NAME`. So a value that it opens proves nothing about its writer.
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
