"""Factories: each makes one object of a replica from the settings. `container` calls them in order."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pydantic import SecretStr

from config.apps import provider_name
from config.bots import DEFAULT_BOT, BotSettings
from config.errors import SettingsError
from config.settings import Settings
from config.texts import Texts
from services.admin.rules_store import RulesStore
from services.admin.sql_store import AdminStore
from services.admin.tokens import AdminTokens, GivenToken, Role
from services.answers.answer import Backend
from services.answers.extras import AnswerExtras
from services.answers.quotas import QuestionQuotas
from services.channels import Channels
from services.conversations.history_store import HistoryStore
from services.conversations.session_store import SessionStore
from services.conversations.store import ConversationStore
from services.feedback.delivery import FeedbackDelivery
from services.feedback.inbox import FeedbackInbox
from services.feedback.rating_store import RatingStore
from services.feedback.records import NAMES, RatedAnswer, Rating
from services.feedback.sql_store import SqlFeedbackStore
from services.files.answer_store import FileStore
from services.files.budget_store import BudgetLimits, FileBudget
from services.files.collection import CollectionLimits, FileCollector
from services.files.delivery import FileDelivery, ForeignPictures
from services.files.intake import MediaFetcher
from services.files.links import FileLinks
from services.files.reading import FileReader
from services.files.sent_store import SentFileStore
from services.files.shown import FileOffers
from services.http.addresses import AddressRules
from services.http.fetcher import Fetcher
from services.identity.auth_service import AuthService, ExternalAuth
from services.identity.callers import Callers
from services.identity.keys import Keys
from services.identity.rate_limiter import RateLimiter
from services.identity.token_store import TokenStore
from services.identity.user_store import SqlUserStore
from services.models import Question
from services.providers.base import BaseRAGProvider
from services.providers.registry import build_provider
from services.providers.words import MaskedProvider
from services.redis.lock_store import LockStore
from services.redis.store import ScriptRunner
from services.rules.access import EVERYBODY, AccessRules
from services.rules.departments import parse_departments
from services.rules.quota_store import QuotaStore
from services.rules.quotas import QuotaRules
from services.rules.rules_file import RulesFiles
from services.rules.stored_rules import Rules
from services.rules.words import BotWords, WordRules
from services.sockets.store import SocketStore
from services.sql.migrator import Migrator
from services.streams.access import Access
from services.streams.store import StreamStore
from services.streams.traces import SCHEMA_URL, rating_span
from services.usage.ended_store import EndedStore
from services.usage.log_store import SqlLogStore
from services.usage.records import EntryMaker
from services.usage.sql_store import SqlUsageStore
from services.usage.sums_store import SqlSumsStore
from services.usage.writer import Retention, UsageCleaner, UsageWriter
from services.wecom.callback import MediaKeys, WechatService
from services.wecom.directory.access_token_store import AccessTokenStore, TokenAccess
from services.wecom.directory.api_service import ContactsApi
from services.wecom.directory.contact_store import ContactStore
from services.wecom.directory.directory import Directory, DirectoryParts
from services.wecom.frames import WeComFrames
from services.wecom.long_connection.allowance_store import AllowanceStore
from services.wecom.long_connection.open_answers_store import OpenAnswersStore
from services.wecom.long_connection.push_store import PushStore
from services.wecom.long_connection.upload_store import UploadStore
from utils.keyring import Keyring

if TYPE_CHECKING:
    from services.ops.otlp_service import SpanExporter


def make_wechat(bot: BotSettings) -> WechatService:
    """Return the callback service of a bot in callback mode."""
    return WechatService(
        bot.name,
        tokens=bot.tokens,
        aes_keys=bot.aes_keys,
        receive_id=bot.receive_id,
        bot_name=bot.bot_name,
        aibotid=bot.bot_id,
        timestamp_window=bot.timestamp_window,
    )


def make_file_budget(settings: Settings, runner: ScriptRunner, keys: Keys) -> FileBudget:
    limits = BudgetLimits(settings.files_max_bytes_per_key, settings.files_max_bytes)
    return FileBudget(runner, limits, names=keys.names())


def make_media(settings: Settings, runner: ScriptRunner, keys: Keys, budget: FileBudget) -> MediaFetcher:
    fetcher = Fetcher(AddressRules(settings.media_hosts))
    sent = SentFileStore(runner, keys.streams(), budget, ttl=settings.stream_ttl)
    aes_keys = {name: bot.aes_keys for name, bot in settings.bots.items()}
    return MediaFetcher(fetcher, MediaKeys(aes_keys).decryptor, sent, max_bytes=settings.media_max_bytes)


class Files(NamedTuple):
    """The objects that fetch, store and show the files of answers."""

    store: FileStore
    links: FileLinks
    offers: FileOffers
    delivery: FileDelivery
    fetcher: Fetcher
    foreign: ForeignPictures


def make_files(settings: Settings, streams: StreamStore, runner: ScriptRunner, keys: Keys, texts: Texts) -> Files:
    store, fetcher = FileStore(runner), Fetcher(AddressRules(settings.media_hosts))
    links = FileLinks(keys.files(), settings.public_url or "")
    offers = FileOffers(texts, links)
    # A reader of its own: pages that show many pictures do not keep answers from their files.
    foreign = ForeignPictures(keys.pictures(), FileReader(fetcher), max_bytes=settings.media_max_bytes)
    return Files(store, links, offers, FileDelivery(streams, store, links, offers, foreign), fetcher, foreign)


def make_collector(
    settings: Settings,
    files: Files,
    budget: FileBudget,
    access: Access,
    channels: Channels,
    providers: Mapping[str, BaseRAGProvider],
) -> FileCollector:
    return FileCollector(
        files.store,
        files.fetcher,
        access,
        channels,
        budget=budget,
        roots={name: provider.files_root for name, provider in providers.items()},
        limits=CollectionLimits(settings.media_max_bytes, settings.stream_ttl),
        expiry=files.links.expiry,
    )


def make_frames(settings: Settings, texts: Texts, offers: FileOffers, *, parts: int = 0) -> WeComFrames:
    thinking = {name: bot.thinking for name, bot in settings.bots.items()}
    sources = {name for name, bot in settings.bots.items() if bot.sources}
    return WeComFrames(texts, offers, thinking=thinking, sources=sources, parts=parts)


def make_extras(settings: Settings) -> AnswerExtras:
    bots = settings.bots.items()
    progress = {name for name, bot in bots if bot.progress}
    suggestions = {name for name, bot in bots if bot.suggestions}
    return AnswerExtras(
        progress=progress,
        suggestions=suggestions,
        web_progress=settings.web_progress,
        web_suggestions=settings.web_suggestions,
        language=settings.locale,
    )


def make_streams(settings: Settings, runner: ScriptRunner) -> StreamStore:
    return StreamStore(
        runner, ttl=settings.stream_ttl, lease=settings.stream_lease, max_seconds=settings.stream_max_seconds
    )


def make_history(settings: Settings, runner: ScriptRunner) -> HistoryStore:
    return HistoryStore(
        runner,
        ttl=settings.conversation_ttl,
        max_tokens=settings.history_max_tokens,
        max_seconds=settings.history_max_seconds,
    )


def make_conversations(settings: Settings, runner: ScriptRunner, keys: Keys) -> ConversationStore:
    secret = keys.conversations()
    return ConversationStore(runner, secret=secret, ttl=settings.conversation_ttl, queue_ttl=settings.stream_ttl)


def make_sessions(settings: Settings, runner: ScriptRunner, keys: Keys) -> SessionStore:
    return SessionStore(runner, secret=keys.names(), ttl=settings.conversation_ttl, request_ttl=settings.stream_ttl)


def sql_pools(settings: Settings) -> tuple[int, int]:
    """Return the SQL pool sizes of the user query and of batches, together `MYSQL_POOL_SIZE`.

    If both are used, each gets at least one connection.
    """
    size = settings.mysql_pool_size
    if not settings.batch_enabled:
        return size, 0
    if settings.auth_mode != "external":
        return 0, size
    return max(1, size - size // 2), max(1, size // 2)


def make_users(settings: Settings) -> SqlUserStore | None:
    """Return the user store; None unless AUTH_MODE is external and a database is set."""
    if settings.auth_mode != "external" or settings.sql_url is None:
        return None
    return SqlUserStore(
        settings.sql_url.get_secret_value(),
        settings.auth_user_query or "",
        read_url=_revealed(settings.sql_read_url),
        pool_size=sql_pools(settings)[0],
    )


def make_auth(settings: Settings, runner: ScriptRunner, users: SqlUserStore | None) -> AuthService:
    external = _external_auth(settings, runner, users) if users else None
    return AuthService(settings.auth_mode or "external", external=external, allowlist=settings.auth_allowlist)


def _external_auth(settings: Settings, runner: ScriptRunner, users: SqlUserStore) -> ExternalAuth:
    return ExternalAuth(
        TokenStore(runner),
        users,
        LockStore(runner),
        url=str(settings.auth_service_url or ""),
        method=settings.auth_service_method,
        token_ttl=settings.auth_token_ttl,
        pool_size=settings.http_pool_size,
    )


def make_callers(settings: Settings, runner: ScriptRunner, keys: Keys) -> Callers:
    api_keys = [key.get_secret_value() for key in settings.api_keys]
    return Callers(settings.websocket_auth, api_keys=api_keys, tokens=TokenStore(runner), key=keys.tokens())


def make_limiter(settings: Settings, runner: ScriptRunner, keys: Keys) -> RateLimiter:
    return RateLimiter(
        runner,
        user=settings.rate_limit_user,
        key=settings.rate_limit_key,
        ip=settings.rate_limit_ip,
        secret=keys.names(),
    )


def make_socket_store(runner: ScriptRunner, keys: Keys) -> SocketStore:
    return SocketStore(runner, replica=f"{socket.gethostname()}:{os.getpid()}", secret=keys.names())


def user_tokens(settings: Settings, auth: AuthService, channels: Channels) -> Callable[[RatedAnswer], str]:
    """Return what gets the token of the person who asked, as for a question; "" for channels without a directory."""

    def token(answer: RatedAnswer) -> str:
        asked = Question("", answer.channel, answer.bot, answer.asker)
        if answer.channel not in channels or channels.of(asked).authenticates != "directory":
            return ""
        bot = settings.bots.get(answer.bot)
        return auth.authenticate(answer.asker, bot.corp if bot else "").token

    return token


def make_migrator(settings: Settings) -> Migrator | None:
    """Return what brings the SQL tables to this version's; None without SQL."""
    return Migrator(settings.sql_url.get_secret_value(), wait=settings.migration_seconds) if settings.sql_url else None


