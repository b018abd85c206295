"""Checks that involve more than one setting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from config.bots import BotSettings
from config.checks import RAG_PROVIDERS, SEARCH_PROVIDERS, expected_providers, is_provider
from config.groups import ProviderSettings, same_base
from config.problems import Problem

if TYPE_CHECKING:
    from config.settings import Settings

#: Settings that are validated but have no effect in this version; docs/settings.md marks them.
LATER = """
    debug
""".split()  # noqa: SIM905 - names read better as words
#: Seconds by which STREAM_TTL must exceed STREAM_MAX_SECONDS: the producer writes the end into the record, and polls
#: may read it after that.
TTL_MARGIN = 60
#: Bytes of a body around its file or its pictures at most.
BODY_MARGIN = 1024 * 1024
#: The product's other addresses, which `WS_PATH` must not hide: paths, and beginnings of paths.
TAKEN_PATHS = (
    "/", "/admin", "/alerts", "/batch", "/chat", "/docs", "/health", "/healthz", "/metrics", "/openapi.json",
    "/readyz", "/realtime", "/ws/chat",
)  # fmt: skip
TAKEN_FOLDERS = ("/api/", "/docs/", "/files/", "/v1/", "/wechat/", "/ws/chat/")
#: Seconds after which WeCom gives an answer's frame up, by the bot's mode.
MOST_ANSWER_SECONDS = {"callback": 360, "websocket": 600}
#: Provider → the setting it requires, and the description of that setting.
NEEDED = {
    "openai": ("openai_api_key", "the key of your OpenAI-compatible service"),
    "context": ("context_api_key", "the key of the Context service"),
    "custom": ("custom_rag_api_url", "the address of your own service"),
}


def problems(settings: Settings) -> Iterator[Problem]:
    """Yield every contradiction between settings and every missing setting, the most basic first."""
    yield from _redis(settings)
    yield from _sql(settings)
    yield from _auth(settings)
    yield from _provider(settings.provider, settings.auth_mode)
    yield from _limits(settings)
    yield from _zone(settings)
    yield from _sockets(settings)
    yield from _bots(settings)


def warnings(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each setting that is valid but probably not what the operator intends."""
    if settings.redis_url and settings.redis_host:
        yield "REDIS_HOST has no effect, because REDIS_URL is set"
    for name in LATER:
        if getattr(settings, name) != type(settings).model_fields[name].default:
            yield f"{name.upper()} has no effect in this version"
    if settings.websocket_auth == "token" and not (settings.secret_key or settings.bots):
        sealed = "users' tokens are sealed for one process: another one cannot go on with their questions and batches"
        yield f"SECRET_KEY is empty and there is no bot, so {sealed}"
    if settings.auth_service_url and settings.auth_mode != "external":
        yield f"AUTH_SERVICE_URL has no effect, because AUTH_MODE is {settings.auth_mode}"
    if settings.otel_exporter_otlp_headers.get_secret_value() and not settings.otel_exporter_otlp_endpoint:
        yield "OTEL_EXPORTER_OTLP_HEADERS has no effect, because OTEL_EXPORTER_OTLP_ENDPOINT is empty"
    if settings.app_providers and not settings.access_file and settings.sql_url is None:
        yield "APPS has no effect, because ACCESS_FILE is empty and there is no database: rules of access choose an app"
    for bot in settings.bots.values():
        if bot.timestamp_window > settings.stream_ttl:
            yield (
                f"STREAM_TTL is {settings.stream_ttl} and WECHAT_TIMESTAMP_WINDOW of bot {bot.name} is "
                f"{bot.timestamp_window:g}: a callback that is sent again after STREAM_TTL is asked again"
            )


def _redis(settings: Settings) -> Iterator[Problem]:
    if not settings.redis_url and not settings.redis_host:
        yield Problem(
            "REDIS_URL", "", "redis://host:6379/1, or REDIS_HOST; without a Redis at hand, `make demo` brings its own"
        )
    if settings.on_redis_cluster and settings.redis_db:
        yield Problem("REDIS_DB", str(settings.redis_db), "0 or nothing: a Redis Cluster has no other database")


def _sql(settings: Settings) -> Iterator[Problem]:
    if settings.mysql_host and settings.database_path:
        yield Problem(
            "DATABASE_PATH", settings.database_path, "nothing, because MYSQL_HOST is set: it is one or the other"
        )
    if settings.mysql_host and not settings.mysql_database:
        yield Problem("MYSQL_DATABASE", "", f"the name of the database on {settings.mysql_host}")


