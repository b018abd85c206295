"""Shared fixtures: real servers once per run, and clients of the embedded and the real Redis."""

from __future__ import annotations

import gc
import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from tests.support import seed
from tests.support.properties import register_profiles
from tests.support.servers.processes import FakeClock, MariaServer, RedisServer, redis_client_for
from tests.support.servers.redis_setups import ClusterServers, SentinelServers
from utils.tracing import Trace, tracing

# Imported by the fixtures on first use: running one test file of `utils` does not import the application.
if TYPE_CHECKING:
    from demo.embedded_redis import EmbeddedRedis
    from demo.mocks.dify.server import MockDify
    from demo.wecom.simulator import WeComUser
    from services.redis.store import ScriptRunner
    from tests.support.replicas import AppServer

register_profiles()

#: The kind of Redis for tests that need only one.
ONE_REDIS = "real" if shutil.which("redis-server") else "embedded"
#: All kinds, for tests marked `every_redis`; `make test` runs only the first.
EVERY_REDIS = (ONE_REDIS, "embedded" if ONE_REDIS == "real" else "real", "cluster", "sentinel")


def pytest_addoption(parser: pytest.Parser) -> None:
    seed.add_option(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    seed.configure(config)
    config.addinivalue_line("markers", "every_redis: part of the contract of every kind of Redis, and run on each")


def pytest_report_header(config: pytest.Config) -> str:
    return seed.header(config)


def pytest_collection(session: pytest.Session) -> None:
    gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep the garbage collector away from modules and tests: to walk them took half of the CPU time of collecting."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    seed.seed_test(item, "setup")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    seed.seed_test(item, "call")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "any_redis_url" in metafunc.fixturenames:
        one, *others = EVERY_REDIS
        contract = metafunc.definition.get_closest_marker("every_redis")
        full = [pytest.param(kind, marks=pytest.mark.full) for kind in others if contract]
        metafunc.parametrize("any_redis_url", [one, *full], indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle by the seed; in a parallel run, spread the files of scenarios over the whole run, the longest first.

    Scenarios wait, and other tests compute: in one block each, they would leave the cores idle, then overload them.
    """
    seed.shuffle(config, items)
    if not hasattr(config, "workerinput"):
        return
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    waiting = [file for file in files.values() if file[0].get_closest_marker("scenario")]
    others = [file for file in files.values() if not file[0].get_closest_marker("scenario")]
    waiting.sort(key=lambda file: -max(_timeout(item) for item in file))
    placed = sorted([*_placed(waiting), *_placed(others)], key=lambda placed: placed[0])
    items[:] = [item for _, file in placed for item in file]


def _timeout(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else 0.0


def _placed(files: list[list[pytest.Item]]) -> Iterator[tuple[float, list[pytest.Item]]]:
    """Yield each file with the share of tests that come before it."""
    count, before = sum(len(file) for file in files), 0
    for file in files:
        yield before / count, file
        before += len(file)


@pytest.fixture(autouse=True, scope="module")
def _logging_as_before_the_module() -> Iterator[None]:
    """Restore the process's logging after a module whose fixtures build the application."""
    with _logging_restored():
        yield


@pytest.fixture(autouse=True)
def _logging_as_before(_logging_as_before_the_module: None) -> Iterator[None]:
    """Restore the process's logging after a test that builds the application."""
    with _logging_restored():
        yield


@contextmanager
def _logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in root.manager.loggerDict)]
    before = [(logger, logger.level, logger.handlers[:], logger.propagate) for logger in loggers]
    # A test client's reply that is not read to its end leaves its request's trace to this thread's later lines.
    with tracing(Trace()):
        yield
    for logger, level, handlers, propagate in before:
        if logger.level != level:
            # Only where it changed: `setLevel` empties the caches of all loggers.
            logger.setLevel(level)
        logger.handlers[:], logger.propagate = handlers, propagate


