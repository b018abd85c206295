"""What to do about what has failed: the doctor's remedies, for every tool and the administrators' page."""

from __future__ import annotations

from collections.abc import Iterable

from services.errors import StoreUnavailable

#: Remedies of a failed connection, by MySQL's error numbers.
SQL = (
    ("1045", "correct MYSQL_USER and MYSQL_PASSWORD, and let the user log in from this host"),
    ("1698", "let MYSQL_USER log in with a password"),
    ("1130", "let MYSQL_USER log in from this host"),
    ("1044", "give MYSQL_USER its rights in MYSQL_DATABASE"),
    ("1049", "correct MYSQL_DATABASE: there is no such database"),
    ("2003", "start MySQL, or correct MYSQL_HOST (MYSQL_READ_HOST) and MYSQL_PORT"),
    ("2006", "see that MySQL is not hung, and its log"),
    ("2013", "see that MySQL is not hung, and its log"),
)
#: Remedies of a Redis that does not answer.
REDIS = (
    ("certificate verify", "name the authority's file in REDIS_URL: rediss://…?ssl_ca_certs=/path/ca.pem"),
    ("[SSL", "see that this port speaks TLS, or begin REDIS_URL with redis://"),
    ("no sentinel", "see that REDIS_URL names the Sentinels, their service and, if they want one, ?sentinel_password="),
    ("cluster support disabled", "this is no Cluster: begin REDIS_URL with redis://"),
    ("ResponseError SELECT", "this is a node of a Cluster: begin REDIS_URL with redis+cluster://"),
    ("password", "set REDIS_PASSWORD (or the one in REDIS_URL) to what Redis expects"),
    ("authentication", "set REDIS_PASSWORD (or the one in REDIS_URL) to what Redis expects"),
    (
        "connection refused",
        "start Redis, or correct REDIS_HOST and REDIS_PORT (in a container 127.0.0.1 is the container itself)",
    ),
    ("name or service", "correct REDIS_HOST: the name does not resolve from here"),
    ("name resolution", "correct REDIS_HOST: the name does not resolve from here"),
    ("timeout", "see that Redis is not hung and that no firewall is between (REDIS_HOST, REDIS_PORT)"),
    ("ResponseError DB", "set REDIS_DB to a database this Redis has (0 always exists)"),
    ("NoPermission", "give the user the rights of `+@all ~*`, or of the commands the message names"),
    ("loading", "Redis still reads its data from disk: wait a moment"),
    ("max number of clients", "raise Redis's maxclients: each process may open REDIS_POOL_SIZE connections"),
)
#: The remedy of clocks that differ.
CLOCK = "see which one is wrong (date -u), and let it be set over the network (timedatectl set-ntp true)"
#: The remedy of a bot that another program runs; `{bot}` is its name.
EVICTED = "stop that program, or renew the Secret in WeCom's console; then python -m tools.wecom resume {bot}"
#: The remedy of everything else.
DOCTOR = "see `python -m tools.doctor`"
#: The remedy of a tool that needs tables which are not there.
_NO_TABLES = "start the gateway once, or run `python -m tools.migrate up`"
#: The same in Chinese, for the administrators' page.
CHINESE = {
    SQL[0][1]: "改正 MYSQL_USER 和 MYSQL_PASSWORD，并允许该用户从这台主机登录",
    SQL[1][1]: "让 MYSQL_USER 用密码登录",
    SQL[2][1]: "允许 MYSQL_USER 从这台主机登录",
    SQL[3][1]: "授予 MYSQL_USER 在 MYSQL_DATABASE 中的权限",
    SQL[4][1]: "改正 MYSQL_DATABASE：没有这个数据库",
    SQL[5][1]: "启动 MySQL，或改正 MYSQL_HOST（MYSQL_READ_HOST）和 MYSQL_PORT",
    SQL[6][1]: "检查 MySQL 是否卡住，并查看它的日志",
    REDIS[0][1]: "在 REDIS_URL 中写明证书颁发机构的文件：rediss://…?ssl_ca_certs=/path/ca.pem",
    REDIS[1][1]: "确认这个端口使用 TLS，或让 REDIS_URL 以 redis:// 开头",
    REDIS[2][1]: "检查 REDIS_URL 中的 Sentinel 地址、服务名，以及（如需要）?sentinel_password=",
    REDIS[3][1]: "这不是 Redis Cluster：让 REDIS_URL 以 redis:// 开头",
    REDIS[4][1]: "这是 Redis Cluster 的节点：让 REDIS_URL 以 redis+cluster:// 开头",
    REDIS[5][1]: "把 REDIS_PASSWORD（或 REDIS_URL 中的密码）设为 Redis 要求的密码",
    REDIS[7][1]: "启动 Redis，或改正 REDIS_HOST 和 REDIS_PORT（容器中的 127.0.0.1 是容器自己）",
    REDIS[8][1]: "改正 REDIS_HOST：从这里无法解析这个名称",
    REDIS[10][1]: "检查 Redis 是否卡住，以及中间是否有防火墙（REDIS_HOST、REDIS_PORT）",
    REDIS[11][1]: "把 REDIS_DB 设为这个 Redis 有的数据库（0 总是存在）",
    REDIS[12][1]: "授予该用户 `+@all ~*` 的权限，或消息中提到的命令的权限",
    REDIS[13][1]: "Redis 正在从磁盘加载数据：请稍等",
    REDIS[14][1]: "调大 Redis 的 maxclients：每个进程最多打开 REDIS_POOL_SIZE 个连接",
    CLOCK: "查看哪个时钟不准（date -u），并开启网络校时（timedatectl set-ntp true）",
    EVICTED: "停止那个程序，或在企业微信管理后台更换 Secret；然后运行 python -m tools.wecom resume {bot}",
    DOCTOR: "请运行 `python -m tools.doctor` 查看",
    _NO_TABLES: "启动一次网关，或运行 `python -m tools.migrate up`",
}


def explained(text: str, remedies: Iterable[tuple[str, str]], otherwise: str = "") -> str:
    """Return the first remedy whose key is in the text, ignoring case, else `otherwise`."""
    return next((remedy for key, remedy in remedies if key.lower() in text.lower()), otherwise)


def cause(exc: StoreUnavailable) -> str:
    """Return the error and the database's own message, which names the table or the host."""
    words = getattr(getattr(exc.__cause__, "orig", None), "args", ())
    return f"{exc} ({words[-1]})" if words else str(exc)


def remedy_of(text: str) -> str:
    """Return what to do about a failure of SQL or Redis, by its `cause`."""
    tables = (("1146", _NO_TABLES), ("no such table", _NO_TABLES))
    return explained(text, (*tables, *SQL) if text.startswith("SQL") else REDIS, DOCTOR)


def told(exc: Exception) -> str:
    """Return the text of a tool's error, with the remedy of one that Redis or SQL caused."""
    if not isinstance(exc, StoreUnavailable):
        return str(exc)
    text = cause(exc)
    return f"{text} -> {remedy_of(text)}"