def _auth(settings: Settings) -> Iterator[Problem]:
    if settings.auth_mode is None:
        yield Problem(
            "AUTH_MODE",
            "",
            "AUTH_SERVICE_URL to authenticate users, or AUTH_MODE=allowlist or AUTH_MODE=none on purpose",
        )
    if settings.auth_mode == "allowlist" and not settings.auth_allowlist:
        yield Problem("AUTH_ALLOWLIST", "", "the userids that may ask, because AUTH_MODE is allowlist")
    if settings.auth_mode == "external":
        yield from _external_auth(settings)


def _external_auth(settings: Settings) -> Iterator[Problem]:
    reason = "because AUTH_MODE is external"
    if not settings.auth_service_url:
        yield Problem("AUTH_SERVICE_URL", "", f"the address of the auth API, {reason}")
    if not settings.sql_url:
        yield Problem("MYSQL_HOST", "", f"the MySQL (or DATABASE_PATH, an SQLite file) that knows the users, {reason}")
    if not settings.auth_user_query:
        yield Problem("AUTH_USER_QUERY", "", f"SQL with :userid that returns user_code and password, {reason}")


def _provider(provider: ProviderSettings, auth_mode: str | None, where: str = "") -> Iterator[Problem]:
    if provider.dify_api_url and not same_base(provider.dify_base_url, provider.dify_api_url):
        yield Problem(
            f"{where}DIFY_API_URL",
            provider.dify_api_url,
            f"nothing, or the same as DIFY_BASE_URL ({provider.dify_base_url})",
        )
    if provider.rag_provider == "dify":
        yield from _dify(provider, auth_mode, where)
    field, expected = NEEDED.get(provider.rag_provider, ("rag_provider", ""))
    in_headers = provider.rag_provider == "openai" and provider.openai_headers.get_secret_value()
    if not (getattr(provider, field) or in_headers):
        yield Problem(where + field.upper(), "", f"{expected}, because RAG_PROVIDER is {provider.rag_provider}")
    for field, built_in in (("rag_provider", RAG_PROVIDERS), ("search_provider", SEARCH_PROVIDERS)):
        name = getattr(provider, field)
        if name and not is_provider(name, built_in):
            yield Problem(where + field.upper(), name, expected_providers(built_in))
    if provider.search_provider == "serper" and not provider.serper_api_key:
        yield Problem(f"{where}SERPER_API_KEY", "", "the key of serper.dev, because SEARCH_PROVIDER is serper")


def _dify(provider: ProviderSettings, auth_mode: str | None, where: str) -> Iterator[Problem]:
    if provider.dify_auth_mode == "app_key" and not provider.dify_api_key:
        yield Problem(
            f"{where}DIFY_API_KEY", "", "the key of your Dify app (app-…), or USE_MOCK_RAG=true to try without"
        )
    if provider.dify_auth_mode == "user_token" and auth_mode in ("allowlist", "none"):
        yield Problem(
            f"{where}DIFY_AUTH_MODE", "user_token", f"app_key, because AUTH_MODE={auth_mode} gives users no token"
        )


def _limits(settings: Settings) -> Iterator[Problem]:
    for smaller, larger in (
        ("stream_lease", "stream_max_seconds"),
        ("websocket_heartbeat_interval", "websocket_heartbeat_timeout"),
        ("uploads_max_per_caller", "uploads_max"),
        ("media_max_bytes", "files_max_bytes_per_key"),
        ("files_max_bytes_per_key", "files_max_bytes"),
    ):
        least, most = getattr(settings, smaller), getattr(settings, larger)
        if least > most:
            yield Problem(smaller.upper(), f"{least:g}", f"at most {larger.upper()}, which is {most:g}")
    if settings.stream_max_seconds + TTL_MARGIN > settings.stream_ttl:
        least = f"at least STREAM_MAX_SECONDS + {TTL_MARGIN}, which is {settings.stream_max_seconds + TTL_MARGIN:g}"
        yield Problem("STREAM_TTL", f"{settings.stream_ttl:g}", least)
    yield from _bodies(settings)
    if settings.alert_token and not settings.alert_webhook:
        yield Problem("ALERT_WEBHOOK", "", "the address of a group robot, because ALERT_TOKEN is set")
    if settings.ops_port == settings.port:
        yield Problem("OPS_PORT", str(settings.ops_port), "another port than PORT")


