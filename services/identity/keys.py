"""Which keys this replica names, signs and seals with: derived for each purpose and bot, the same on all replicas.

    SECRET_KEY                     where it is set, all keys that write are derived from it, whatever bots there are
    a bot's WECHAT_ENCODING_AES_KEY  else what belongs to that bot
    dify_secret:own in Redis       else what belongs to no bot, and may be known to who reads Redis
    one of the bots' keys          else what belongs to no bot, and must be safe from who reads Redis

Each of the first two is a list: the first writes, all read. So do the bots' keys where `SECRET_KEY` was set later.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence

from config.bots import DEFAULT_BOT, BotSettings
from config.settings import Settings
from services.identity.former_keys import former_own
from services.identity.secret_store import SecretStore
from services.wecom.callback import derive_key
from utils.keyring import Keyring, derive

#: The name under which a mapping has the keys of what belongs to no bot.
NO_BOT = ""


class Keys:
    """The keyrings of one replica; none of them asks Redis before it is used."""

    def __init__(self, settings: Settings, own: SecretStore) -> None:
        self._settings = settings
        self._secret_keys = [key.get_secret_value().encode() for key in settings.secret_key]
        self._own = own
        #: Of users' tokens where there is neither SECRET_KEY nor a bot: no other process can open them.
        self._of_this_process = os.urandom(32)

    def streams(self) -> dict[str, Keyring]:
        """Return by bot what makes stream ids and readers' fingerprints, and seals where a late answer may go.

        The channels without a bot use the default bot's name, and its keys where there is one.
        """
        rings = {name: self._of_bot("stream", bot, derive_key) for name, bot in self._settings.bots.items()}
        return {DEFAULT_BOT: self._of_no_bot("stream", former_own(self._settings, "stream")), **rings}

    def conversations(self) -> dict[str, Keyring]:
        """Return by bot, and as `NO_BOT`, what names conversations."""
        former = former_own(self._settings, "conversation")
        bots = self._settings.bots.items()
        rings = {name: self._of_bot("conversation", bot, _once_more, former) for name, bot in bots}
        return {NO_BOT: self._of_no_bot("conversation", former), **rings}

    def names(self) -> Keyring:
        """Return what hashes the names of clients in rate limits and in the registry of sockets."""
        return self._of_no_bot("names")

    def tokens(self) -> Keyring:
        """Return what seals users' tokens: never a key that lies in Redis."""
        secrets = self._secrets("callers")
        bots = self._settings.bots.values()
        of_bots = [_once_more(aes_key, "callers") for bot in bots for aes_key in bot.aes_keys]
        safe = (*secrets, *of_bots) or (self._of_this_process,)
        return _fixed(*safe, former_own(self._settings, "callers"))

    def _of_bot(self, purpose: str, bot: BotSettings, derived: Callable[[str, str], bytes], *former: bytes) -> Keyring:
        secrets = self._secrets(f"{purpose}:{bot.name}")
        return _fixed(*secrets, *(derived(aes_key, purpose) for aes_key in bot.aes_keys), *former)

    def _of_no_bot(self, purpose: str, *former: bytes) -> Keyring:
        if secrets := self._secrets(purpose):
            return _fixed(*secrets, *former)
        return lambda: (*(derive(secret, purpose) for secret in self._own.secrets()), *former)

    def _secrets(self, purpose: str) -> list[bytes]:
        return [derive(key, purpose) for key in self._secret_keys]


def _once_more(aes_key: str, purpose: str) -> bytes:
    """Derive a key as all bots together had it, for one bot: a gateway with a single bot keeps its names."""
    return hashlib.sha256(derive_key(aes_key, purpose)).digest()


def _fixed(*keys: bytes) -> Keyring:
    """Return a keyring of these, each once."""
    ring: Sequence[bytes] = tuple(dict.fromkeys(keys))
    return lambda: ring
