"""Addresses: what the parts of Redis and MySQL make together."""

from __future__ import annotations

import pytest

from tests.settings_values import settings


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
        ({"REDIS_URL": "redis+cluster://a:1,b:2", "REDIS_DB": "0"}, "redis+cluster://a:1,b:2"),
    ],
)
def test_redis_has_one_address(variables: dict[str, str], address: str) -> None:
    """REDIS_URL or the parts, with the password and the database it lacks."""
    assert settings(**variables).redis_address.get_secret_value() == address


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
def test_sql_has_one_address_to_write_and_one_to_read(
    variables: dict[str, str], address: str | None, read_address: str | None
) -> None:
    """MySQL from its parts, reads from the replica when there is one, or the SQLite file."""
    found = settings(**variables)

    assert (found.sql_url.get_secret_value() if found.sql_url else None) == address
    assert (found.sql_read_url.get_secret_value() if found.sql_read_url else None) == read_address
