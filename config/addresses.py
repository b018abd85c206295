"""The URLs of Redis and SQL, put together from the parts a deployment gives."""

from __future__ import annotations

from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

from pydantic import SecretStr

from config.groups import RedisSettings, SqlSettings
from config.redis_urls import SCHEMES

#: The originals' database; a Cluster has only 0.
REDIS_DB = 1


def on_cluster(url: SecretStr | None) -> bool:
    return url is not None and _kind(url.get_secret_value()) == "cluster"


def _kind(url: str) -> str:
    return SCHEMES[url.partition("://")[0]][0]


def redis_address(settings: RedisSettings) -> SecretStr:
    """Return one URL: `REDIS_URL`, or host and port; what it lacks of password and database is filled in."""
    if settings.redis_url:
        url = settings.redis_url.get_secret_value()
    else:
        url = f"redis://{bracketed(settings.redis_host)}:{settings.redis_port}"
    db = REDIS_DB if settings.redis_db is None else settings.redis_db
    return SecretStr(_with_database(_with_password(url, settings.redis_password), db))


def sql_address(settings: SqlSettings, host: str) -> SecretStr | None:
    """Return SQLAlchemy's URL of the MySQL at `host`, or of the SQLite file; `None` where neither is set."""
    if settings.database_path:
        return SecretStr(f"sqlite:///{settings.database_path}")
    if not settings.mysql_host:
        return None
    user, password = quote(settings.mysql_user, safe=""), settings.mysql_password
    login = f"{user}:{quote(password.get_secret_value(), safe='')}" if password else user
    place = f"{bracketed(host)}:{settings.mysql_port}/{quote(settings.mysql_database, safe='')}"
    return SecretStr(f"mysql+pymysql://{login}@{place}?charset=utf8mb4")


def bracketed(host: str) -> str:
    """Return an IPv6 address as URLs want it; anything else as it is."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _with_password(url: str, password: SecretStr | None) -> str:
    parts = urlsplit(url)
    login, separator, place = parts.netloc.rpartition("@")
    if password is None or ":" in login:
        return url
    user = login if separator else ""
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password.get_secret_value(), safe='')}@{place}"))


def _with_database(url: str, db: int) -> str:
    """Name the database where the URL does not: `/1`, for Sentinel `/service/1`, for a socket file `?db=1`."""
    parts, kind = urlsplit(url), _kind(url)
    if kind == "cluster" or "db" in parse_qs(parts.query):
        return url
    if kind == "socket":
        return f"{url}{'&' if parts.query else '?'}db={db}"
    names = [name for name in parts.path.split("/") if name]
    if len(names) >= (2 if kind == "sentinel" else 1):
        return url
    return urlunsplit(parts._replace(path="/".join(["", *names, str(db)])))
