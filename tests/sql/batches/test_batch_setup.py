"""The batches' database: newer tables, no tables, and no server."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from services.batches.store import SqlBatchStore
from services.errors import StoreUnavailable
from tests.support.batches.desk import BatchDesk, ScriptedProvider, texts
from tests.support.batches.shelf import Shelf
from tests.support.servers.processes import MariaServer, free_port


def test_tables_of_a_newer_version_are_left_alone(sql_url: str) -> None:
    """A column that this version does not know stays, with its values, and the store works beside it."""
    with Shelf(sql_url) as shelf:
        shelf.write("ALTER TABLE laibao_batch_tasks ADD COLUMN newer INT DEFAULT 7")

        assert shelf.ends(shelf.submits(2)).status == "completed"
        assert shelf.write("UPDATE laibao_batch_tasks SET newer = 8 WHERE newer = 7") == 1


def test_an_unreachable_store_fails_without_showing_content() -> None:
    """Neither the URL's password nor a submitted text is in the error."""
    url = f"mysql+pymysql://root:obviously-fake@127.0.0.1:{free_port()}/x"
    store = SqlBatchStore(url)
    submit = partial(store.create, owner="key:a", name="机密", texts=["机密"])

    for call in (store.check, submit, partial(store.claim, 0)):
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


def test_without_tables_only_batches_fail(redis_url: str, tmp_path: Path) -> None:
    """Before the migration, or without the right to it, submissions fail and are reported; chat still works."""
    store = SqlBatchStore(f"sqlite:///{tmp_path / 'empty.db'}")
    with BatchDesk(redis_url, ScriptedProvider(), store) as desk:
        with pytest.raises(StoreUnavailable):
            desk.batches.check()
        with pytest.raises(StoreUnavailable):
            desk.submits(texts(1))
        assert desk.asks(msgid="beside").status == "processing"
    store.close()
