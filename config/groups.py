"""The settings by group, in the order of `demo.env`: type, default, and meaning with unit, in English and Chinese."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, Secret, SecretStr, TypeAdapter, ValidationError, model_validator

from config.environment import available_cpus
from config.fields import (
    AdminToken,
    AdminTokens,
    AesKeys,
    AnswerBytes,
    ApiKey,
    ApiKeys,
    BaseUrl,
    Bots,
    Bytes,
    Commands,
    Count,
    Group,
    Host,
    Hosts,
    HttpUrl,
    Inputs,
    LeaseSeconds,
    LogLevel,
    Lower,
    NamedAdminTokens,
    Names,
    Origin,
    Origins,
    OtlpHeaders,
    Port,
    ProviderName,
    Rate,
    RedisAddress,
    RequestFields,
    RequestHeaders,
    Seconds,
    SecretKeys,
    SecretUrl,
    ServiceHeaders,
    Temperature,
    Token,
    Tokens,
    UrlPath,
    UserQuery,
    WholeSeconds,
    WsUrl,
    setting,
)
from utils.questions.commands import BUILT_IN

DIFY_CLOUD = "https://api.dify.ai/v1"
MOCK_SWITCHES = ("mock_mode", "use_mock_rag")


class ServerSettings(Group):
    app_name: str = setting(
        "WechatLaibao", "name of the product, in /healthz and on pages", "产品名称，用于 /healthz 和页面"
    )
    debug: bool = setting(False, "Flask's debug mode; never in production", "Flask 调试模式，生产环境中切勿开启")
    reload: bool = setting(
        False, "python app.py only: start again when a source file changes", "仅 python app.py：源文件变化后自动重启"
    )
    host: Host = setting("0.0.0.0", "address to listen on", "监听地址")
    port: Port = setting(5000, "port of callbacks, sockets, REST and pages", "回调、WebSocket、REST 和页面的端口")
    ops_port: Port | None = setting(
        None,
        "port for metrics, admin and the details of health; empty: all on PORT",
        "指标、管理和详细健康信息的端口；空：都在 PORT 上",
    )
    workers: Count = setting(
        lambda: available_cpus(),
        "worker processes (replicas) per container; empty: the CPUs its cgroup allows, at most 4",
        "每个容器的工作进程（副本）数；空：cgroup 允许的 CPU 数，最多 4",
    )
    trusted_proxies: Annotated[int, Field(ge=0, le=10)] = setting(
        0,
        "number of reverse proxies in front whose X-Forwarded-For is trusted for the client's address",
        "前置可信反向代理的层数（据此从 X-Forwarded-For 取客户端地址）",
    )
    locale: Annotated[Literal["zh", "en"], Lower] = setting(
        "zh", "language of every sentence users see", "面向用户的提示语的语言：zh 或 en"
    )
    texts_file: str | None = setting(
        None,
        'JSON file {"key": "sentence"} that replaces built-in sentences; keys are in config/texts/',
        '自定义提示语的 JSON 文件 {"key": "提示语"}；key 见 config/texts/',
    )
    secret_key: SecretKeys = setting(
        (),
        "random secret for the names and the encryption of data in Redis; a list: the first encrypts, all decrypt; "
        "empty: derived from the bots' AES keys, in websocket mode from their Secrets",
        "随机密钥，用于 Redis 中的键名派生和内容加密；可填列表：用第一个加密，全部可用于解密；空：由各机器人的 "
        "AES 密钥派生，websocket 模式下由其 Secret 派生",
    )
    admin_token: AdminToken | None = setting(
        None,
        "token of one administrator with every right, at least 8 characters; "
        "empty, and no ADMIN_TOKENS: the administrators' addresses, and /metrics on PORT, are off",
        "拥有全部权限的管理员令牌，至少 8 个字符；与 ADMIN_TOKENS 均为空：关闭管理接口和 PORT 上的 /metrics",
    )
    admin_tokens: NamedAdminTokens = setting(
        (),
        "tokens of more administrators, a list of NAME:ROLE:TOKEN with the role viewer, operator or admin; TOKEN has "
        "at least 8 characters, or is a digest that tools.admin prints",
        "更多管理员的令牌，NAME:ROLE:TOKEN 的列表，ROLE 为 viewer、operator 或 admin；TOKEN 至少 8 个字符，"
        "或填 tools.admin 输出的摘要",
    )
    api_keys: Tokens = setting(
        (),
        "keys of programs and pages: for REST, and for sockets where WEBSOCKET_AUTH=key; a list of KEY or NAME=KEY",
        "程序和页面使用的密钥，用于 REST；WEBSOCKET_AUTH=key 时也用于 WebSocket；列表，每项为 KEY 或 NAME=KEY",
    )
    public_origins: Origins = setting(
        (),
        "origins whose pages may open sockets and use REST, such as https://chat.example.com; a list",
        "允许打开 WebSocket 和使用 REST 的页面来源，如 https://chat.example.com，列表",
    )
    allowed_hosts: Hosts = setting(
        (),
        "host names that requests may have, such as chat.example.com or .example.com; "
        "callbacks and probes: any; empty: any",
        "允许用于访问本服务的主机名，如 chat.example.com 或 .example.com，回调和探针不受限；空：不限",
    )
    public_url: Origin | None = setting(
        None,
        "address at which people reach this gateway, such as https://chat.example.com, for links to files in WeCom's "
        "answers; empty: no links",
        "用户访问本服务的地址，如 https://chat.example.com，用于企业微信回答中的文件链接；空：不提供链接",
    )


class WeComSettings(Group):
    """WeCom settings that each bot of `WECHAT_BOTS` may override."""

    wechat_token: Tokens = setting(
        (),
        "Token of the bot's callback; a list: the first signs, all verify",
        "机器人回调的 Token；可填列表：用第一个签名，全部可用于验证",
    )
    wechat_encoding_aes_key: AesKeys = setting(
        (),
        "EncodingAESKey, 43 characters; a list in the order of the tokens",
        "EncodingAESKey，43 个字符；列表，顺序与 Token 相同",
    )
    wechat_receive_id: str = setting(
        "", "receiveid inside the encryption; empty for a smart robot", "加密内容中的 receiveid；智能机器人留空"
    )
    wechat_bot_name: str = setting(
        "",
        "the robot's name in groups, so that '@name ' is removed from questions",
        "机器人在群里的名字，用于从问题中去掉“@名字 ”",
    )
    wechat_welcome: str = setting(
        "",
        "greeting when a chat is opened; empty: the sentence `welcome`",
        "打开会话时的欢迎语；空：使用提示语 `welcome`",
    )
    wechat_mode: Annotated[Literal["callback", "websocket"], Lower] = setting(
        "callback",
        "how WeCom reaches the bot: callback, or websocket (the long connection, without a public address)",
        "企业微信与机器人的连接方式：callback 为回调，websocket 为长连接（无需公网地址）",
    )
    wechat_bot_id: str = setting(
        "",
        "the bot's own id; websocket mode needs it, callbacks of another bot are refused when it is set",
        "机器人的 id；websocket 模式必填，填写后其他机器人的回调会被拒绝",
    )
    wechat_bot_secret: Tokens = setting(
        (),
        "the Secret of the long connection, for websocket mode; a list: the first subscribes, all find and open data",
        "长连接的 Secret，用于 websocket 模式；可填列表：用第一个订阅，全部可用于查找和解密数据",
    )
    wechat_ws_url: WsUrl = setting(
        "wss://openws.work.weixin.qq.com",
        "address of the long connection; another one for a private WeCom",
        "长连接的地址；私有部署的企业微信填自己的地址",
    )
    wechat_ws_retry: Annotated[float, Field(ge=0, allow_inf_nan=False)] = setting(
        0,
        "seconds after which a bot subscribes again that another program has taken over; 0: never by itself",
        "机器人的连接被其他程序抢占后，重新订阅前等待的秒数；0：不自动重新订阅",
    )
    wechat_ws_frame_seconds: Seconds = setting(
        1,
        "websocket mode: seconds between two frames of a growing answer",
        "websocket 模式下，回答增长时两帧之间的秒数",
    )
    wechat_ws_parts: Count = setting(
        30,
        "websocket mode: most messages with the rest of one long answer; after them comes a link to all of it",
        "websocket 模式下，发送一个长回答其余部分的最大消息数，之后发送完整回答的链接",
    )
    wechat_answer_seconds: Annotated[float, Field(gt=0, lt=600)] | None = setting(
        None,
        "seconds until an answer's frame is ended, less than 360 (600 in websocket mode), when WeCom gives it up; "
        "empty: 330 (570)",
        "一条消息的最长显示秒数，须小于 360（websocket 模式下为 600），之后企业微信不再更新该消息；空：330（570）",
    )
    wechat_timestamp_window: Seconds = setting(
        600, "seconds a callback's timestamp may differ from our clock", "回调时间戳与本机时钟最多相差的秒数"
    )
    wechat_thinking: Annotated[Literal["show", "hide"], Lower] = setting(
        "show", "the model's thinking: show or hide", "模型的思考过程：show 显示，hide 隐藏"
    )
    wechat_progress: bool = setting(
        False,
        "name the running workflow node or tool while there is no text yet",
        "尚无文字时显示正在运行的工作流节点或工具",
    )
    wechat_sources: bool = setting(False, "add the answer's sources", "在回答后附上所依据的文档")
    wechat_suggestions: bool = setting(
        False,
        "list up to three questions that the Dify app suggests after an answer",
        "在回答后列出 Dify 应用建议的后续问题，最多三个",
    )
    words_file: str | None = setting(
        None,
        "file of words that questions must not have and answers must not show, read again when it changes "
        "(docs/rules.md); empty: none",
        "问题中不得出现、回答中不得显示的词语的文件，修改后自动生效（见 docs/rules.md）；空：不限制",
    )
    wechat_group_conversation: Annotated[Literal["user", "shared"], Lower] = setting(
        "user",
        "conversation memory in a group: one per user, or one shared by the group",
        "群聊的对话记忆：user 每人独立，shared 全群共用",
    )
    wechat_commands: Commands = setting(
        BUILT_IN,
        "JSON: what a user types -> reset, stop, retry, help, whoami, quota or human; or a command -> a list of such "
        "words, [] for none; a command that is not named keeps its words; {}: no commands",
        "JSON：用户输入的文字 -> reset（开始新对话）、stop（停止）、retry（重答）、help（帮助）、whoami（账号）、"
        "quota（额度）或 human（转人工）；也可写命令 -> 文字的列表，[] 关闭该命令；未提到的命令保留默认文字；"
        "{} 关闭全部",
    )
    handoff_webhook: SecretUrl | None = setting(
        None,
        "address of a WeCom group robot to which each `human` command is posted, with its key; empty: to none",
        "企业微信群机器人的地址（含密钥），每次“转人工”时通知该群；为空则不通知",
    )
    wecom_corp_id: str = setting(
        "",
        "corp id (ww…) of the bot's company, to ask WeCom's directory for names and departments; empty: not asked",
        "机器人所属企业的企业 ID（ww…），用来向企业微信通讯录查询姓名和部门；为空则不查询",
    )
    wecom_contact_secret: Token | None = setting(
        None,
        "Secret of an application of that company whose visible range has the bot's users",
        "该企业某个应用的 Secret，应用的可见范围要包含机器人的使用者",
    )
    wecom_api_url: HttpUrl = setting(
        "https://qyapi.weixin.qq.com",
        "address of WeCom's API; another one for a private installation of WeCom",
        "企业微信 API 的地址；私有部署的企业微信填自己的地址",
    )


class MoreWeComSettings(Group):
    alert_webhook: SecretUrl | None = setting(
        None,
        "address, with its key, of the operators' WeCom group robot, to which alerts are posted, also those of faults "
        "that the gateway finds itself; empty: to none",
        "运维群机器人的地址（含密钥），告警发到该群，包括网关自己发现的故障；为空则不发送",
    )
    alert_token: AdminTokens = setting(
        (),
        "tokens of at least 8 characters with which Alertmanager may POST to /alerts, a list; empty: it is off",
        "Alertmanager 调用 POST /alerts 的令牌，至少 8 个字符，可填列表；为空则关闭该接口",
    )
    alert_severity: Annotated[Literal["info", "warning", "critical"], Lower] = setting(
        "critical",
        "severity below which alerts are not posted: info, warning or critical",
        "低于该级别的告警不发送：info、warning 或 critical",
    )
    alert_max_per_hour: Count = setting(
        20,
        "messages with alerts an hour at most, over all replicas",
        "每小时最多发送的告警消息数（所有副本合计）",
    )
    wechat_bots: Bots = setting(
        Secret({}),
        'JSON {"hr": {"WECHAT_TOKEN": "…", "DIFY_API_KEY": "…", "corp": "acme"}}: bots at /wechat/callback/<name>; '
        'programs may ask those with "api": true',
        'JSON {"hr": {"WECHAT_TOKEN": "…", "DIFY_API_KEY": "…", "corp": "acme"}}：更多机器人，地址为 '
        '/wechat/callback/<name>；程序可以向带 "api": true 的机器人提问',
    )
    wechat_response_hosts: Hosts = setting(
        ("qyapi.weixin.qq.com",),
        "hosts that late answers may be sent to: WeCom's by https, any other also by http; .name: any host below it",
        "允许接收后续消息的主机：企业微信的只用 https，其他的也可用 http；.name 表示其下任何主机",
    )
    media_max_bytes: Bytes = setting(
        20 * 1024 * 1024,
        "bytes of the largest image or file taken from a message, and of all files of an answer",
        "从消息中获取的图片或文件的最大字节数，也是一条回答的全部文件的最大字节数",
    )
    media_hosts: Hosts = setting(
        (".myqcloud.com",),
        "hosts whose files may also be fetched by http, at any port and from private addresses; others by https from "
        "public ones; .name: any host below it",
        "这些主机上的文件也可用 http、任意端口和内网地址下载；其他主机只能用 https 且为公网地址；.name "
        "表示其下任何主机",
    )


class RedisSettings(Group):
    redis_url: RedisAddress | None = setting(
        None,
        "redis://, rediss://, unix://, redis+sentinel://h1,h2/service/1 or redis+cluster://h1,h2; wins over REDIS_HOST",
        "redis://、rediss://、unix://、redis+sentinel://h1,h2/service/1 或 redis+cluster://h1,h2；优先于 REDIS_HOST",
    )
    redis_host: Host = setting(
        "",
        "host of Redis, where REDIS_URL is empty; compose.yaml and k8s/ set it",
        "Redis 主机，REDIS_URL 为空时使用；compose.yaml 和 k8s/ 会自行设置",
    )
    redis_port: Port = setting(6379, "port of Redis", "Redis 端口")
    redis_password: SecretStr | None = setting(
        None,
        "password of Redis; also used with a REDIS_URL that has none",
        "Redis 密码；REDIS_URL 中没有密码时也使用它",
    )
    redis_sentinel_password: SecretStr | None = setting(
        None,
        "password of the Sentinels, where REDIS_URL has no sentinel_password",
        "Sentinel 的密码；REDIS_URL 中没有 sentinel_password 时使用",
    )
    redis_db: Annotated[int, Field(ge=0)] | None = setting(
        None, "number of the database; empty: 1, or 0 on a Cluster", "数据库编号；空：1，Cluster 上为 0"
    )
    redis_pool_size: Count = setting(
        50,
        "Redis connections per process, one of them for writing answers; on a Cluster per node",
        "每个进程的 Redis 连接数，其中一个专用于写入回答；Cluster 上按节点计算",
    )
    files_max_bytes: Bytes = setting(
        1024 * 1024 * 1024,
        "bytes of all uploads, pictures of questions and files of answers that Redis keeps at once; they take a "
        "third to two thirds more memory",
        "Redis 同时保存的上传文件、问题图片和回答文件的总字节数；占用的内存比这多三分之一到三分之二",
    )
    files_max_bytes_per_key: Bytes = setting(
        256 * 1024 * 1024,
        "the same for one API key, user or person",
        "其中每个 API 密钥、用户或企业微信成员的字节数上限",
    )
    batch_redis_url: RedisAddress | None = setting(
        None, "another Redis for batch jobs; empty: the same one", "批量任务使用的独立 Redis；空：共用同一个"
    )


class SqlSettings(Group):
    mysql_host: Host = setting("", "host of MySQL; empty: none", "MySQL 主机；空：不使用 MySQL")
    mysql_port: Port = setting(3306, "port of MySQL", "MySQL 端口")
    mysql_user: str = setting("root", "user of MySQL", "MySQL 用户")
    mysql_password: SecretStr | None = setting(None, "password of MySQL", "MySQL 密码")
    mysql_database: str = setting("", "database of MySQL", "MySQL 数据库")
    mysql_read_host: Host = setting(
        "",
        "read replica for the user query (MYSQL_HOST while it is unavailable); empty: MYSQL_HOST",
        "执行用户查询的只读副本，不可用时改用 MYSQL_HOST；空：使用 MYSQL_HOST",
    )
    mysql_pool_size: Count = setting(
        5,
        "MySQL connections per process, shared by the user query and batches; each has at least one. Log, usage, "
        "ratings, rules and administrators use up to 12 more",
        "每个进程的 MySQL 连接数，由用户查询和批量任务共享，各至少一个；日志、用量、评价、规则和管理员另用至多 12 个",
    )
    database_path: str = setting(
        "", "SQLite file instead of MySQL; for one machine only", "用 SQLite 文件代替 MySQL，仅限单机"
    )
    migration_seconds: Seconds = setting(
        60,
        "seconds for which a starting process is not ready while it or another one migrates the tables",
        "启动时等待数据表升级（由本进程或其他进程执行）的秒数，期间未就绪",
    )
    auth_user_query: UserQuery | None = setting(
        None,
        "SQL with :userid that returns user_code, password and any of user_name, phone, gender, department, such as "
        "SELECT code AS user_code, password FROM users WHERE wecom_id = :userid",
        "带 :userid 的 SQL，返回 user_code、password，可另含 user_name、phone、gender，例如 "
        "SELECT code AS user_code, password FROM users WHERE wecom_id = :userid",
    )


class AuthSettings(Group):
    auth_mode: Annotated[Literal["external", "allowlist", "none"], Lower] | None = setting(
        None,
        "external (user table and auth API), allowlist, or none; empty: external, and AUTH_SERVICE_URL must be set",
        "external（用户表加认证接口）、allowlist（白名单）或 none；空：external，且必须设置 AUTH_SERVICE_URL",
    )
    auth_service_url: HttpUrl | None = setting(None, "address of the external auth API", "外部认证接口的地址")
    auth_service_method: Annotated[Literal["post", "get"], Lower] = setting(
        "post", "post JSON, or the original's get", "post（发送 JSON）或 get（兼容原版）"
    )
    auth_token_ttl: WholeSeconds = setting(604800, "seconds a user's token is kept", "用户令牌保留的秒数")
    auth_allowlist: Names = setting(
        (), "userids that may ask in allowlist mode; a list", "白名单模式下可以提问的 userid，列表"
    )
    access_file: str | None = setting(
        None,
        "YAML file that says who may ask, read again when it changes (docs/rules.md); empty: all who are authenticated",
        "规定谁可以提问的 YAML 文件，修改后自动生效（见 docs/rules.md）；空：通过认证的人都可以",
    )
    apps: Bots = setting(
        Secret({}),
        'JSON {"hr-app": {"DIFY_API_KEY": "…"}}: apps that rules of ACCESS_FILE choose by use (docs/rules.md)',
        'JSON {"hr-app": {"DIFY_API_KEY": "…"}}：可由 ACCESS_FILE 的规则用 use 选择的应用（见 docs/rules.md）',
    )
    quotas_file: str | None = setting(
        None,
        "YAML file with limits of questions and tokens for persons, departments, chats, bots and API keys, read again "
        "when it changes (docs/rules.md); empty: none",
        "限定人员、部门、群、机器人和 API 密钥的提问次数和 token 用量的 YAML 文件，修改后自动生效（见 docs/rules.md）；"
        "空：不限",
    )
    departments_file: str | None = setting(
        None,
        "CSV file with userid and department of people, before those of WeCom's directory and of the user table; read "
        "again when it changes",
        "人员部门的 CSV 文件，列为 userid 和 department，优先于企业微信通讯录和用户表；修改后自动生效",
    )

    @model_validator(mode="before")
    @classmethod
    def _mode(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Default `AUTH_MODE` to external if `AUTH_SERVICE_URL` is set; no other mode is ever a default."""
        return {"auth_mode": "external", **given} if given.get("auth_service_url") else given