def make_feedback_store(settings: Settings) -> SqlFeedbackStore | None:
    return SqlFeedbackStore(settings.sql_url.get_secret_value()) if settings.sql_url else None


def make_feedback(
    settings: Settings,
    runner: ScriptRunner,
    sql: SqlFeedbackStore | None,
    access: Access,
    providers: Mapping[str, BaseRAGProvider],
    texts: Texts,
    token: Callable[[RatedAnswer], str],
    spans: SpanExporter | None,
) -> tuple[FeedbackInbox, FeedbackDelivery]:
    """Return the inbox and the delivery of ratings; without SQL they go to the provider only."""
    ratings = RatingStore(runner)
    traced = partial(_trace_rating, spans) if spans else None
    parties: dict[str, Any] = {"sql": sql, "providers": providers, "token": token, "traced": traced}
    delivery = FeedbackDelivery(ratings, access, **parties, texts=texts)
    return FeedbackInbox(ratings, access, wake=delivery.wake, log_content=settings.log_content), delivery


def _trace_rating(spans: SpanExporter, stream_id: str, answer: RatedAnswer, rating: Rating) -> None:
    trace_id = answer.trace.trace_id
    spans.add(rating_span(stream_id, trace_id, NAMES[rating.kind]))
    spans.score(trace_id, f"rating-{trace_id}", {"like": 1, "dislike": 0}.get(rating.kind))


