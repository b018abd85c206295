"""`SqlDatabase`, shared by all SQL stores: transactions are atomic and retried, and every wait is bounded."""

from __future__ import annotations

import gc
import ssl
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.errors import StoreUnavailable
from services.sql import database as sql_database
from services.sql.database import GaveWay, NoAnswer, SqlDatabase, SqlFailed
from tests.support.batches.shelf import at_once
from tests.support.servers.processes import FakeClock, MariaServer, free_port
from utils.running_time import RunningClock


@pytest.fixture
def database(sql_url: str) -> Iterator[SqlDatabase]:
    """A database with an empty table `notes`."""
    database = SqlDatabase(sql_url, writes=True, pool_timeout=30.0)
    database.transact(partial(_run, statement="CREATE TABLE notes (n INTEGER PRIMARY KEY, m INTEGER)"))
    yield database
    database.close()


def _run(connection: sa.Connection, *, statement: str) -> int:
    return connection.exec_driver_sql(statement).rowcount


def _numbers(database: SqlDatabase) -> list[int]:
    return list(
        database.read(lambda connection: connection.exec_driver_sql("SELECT n FROM notes ORDER BY n").scalars())
    )


def test_an_exception_rolls_the_transaction_back(database: SqlDatabase) -> None:
    """A transaction that ends with an exception changes nothing, and the next one works."""

    def fail(connection: sa.Connection) -> None:
        _run(connection, statement="INSERT INTO notes VALUES (1, 1)")
        raise LookupError

    with pytest.raises(LookupError):
        database.transact(fail)
    database.transact(partial(_run, statement="INSERT INTO notes VALUES (2, 1)"))

    assert _numbers(database) == [2]


def test_a_failed_statement_names_its_error_number_and_no_value(database: SqlDatabase) -> None:
    """The error has the database's number and none of the statement's values; the transaction is rolled back."""
    secret = "obviously-fake"

    def failing(connection: sa.Connection) -> None:
        _run(connection, statement="INSERT INTO notes VALUES (1, 1)")
        connection.execute(sa.text("INSERT INTO nowhere VALUES (:value)"), {"value": secret})

    with pytest.raises(SqlFailed) as caught:
        database.transact(failing)

    assert caught.value.number in (1, 1146)
    assert secret not in f"{caught.value} {caught.value.__cause__}"
    assert _numbers(database) == []


def test_a_deadlocked_transaction_is_run_again(database: SqlDatabase) -> None:
    """`GaveWay` rolls the transaction back and runs it from its beginning."""
    runs = []

    def work(connection: sa.Connection) -> str:
        runs.append(1)
        _run(connection, statement=f"INSERT INTO notes VALUES ({len(runs)}, 1)")
        if len(runs) < 3:
            raise GaveWay("deadlock")
        return "done"

    assert database.transact(work) == "done"
    assert _numbers(database) == [3]


