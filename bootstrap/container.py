"""Builds all objects of a replica from the settings, lower packages first. `close` ends them in reverse order."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from typing import Protocol, TypeVar

import redis
from pydantic import SecretStr

from bootstrap.batches import batches_mode, make_batch_store, make_batches
from bootstrap.factories import (
    make_access,
    make_admin_store,
    make_admin_tokens,
    make_auth,
    make_backends,
    make_callers,
    make_collector,
    make_conversations,
    make_directories,
    make_extras,
    make_feedback,
    make_feedback_store,
    make_file_budget,
    make_files,
    make_frames,
    make_history,
    make_limiter,
    make_long_stores,
    make_media,
    make_migrator,
    make_providers,
    make_quotas,
    make_reports,
    make_rules_store,
    make_sessions,
    make_socket_store,
    make_spans,
    make_streams,
    make_usage,
    make_usage_store,
    make_users,
    make_wechat,
    make_words,
    user_tokens,
)
from bootstrap.probes import make_health, warn_of_missing_inputs
from channels.registry import CHANNELS
from config import VERSION
from config.settings import Settings
from config.texts import Texts
from services import metrics
from services.answers.answer import Answerer, Places
from services.answers.asked_store import AskedStore
from services.answers.askers import Askers
from services.answers.commands import ChatNotes
from services.answers.forms.conversation_forms import AnswerForms
from services.answers.forms.form_store import FormStore
from services.answers.gateway import Gateway, ReplicaStreams
from services.answers.queue import ConversationQueue
from services.answers.refusals import QuestionRefusals
from services.answers.takeover import TakeoverManager
from services.batches.manager import BatchManager
from services.channels import Channel, Channels, Lifecycle
from services.conversations.memory import MemoryStores
from services.errors import StoreUnavailable
from services.feedback.delivery import FeedbackDelivery
from services.feedback.inbox import FeedbackInbox
from services.files.intake import MediaIntake
from services.files.shown import AnswerLinks
from services.identity.keys import Keys
from services.identity.name_store import NameStore
from services.identity.secret_store import SecretStore
from services.ops.health import Health
from services.ops.replica_store import ReplicaStore, RunningReplica
from services.redis.store import SOCKET_TIMEOUT, ScriptRunner, connect
from services.rules.copy_store import RulesCopyStore
from services.rules.departments import parse_departments
from services.rules.rules_file import RulesFiles
from services.rules.stored_rules import RulesVersions
from services.streams.access import Access
from services.streams.manager import StreamLimits, StreamManager
from services.streams.producer import AnswerHandlers
from services.streams.readers import StreamReaders
from services.usage.ended_store import EndedStore
from services.usage.writer import UsageCleaner, UsageWriter
from services.wecom.late_answers import LateAnswers
from services.wecom.long_connection.lease_store import LeaseStore
from services.wecom.markdown_service import MarkdownService
from utils.running_time import running_time

log = logging.getLogger(__name__)


class Closable(Protocol):
    def close(self) -> None: ...


P = TypeVar("P", bound=Closable | None)


class Container:
    """All long-lived objects of one replica. None of them connects before it is used."""

    def __init__(
        self, settings: Settings, channels: Iterable[Channel] = CHANNELS, *, redis_timeout: float = SOCKET_TIMEOUT
    ) -> None:
        """Build the replica; `redis_timeout` is the seconds of one wait for Redis, as `connect` takes it."""
        self.settings = settings
        self.channels = Channels.from_settings(channels, settings)
        self.texts = Texts(settings.locale, settings.texts_overrides)
        #: The `close` of each part that has one, entered where the part is built.
        self._closes = ExitStack()
        self._lifecycles: list[Lifecycle] = []
        self._handovers: list[Callable[[float], None]] = []
        self._started = self._closing = False

        self._connect(redis_timeout)
        self._since = time.time()
        self.replicas = self.open(ReplicaStore(self.runner, self._this))
        self.own_secret = self.open(SecretStore(self.runner))
        self.keys = Keys(settings, self.own_secret)
        self._access = Access(self.keys.streams())
        self.migrator = self.open(make_migrator(settings))
        self.users = self.open(make_users(settings))
        self.auth = self.open(make_auth(settings, self.runner, self.users))
        self.callers = make_callers(settings, self.runner, self.keys)
        self.limiter = make_limiter(settings, self.runner, self.keys)
        self.names = NameStore(self.runner)
        self.directories = self._open_all(make_directories(settings, self.runner, self.keys))

        self._open_rules()
        self.words = make_words(settings, self.rules)
        self.providers = self._open_all(make_providers(settings, self.texts, self.words))
        self.conversations = make_conversations(settings, self.runner, self.keys)
        self.sessions = make_sessions(settings, self.runner, self.keys)
        self.file_budget = self.open(make_file_budget(settings, self.runner, self.keys))
        self.media = self.open(make_media(settings, self.runner, self.keys, self.file_budget))
        self.streams = make_streams(settings, self.runner)
        self.ended = EndedStore(self.runner, queues=settings.sql_url is not None)
        self.answerer = self._answerer()

        self.spans = self.open(make_spans(settings))
        self.files = make_files(settings, self.streams, self.runner, self.keys, self.texts)
        self.open(self.files.fetcher)
        self.wechat = {name: make_wechat(bot) for name, bot in settings.bots.items() if bot.mode == "callback"}
        self.frames = make_frames(settings, self.texts, self.files.offers)
        self.responses = self.open(MarkdownService(settings.wechat_response_hosts))
        self.long_stores = make_long_stores(settings, self.runner, self.keys)
        self.leases = LeaseStore(self.runner)

        self.manager = self.open(self._manager())
        self.takeovers = self.open(TakeoverManager(self.streams, self.manager, self.answerer))
        self.readers = self.open(StreamReaders(self.streams, self.manager, attempt=self.takeovers.attempt))
        self.gateway = self._gateway()
        self._open_sql_stores()
        self.feedback_inbox, self.feedback = self._feedback()
        self.open(self.feedback)
        self.open(self.feedback_inbox)
        self.admin_tokens = make_admin_tokens(settings, self.admin_store)
        self.usage, self.usage_cleaner = self._usage()
        self.socket_store = make_socket_store(self.runner, self.keys)
        self.batches = self.open(self._batches())
        self.health = self._health()

    def open(self, part: P) -> P:
        """Return a part that is closed with this replica, before the parts that were built earlier."""
        if part is not None:
            self._closes.callback(part.close)
        return part

    def _open_all(self, parts: Mapping[str, P]) -> Mapping[str, P]:
        for part in parts.values():
            self.open(part)
        return parts

    def _connect(self, timeout: float) -> None:
        settings = self.settings

        def connected(address: SecretStr, pool_size: int) -> redis.Redis:
            return self.open(connect(address.get_secret_value(), pool_size=pool_size, timeout=timeout))

        self.redis = connected(settings.redis_address, max(1, settings.redis_pool_size - 1))
        #: A connection for the flusher alone, so that polls cannot delay the renewal of leases.
        self.redis_of_flusher = connected(settings.redis_address, 1)
        own = settings.batch_redis_url
        self.redis_of_batches = connected(own, settings.redis_pool_size) if own else self.redis
        self.runner = ScriptRunner(self.redis)
        self.runner_of_batches = ScriptRunner(self.redis_of_batches) if own else self.runner

    def _open_rules(self) -> None:
        self.rules_store = self.open(make_rules_store(self.settings))
        copy = RulesCopyStore(self.runner)
        self.rules_versions = RulesVersions(self.rules_store, copy) if self.rules_store else None
        self.rules = self.open(RulesFiles(self.rules_versions))

    def _open_sql_stores(self) -> None:
        """Build the stores of administrators, ratings, usage and batches; each is None without a database."""
        self.feedback_store = make_feedback_store(self.settings)
        self.admin_store = self.open(make_admin_store(self.settings))
        self.usage_store = self.open(make_usage_store(self.settings))
        self.batch_store = self.open(make_batch_store(self.settings))
        self.reports = make_reports(self.settings)
        for store in self.reports or ():
            self.open(store)

    def attach(self, lifecycle: Lifecycle) -> None:
        """Start and drain a set of connections together with this replica."""
        self._lifecycles.append(lifecycle)

    def attach_handover(self, hand_over: Callable[[float], None]) -> None:
        """Call this when the replica closes, before it refuses questions, with the seconds that it may take."""
        self._handovers.append(hand_over)

    @property
    def draining(self) -> bool:
        """Whether this replica leaves."""
        return self._closing or self.manager.draining

    @property
    def ready(self) -> bool:
        """Whether this replica may get traffic. False while it starts or drains."""
        return self._started and not self.draining

    @property
    def readiness(self) -> str:
        """Return what /readyz says: ready, not ready, or migrating, which only a start does and with a limit."""
        if not self.ready:
            return "not ready"
        return "migrating" if self.migrator and self.migrator.migrating else "ready"

    def start(self) -> None:
        """Start the threads of this process. Redis and SQL may be unreachable; they are used once they answer."""
        running_time.start()
        if self.migrator:
            self.migrator.start()
        with suppress(StoreUnavailable):
            self.runner.load()
        for channel in self.channels:
            metrics.begin_channel(channel.name, sockets=channel.sockets)
        self.own_secret.start()
        self.file_budget.start()
        self.rules.start()
        if self.spans:
            self.spans.start()
        self.manager.start()
        self.replicas.start()
        self.takeovers.start()
        self.readers.start()
        self.feedback.start()
        self.feedback_inbox.start()
        if self.usage and self.usage_cleaner:
            self.usage.start()
            self.usage_cleaner.start()
        if self.batches:
            self.batches.start()
        for lifecycle in self._lifecycles:
            lifecycle.start()
        self._started = True
        threading.Thread(
            target=warn_of_missing_inputs, args=(self.providers,), name="missing-inputs", daemon=True
        ).start()
        names = {provider.name for provider in self.providers.values()}
        modes = {"auth": self.auth.mode, "batches": batches_mode(self.settings)}
        log.info("started", extra={"bots": sorted(self.settings.bots), "providers": sorted(names), **modes})

    def leave(self) -> None:
        """Stop taking new work, and close idle connections so that their clients go to another replica."""
        if self.batches:
            self.batches.leave()
        for lifecycle in self._lifecycles:
            lifecycle.leave()

    def close(self) -> None:
        """Drain, then close everything. A part that fails to close stops no other; its error is raised at the end."""
        self._closing = True
        end = time.monotonic() + self.settings.drain_seconds
        with self._closes:
            for hand_over in self._handovers:
                hand_over(max(0.0, end - time.monotonic()))
            self.manager.draining = True
            self.leave()
            self.manager.drain(max(0.0, end - time.monotonic()))
            for lifecycle in self._lifecycles:
                self._closes.callback(lifecycle.stop)
                self._closes.callback(lifecycle.close_all)
        log.info("stopped")

    def _this(self) -> RunningReplica:
        """Return what this replica notes of itself."""
        manager = self.manager
        load = {"answers": manager.running, "capacity": manager.capacity}
        return RunningReplica(manager.name, VERSION, self._since, self.draining, **load)

    def _answerer(self) -> Answerer:
        directories = {name: one.find for name, one in self.directories.items()}
        return Answerer(
            backends=make_backends(self.settings, self.providers, self.words),
            channels=self.channels,
            askers=Askers(
                self.auth,
                self.callers,
                directories,
                self.names,
                access=make_access(self.settings, self.rules),
                departments=self.rules.open("DEPARTMENTS_FILE", self.settings.departments_file, parse_departments),
            ),
            places=Places(
                ConversationQueue(self.conversations, self.streams),
                make_quotas(self.settings, self.runner, self.keys, self.rules, self.texts),
                MediaIntake(self.media, self._access),
                self.ended,
            ),
            memory=MemoryStores(self.conversations, make_history(self.settings, self.runner)),
            forms=AnswerForms(FormStore(self.runner, self._access, clock=time.time), self.texts),
            extras=make_extras(self.settings),
        )

    def _manager(self) -> StreamManager:
        settings, files = self.settings, self.files
        late = LateAnswers(
            self.streams, self._access, self.frames, self.responses, files=files.store, offers=files.offers
        )
        collector = make_collector(settings, files, self.file_budget, self._access, self.channels, self.providers)
        return StreamManager(
            self.streams,
            make_streams(settings, ScriptRunner(self.redis_of_flusher, beside=self.runner)),
            AnswerHandlers(
                self.answerer.answer,
                collector.of,
                late,
                self.answerer.quotas.settle_calls,
                self.spans.add if self.spans else None,
            ),
            texts=self.texts,
            limits=StreamLimits(settings.stream_max_per_replica, settings.stream_max_bytes),
            replica=socket.gethostname(),
            log_content=settings.log_content,
        )

    def _gateway(self) -> Gateway:
        streams = ReplicaStreams(self.streams, self._access, self.manager, self.takeovers, self.readers)
        max_bytes = self.settings.question_max_bytes
        return Gateway(
            streams=streams,
            answerer=self.answerer,
            channels=self.channels,
            refusals=QuestionRefusals(
                self.streams,
                self.manager,
                self._access,
                self.channels,
                ended=self.ended,
                texts=self.texts,
                max_bytes=max_bytes,
            ),
            notes=ChatNotes(AskedStore(self.runner, ttl=self.settings.stream_ttl), self.names),
            links=AnswerLinks(self.files.links, self.files.store),
            sent=self.media.sent,
            replies=self.responses,
            spans=self.spans.add if self.spans else None,
        )

    def _feedback(self) -> tuple[FeedbackInbox, FeedbackDelivery]:
        tokens = user_tokens(self.settings, self.auth, self.channels)
        return make_feedback(
            self.settings,
            self.runner,
            self.feedback_store,
            self._access,
            self.providers,
            self.texts,
            tokens,
            self.spans,
        )

    def _usage(self) -> tuple[UsageWriter | None, UsageCleaner | None]:
        """Return what counts ended streams and deletes old rows; None without a database."""
        if self.usage_store is None or self.admin_store is None:
            return None, None
        parts = make_usage(
            self.settings,
            self.runner,
            self.usage_store,
            self.ended,
            self.channels,
            self.directories,
            self.rules,
            self.admin_store,
        )
        return self.open(parts[0]), self.open(parts[1])

    def _batches(self) -> BatchManager | None:
        return make_batches(
            self.settings, self.batch_store, self.gateway, self.streams, self.runner_of_batches, self.texts
        )

    def _health(self) -> Health:
        return make_health(
            self.settings,
            self.runner,
            self.providers,
            stores=(
                self.migrator,
                self.users,
                self.batch_store,
                self.feedback_store,
                self.usage_store,
                self.admin_store,
            ),
            auth=self.auth,
            batches=self.batches,
            batch_redis=self.runner_of_batches if self.settings.batch_redis_url else None,
            leases=self.leases,
            rules=self.rules,
        )