def make_spans(settings: Settings) -> SpanExporter | None:
    """Return what sends spans to the collector; None without one: opentelemetry-proto is not imported then.

    Raises:
        SettingsError: a collector is set, and opentelemetry-proto is not installed.
    """
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    try:
        from services.ops.otlp_service import SpanExporter
    except ImportError as exc:
        missing = "OTEL_EXPORTER_OTLP_ENDPOINT needs a package: pip install -r requirements-otel.txt"
        raise SettingsError(f"{missing} ({exc})") from exc
    resource = {
        "service.name": settings.otel_service_name,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
    }
    headers = settings.otel_exporter_otlp_headers.get_secret_value()
    return SpanExporter(settings.otel_exporter_otlp_endpoint, headers, resource, SCHEMA_URL)


def make_admin_store(settings: Settings) -> AdminStore | None:
    return AdminStore(settings.sql_url.get_secret_value()) if settings.sql_url else None


def make_admin_tokens(settings: Settings, stored: AdminStore | None) -> AdminTokens:
    given = (GivenToken(name, cast(Role, role), token) for name, role, token in settings.administrators)
    return AdminTokens(given, stored)


#: Seconds for a query of an administrator's page or program: one that takes longer has to ask for less.
REPORT_SECONDS = 10.0


def make_reports(settings: Settings) -> tuple[SqlLogStore, SqlSumsStore] | None:
    """Return what reads log and usage for administrators; None without a database."""
    if settings.sql_url is None:
        return None
    url = settings.sql_url.get_secret_value()
    return (
        SqlLogStore(url, pool_size=2, read_timeout=REPORT_SECONDS),
        SqlSumsStore(url, pool_size=2, read_timeout=REPORT_SECONDS),
    )