class ProviderSettings(Group):
    """Settings of the answer provider and of web search; each bot of `WECHAT_BOTS` may override any of them."""

    rag_provider: ProviderName = setting(
        "dify",
        "provider: dify, openai, context, custom, mock, the name of an installed one, or package.module:Class",
        "问答服务：dify、openai、context、custom、mock，已安装的插件名，或 package.module:Class",
    )
    dify_base_url: HttpUrl = setting(
        DIFY_CLOUD, "address of Dify, with or without /v1", "Dify 的地址，带不带 /v1 都可以"
    )
    dify_chat_endpoint: UrlPath = setting("/v1/chat-messages", "path of Dify's chat API", "Dify 对话接口的路径")
    dify_auth_prefix: str = setting(
        "Bearer", "first word of Dify's Authorization header", "Dify 的 Authorization 头的第一个词"
    )
    dify_api_key: ApiKeys = setting(
        (),
        "key of the Dify app; a list: the first is sent, the last names the app's conversations",
        "Dify 应用的密钥；可填列表：发送第一个，最后一个用于命名该应用的对话",
    )
    dify_auth_mode: Annotated[Literal["app_key", "user_token"], Lower] = setting(
        "app_key",
        "app_key sends '{prefix} {key}'; "
        "user_token sends '{prefix} {DIFY_API_KEY, else the bot's name} {user token}' (a patched Dify)",
        "app_key 发送“{prefix} {key}”，user_token 发送“{prefix} {DIFY_API_KEY，没有则为机器人名} {user "
        "token}”（改造过的 Dify）",
    )
    dify_timeout: Seconds = setting(
        60,
        "seconds of the longest silence without a data event, the first included",
        "等待数据事件（包括首个事件）的最长秒数",
    )
    dify_user: str = setting(
        "default-user", "Dify's end user for questions without a known user", "提问者未知时发给 Dify 的 end-user"
    )
    dify_inputs: Inputs = setting(
        {},
        "JSON template of the app's inputs; may use {user_code} {user_name} {gender} {token} {time_info} "
        "{userid} {name} {department} {chatid} {chattype} {bot} {msgid} {channel}",
        "应用输入变量的 JSON 模板，可用 {user_code} {user_name} {gender} {token} {time_info} {userid} {name} "
        "{department} {chatid} {chattype} {bot} {msgid} {channel}",
    )
    dify_max_concurrent: Count = setting(
        1000, "concurrent questions to Dify, per process", "每个进程同时向 Dify 提交的最大问题数"
    )
    dify_api_url: HttpUrl | None = setting(None, "another name of DIFY_BASE_URL", "DIFY_BASE_URL 的别名")
    openai_api_key: ApiKey | None = setting(None, "key of an OpenAI-compatible service", "OpenAI 兼容服务的密钥")
    openai_base_url: BaseUrl = setting(
        "https://api.openai.com",
        "its address; a bare host gets /v1, one with a path or a / at its end is used as it is",
        "服务地址；只有主机名时补上 /v1，带路径或以 / 结尾时原样使用",
    )
    openai_model: str = setting("gpt-3.5-turbo", "its model", "使用的模型")
    openai_timeout: Seconds = setting(60, "seconds of the longest silence", "无数据的最长等待秒数")
    openai_system_prompt: str = setting(
        "", "system prompt of each conversation; empty: none", "每段对话之前发给模型的系统提示词；空：不发送"
    )
    openai_max_tokens: Count | None = setting(
        None, "tokens of the longest answer; empty: the service decides", "最长回答的 token 数；空：由服务决定"
    )
    openai_temperature: Temperature | None = setting(
        None, "0 to 2; empty: the service decides", "0 到 2；空：由服务决定"
    )
    openai_headers: RequestHeaders = setting(
        Secret({}),
        'JSON: more headers for it, such as {"api-key": "k"}; they may replace the key',
        'JSON：附加的请求头，如 {"api-key": "k"}；可以代替密钥',
    )
    openai_body: RequestFields = setting(
        {},
        'JSON: more fields of its requests, such as {"enable_thinking": false}',
        'JSON：请求中附加的字段，如 {"enable_thinking": false}',
    )
    context_api_key: ApiKey | None = setting(None, "key of the Context service", "Context 服务的密钥")
    context_base_url: BaseUrl = setting(
        "https://api.context.ai", "its address, read as OPENAI_BASE_URL", "服务地址，写法同 OPENAI_BASE_URL"
    )
    context_model: str = setting("gpt-4", "its model", "使用的模型")
    context_timeout: Seconds = setting(30, "seconds of the longest silence", "无数据的最长等待秒数")
    context_system_prompt: str = setting(
        "", "system prompt of each conversation; empty: none", "每段对话之前发给模型的系统提示词；空：不发送"
    )
    context_max_tokens: Count | None = setting(1000, "tokens of the longest answer", "最长回答的 token 数")
    context_temperature: Temperature | None = setting(0.7, "0 to 2", "0 到 2")
    custom_rag_api_url: HttpUrl | None = setting(None, "full address of your own service", "自有服务的完整地址")
    custom_rag_api_key: ApiKey | None = setting(
        None, "its key, sent as Bearer; empty: none is sent", "服务的密钥，以 Bearer 发送；空：不发送"
    )
    custom_rag_timeout: Seconds = setting(30, "seconds of the longest silence", "无数据的最长等待秒数")
    custom_rag_headers: ServiceHeaders = setting(
        Secret({}), 'JSON: more headers for it, such as {"X-Tenant": "a"}', 'JSON：附加的请求头，如 {"X-Tenant": "a"}'
    )
    custom_rag_inputs: Inputs = setting(
        {},
        "JSON template of the `inputs` it gets; may use the placeholders of DIFY_INPUTS",
        "发给该服务的 `inputs` 的 JSON 模板，可用 DIFY_INPUTS 的占位符",
    )
    custom_rag_health_url: HttpUrl | None = setting(
        None,
        "its health address; empty: CUSTOM_RAG_API_URL + /health",
        "健康检查地址；空：CUSTOM_RAG_API_URL + /health",
    )
    search_provider: ProviderName | None = setting(
        None,
        "web search: serper, or package.module:Class; empty: none",
        "网页搜索服务：serper，或 package.module:Class；空：不搜索",
    )
    search_route: Annotated[Literal["rules", "prefix", "always"], Lower] = setting(
        "rules",
        "questions to search for: rules (chosen by built-in rules), prefix (those with SEARCH_PREFIX) or always",
        "哪些问题要搜索：rules（由规则判断）、prefix（以前缀开头的）或 always（全部）",
    )
    search_prefix: str = setting(
        "/search", "the prefix that asks for a search; 搜索: is another", "触发搜索的前缀；“搜索:”同样有效"
    )
    search_results: Annotated[Literal["context", "list"], Lower] = setting(
        "context",
        "use of the results: context (RAG_PROVIDER answers from them) or list (they are the answer)",
        "搜索结果的用途：context（RAG_PROVIDER 据此回答）或 list（直接作为回答）",
    )
    serper_api_key: ApiKey | None = setting(None, "key of serper.dev", "serper.dev 的密钥")
    serper_base_url: HttpUrl = setting("https://google.serper.dev", "its address", "serper.dev 的地址")
    serper_timeout: Seconds = setting(10, "seconds for a search", "一次搜索的超时秒数")
    serper_gl: str = setting("us", "country of the results", "搜索结果的国家或地区")
    serper_hl: str = setting("", "language of the results; empty: the service decides", "结果的语言；空：由服务决定")
    serper_num: Annotated[int, Field(ge=1, le=100)] = setting(10, "results per search", "搜索结果的条数")
    mock_mode: bool = setting(
        False, "answer with the built-in mock, whatever RAG_PROVIDER says", "使用内置的模拟回答，忽略 RAG_PROVIDER"
    )
    use_mock_rag: bool = setting(False, "another name of MOCK_MODE", "MOCK_MODE 的别名")
    mock_fallback: bool = setting(
        False, "answer with the mock, marked as such, when the provider fails", "问答服务失败时改用模拟回答，并加以标明"
    )

    @model_validator(mode="before")
    @classmethod
    def _aliases(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Default `DIFY_BASE_URL` to `DIFY_API_URL`, and set `RAG_PROVIDER` to mock if a mock switch is on."""
        filled = dict(given)
        if given.get("dify_api_url"):
            filled.setdefault("dify_base_url", given["dify_api_url"])
        if any(_is_on(given.get(switch)) for switch in MOCK_SWITCHES):
            filled["rag_provider"] = "mock"
        return filled

    @property
    def dify_api_keys(self) -> tuple[str, ...]:
        return tuple(key.get_secret_value() for key in self.dify_api_key)


class HttpSettings(Group):
    http_pool_size: Count = setting(
        1000,
        "kept connections to each provider and to the auth API, per process",
        "每个进程与每个问答服务、认证接口分别保持的连接数",
    )


class StreamSettings(Group):
    stream_ttl: WholeSeconds = setting(
        1800, "seconds a stream's record lives from its creation", "流的记录从创建起保留的秒数"
    )
    stream_lease: LeaseSeconds = setting(
        6,
        "seconds a producer owns its stream without renewing the lease, at least 2",
        "流的租约秒数：生产者未续约时其所有权的保留时间，至少 2",
    )
    stream_max_seconds: Seconds = setting(
        1200, "seconds until a producer is stopped, on every channel", "一个回答的最长秒数，适用于所有渠道"
    )
    stream_max_bytes: AnswerBytes = setting(
        1024 * 1024, "bytes of the longest answer, at least 20480", "回答的最大字节数，至少 20480"
    )
    question_max_bytes: Bytes = setting(
        65536,
        "bytes of the longest question; a longer one gets a sentence, and 413 over REST",
        "问题的最大字节数；超出时返回一句提示，REST 返回 413",
    )
    history_max_bytes: Annotated[int, Field(ge=1, le=512 * 1024)] = setting(
        512 * 1024,
        "bytes of a request of /v1 without its pictures, the question with all earlier messages; at most 524288",
        "/v1 的一个请求除图片外的最大字节数，即问题和之前的全部消息；不超过 524288",
    )
    conversation_ttl: WholeSeconds = setting(
        604800, "seconds a conversation is remembered after its last use", "对话在最后一次使用后保留的秒数"
    )
    history_max_tokens: Count = setting(
        3000,
        "tokens (estimated) of earlier turns that are sent to a provider without conversations of its own",
        "向自身不保存对话的问答服务发送的历史的最大 token 数（估算）",
    )
    history_max_seconds: Seconds = setting(
        86400, "seconds after which an earlier turn is no longer sent", "历史的最长秒数，更早的不再发送"
    )
    stream_max_per_replica: Count = setting(1000, "answers in progress, per process", "每个进程同时生成的最大回答数")
    stream_max_per_user: Count = setting(
        3,
        "questions in flight per WeCom user and bot; WeCom's own limit is 3",
        "每个企业微信用户对每个机器人同时进行的最大问题数；企业微信自身的上限为 3",
    )
    drain_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = setting(
        60, "seconds a process that shuts down waits for answers in progress", "进程退出时等待回答完成的最长秒数"
    )


class SocketSettings(Group):
    sockets_max: Count = setting(1000, "open WebSockets per process", "每个进程的最大 WebSocket 连接数")
    http_waits_max: Count = setting(
        500,
        "requests of /api/chat and /v1 that wait for an answer at once, per process",
        "每个进程同时等待回答的 /api/chat 与 /v1 最大请求数",
    )
    ws_path: UrlPath = setting("/ws/realtime-asr", "path of the realtime socket", "实时 WebSocket 的路径")
    websocket_heartbeat_interval: Seconds = setting(
        30, "seconds of silence until a heartbeat is sent", "无数据多少秒后发送心跳"
    )
    websocket_heartbeat_timeout: Seconds = setting(
        120, "seconds without anything received until a socket is closed", "多少秒没有收到任何内容就关闭连接"
    )
    websocket_auth: Annotated[Literal["key", "token", "none"], Lower] = setting(
        "key",
        "credential for sockets and REST: key (one of API_KEYS), token (a user's), or none",
        "WebSocket 和 REST 要求的凭据：key（API_KEYS 之一）、token（用户令牌）或 none（无需凭据）",
    )
    realtime_stop: Annotated[Literal["idle", "close"], Lower] = setting(
        "idle",
        "what stop does on the realtime socket: idle (stay open) or close",
        "实时 WebSocket 上 stop 的含义：idle（保持打开）或 close",
    )
    web_progress: bool = setting(
        True,
        "name the running workflow node or tool on the chat page while there is no text yet",
        "对话页上，回答还没有文字时显示正在运行的工作流节点或工具",
    )
    web_suggestions: bool = setting(
        True,
        "send up to three questions that the Dify app suggests with answers of the chat page and of /api/chat",
        "随对话页和 /api/chat 的回答给出 Dify 应用建议的问题，最多三个",
    )
    web_thinking: Annotated[Literal["show", "fold", "hide"], Lower] = setting(
        "fold",
        "the model's thinking in answers that are rendered for pages: show, fold or hide",
        "网页上回答里模型的思考过程：show 展开，fold 折叠，hide 不显示",
    )
    rate_limit_user: Rate = setting(
        "20/minute",
        "questions per person at sockets and REST, batches included; several with ';', or off",
        "每个用户在 WebSocket 和 REST（含批量任务）上的提问频率上限；多个用“;”分隔，off 表示不限",
    )
    rate_limit_key: Rate = setting(
        "3000/minute",
        "questions per API key, all its users and addresses together; several with ';', or off",
        "每个 API 密钥的提问频率上限，其全部用户和地址合计；多个用“;”分隔，off 表示不限",
    )
    rate_limit_ip: Rate = setting(
        "300/minute",
        "sockets opened per client address; several with ';', or off",
        "每个客户端地址打开 WebSocket 的频率上限；多个用“;”分隔，off 表示不限",
    )
    connections_per_ip: Annotated[int, Field(ge=0)] = setting(
        1000,
        "connections of one client address per process, without callbacks and probes; 0: no limit",
        "每个进程中每个客户端地址的最大连接数，回调和探针不计；0 表示不限",
    )
    bodies_max_bytes: Bytes = setting(
        128 * 1024 * 1024,
        "bytes of request bodies in memory per process, without callbacks and the first 65536 of each body",
        "每个进程内存中请求体的最大总字节数，回调和每个请求体的前 65536 字节不计",
    )
    bodies_max_bytes_per_caller: Bytes = setting(
        64 * 1024 * 1024,
        "the same of one caller: a key, a user, or an address where no credential is needed; at least the largest body",
        "其中单个调用方（密钥、用户，或无需凭据时的地址）的最大字节数；至少能容纳最大的请求体",
    )
    uploads_max: Count = setting(
        2,
        "large uploads that are parsed and stored at once, per process and each for files, pushes and files of batches",
        "每个进程同时解析和保存的大上传数，文件、推送和批量任务文件分别计算",
    )
    uploads_max_per_caller: Count = setting(
        1, "the same of one caller, at most UPLOADS_MAX", "其中单个调用方的上限，不超过 UPLOADS_MAX"
    )


class BatchSettings(Group):
    batch_enabled: bool = setting(True, "offer batch tasks", "启用批量任务")
    batch_max_concurrent: Count = setting(
        5, "batch questions answered at once, over all replicas", "所有副本合计同时处理的最大批量问题数"
    )
    batch_max_queue_size: Count = setting(
        1000, "unfinished batch tasks; more are refused", "未完成批量任务的上限，超出则拒绝"
    )
    batch_max_per_key: Count = setting(
        100,
        "unfinished batch tasks of one key, or of one user; more are refused",
        "每个密钥（或用户）未完成批量任务的上限，超出则拒绝",
    )
    batch_max_bytes: Bytes = setting(
        32 * 1024 * 1024,
        "bytes of the largest batch that is accepted, file or JSON",
        "一次批量提交（文件或 JSON）的最大字节数",
    )
    batch_storage_path: str | None = setting(
        None,
        "folder that gets each finished task's results as JSONL; empty: none",
        "以 JSONL 保存每个已完成任务结果的目录；空：不保存",
    )
    batch_worker: Annotated[Literal["embedded", "external"], Lower] = setting(
        "embedded",
        "where batches run: embedded (this process), or external (a Deployment of its own)",
        "批量任务的处理进程：embedded（网关进程）或 external（独立的 Deployment）",
    )
    batch_retention_days: Count = setting(7, "days a finished task is kept", "已完成任务的保留天数")
    webhook_hosts: Hosts = setting(
        (),
        "hosts whose webhooks may also be called by http, at any port and at private addresses; others by https at "
        "public ones; .name: any host below it",
        "这些主机上的 webhook 也可用 http、任意端口和内网地址调用；其他主机只能用 https 且为公网地址；.name "
        "表示其下任何主机",
    )


class UsageSettings(Group):
    question_log: Annotated[Literal["off", "meta", "full"], Lower] = setting(
        "meta",
        "log of questions in SQL: off, meta (no words), or full (with questions, answers and file names)",
        "SQL 中的提问日志：off 关闭；meta 不含文字；full 含问题、回答和文件名",
    )
    question_log_days: Count = setting(90, "days an entry of the log is kept", "日志条目的保留天数")
    question_words_days: Count = setting(
        30, "days its words are kept: question, answer and file names", "其中文字（问题、回答、文件名）的保留天数"
    )
    question_log_bytes: Bytes = setting(
        32 * 1024,
        "bytes of a question and of an answer in the log; the rest is cut off",
        "日志中每个问题和每个回答的最大字节数，超出部分截去",
    )
    audit_days: Count = setting(365, "days a row of the administrators' audit is kept", "管理操作审计记录的保留天数")
    question_log_hour: Annotated[int, Field(ge=0, le=23)] = setting(
        3,
        "hour of the day, in REPORT_TZ, at which these days are over",
        "到期删除的时刻：REPORT_TZ 时区的几点（0 至 23）",
    )
    report_tz: str = setting(
        "Asia/Shanghai",
        "time zone of the days in usage, log and quotas, such as Asia/Shanghai",
        "用量、日志和额度按天统计所用的时区，如 Asia/Shanghai",
    )


class LogSettings(Group):
    log_level: LogLevel = setting(
        "INFO", "DEBUG, INFO, WARNING, ERROR or CRITICAL", "DEBUG、INFO、WARNING、ERROR 或 CRITICAL"
    )
    log_format: Annotated[Literal["json", "plain"], Lower] = setting(
        "json", "json, or plain for reading by eye", "json，或便于阅读的 plain"
    )
    log_dir: str | None = setting(
        None,
        "folder of rotating info.log and error.log; empty: standard output only",
        "滚动日志 info.log 和 error.log 的目录；空：只写标准输出",
    )
    log_content: bool = setting(
        False,
        "log users' ids, and with LOG_LEVEL=DEBUG also their questions and answers",
        "允许日志中出现用户 id；LOG_LEVEL=DEBUG 时还包括其问题和回答",
    )


class TraceSettings(Group):
    otel_exporter_otlp_endpoint: HttpUrl | None = setting(
        None,
        "base address of an OpenTelemetry collector that takes OTLP over HTTP (docs/monitoring.md); empty: no traces",
        "OpenTelemetry 收集器的地址（OTLP over HTTP），见 docs/monitoring.md；为空则不发送链路追踪",
    )
    otel_exporter_otlp_headers: OtlpHeaders = setting(
        Secret({}),
        "headers for the collector as NAME=VALUE,…, values percent-encoded",
        "发给收集器的请求头，形如 NAME=VALUE,…，值用百分号编码",
    )
    otel_service_name: str = setting("wechatlaibao", "name of this service in traces", "链路追踪中本服务的名称")


def _is_on(switch: Any) -> bool:
    try:
        return TypeAdapter(bool).validate_python(switch)
    except ValidationError:
        return False  # validation of the switch's own field reports the error


def same_base(one: str, other: str) -> bool:
    """Return whether two URLs of Dify are equal apart from a trailing /v1."""
    return re.sub(r"/v1$", "", one) == re.sub(r"/v1$", "", other)
