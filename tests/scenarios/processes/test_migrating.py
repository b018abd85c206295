"""Replicas that start on a database whose tables are being made: they wait, one of them makes the rest."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import requests

from services.sql.migrator import Migrator
from services.sql.schema import HEAD
from tests.support.replicas import Replica, settings_for, wecom_user
from tests.support.schema import migrating
from tests.support.servers.processes import MariaServer, RedisServer, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full]

TIMEOUT = 60.0


def waits(replica: Replica) -> bool:
    """Return whether /readyz says `migrating`."""
    try:
        reply = requests.get(f"{replica.url}/readyz", timeout=5)
    except requests.RequestException:
        return False
    return (reply.status_code, reply.json()["status"]) == (503, "migrating")


def test_replicas_wait_for_a_migration(maria_server: MariaServer, redis_server: RedisServer, tmp_path: Path) -> None:
    """They are alive and answer, but get no traffic; of their four workers one makes the tables at last."""
    url = maria_server.fresh_database("migrating")
    mysql = {"MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(maria_server.port), "MYSQL_DATABASE": "migrating"}
    env = settings_for(redis_server.url(), **mysql, MYSQL_USER="root", WORKERS="2", MIGRATION_SECONDS="120")
    started: list[Replica] = []

    try:
        with migrating(url):
            started = [Replica(env, tmp_path) for _ in range(2)]
            for replica in started:
                wait_until(partial(waits, replica), TIMEOUT)
                assert requests.get(f"{replica.url}/healthz", timeout=30).ok
            user = wecom_user([replica.url for replica in started])
            user.sees_finish(user.says("年假怎么申请"))
        for replica in started:
            replica.wait_ready()

        assert sum(replica.log.count('"migrated"') for replica in started) == 1
        assert not any("alembic" in replica.log for replica in started)
        assert Migrator(url).revision() == HEAD
    finally:
        for replica in started:
            replica.kill()