def make_usage_store(settings: Settings) -> SqlUsageStore | None:
    return SqlUsageStore(settings.sql_url.get_secret_value()) if settings.sql_url else None


def make_usage(
    settings: Settings,
    runner: ScriptRunner,
    sql: SqlUsageStore,
    ended: EndedStore,
    channels: Channels,
    directories: Mapping[str, Directory],
    rules: RulesFiles,
    audit: AdminStore,
) -> tuple[UsageWriter, UsageCleaner]:
    """Return what counts ended streams, and what deletes old rows of the log."""
    maker = EntryMaker(channels, settings.report_zone, settings.question_log, settings.question_log_bytes)
    kept = Retention(settings.question_log_days, settings.question_words_days, settings.question_log_hour)
    contacts = {bot: directory.known for bot, directory in directories.items()}
    departments = rules.open("DEPARTMENTS_FILE", settings.departments_file, parse_departments)
    also = [(audit.delete_audit, settings.audit_days)]
    cleaner = UsageCleaner(sql, LockStore(runner), kept=kept, zone=settings.report_zone, also=also)
    return UsageWriter(ended, sql, maker, contacts=contacts, departments=departments), cleaner


class LongStores(NamedTuple):
    """The stores of messages and files that are sent over long connections."""

    answers: OpenAnswersStore
    pushes: PushStore
    allowance: AllowanceStore
    uploads: UploadStore
    #: Each bot's keys, for hashed names and sealed values in Redis.
    keys: Mapping[str, Keyring]


def make_long_stores(settings: Settings, runner: ScriptRunner, keys: Keys) -> LongStores:
    rings, answers = keys.streams(), OpenAnswersStore(runner, ttl=settings.stream_ttl)
    return LongStores(answers, PushStore(runner, rings), AllowanceStore(runner, rings), UploadStore(runner), rings)


def make_access(settings: Settings, files: RulesFiles) -> Rules[AccessRules] | None:
    """Return the rules of who may ask.

    Raises:
        SettingsError: the file is missing or broken.
    """
    parse = partial(AccessRules.parse, apps=settings.app_providers)
    return files.of_kind("access", settings.access_file, parse, EVERYBODY)


def make_rules_store(settings: Settings) -> RulesStore | None:
    return RulesStore(settings.sql_url.get_secret_value()) if settings.sql_url else None


