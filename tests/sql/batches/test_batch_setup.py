"""The batches' tables: created where they may be, found where somebody else made them, refused where they are wrong."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from services.batches.store import SqlBatchStore
from services.errors import SettingsError, StoreUnavailable
from tests.support.batches.desk import BatchDesk, ScriptedProvider, texts
from tests.support.batches.shelf import Shelf, at_once
from tests.support.batches.tables_before import BEFORE
from tests.support.replicas import ROOT
from tests.support.servers.processes import MariaServer, free_port
from tools.batch import main

#: What administrators were told to run before there was a command for it.
FORMER = r"""from services.batches.sql.tables import statements; print(*statements('mysql'), sep=';\n\n', end=';\n')"""


@pytest.fixture
def limited(maria_server: MariaServer) -> Iterator[str]:
    """The address of an empty database for a user who may read and write, and create nothing."""
    url = maria_server.fresh_database("limited")
    maria_server.execute("CREATE OR REPLACE USER batcher@'%'")
    maria_server.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON limited.* TO batcher@'%'")
    yield url.replace("root@", "batcher@")
    maria_server.execute("DROP USER batcher@'%'")


def test_all_replicas_may_prepare_at_once(sql_url: str) -> None:
    """Eight that start together find the tables they all created."""
    stores = [SqlBatchStore(sql_url, read_timeout=60.0) for _ in range(8)]

    assert at_once([store.prepare for store in stores]) == [None] * 8

    stores[0].create(owner="key:a", name="n", texts=["q"])
    stores[1].prepare()
    assert stores[2].totals()["pending"] == 1
    for store in stores:
        store.close()


def printed(text: str) -> list[str]:
    """Return the statements of a text, each of which ends with a semicolon."""
    return text.split(";\n")[:-1]


def created_before(connection: sa.Connection) -> None:
    """Create the tables as earlier versions did."""
    kind = "sqlite" if connection.dialect.name == "sqlite" else "mysql"
    for statement in printed(BEFORE[kind]):
        connection.exec_driver_sql(statement)


def catalogue(connection: sa.Connection) -> dict[str, Any]:
    """Return all that the database says of the batches' tables: columns, types, defaults, collations, indexes."""
    if connection.dialect.name != "sqlite":
        names = connection.exec_driver_sql("SHOW TABLES").scalars().all()
        return {name: connection.exec_driver_sql(f"SHOW CREATE TABLE {name}").one()[1] for name in names}
    rows = connection.exec_driver_sql("SELECT name, type FROM sqlite_master ORDER BY rowid").all()
    pragmas = {"table": ("table_xinfo", "index_list"), "index": ("index_xinfo",)}
    return {
        name: [connection.exec_driver_sql(f"PRAGMA {pragma}({name})").all() for pragma in pragmas[kind]]
        for name, kind in rows
    }


def test_new_tables_are_those_that_earlier_versions_made(sql_url: str) -> None:
    """The database describes them by the same columns, types, defaults, collations and indexes."""
    engine = sa.create_engine(sql_url)
    with engine.begin() as connection:
        created_before(connection)
        before = catalogue(connection)
        for name in ("tasks", "items", "gates"):
            connection.exec_driver_sql(f"DROP TABLE laibao_batch_{name}")
        store = SqlBatchStore(sql_url)
        connection.commit()
        store.prepare()
        store.close()

    with engine.connect() as connection:
        assert catalogue(connection) == before
    assert len(before) >= 3
    engine.dispose()


def test_tables_of_earlier_versions_go_on_working(sql_url: str) -> None:
    """A database that an earlier version created takes, works, finishes and removes tasks."""
    engine = sa.create_engine(sql_url)
    with engine.begin() as connection:
        created_before(connection)
        before = catalogue(connection)

    with Shelf(sql_url) as shelf:
        task = shelf.submits(["问", "\U0001f600"], key="once", max_concurrent=1)
        assert shelf.submits(["问", "\U0001f600"], key="once", max_concurrent=1).task_id == task.task_id
        assert shelf.ends(task).completed == 2
        assert [item.content for item in shelf.store.rows(task.task_id)] == ["答", "答"]
        assert shelf.store.expire(-1) == 1

    with engine.connect() as connection:
        assert catalogue(connection) == before
    engine.dispose()


@pytest.mark.full
def test_tables_made_by_an_administrator_are_enough(
    maria_server: MariaServer, limited: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the printed statements run by somebody else, a user without the right to create does all the work."""
    assert main(["tables"]) == 0
    for statement in printed(capsys.readouterr().out):
        maria_server.execute(statement.replace("laibao_batch_", "limited.laibao_batch_", 1))

    with Shelf(limited) as shelf:
        task = shelf.submits(2)
        assert shelf.ends(task).status == "completed"
        assert shelf.store.expire(-1) == 1


def test_the_former_command_prints_the_same_statements(capsys: pytest.CaptureFixture[str]) -> None:
    """The line that earlier versions documented goes on working."""
    assert main(["tables"]) == 0

    command = [sys.executable, "-c", FORMER]
    former = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60.0)

    assert former.stdout == capsys.readouterr().out
    assert len(printed(former.stdout)) == 3


def test_sqlite_takes_the_printed_statements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of them runs as it is, twice too, and the tables are complete."""
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


def test_missing_tables_are_the_operators_to_create(limited: str) -> None:
    """A user who may not create them is told so when the process starts."""
    store = SqlBatchStore(limited)

    with pytest.raises(SettingsError, match="may not create"):
        store.prepare()
    store.close()


def test_tables_of_another_version_are_named(sql_url: str) -> None:
    """A table that lacks a column stops the start, not the first task."""
    with Shelf(sql_url) as shelf:
        shelf.write("ALTER TABLE laibao_batch_items RENAME TO elsewhere")
        shelf.write("CREATE TABLE laibao_batch_items (task_id CHAR(36) PRIMARY KEY)")
        if not sql_url.startswith("sqlite"):
            shelf.write("ALTER TABLE laibao_batch_items ADD COLUMN lane INT")

        with pytest.raises(SettingsError):
            shelf.store.prepare()


def test_a_store_that_is_away_says_so_and_no_more() -> None:
    """Neither the address nor what was submitted is in the error."""
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
    """After a restart no call fails; while it is frozen nobody waits longer than the timeouts say."""
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
def test_without_tables_there_are_no_batches_and_all_else(
    redis_url: str, limited: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A database that became read-only stops nobody from chatting; the log says so once."""
    store = SqlBatchStore(limited)
    with BatchDesk(redis_url, ScriptedProvider(), store) as desk:
        with pytest.raises(StoreUnavailable):
            desk.batches.check()
        with pytest.raises(StoreUnavailable):
            desk.submits(texts(1))
        assert desk.asks(msgid="beside").status == "processing"

    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in told] == ["there are no batches"]
    assert "may not create them" in vars(told[0])["cause"]
    store.close()
