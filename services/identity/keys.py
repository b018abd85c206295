"""The keys for naming, signing and sealing, derived per purpose and bot, the same on all replicas.

    SECRET_KEY                       if set, all keys for writing are derived from it, whatever bots there are
    a bot's WECHAT_ENCODING_AES_KEY  else, for data of that bot; without one its WECHAT_BOT_SECRET
    dify_secret:own in Redis         else, for data of no bot that readers of Redis may know
    one of the bots' keys            else, for data of no bot that must be safe from readers of Redis

The first two are lists: the first key writes, all keys read. If `SECRET_KEY` is set later, the bots' keys still read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from config.bots import DEFAULT_BOT, BotSettings
from config.settings import Settings
from services.identity.secret_store import SecretStore
from utils.keyring import Keyring, decode_aes_key, derive

#: The name of no bot in `Keys.conversations()`.
NO_BOT = ""


class Keys:
    """The keyrings of one replica. None of them calls Redis before it is used."""

    def __init__(self, settings: Settings, own: SecretStore) -> None:
        self._settings = settings
        self._secret_keys = [key.get_secret_value().encode() for key in settings.secret_key]
        self._own = own
        #: Seals users' tokens and administrators' sessions if there is neither SECRET_KEY nor a bot. No other process
        #: can open them.
        self._of_this_process = os.urandom(32)

    def streams(self) -> dict[str, Keyring]:
        """Return by bot the keys that make stream ids and readers' fingerprints and seal the `response_url`.

        The channels without bots use the default bot's name, and its keys if there is one.
        """
        return {DEFAULT_BOT: self._of_no_bot("stream"), **self._of_bots("stream")}

    def conversations(self) -> dict[str, Keyring]:
        """Return by bot, and for `NO_BOT`, the keys that name conversations."""
        return {NO_BOT: self._of_no_bot("conversation"), **self._of_bots("conversation")}

    def names(self) -> Keyring:
        """Return the keys that hash clients' names in rate limits, in the registry of sockets and in `dify_turns`."""
        return self._of_no_bot("names")

    def files(self) -> Keyring:
        """Return the keys that sign links to the files of answers."""
        return self._of_no_bot("files")

    def pictures(self) -> Keyring:
        """Return the keys that seal links to pictures of other hosts."""
        return self._of_no_bot("pictures")

    def tokens(self) -> Keyring:
        """Return the keys that seal users' tokens: never one that is stored in Redis."""
        return _fixed(*(self._safe("callers") or [self._of_this_process]))

    def sessions(self) -> Keyring:
        """Return the keys that seal administrators' sessions: never one that is stored in Redis."""
        return _fixed(*(self._safe("sessions") or [self._of_this_process]))

    def contacts(self) -> Keyring:
        """Return the keys that seal entries of WeCom's directory and its access token: never one stored in Redis."""
        return _fixed(*self._safe("contacts"))

    def _of_bots(self, purpose: str) -> dict[str, Keyring]:
        return {
            name: _fixed(*self._secrets(f"{purpose}:{bot.name}"), *_of_bot(purpose, bot))
            for name, bot in self._settings.bots.items()
        }

    def _of_no_bot(self, purpose: str) -> Keyring:
        if secrets := self._secrets(purpose):
            return _fixed(*secrets)
        return lambda: tuple(derive(secret, purpose) for secret in self._own.secrets())

    def _safe(self, purpose: str) -> list[bytes]:
        """Return the keys that are not in Redis: of `SECRET_KEY`, then of all bots."""
        of_bots = (key for bot in self._settings.bots.values() for key in _of_bot(purpose, bot))
        return [*self._secrets(purpose), *of_bots]

    def _secrets(self, purpose: str) -> list[bytes]:
        return [derive(key, purpose) for key in self._secret_keys]


def _of_bot(purpose: str, bot: BotSettings) -> list[bytes]:
    """Derive keys of the bot's AES keys; of a bot without any, which is one of the long connection, of its Secrets."""
    secrets = [decode_aes_key(key) for key in bot.aes_keys] or [secret.encode() for secret in bot.secrets]
    return [derive(secret, purpose) for secret in secrets]


def _fixed(*keys: bytes) -> Keyring:
    """Return a keyring of these keys without duplicates."""
    ring: Sequence[bytes] = tuple(dict.fromkeys(keys))
    return lambda: ring
