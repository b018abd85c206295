"""Builds everything from the settings, in the order of the floors; `close` undoes it in reverse."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from pydantic import SecretStr

from config.bots import DEFAULT_BOT, BotSettings
from config.settings import Settings
from config.texts import Texts
from services.answer import Answerer, Backend
from services.auth_service import AuthService
from services.callers import Callers
from services.conversation_store import ConversationStore
from services.errors import LaibaoError, ProviderError, SettingsError, StoreUnavailable
from services.gateway import Door, Gateway
from services.health import Health
from services.history_store import HistoryStore
from services.lock_store import LockStore
from services.models import PROGRAM_CHANNELS, SOCKET_CHANNELS
from services.providers import build_provider
from services.providers.base import BaseRAGProvider
from services.rate_limiter import RateLimiter
from services.redis_store import ScriptRunner, connect
from services.socket_store import SocketStore
from services.stream_manager import StreamManager
from services.stream_readers import StreamReaders
from services.stream_store import StreamStore
from services.takeover_manager import TakeoverManager
from services.token_store import TokenStore
from services.user_store import SqlUserStore
from services.wechat_service import WechatService

log = logging.getLogger(__name__)


#: Seconds a question at a socket may wait for Redis: longer than a crowd of them takes, shorter than people do.
SOCKET_PATIENCE = 4.0


class Guests(Protocol):
    """Connections that stay open beyond a request."""

    def start(self) -> None: ...

    def leave(self) -> None: ...

    def close_all(self) -> None: ...

    def stop(self) -> None: ...


class Container:
    """The parts of one replica. Nothing connects before it is used."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.texts = Texts(settings.locale, settings.texts_overrides)
        self.wechat = {name: _wechat(bot) for name, bot in settings.bots.items()}
        address = settings.redis_address.get_secret_value()
        self.redis = connect(address, pool_size=max(1, settings.redis_pool_size - 1))
        #: The flusher's own connection: leases are renewed however many poll.
        self.redis_of_flusher = connect(address, pool_size=1)
        self.runner = ScriptRunner(self.redis)
        self.users = self._users()
        self.auth = self._auth()
        self.providers = self._providers()
        self.streams = self._streams(self.runner)
        self.conversations = ConversationStore(
            self.runner,
            secret=self._own_key("conversation"),
            ttl=settings.conversation_ttl,
            line_ttl=settings.stream_ttl,
        )
        self.callers = Callers(
            settings.websocket_auth,
            api_keys=[key.get_secret_value() for key in settings.api_keys],
            tokens=TokenStore(self.runner),
            key=self._own_key("callers"),
        )
        self.answerer = Answerer(
            auth=self.auth,
            backends=self._backends(),
            conversations=self.conversations,
            streams=self.streams,
            callers=self.callers,
            history=HistoryStore(
                self.runner,
                ttl=settings.conversation_ttl,
                max_tokens=settings.history_max_tokens,
                max_seconds=settings.history_max_seconds,
            ),
        )
        self.manager = StreamManager(
            self.streams,
            self.answerer.answer,
            sentence=self.texts.error,
            max_streams=settings.stream_max_per_replica,
            max_bytes=settings.stream_max_bytes,
            writer=self._streams(ScriptRunner(self.redis_of_flusher, beside=self.runner)),
            replica=socket.gethostname(),
            log_content=settings.log_content,
        )
        self.takeovers = TakeoverManager(self.streams, self.manager, self.answerer)
        self.readers = StreamReaders(self.streams, self.manager, attempt=self.takeovers.attempt)
        self.gateway = self._gateway()
        names = self._own_key("names")
        self.limiter = RateLimiter(self.runner, user=settings.rate_limit_user, ip=settings.rate_limit_ip, secret=names)
        self.socket_store = SocketStore(self.runner, replica=f"{socket.gethostname()}:{os.getpid()}", secret=names)
        self.health = Health(rag=(settings.provider.rag_provider, self._rag_ok), dependencies=self._probes())
        self._guests: list[Guests] = []
        self._started = False

    def attach(self, guests: Guests) -> None:
        """Have the connections that people keep open begin and leave with this replica."""
        self._guests.append(guests)

    @property
    def ready(self) -> bool:
        """Whether this replica may get traffic: not while it starts or drains."""
        return self._started and not self.manager.draining

    def start(self) -> None:
        """Start the threads of this process; a Redis that is away now may come later."""
        with suppress(StoreUnavailable):
            self.runner.load()
        self.manager.start()
        self.takeovers.start()
        self.readers.start()
        for guests in self._guests:
            guests.start()
        self._started = True
        threading.Thread(target=self._warn_of_missing_inputs, name="missing-inputs", daemon=True).start()
        names = {provider.name for provider in self.providers.values()}
        log.info("started", extra={"bots": sorted(self.wechat), "providers": sorted(names), "auth": self.auth.mode})

    def leave(self) -> None:
        """Take in that another replica takes what is new: who waits for nothing here is sent there."""
        for guests in self._guests:
            guests.leave()

    def close(self) -> None:
        """Drain, then give everything back."""
        self.manager.draining = True
        self.leave()
        self.manager.drain(self.settings.drain_seconds)
        for guests in self._guests:
            guests.close_all()
            guests.stop()
        self.takeovers.close()
        self.readers.close()
        self.manager.close()
        for provider in self.providers.values():
            provider.close()
        self.auth.close()
        if self.users:
            self.users.close()
        self.redis.close()
        self.redis_of_flusher.close()
        log.info("stopped")

    def _streams(self, runner: ScriptRunner) -> StreamStore:
        settings = self.settings
        return StreamStore(
            runner, ttl=settings.stream_ttl, lease=settings.stream_lease, max_seconds=settings.stream_max_seconds
        )

    def _users(self) -> SqlUserStore | None:
        settings = self.settings
        if settings.auth_mode != "external" or settings.sql_url is None:
            return None
        return SqlUserStore(
            settings.sql_url.get_secret_value(),
            settings.auth_user_query or "",
            read_url=_revealed(settings.sql_read_url),
            pool_size=settings.mysql_pool_size,
        )

    def _auth(self) -> AuthService:
        settings = self.settings
        return AuthService(
            settings.auth_mode or "external",
            token_store=TokenStore(self.runner),
            user_store=self.users,
            lock_store=LockStore(self.runner),
            url=str(settings.auth_service_url or ""),
            method=settings.auth_service_method,
            token_ttl=settings.auth_token_ttl,
            allowlist=settings.auth_allowlist,
            pool_size=settings.http_pool_size,
        )

    def _providers(self) -> dict[str, BaseRAGProvider]:
        pool_size = self.settings.http_pool_size
        asked = {DEFAULT_BOT: self.settings.provider}
        asked |= {name: bot.provider for name, bot in self.settings.bots.items()}
        sentence = self.texts.get
        return {
            name: build_provider(provider, bot=name, pool_size=pool_size, sentence=sentence)
            for name, provider in asked.items()
        }

    def _backends(self) -> dict[str, Backend]:
        backends = {DEFAULT_BOT: Backend(self.providers[DEFAULT_BOT])}
        return backends | {
            name: Backend(self.providers[name], bot.corp, bot.group_conversation == "shared", name)
            for name, bot in self.settings.bots.items()
        }

    def _gateway(self) -> Gateway:
        return Gateway(
            streams=self.streams,
            manager=self.manager,
            takeovers=self.takeovers,
            answerer=self.answerer,
            conversations=self.conversations,
            keys=self._keys("stream"),
            doors=self._doors(),
            sentence=self.texts.get,
            readers=self.readers,
        )

    def _doors(self) -> dict[tuple[str, str], Door]:
        """Return what each channel allows; all but WeCom's bound by themselves how many questions one has under way."""
        bots, places = self.settings.bots, self.settings.stream_max_per_user
        doors = {("wecom", name): Door(places, bot.answer_seconds, _resets(bot.commands)) for name, bot in bots.items()}
        socket = Door(resets=_resets(self.settings.wechat_commands), patience=SOCKET_PATIENCE, resends=True)
        programs = replace(socket, keeps_refusals=False)
        doors |= {(channel, DEFAULT_BOT): socket for channel in SOCKET_CHANNELS}
        return doors | {(channel, DEFAULT_BOT): programs for channel in PROGRAM_CHANNELS}

    def _keys(self, purpose: str) -> dict[str, bytes]:
        """Return a key for each bot, and one for the doors that have none."""
        keys = {name: service.derived_key(purpose) for name, service in self.wechat.items()}
        return {DEFAULT_BOT: self._own_key(purpose), **keys}

    def _own_key(self, purpose: str) -> bytes:
        """Return 32 secret bytes that every replica has, for what belongs to no bot."""
        if self.wechat:
            secret = b"".join(service.derived_key(purpose) for _, service in sorted(self.wechat.items()))
        else:
            keys = [*self.settings.api_keys, *self.settings.provider.dify_api_key, SecretStr(self.settings.app_name)]
            secret = f"{purpose}:{keys[0].get_secret_value()}".encode()
        return hashlib.sha256(secret).digest()

    def _warn_of_missing_inputs(self) -> None:
        """Name required inputs nobody fills in: a run that lacks one may hang instead of failing."""
        for bot, provider in self.providers.items():
            with suppress(ProviderError):
                for name in provider.missing_inputs():
                    log.warning("the app requires an input that DIFY_INPUTS lacks", extra={"bot": bot, "input": name})

    def _rag_ok(self) -> bool:
        return all(provider.health_check() for provider in self.providers.values())

    def _probes(self) -> dict[str, Callable[[], bool]]:
        probes: dict[str, Callable[[], bool]] = {"redis": _probe(self.runner.ping)}
        if self.users:
            probes["sql"] = _probe(self.users.check)
        if self.auth.mode == "external":
            probes["auth"] = _probe(self.auth.check)
        return probes


def _probe(check: Callable[[], None]) -> Callable[[], bool]:
    """Return a probe that is true unless the check raises one of our errors."""

    def probe() -> bool:
        try:
            check()
        except LaibaoError:
            return False
        return True

    return probe


def _wechat(bot: BotSettings) -> WechatService:
    if bot.mode != "callback":
        raise SettingsError(f"WECHAT_MODE: {bot.mode}, expected callback: this version has no other")
    return WechatService(
        bot.name,
        tokens=bot.tokens,
        aes_keys=bot.aes_keys,
        receive_id=bot.receive_id,
        bot_name=bot.bot_name,
        aibotid=bot.bot_id,
        timestamp_window=bot.timestamp_window,
    )


def _resets(commands: Mapping[str, str]) -> frozenset[str]:
    return frozenset(words for words, command in commands.items() if command == "reset")


def _revealed(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""
