"""The settings of everything but the providers, by group: type, default, unit and meaning of each variable.

`demo.env` has the same order. The providers' settings are in `provider_group`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Secret, SecretStr, model_validator

from config.environment import available_cpus
from config.fields import (
    AdminToken,
    AesKeys,
    AnswerBytes,
    BaseUrl,
    Bots,
    Bytes,
    Commands,
    Count,
    Group,
    Host,
    Hosts,
    HttpUrl,
    LeaseSeconds,
    LogLevel,
    Lower,
    Names,
    Origins,
    Port,
    Rate,
    RedisAddress,
    Seconds,
    SecretKeys,
    Secrets,
    SecretUrl,
    UrlPath,
    UserQuery,
    WholeSeconds,
    WsUrl,
    setting,
)
from utils.questions.commands import BUILT_IN


class ServerSettings(Group):
    app_name: str = setting("WechatLaibao", "name of the product, in /healthz and on pages")
    debug: bool = setting(False, "Flask's debug mode; never in production")
    reload: bool = setting(False, "python app.py only: start again when a source file changes")
    host: Host = setting("0.0.0.0", "address to listen on")
    port: Port = setting(5000, "port of callbacks, sockets, REST and pages")
    ops_port: Port | None = setting(None, "port for metrics, admin and the details of health; empty: all on PORT")
    workers: Count = Field(
        default_factory=lambda: available_cpus(),
        description="worker processes (replicas) per container; empty: the CPUs its cgroup allows, at most 4",
    )
    trusted_proxies: Annotated[int, Field(ge=0, le=10)] = setting(
        0, "number of reverse proxies in front whose X-Forwarded-For is trusted for the client's address"
    )
    locale: Annotated[Literal["zh", "en"], Lower] = setting("zh", "language of every sentence users see")
    texts_file: str | None = setting(
        None, 'JSON file {"key": "sentence"} that replaces built-in sentences; keys are in config/texts/'
    )
    secret_key: SecretKeys = setting(
        (),
        "random secret for the names and the encryption of data in Redis; a list: the first encrypts, all decrypt; "
        "empty: derived from the bots' AES keys, in websocket mode from their Secrets",
    )
    admin_token: AdminToken | None = setting(
        None,
        "token of administrators, and of readers of /metrics on PORT, at least 8 characters; "
        "empty: these addresses are off",
    )
    api_keys: Secrets = setting(
        (), "keys of programs and pages: for REST, and for sockets where WEBSOCKET_AUTH=key; a list"
    )
    public_origins: Origins = setting(
        (), "origins whose pages may open sockets and use REST, such as https://chat.example.com; a list"
    )
    allowed_hosts: Hosts = setting(
        (),
        "host names that requests may have, such as chat.example.com or .example.com; "
        "callbacks and probes: any; empty: any",
    )
    public_url: BaseUrl | None = setting(
        None,
        "address at which people reach this gateway, such as https://chat.example.com, for links to files in WeCom's "
        "answers; empty: no links",
    )


class WeComSettings(Group):
    """WeCom settings that each bot of `WECHAT_BOTS` may override."""

    wechat_token: Secrets = setting((), "Token of the bot's callback; a list: the first signs, all verify")
    wechat_encoding_aes_key: AesKeys = setting((), "EncodingAESKey, 43 characters; a list in the order of the tokens")
    wechat_receive_id: str = setting("", "receiveid inside the encryption; empty for a smart robot")
    wechat_bot_name: str = setting("", "the robot's name in groups, so that '@name ' is removed from questions")
    wechat_welcome: str = setting("", "greeting when a chat is opened; empty: the sentence `welcome`")
    wechat_mode: Annotated[Literal["callback", "websocket"], Lower] = setting(
        "callback", "how WeCom reaches the bot: callback, or websocket (the long connection, without a public address)"
    )
    wechat_bot_id: str = setting(
        "", "the bot's own id; websocket mode needs it, callbacks of another bot are refused when it is set"
    )
    wechat_bot_secret: SecretStr | None = setting(None, "the Secret of the long connection, for websocket mode")
    wechat_ws_url: WsUrl = setting(
        "wss://openws.work.weixin.qq.com", "address of the long connection; another one for a private WeCom"
    )
    wechat_ws_retry: Annotated[float, Field(ge=0, allow_inf_nan=False)] = setting(
        0, "seconds after which a bot subscribes again that another program has taken over; 0: never by itself"
    )
    wechat_ws_frame_seconds: Seconds = setting(1, "websocket mode: seconds between two frames of a growing answer")
    wechat_answer_seconds: Annotated[float, Field(gt=0, lt=600)] | None = setting(
        None,
        "seconds until an answer's frame is ended, less than 360 (600 in websocket mode), when WeCom gives it up; "
        "empty: 330 (570)",
    )
    wechat_timestamp_window: Seconds = setting(600, "seconds a callback's timestamp may differ from our clock")
    wechat_thinking: Annotated[Literal["show", "hide"], Lower] = setting("show", "the model's thinking: show or hide")
    wechat_progress: bool = setting(False, "name the running workflow node or tool while there is no text yet")
    wechat_sources: bool = setting(False, "add the answer's sources")
    wechat_suggestions: bool = setting(False, "list up to three questions that the Dify app suggests after an answer")
    wechat_group_conversation: Annotated[Literal["user", "shared"], Lower] = setting(
        "user", "conversation memory in a group: one per user, or one shared by the group"
    )
    wechat_commands: Commands = setting(
        BUILT_IN,
        "JSON: what a user types -> reset, stop, retry, help, whoami or human; or a command -> a list of such words, "
        "[] for none; a command that is not named keeps its words; {}: no commands",
    )
    handoff_webhook: SecretUrl | None = setting(
        None, "address of a WeCom group robot that is told of each `human` command, with its key; empty: nobody is told"
    )
    wecom_corp_id: str = setting(
        "", "corp id (ww…) of the bot's company, to ask WeCom's directory for names and departments; empty: not asked"
    )
    wecom_contact_secret: SecretStr | None = setting(
        None, "Secret of an application of that company whose visible range has the bot's users"
    )
    wecom_api_url: HttpUrl = setting(
        "https://qyapi.weixin.qq.com", "address of WeCom's API; another one for a private installation of WeCom"
    )


class MoreWeComSettings(Group):
    wechat_bots: Bots = setting(
        Secret({}),
        'JSON {"hr": {"WECHAT_TOKEN": "…", "DIFY_API_KEY": "…", "corp": "acme"}}: bots at /wechat/callback/<name>; '
        'programs may ask those with "api": true',
    )
    wechat_response_hosts: Hosts = setting(
        ("qyapi.weixin.qq.com",),
        "hosts that late answers may be sent to: WeCom's by https, any other also by http; .name: any host below it",
    )
    media_max_bytes: Bytes = setting(
        20 * 1024 * 1024, "bytes of the largest image or file taken from a message, and of all files of an answer"
    )
    media_hosts: Hosts = setting(
        (".myqcloud.com",),
        "hosts whose files may also be fetched by http, at any port and from private addresses; others by https from "
        "public ones; .name: any host below it",
    )


class RedisSettings(Group):
    redis_url: RedisAddress | None = setting(
        None,
        "redis://, rediss://, unix://, redis+sentinel://h1,h2/service/1 or redis+cluster://h1,h2; wins over REDIS_HOST",
    )
    redis_host: Host = setting("", "host of Redis, where REDIS_URL is empty")
    redis_port: Port = setting(6379, "port of Redis")
    redis_password: SecretStr | None = setting(None, "password of Redis; also used with a REDIS_URL that has none")
    redis_db: Annotated[int, Field(ge=0)] | None = setting(None, "number of the database; empty: 1, or 0 on a Cluster")
    redis_pool_size: Count = setting(
        50, "Redis connections per process, one of them for writing answers; on a Cluster per node"
    )
    batch_redis_url: RedisAddress | None = setting(None, "another Redis for batch jobs; empty: the same one")


class SqlSettings(Group):
    mysql_host: Host = setting("", "host of MySQL; empty: none")
    mysql_port: Port = setting(3306, "port of MySQL")
    mysql_user: str = setting("root", "user of MySQL")
    mysql_password: SecretStr | None = setting(None, "password of MySQL")
    mysql_database: str = setting("", "database of MySQL")
    mysql_read_host: Host = setting(
        "", "read replica for the user query (MYSQL_HOST while it is unavailable); empty: MYSQL_HOST"
    )
    mysql_pool_size: Count = setting(
        5,
        "MySQL connections per process, shared by the user query and batches; each has at least one, and ratings of "
        "answers use one more",
    )
    database_path: str = setting("", "SQLite file instead of MySQL; for one machine only")
    auth_user_query: UserQuery | None = setting(
        None, "SQL with :userid that returns user_code, password and any of user_name, phone, gender"
    )


class AuthSettings(Group):
    auth_mode: Annotated[Literal["external", "allowlist", "none"], Lower] | None = setting(
        None,
        "external (user table and auth API), allowlist, or none; empty: external, and AUTH_SERVICE_URL must be set",
    )
    auth_service_url: HttpUrl | None = setting(None, "address of the external auth API")
    auth_service_method: Annotated[Literal["post", "get"], Lower] = setting("post", "post JSON, or the original's get")
    auth_token_ttl: WholeSeconds = setting(604800, "seconds a user's token is kept")
    auth_allowlist: Names = setting((), "userids that may ask in allowlist mode; a list")

    @model_validator(mode="before")
    @classmethod
    def _mode(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Default `AUTH_MODE` to external if `AUTH_SERVICE_URL` is set; no other mode is ever a default."""
        return {"auth_mode": "external", **given} if given.get("auth_service_url") else given