def test_retries_of_a_transaction_are_bounded(database: SqlDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `RETRY_TIMEOUT` a transaction raises `StoreUnavailable`."""
    monkeypatch.setattr(sql_database, "RETRY_TIMEOUT", 0.1)

    def work(connection: sa.Connection) -> None:
        raise GaveWay("deadlock")

    with pytest.raises(StoreUnavailable, match="deadlock"):
        database.transact(work)


def test_a_pause_of_the_process_leaves_time_for_a_retry(database: SqlDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server closed the connection of a process that was stopped for 16 s."""
    real = FakeClock()
    running = RunningClock(real)
    running.tick()
    monkeypatch.setattr(sql_database, "running_time", running)
    lost = [GaveWay("the connection was lost")]

    def work(connection: sa.Connection) -> str:
        if lost:
            real.advance(16.0)
            raise lost.pop()
        return "done"

    assert database.transact(work) == "done"


@pytest.mark.full
def test_both_sides_of_a_deadlock_succeed(maria_server: MariaServer) -> None:
    """Two transactions lock the same rows in opposite orders, certainly at once; one is retried and both commit."""
    database = SqlDatabase(maria_server.fresh_database("deadlock"), writes=True)
    for statement in (
        "CREATE TABLE notes (n INT PRIMARY KEY, m INT) ENGINE=InnoDB",
        "INSERT INTO notes VALUES (1, 0), (2, 0)",
    ):
        database.transact(partial(_run, statement=statement))
    both, runs = threading.Barrier(2), []

    def work(first: int, second: int) -> Callable[[sa.Connection], None]:
        met: list[int] = []

        def locked(connection: sa.Connection) -> None:
            runs.append(1)
            _run(connection, statement=f"UPDATE notes SET m = m + 1 WHERE n = {first}")
            if not met:
                met.append(both.wait(30.0))
            _run(connection, statement=f"UPDATE notes SET m = m + 1 WHERE n = {second}")

        return locked

    found = at_once([partial(database.transact, work(1, 2)), partial(database.transact, work(2, 1))])

    sums = database.read(lambda connection: connection.exec_driver_sql("SELECT m FROM notes").scalars().all())
    assert found == [None, None]
    assert sums == [2, 2]
    assert len(runs) == 3
    database.close()


def test_a_duplicate_key_runs_the_transaction_again(database: SqlDatabase) -> None:
    """A transaction whose insert hits a key that another one added is retried and then reads that row."""
    database.transact(partial(_run, statement="INSERT INTO notes VALUES (7, 1)"))
    looks = []

    def work(connection: sa.Connection) -> str:
        looks.append(1)
        if len(looks) > 1:
            return "seen"
        _run(connection, statement="INSERT INTO notes VALUES (7, 2)")
        return "added"

    assert database.transact(work) == "seen"


def test_many_writers_at_once_lose_nothing(database: SqlDatabase) -> None:
    """Forty concurrent increments of one row over a pool of five add up to forty."""
    database.transact(partial(_run, statement="INSERT INTO notes VALUES (1, 0)"))

    found = at_once([partial(database.transact, partial(_run, statement="UPDATE notes SET m = m + 1"))] * 40)

    assert found == [1] * 40
    assert database.read(lambda connection: connection.exec_driver_sql("SELECT m FROM notes").scalar()) == 40


def test_writers_of_one_process_share_a_lock_over_all_pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one transaction writes an SQLite file, others of this process wait before they begin; reads go on."""
    one, other = (SqlDatabase(f"sqlite:///{tmp_path / 'notes.db'}", writes=True) for _ in range(2))
    one.transact(partial(_run, statement="CREATE TABLE notes (n INTEGER PRIMARY KEY, m INTEGER)"))
    inside, leave = threading.Event(), threading.Event()

    def long(connection: sa.Connection) -> None:
        inside.set()
        assert leave.wait(30.0)

    holder = threading.Thread(target=one.transact, args=(long,))
    holder.start()
    assert inside.wait(30.0)
    monkeypatch.setattr(sql_database, "RETRY_TIMEOUT", 0.1)
    with pytest.raises(NoAnswer, match="this process"):
        other.transact(partial(_run, statement="INSERT INTO notes VALUES (1, 1)"))
    assert _numbers(other) == []
    leave.set()
    holder.join(30.0)
    monkeypatch.undo()

    other.transact(partial(_run, statement="INSERT INTO notes VALUES (1, 1)"))

    assert _numbers(one) == [1]
    for database in (one, other):
        database.close()


@pytest.mark.full
def test_a_session_has_the_settings_that_transactions_need(maria_server: MariaServer) -> None:
    """Independent of the server's defaults: READ COMMITTED, strict mode, lock waits below our read timeout."""
    database = SqlDatabase(maria_server.fresh_database("session"), writes=True, read_timeout=6.0)
    asked = "SELECT @@tx_isolation, @@sql_mode, @@innodb_lock_wait_timeout"

    found = database.read(lambda connection: connection.exec_driver_sql(asked).one())

    assert tuple(found) == ("READ-COMMITTED", "STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION", 3)
    database.close()


def test_an_sqlite_file_is_read_while_it_is_written(tmp_path: Path) -> None:
    """The file is in WAL mode, and `busy_timeout` is 0: no thread blocks inside SQLite."""
    database = SqlDatabase(f"sqlite:///{tmp_path / 'notes.db'}", writes=True)

    found = [
        database.read(lambda connection, name=name: connection.exec_driver_sql(f"PRAGMA {name}").scalar())  # type: ignore[misc]
        for name in ("journal_mode", "busy_timeout", "synchronous")
    ]

    assert found == ["wal", 0, 1]
    database.close()


def test_a_refused_connection_is_no_answer() -> None:
    """A refused connection raises `NoAnswer` at once."""
    database = SqlDatabase(f"mysql+pymysql://root@127.0.0.1:{free_port()}/x", writes=True)

    with pytest.raises(NoAnswer, match="2003"):
        database.transact(lambda connection: None)


def test_a_failed_connection_is_freed_without_the_garbage_collector() -> None:
    """The driver's frames form a cycle around a TLS context of most of a megabyte; `SqlDatabase` breaks the cycle."""
    database = SqlDatabase(f"mysql+pymysql://root@127.0.0.1:{free_port()}/mysql", connect_timeout=2.0)
    held = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(NoAnswer):
                database.read(lambda c: c.scalar(sa.text("SELECT 1")))
            held.append(sum(isinstance(each, ssl.SSLContext) for each in gc.get_objects()))
    finally:
        gc.enable()
        database.close()

    # One more with each attempt, if they stay; other tests may have left threads that make one.
    assert held[-1] - held[0] < 2