@pytest.fixture(autouse=True, scope="module")
def _earlier_threads(_logging_as_before_the_module: None) -> frozenset[threading.Thread]:
    """The threads that earlier modules left, before this one's fixtures start any."""
    return frozenset(threading.enumerate()) - {threading.current_thread()}


@pytest.fixture
def caplog(
    caplog: pytest.LogCaptureFixture, _earlier_threads: frozenset[threading.Thread]
) -> Iterator[pytest.LogCaptureFixture]:
    """pytest's, without lines of threads that earlier modules left: a replica's last words may come late."""

    def is_ours(_record: logging.LogRecord) -> bool:
        return threading.current_thread() not in _earlier_threads

    caplog.handler.addFilter(is_ours)
    yield caplog
    caplog.handler.removeFilter(is_ours)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A real redis-server for the whole run. A test that stops or freezes a server starts its own."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[ClusterServers]:
    """A real cluster of three nodes for the whole run. A test that breaks a cluster starts its own."""
    with ClusterServers() as servers:
        yield servers


@pytest.fixture(scope="session")
def redis_sentinels() -> Iterator[SentinelServers]:
    """A real master with a replica and three sentinels for the whole run. A test that breaks one starts its own."""
    # No test that shares it checks failover, and processes of a busy machine can be silent for seconds.
    with SentinelServers(down_after=30.0) as servers:
        yield servers


@pytest.fixture(scope="session")
def maria_server() -> Iterator[MariaServer]:
    """A real mariadbd for the whole run. A test that stops or freezes a server starts its own."""
    with MariaServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty database of the real Redis."""
    with redis_server.client() as client:
        client.flushall()
        client.script_flush()
    return redis_server.url()


@pytest.fixture
def cluster_url(redis_cluster: ClusterServers) -> str:
    """The URL of the real cluster, emptied."""
    redis_cluster.clear()
    return redis_cluster.url


@pytest.fixture
def sentinel_url(redis_sentinels: SentinelServers) -> str:
    """The URL of the real service behind Sentinels, emptied."""
    redis_sentinels.clear()
    return redis_sentinels.url


@pytest.fixture
def embedded_redis() -> Iterator[EmbeddedRedis]:
    """An empty embedded Redis."""
    from demo.embedded_redis import EmbeddedRedis

    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def any_redis_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty Redis: of one kind, or of each in turn for a test marked `every_redis`."""
    fixtures = {"embedded": "embedded_redis", "real": "redis_url", "cluster": "cluster_url", "sentinel": "sentinel_url"}
    found = request.getfixturevalue(fixtures[request.param])
    return str(getattr(found, "url", found))


@pytest.fixture
def redis_client(any_redis_url: str) -> Iterator[redis.Redis]:
    """A plain redis-py client of an empty Redis, to inspect its content."""
    with redis_client_for(any_redis_url) as client:
        yield client


@pytest.fixture
def runner(any_redis_url: str) -> Iterator[ScriptRunner]:
    """The product's client of an empty Redis, with a timeout that is long enough for a busy machine."""
    from services.redis.store import ScriptRunner, connect

    client = connect(any_redis_url, pool_size=4, timeout=5.0)
    yield ScriptRunner(client)
    client.close()


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.full)])
def sql_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: an SQLite file, then a database of the real MariaDB."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'users.db'}"
    server: MariaServer = request.getfixturevalue("maria_server")
    return server.fresh_database()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that advances only when the test says so."""
    return FakeClock()


@pytest.fixture
def stored(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of the real Redis, to inspect the keys that the product writes."""
    with redis_server.client() as client:
        yield client


@pytest.fixture
def dify() -> Iterator[MockDify]:
    """A mock Dify for this test alone."""
    from demo.mocks.dify.server import MockDify

    with MockDify() as dify:
        yield dify


@pytest.fixture
def user(app_server: AppServer) -> Iterator[WeComUser]:
    """A WeCom user of the test's `app_server`."""
    with app_server.user() as user:
        yield user