class HttpSettings(Group):
    http_pool_size: Count = setting(1000, "kept connections to each provider and to the auth API, per process")


class StreamSettings(Group):
    stream_ttl: WholeSeconds = setting(1800, "seconds a stream's record lives from its creation")
    stream_lease: LeaseSeconds = setting(6, "seconds a producer owns its stream without renewing the lease, at least 2")
    stream_max_seconds: Seconds = setting(1200, "seconds until a producer is stopped, on every channel")
    stream_max_bytes: AnswerBytes = setting(1024 * 1024, "bytes of the longest answer, at least 20480")
    question_max_bytes: Bytes = setting(
        65536, "bytes of the longest question; a longer one gets a sentence, and 413 over REST"
    )
    conversation_ttl: WholeSeconds = setting(604800, "seconds a conversation is remembered after its last use")
    history_max_tokens: Count = setting(
        3000, "tokens (estimated) of earlier turns that are sent to a provider without conversations of its own"
    )
    history_max_seconds: Seconds = setting(86400, "seconds after which an earlier turn is no longer sent")
    stream_max_per_replica: Count = setting(1000, "answers in progress, per process")
    stream_max_per_user: Count = setting(3, "questions in flight per WeCom user and bot; WeCom's own limit is 3")
    drain_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = setting(
        60, "seconds a process that shuts down waits for answers in progress"
    )


