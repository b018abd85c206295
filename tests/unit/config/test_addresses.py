"""Redis URLs, built from settings and parsed, and the SQL URLs built from settings."""

from __future__ import annotations

import pytest

from config.addresses import RedisUrl, parse_redis_url
from tests.support.settings_values import settings

Q = "ssl_certfile=1&ssl_keyfile="


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({}, "redis://redis.example:6379/1"),
        ({"REDIS_PORT": "7000", "REDIS_DB": "3"}, "redis://redis.example:7000/3"),
        ({"REDIS_DB": "0"}, "redis://redis.example:6379/0"),
        ({"REDIS_PASSWORD": "p@ss/w:d"}, "redis://:p%40ss%2Fw%3Ad@redis.example:6379/1"),
        ({"REDIS_HOST": "::1"}, "redis://[::1]:6379/1"),
        ({"REDIS_URL": "rediss://a.example:7000"}, "rediss://a.example:7000/1"),
        ({"REDIS_URL": "redis://a.example/2", "REDIS_DB": "3"}, "redis://a.example/2"),
        ({"REDIS_URL": "redis://a.example?db=2"}, "redis://a.example?db=2"),
        ({"REDIS_URL": "redis://a.example", "REDIS_PASSWORD": "pw"}, "redis://:pw@a.example/1"),
        ({"REDIS_URL": "redis://me@a.example", "REDIS_PASSWORD": "pw"}, "redis://me:pw@a.example/1"),
        ({"REDIS_URL": "redis://:own@a.example", "REDIS_PASSWORD": "pw"}, "redis://:own@a.example/1"),
        ({"REDIS_URL": "unix:///run/redis.sock"}, "unix:///run/redis.sock?db=1"),
        ({"REDIS_URL": "unix:///run/redis.sock?timeout=1"}, "unix:///run/redis.sock?timeout=1&db=1"),
        ({"REDIS_URL": "redis+sentinel://a:1,b:2/main"}, "redis+sentinel://a:1,b:2/main/1"),
        ({"REDIS_URL": "redis+sentinel://a:1,b:2/main/4"}, "redis+sentinel://a:1,b:2/main/4"),
        (
            {"REDIS_URL": "redis+sentinel://a/main", "REDIS_SENTINEL_PASSWORD": "p&w"},
            "redis+sentinel://a/main/1?sentinel_password=p%26w",
        ),
        (
            {"REDIS_URL": "redis+sentinel://a/main?sentinel_password=own", "REDIS_SENTINEL_PASSWORD": "pw"},
            "redis+sentinel://a/main/1?sentinel_password=own",
        ),
        ({"REDIS_URL": "redis://a.example", "REDIS_SENTINEL_PASSWORD": "pw"}, "redis://a.example/1"),
        ({"REDIS_URL": "redis+cluster://a:1,b:2", "REDIS_DB": "0"}, "redis+cluster://a:1,b:2"),
        ({"REDIS_URL": "rediss+sentinel://a,b/main?ssl_certfile=1"}, "rediss+sentinel://a,b/main/1?ssl_certfile=1"),
        ({"REDIS_URL": "rediss+cluster://[::1]:1,b", "REDIS_PASSWORD": "pw"}, "rediss+cluster://:pw@[::1]:1,b"),
    ],
)
def test_the_redis_url_is_built_from_the_settings(variables: dict[str, str], address: str) -> None:
    """REDIS_URL takes precedence over host and port; missing passwords and a missing database are filled in."""
    assert settings(**variables).redis_address.get_secret_value() == address


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("redis://a.example", RedisUrl("server", False, (("a.example", 6379),))),
        (
            "rediss://me:p%40w@a:7000/3?ssl_certfile=1&ssl_keyfile=",
            RedisUrl("server", True, (("a", 7000),), "", "", 3, "me", "p@w", query=Q),
        ),
        ("unix:///run/r%20s.sock?db=2", RedisUrl("socket", False, (), "/run/r s.sock", db=2)),
        ("redis+sentinel://a,[::1]:7/main", RedisUrl("sentinel", False, (("a", 26379), ("::1", 7)), service="main")),
        (
            "rediss+sentinel://:pw@a:1/main/4?sentinel_username=s&sentinel_password=t%26",
            RedisUrl("sentinel", True, (("a", 1),), "", "main", 4, "", "pw", "s", "t&"),
        ),
        ("redis+cluster://a,b:7000", RedisUrl("cluster", False, (("a", 6379), ("b", 7000)))),
        ("rediss+cluster://:pw@a/", RedisUrl("cluster", True, (("a", 6379),), password="pw")),
    ],
)
def test_a_redis_url_is_parsed(url: str, parts: RedisUrl) -> None:
    """A missing port gets its kind's default; percent-escapes are decoded."""
    assert parse_redis_url(url) == parts
    assert settings(REDIS_URL=url).on_redis_cluster is (parts.kind == "cluster")


def test_repr_shows_no_secret_of_a_redis_url() -> None:
    """Both passwords and the query are left out, and passwords of the query are among the secrets to mask."""
    parts = parse_redis_url("redis+sentinel://:fake-a@h/main?sentinel_password=fake-b&ssl_password=fake-c")

    assert "fake" not in repr(parts)
    assert {"fake-b", "fake-c"} <= set(
        settings(REDIS_URL="redis://h?sentinel_password=fake-b&ssl_password=fake-c").secrets
    )


MYSQL = {"MYSQL_HOST": "mysql.example", "MYSQL_DATABASE": "people"}


@pytest.mark.parametrize(
    ("variables", "address", "read_address"),
    [
        ({}, None, None),
        ({"DATABASE_PATH": "/data/users.db"}, "sqlite:////data/users.db", "sqlite:////data/users.db"),
        (
            {**MYSQL, "MYSQL_PASSWORD": "p@ss/w:d"},
            "mysql+pymysql://root:p%40ss%2Fw%3Ad@mysql.example:3306/people?charset=utf8mb4",
            "mysql+pymysql://root:p%40ss%2Fw%3Ad@mysql.example:3306/people?charset=utf8mb4",
        ),
        (
            {**MYSQL, "MYSQL_USER": "a b", "MYSQL_PORT": "3307", "MYSQL_READ_HOST": "fd00::2"},
            "mysql+pymysql://a%20b@mysql.example:3307/people?charset=utf8mb4",
            "mysql+pymysql://a%20b@[fd00::2]:3307/people?charset=utf8mb4",
        ),
    ],
)
def test_sql_has_one_url_for_writes_and_one_for_reads(
    variables: dict[str, str], address: str | None, read_address: str | None
) -> None:
    """Both lead to MySQL or to the SQLite file; MYSQL_READ_HOST takes the reads."""
    found = settings(**variables)

    assert (found.sql_url.get_secret_value() if found.sql_url else None) == address
    assert (found.sql_read_url.get_secret_value() if found.sql_read_url else None) == read_address


@pytest.mark.parametrize("url", ["redis://h?foo=hunter2", "redis+sentinel://a/main?sentinel_pasword=hunter2"])
def test_an_unknown_option_of_a_redis_url_is_refused(url: str) -> None:
    """A misspelt password option would be ignored; the error does not quote the value."""
    with pytest.raises(ValueError, match=r"nothing like (foo|sentinel_pasword)") as wrong:
        parse_redis_url(url)

    assert "hunter2" not in str(wrong.value)
