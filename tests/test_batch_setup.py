"""The batches' tables: created where they may be, found where somebody else made them, refused where they are wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

import pytest

from services.batch_store import SqlBatchStore
from services.errors import SettingsError, StoreUnavailable
from services.sql_batch_tables import statements
from tests.batch_desk import BatchDesk, ScriptedProvider, texts
from tests.batch_shelf import Shelf, at_once
from tests.servers import MariaServer, free_port


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


@pytest.mark.full
def test_tables_made_by_an_administrator_are_enough(maria_server: MariaServer, limited: str) -> None:
    """With the documented statements run by somebody else, a user without the right to create does all the work."""
    for statement in statements("mysql"):
        maria_server.execute(statement.replace("laibao_batch_", "limited.laibao_batch_", 1))

    with Shelf(limited) as shelf:
        task = shelf.submits(2)
        assert shelf.ends(task).status == "completed"
        assert shelf.store.expire(-1) == 1


@pytest.mark.full
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
