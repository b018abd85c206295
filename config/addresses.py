"""URLs of Redis and SQL: parsed into their parts, and built from the settings of a deployment.

A Redis URL leads to one server, to a service that Sentinels know, or to a Cluster, each with or without TLS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr

if TYPE_CHECKING:
    from config.groups import RedisSettings, SqlSettings

RedisKind = Literal["server", "socket", "sentinel", "cluster"]
#: URL scheme → kind of Redis, and whether the connection uses TLS.
SCHEMES: dict[str, tuple[RedisKind, bool]] = {
    "redis": ("server", False),
    "rediss": ("server", True),
    "unix": ("socket", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
PORTS = {"server": 6379, "sentinel": 26379, "cluster": 6379}
SHAPES = {
    "server": "redis://[user:password@]host:6379[/database]",
    "socket": "unix:///path/to/redis.sock[?db=1]",
    "sentinel": "redis+sentinel://[user:password@]host:26379,host2:26379/service[/database]",
    "cluster": "redis+cluster://[user:password@]host:6379,host2:6379 (a Cluster has no databases)",
}
#: Database used when none is configured; a Cluster has only database 0.
REDIS_DB = 1
#: Query parameters that the product reads itself; all others are options of the client library.
_OURS = ("db", "sentinel_username", "sentinel_password")
#: Options of the client library that a URL may contain: TLS and the client's name are passed on. Timeouts, pool sizes
#: and retries are accepted but ignored, because the product sets them itself.
_KNOWN = re.compile(
    r"ssl_\w+|client_name|socket_\w+|max_connections|health_check_interval|timeout|retry_on_\w+|protocol"
)

_URL = re.compile(
    r"(?P<scheme>[a-z+]+)://(?=.)(?:(?P<login>[^/?#]*)@)?(?P<hosts>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?"
)
_HOST = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.%]+)\]|(?P<name>[^:\[\]\s]+))(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A Redis URL in its parts; `hosts` are the server, the Sentinels, or the Cluster's startup nodes."""

    kind: RedisKind
    tls: bool
    hosts: tuple[tuple[str, int], ...] = ()
    #: Path of the Unix socket.
    path: str = ""
    #: The service name that the Sentinels know.
    service: str = ""
    db: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    sentinel_username: str = ""
    sentinel_password: str = field(default="", repr=False)
    #: The rest of the query: options of the client library, such as ssl_ca_certs.
    query: str = field(default="", repr=False)


def parse_redis_url(url: str) -> RedisUrl:
    """Parse a Redis URL.

    Raises:
        ValueError: the URL has another shape; the message names the expected one and never quotes the URL.
    """
    found = _URL.fullmatch(url)
    if not found or found["scheme"] not in SCHEMES:
        raise ValueError(f"an address that begins with one of {', '.join(f'{name}://' for name in SCHEMES)}")
    kind, tls = SCHEMES[found["scheme"]]
    query = dict(parse_qsl(found["query"] or "", keep_blank_values=True))
    unknown = [name for name in query if name not in _OURS and not _KNOWN.fullmatch(name)]
    if unknown:
        raise ValueError(f"{_like(kind)}, and after ? nothing like {unknown[0]}")
    user, _, password = (unquote(part) for part in (found["login"] or "").partition(":"))
    path, service, db = _path(kind, found["path"], query.get("db", ""))
    return RedisUrl(
        kind=kind,
        tls=tls,
        hosts=_hosts(kind, found["hosts"]),
        path=path,
        service=service,
        db=db,
        username=user,
        password=password,
        sentinel_username=query.get("sentinel_username", ""),
        sentinel_password=query.get("sentinel_password", ""),
        query=urlencode({name: value for name, value in query.items() if name not in _OURS}),
    )


def _hosts(kind: RedisKind, given: str) -> tuple[tuple[str, int], ...]:
    if kind == "socket":
        return ()
    hosts = [_HOST.fullmatch(host) for host in given.split(",")]
    if not all(hosts) or (kind == "server" and len(hosts) > 1):
        raise ValueError(_like(kind))
    named = [(unquote(h["six"] or h["name"]), int(h["port"] or PORTS[kind])) for h in hosts if h]
    if any(port > 65535 for _, port in named):
        raise ValueError(f"{_like(kind)}, ports up to 65535")
    return tuple(named)