def _zone(settings: Settings) -> Iterator[Problem]:
    """The default is checked too: a machine may have no time zones at all."""
    try:
        _ = settings.report_zone
    except (KeyError, ValueError, OSError):
        expected = "a time zone that this machine knows, such as Asia/Shanghai or UTC (Debian's package tzdata)"
        yield Problem("REPORT_TZ", settings.report_tz, expected)


def _bodies(settings: Settings) -> Iterator[Problem]:
    """A body that no budget can hold would be refused for ever, with the request to send it again later."""
    largest = max(settings.batch_max_bytes, settings.media_max_bytes * 4 // 3) + BODY_MARGIN
    each, total = settings.bodies_max_bytes_per_caller, settings.bodies_max_bytes
    if each < largest:
        expected = f"at least {largest}, for the largest body that BATCH_MAX_BYTES and MEDIA_MAX_BYTES allow"
        yield Problem("BODIES_MAX_BYTES_PER_CALLER", str(each), expected)
    if total < each:
        yield Problem("BODIES_MAX_BYTES", str(total), f"at least BODIES_MAX_BYTES_PER_CALLER, which is {each}")


def _sockets(settings: Settings) -> Iterator[Problem]:
    if settings.websocket_auth == "token" and settings.auth_mode != "external":
        reason = f"because AUTH_MODE={settings.auth_mode} gives users no token"
        yield Problem("WEBSOCKET_AUTH", "token", f"key or none, {reason}")
    if settings.ws_path in TAKEN_PATHS or settings.ws_path.startswith(TAKEN_FOLDERS):
        yield Problem("WS_PATH", settings.ws_path, "a path that nothing else has, such as /ws/realtime-asr")


def _bots(settings: Settings) -> Iterator[Problem]:
    yield from _subscribed_twice(settings)
    for bot in settings.bots.values():
        yield from _bot(bot, settings.stream_ttl, "" if bot.name == "default" else f"WECHAT_BOTS: {bot.name}.")
        if bot.name != "default":
            yield from _provider(bot.provider, settings.auth_mode, f"WECHAT_BOTS: {bot.name}.")
    for name, provider in settings.app_providers.items():
        yield from _provider(provider, settings.auth_mode, f"APPS: {name}.")


def _subscribed_twice(settings: Settings) -> Iterator[Problem]:
    """Two subscriptions of one bot would end each other for ever."""
    seen: dict[str, str] = {}
    for bot in settings.bots.values():
        if bot.mode == "websocket" and bot.bot_id and seen.setdefault(bot.bot_id, bot.name) != bot.name:
            yield Problem(
                "WECHAT_BOTS", f"{bot.name}.WECHAT_BOT_ID", f"another bot than {seen[bot.bot_id]}, which has this id"
            )


def _bot(bot: BotSettings, stream_ttl: float, where: str) -> Iterator[Problem]:
    needed: dict[str, dict[str, object]] = {
        # An empty token in a list would accept signatures that anybody can make.
        "callback": {"WECHAT_TOKEN": bot.tokens and all(bot.tokens), "WECHAT_ENCODING_AES_KEY": bot.aes_keys},
        "websocket": {"WECHAT_BOT_ID": bot.bot_id, "WECHAT_BOT_SECRET": bot.secrets and all(bot.secrets)},
    }
    for name, value in needed[bot.mode].items():
        if not value:
            yield Problem(where + name, "", f"what WeCom's console shows for the bot, because its mode is {bot.mode}")
    most = MOST_ANSWER_SECONDS[bot.mode]
    if bot.answer_seconds >= most:
        yield Problem(f"{where}WECHAT_ANSWER_SECONDS", f"{bot.answer_seconds:g}", f"less than {most}")
    if bot.answer_seconds > stream_ttl:
        expected = f"at most STREAM_TTL, which is {stream_ttl:g}"
        yield Problem(f"{where}WECHAT_ANSWER_SECONDS", f"{bot.answer_seconds:g}", expected)
    if bool(bot.wecom_corp_id) != bool(bot.wecom_contact_secret):
        given, missing = ("WECOM_CORP_ID", "WECOM_CONTACT_SECRET")[:: 1 if bot.wecom_corp_id else -1]
        yield Problem(where + missing, "", f"a value too, because {given} is set")