class SocketSettings(Group):
    sockets_max: Count = setting(1000, "open WebSockets per process")
    http_waits_max: Count = setting(500, "requests of /api/chat and /v1 that wait for an answer at once, per process")
    ws_path: UrlPath = setting("/ws/realtime-asr", "path of the realtime socket")
    websocket_heartbeat_interval: Seconds = setting(30, "seconds of silence until a heartbeat is sent")
    websocket_heartbeat_timeout: Seconds = setting(120, "seconds without anything received until a socket is closed")
    websocket_auth: Annotated[Literal["key", "token", "none"], Lower] = setting(
        "key", "credential for sockets and REST: key (one of API_KEYS), token (a user's), or none"
    )
    realtime_stop: Annotated[Literal["idle", "close"], Lower] = setting(
        "idle", "what stop does on the realtime socket: idle (stay open) or close"
    )
    web_suggestions: bool = setting(
        True, "send up to three questions that the Dify app suggests with answers of the chat page and of /api/chat"
    )
    web_thinking: Annotated[Literal["show", "fold", "hide"], Lower] = setting(
        "fold", "the model's thinking in answers that are rendered for pages: show, fold or hide"
    )
    rate_limit_user: Rate = setting(
        "20/minute", "questions per person at sockets and REST, batches included; several with ';', or off"
    )
    rate_limit_ip: Rate = setting("300/minute", "sockets opened per client address; several with ';', or off")
    connections_per_ip: Annotated[int, Field(ge=0)] = setting(
        1000, "connections of one client address per process, without callbacks and probes; 0: no limit"
    )


class BatchSettings(Group):
    batch_enabled: bool = setting(True, "offer batch tasks")
    batch_max_concurrent: Count = setting(5, "batch questions answered at once, over all replicas")
    batch_max_queue_size: Count = setting(1000, "unfinished batch tasks; more are refused")
    batch_max_per_key: Count = setting(100, "unfinished batch tasks of one key, or of one user; more are refused")
    batch_max_bytes: Bytes = setting(32 * 1024 * 1024, "bytes of the largest batch that is accepted, file or JSON")
    batch_storage_path: str | None = setting(
        None, "folder that gets each finished task's results as JSONL; empty: none"
    )
    batch_worker: Annotated[Literal["embedded", "external"], Lower] = setting(
        "embedded", "where batches run: embedded (this process), or external (a Deployment of its own)"
    )
    batch_retention_days: Count = setting(7, "days a finished task is kept")
    webhook_hosts: Hosts = setting(
        (),
        "hosts whose webhooks may also be called by http, at any port and at private addresses; others by https at "
        "public ones; .name: any host below it",
    )


class LogSettings(Group):
    log_level: LogLevel = setting("INFO", "DEBUG, INFO, WARNING, ERROR or CRITICAL")
    log_format: Annotated[Literal["json", "plain"], Lower] = setting("json", "json, or plain for reading by eye")
    log_dir: str | None = setting(None, "folder of rotating info.log and error.log; empty: standard output only")
    log_content: bool = setting(False, "log users' ids, and with LOG_LEVEL=DEBUG also their questions and answers")