def _path(kind: RedisKind, path: str, db: str) -> tuple[str, str, int]:
    """Return the Unix socket's path, the Sentinel service and the database."""
    if kind == "socket":
        if not path.strip("/"):
            raise ValueError(_like(kind))
        return unquote(path), "", _database(kind, db)
    names = [unquote(name) for name in path.split("/") if name]
    service = names.pop(0) if kind == "sentinel" and names else ""
    if len(names) > 1 or (kind == "sentinel" and not service):
        raise ValueError(_like(kind))
    return "", service, _database(kind, db or (names[0] if names else ""))


def _database(kind: RedisKind, db: str) -> int:
    if not re.fullmatch(r"\d{0,6}", db) or (kind == "cluster" and int(db or "0")):
        raise ValueError(_like(kind))
    return int(db or "0")


def _like(kind: RedisKind) -> str:
    return f"an address like {SHAPES[kind]}"


def on_cluster(url: SecretStr | None) -> bool:
    return url is not None and _kind(url.get_secret_value()) == "cluster"


def _kind(url: str) -> str:
    return SCHEMES[url.partition("://")[0]][0]


def redis_address(settings: RedisSettings) -> SecretStr:
    """Return the Redis URL: `REDIS_URL`, or one built from host and port.

    `REDIS_PASSWORD`, `REDIS_SENTINEL_PASSWORD` and `REDIS_DB` fill in what the URL lacks.
    """
    if settings.redis_url:
        url = settings.redis_url.get_secret_value()
    else:
        url = f"redis://{bracketed(settings.redis_host)}:{settings.redis_port}"
    db = REDIS_DB if settings.redis_db is None else settings.redis_db
    url = _with_sentinel_password(_with_password(url, settings.redis_password), settings.redis_sentinel_password)
    return SecretStr(_with_database(url, db))


def sql_address(settings: SqlSettings, host: str) -> SecretStr | None:
    """Return the SQLAlchemy URL of the SQLite file, or of the MySQL server at `host`; `None` if neither is set."""
    if settings.database_path:
        return SecretStr(f"sqlite:///{settings.database_path}")
    if not settings.mysql_host:
        return None
    user, password = quote(settings.mysql_user, safe=""), settings.mysql_password
    login = f"{user}:{quote(password.get_secret_value(), safe='')}" if password else user
    location = f"{bracketed(host)}:{settings.mysql_port}/{quote(settings.mysql_database, safe='')}"
    return SecretStr(f"mysql+pymysql://{login}@{location}?charset=utf8mb4")


def bracketed(host: str) -> str:
    """Put an IPv6 address into the brackets that a URL needs; return any other host unchanged."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _with_password(url: str, password: SecretStr | None) -> str:
    parts = urlsplit(url)
    login, separator, hosts = parts.netloc.rpartition("@")
    if password is None or ":" in login:
        return url
    user = login if separator else ""
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password.get_secret_value(), safe='')}@{hosts}"))


def _with_sentinel_password(url: str, password: SecretStr | None) -> str:
    parts = urlsplit(url)
    if password is None or _kind(url) != "sentinel" or "sentinel_password" in parse_qs(parts.query):
        return url
    given = urlencode({"sentinel_password": password.get_secret_value()})
    return urlunsplit(parts._replace(query=f"{parts.query}&{given}".lstrip("&")))


def _with_database(url: str, db: int) -> str:
    """Add the database to a URL without one: `/1`, for Sentinel `/service/1`, for a Unix socket `?db=1`."""
    parts, kind = urlsplit(url), _kind(url)
    if kind == "cluster" or "db" in parse_qs(parts.query):
        return url
    if kind == "socket":
        return f"{url}{'&' if parts.query else '?'}db={db}"
    names = [name for name in parts.path.split("/") if name]
    if len(names) >= (2 if kind == "sentinel" else 1):
        return url
    return urlunsplit(parts._replace(path="/".join(["", *names, str(db)])))