def make_quotas(
    settings: Settings, runner: ScriptRunner, keys: Keys, files: RulesFiles, texts: Texts
) -> QuestionQuotas:
    """Return the quotas of questions.

    Raises:
        SettingsError: the file is missing or broken.
    """
    rules = files.of_kind("quotas", settings.quotas_file, QuotaRules.parse, QuotaRules([]))
    store = QuotaStore(runner, secret=keys.names(), stream_ttl=settings.stream_ttl)
    return QuestionQuotas(rules, store, texts, settings.report_zone)


def make_words(settings: Settings, files: RulesFiles) -> dict[str, BotWords]:
    """Return the words of each bot that has a file of them; of every bot, where they may be saved.

    Raises:
        SettingsError: a file is missing or broken.
    """
    named = {DEFAULT_BOT: settings.words_file} | {name: bot.words_file for name, bot in settings.bots.items()}
    # Saved words are those of every bot without a file, and of none where WORDS_FILE names one for all.
    opened = {
        bot: files.open("WORDS_FILE", path, WordRules.parse)
        if settings.words_file
        else files.of_kind("words", path, WordRules.parse, WordRules([]))
        for bot, path in named.items()
    }
    return {bot: BotWords(bot, rules) for bot, rules in opened.items() if rules}


def make_providers(settings: Settings, texts: Texts, words: Mapping[str, BotWords]) -> dict[str, BaseRAGProvider]:
    """Return the provider of each bot, and those of `APPS`, by `provider_name`.

    The default bot's also serves the channels without bots. Those of `APPS` mask no words: every bot may use them.
    """
    asked = {DEFAULT_BOT: settings.provider} | {name: bot.provider for name, bot in settings.bots.items()}
    made = partial(build_provider, pool_size=settings.http_pool_size, texts=texts)
    owns = {name: _masked(made(provider, bot=name), words.get(name)) for name, provider in asked.items()}
    apps = settings.app_providers.items()
    return owns | {provider_name("", app): made(provider, bot=app) for app, provider in apps}


def _masked(provider: BaseRAGProvider, words: BotWords | None) -> BaseRAGProvider:
    return MaskedProvider(provider, words) if words else provider


def make_directories(settings: Settings, runner: ScriptRunner, keys: Keys) -> dict[str, Directory]:
    """Return the directory of each bot that has one; bots of one company share it."""
    made: dict[tuple[str, str, str], Directory] = {}
    for bot in _bots_with_directory(settings):
        place = _place(bot)
        made[place] = made.get(place) or _directory(place, runner, keys)
    return {bot.name: made[_place(bot)] for bot in _bots_with_directory(settings)}


def _bots_with_directory(settings: Settings) -> list[BotSettings]:
    return [bot for bot in settings.bots.values() if bot.wecom_corp_id and bot.wecom_contact_secret]


def _place(bot: BotSettings) -> tuple[str, str, str]:
    return bot.wecom_api_url, bot.wecom_corp_id, _revealed(bot.wecom_contact_secret)


def _directory(place: tuple[str, str, str], runner: ScriptRunner, keys: Keys) -> Directory:
    url, corp_id, secret = place
    source = hashlib.sha256(json.dumps(place).encode()).hexdigest()[:12]
    api, locks = ContactsApi(url, corp_id=corp_id, secret=secret), LockStore(runner)
    access = TokenAccess(api, AccessTokenStore(runner, source=source, keys=keys.contacts()), locks, source=source)
    return Directory(DirectoryParts(api, access, ContactStore(runner, source=source, keys=keys.contacts()), locks))


def make_backends(
    settings: Settings, providers: Mapping[str, BaseRAGProvider], words: Mapping[str, BotWords]
) -> dict[str, Backend]:
    def backend(name: str, corp: str = "", *, shared: bool = False) -> Backend:
        apps = {app: _masked(providers[provider_name("", app)], words.get(name)) for app in settings.app_providers}
        return Backend(providers[name], corp, shared, name, words.get(name), apps)

    named = settings.bots.items()
    bots = {name: backend(name, bot.corp, shared=bot.group_conversation == "shared") for name, bot in named}
    return {DEFAULT_BOT: backend(DEFAULT_BOT), **bots}


def _revealed(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""
