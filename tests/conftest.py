"""Fixtures every test may use: real servers once per run, and clients on the embedded and the real Redis."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from demo.embedded_redis import EmbeddedRedis
from tests.servers import FakeClock, MariaServer, RedisServer, redis_client_for


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Undo what a test that builds the application does to the process's logging."""
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in root.manager.loggerDict)]
    before = [(logger, logger.level, logger.handlers[:], logger.propagate) for logger in loggers]
    yield
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers[:], logger.propagate = handlers, propagate


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A real redis-server for the whole run; a test that stops or freezes one starts its own."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def maria_server() -> Iterator[MariaServer]:
    """A real mariadbd for the whole run; a test that stops or freezes one starts its own."""
    with MariaServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of an empty database of the real Redis."""
    with redis_server.client() as client:
        client.flushall()
        client.script_flush()
    return redis_server.url()


@pytest.fixture
def embedded_redis() -> Iterator[EmbeddedRedis]:
    """An embedded Redis, empty."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(params=["embedded", "real"])
def any_redis_url(request: pytest.FixtureRequest) -> str:
    """The address of an empty Redis: the embedded one, then the real one."""
    if request.param == "embedded":
        embedded: EmbeddedRedis = request.getfixturevalue("embedded_redis")
        return embedded.url
    url: str = request.getfixturevalue("redis_url")
    return url


@pytest.fixture
def redis_client(any_redis_url: str) -> Iterator[redis.Redis]:
    """A client of an empty Redis, as the product makes them."""
    with redis_client_for(any_redis_url) as client:
        yield client


@pytest.fixture(params=["sqlite", "mariadb"])
def sql_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database: an SQLite file, then a database of the real MariaDB."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'users.db'}"
    server: MariaServer = request.getfixturevalue("maria_server")
    return server.fresh_database()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that goes on only when told to."""
    return FakeClock()
