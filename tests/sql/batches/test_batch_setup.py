"""The batches' tables: created if allowed, accepted if an administrator made them, refused if they are wrong."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from config.errors import SettingsError
from services.batches.store import SqlBatchStore
from services.batches.tables import SCHEMA
from services.errors import StoreUnavailable
from tests.support.batches.desk import BatchDesk, ScriptedProvider, texts
from tests.support.batches.shelf import Shelf, at_once
from tests.support.servers.processes import MariaServer, free_port
from tools.batch import main

#: Checksums of the statements that create each table of the schema's version 1, with its indexes.
VERSION_1 = {
    "mysql": {"tasks": 0xAE040AAA, "items": 0x5F83EE3D, "gates": 0xCA48399D},
    "sqlite": {"tasks": 0xC4247728, "items": 0x866FBBB5, "gates": 0x21F9A7D6},
}


@pytest.fixture
def limited(maria_server: MariaServer) -> Iterator[str]:
    """The URL of an empty database for a user who may read and write rows but not create tables."""
    url = maria_server.fresh_database("limited")
    maria_server.execute("CREATE OR REPLACE USER batcher@'%'")
    maria_server.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON limited.* TO batcher@'%'")
    yield url.replace("root@", "batcher@")
    maria_server.execute("DROP USER batcher@'%'")


def test_replicas_may_prepare_at_once(sql_url: str) -> None:
    """Eight stores that prepare concurrently all succeed and use the same tables."""
    stores = [SqlBatchStore(sql_url, read_timeout=60.0) for _ in range(8)]

    assert at_once([store.prepare for store in stores]) == [None] * 8

    stores[0].create(owner="key:a", name="n", texts=["q"])
    stores[1].prepare()
    assert stores[2].totals()["pending"] == 1
    for store in stores:
        store.close()


def printed(text: str) -> list[str]:
    """Split printed DDL into its statements, each of which ends with a semicolon."""
    return text.split(";\n")[:-1]


def catalogue(connection: sa.Connection) -> dict[str, Any]:
    """Return SQLite's description of the tables: columns, types, defaults, indexes."""
    rows = connection.exec_driver_sql("SELECT name, type FROM sqlite_master ORDER BY rowid").all()
    pragmas = {"table": ("table_xinfo", "index_list"), "index": ("index_xinfo",)}
    return {
        name: [connection.exec_driver_sql(f"PRAGMA {pragma}({name})").all() for pragma in pragmas[kind]]
        for name, kind in rows
    }


@pytest.mark.parametrize("kind", ["mysql", "sqlite"])
def test_the_tables_are_those_of_version_1(kind: str) -> None:
    """A change of the declaration alone would leave existing tables as they are: it needs a migration too."""
    found = {}
    for name in VERSION_1[kind]:
        mine = [
            " ".join(statement.split()) for statement in SCHEMA.statements(kind) if f"laibao_batch_{name}" in statement
        ]
        found[name] = zlib.crc32("".join(mine).encode())

    assert found == VERSION_1[kind]


@pytest.mark.full
def test_tables_made_by_an_administrator_are_enough(
    maria_server: MariaServer, limited: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the printed statements run by an administrator, a user without the right to create can do all the work."""
    assert main(["tables"]) == 0
    for statement in printed(capsys.readouterr().out):
        maria_server.execute(statement.replace("laibao_batch_", "limited.laibao_batch_", 1))

    with Shelf(limited) as shelf:
        task = shelf.submits(2)
        assert shelf.ends(task).status == "completed"
        assert shelf.store.expire(-1) == 1


def test_sqlite_accepts_the_printed_statements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each statement runs as printed, also a second time, and the store needs no further tables."""
    assert main(["tables", "sqlite"]) == 0
    url = f"sqlite:///{tmp_path / 'batches.db'}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in 2 * printed(capsys.readouterr().out):
            connection.exec_driver_sql(statement)
        before = catalogue(connection)

    with Shelf(url) as shelf:
        assert shelf.ends(shelf.submits(2)).status == "completed"
    with engine.connect() as connection:
        assert catalogue(connection) == before
    engine.dispose()


def test_missing_tables_are_reported_at_the_start(limited: str) -> None:
    """Where the user may not create the tables, `prepare` raises `SettingsError`."""
    store = SqlBatchStore(limited)

    with pytest.raises(SettingsError, match="may not create"):
        store.prepare()
    store.close()


def test_tables_of_another_version_are_refused_at_the_start(sql_url: str) -> None:
    """A table without a needed column makes `prepare` fail, not the first task."""
    with Shelf(sql_url) as shelf:
        shelf.write("ALTER TABLE laibao_batch_items RENAME TO elsewhere")
        shelf.write("CREATE TABLE laibao_batch_items (task_id CHAR(36) PRIMARY KEY)")
        if not sql_url.startswith("sqlite"):
            shelf.write("ALTER TABLE laibao_batch_items ADD COLUMN lane INT")

        with pytest.raises(SettingsError):
            shelf.store.prepare()


def test_tables_of_a_newer_version_are_left_alone(sql_url: str) -> None:
    """A column that this version does not know stays, with its values, and the store works beside it."""
    with Shelf(sql_url) as shelf:
        shelf.write("ALTER TABLE laibao_batch_tasks ADD COLUMN newer INT DEFAULT 7")

        shelf.store.prepare()

        assert shelf.ends(shelf.submits(2)).status == "completed"
        assert shelf.write("UPDATE laibao_batch_tasks SET newer = 8 WHERE newer = 7") == 1


def test_an_unreachable_store_fails_without_showing_content() -> None:
    """Neither the URL's password nor a submitted text is in the error."""
    url = f"mysql+pymysql://root:obviously-fake@127.0.0.1:{free_port()}/x"
    store = SqlBatchStore(url)
    submit = partial(store.create, owner="key:a", name="机密", texts=["机密"])

    for call in (store.prepare, store.check, submit, partial(store.claim, 0)):
        with pytest.raises(StoreUnavailable) as caught:
            call()
        assert "obviously-fake" not in f"{caught.value} {caught.value.__cause__}"
        assert "机密" not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.full
def test_a_database_that_was_away_is_used_again() -> None:
    """After a restart no call fails; while the server is frozen a call fails within the timeouts."""
    with MariaServer() as server, Shelf(server.fresh_database(), read_timeout=1.0, connect_timeout=1.0) as shelf:
        task = shelf.submits(3)
        claimed = shelf.claims(0)

        server.restart()
        assert shelf.store.complete(claimed, content="答")

        server.pause()
        with pytest.raises(StoreUnavailable):
            shelf.store.claim(0)
        server.resume()
        assert shelf.ends(task).completed == 3


@pytest.mark.full
def test_without_tables_only_batches_fail(redis_url: str, limited: str, caplog: pytest.LogCaptureFixture) -> None:
    """With a database that may not be changed, chat still works; the log has one error."""
    store = SqlBatchStore(limited)
    with BatchDesk(redis_url, ScriptedProvider(), store) as desk:
        with pytest.raises(StoreUnavailable):
            desk.batches.check()
        with pytest.raises(StoreUnavailable):
            desk.submits(texts(1))
        assert desk.asks(msgid="beside").status == "processing"

    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in errors] == ["there are no batches"]
    assert "may not create them" in vars(errors[0])["cause"]
    store.close()
