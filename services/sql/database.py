"""One SQL server, or one SQLite file, for all stores: a bounded pool, timeouts, one tree of errors.

Connections are in autocommit; several statements together go through `transact`. For SQLite the writers of this process
queue for a lock before they begin, and no thread waits inside SQLite, where a wait stops every greenlet of the process,
also the one that holds the file. A thread that finds the file locked by another process sleeps here.
"""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError

from config.errors import SettingsError
from services.errors import StoreRefused, StoreUnavailable
from utils.running_time import running_time

T = TypeVar("T")

#: Seconds after which a pooled connection is replaced: below wait_timeout and the idle limits of proxies.
RECYCLE = 280
#: Seconds for which a transaction is retried after deadlocks and lock timeouts.
RETRY_TIMEOUT = 10.0
#: MySQL: deadlock, lock wait timeout, and MariaDB's "record has changed since last read".
GAVE_WAY = (1213, 1205, 1020)
#: MySQL: no such login, database, host or right. The next attempt has the same answer, until an administrator acts.
REFUSED = (1044, 1045, 1049, 1130, 1142, 1143, 1227, 1698)
#: SQLite, without their extended codes: busy and locked; a file that is read-only or no database.
SQLITE_TAKEN = (5, 6)
SQLITE_REFUSED = (8, 26)

#: The lock for this process's writers of an SQLite file, by its path.
_writers: dict[str, threading.Lock] = {}


class SqlFailed(StoreUnavailable):
    """The database failed; `number` is its error number, 0 if it gave none."""

    def __init__(self, message: str = "", *, number: int = 0) -> None:
        super().__init__(message)
        self.number = number


class NoAnswer(SqlFailed):
    """The server is away or too slow; a rejected statement is a plain `SqlFailed`."""


class SqlRefused(NoAnswer, StoreRefused):
    """The server answers, and refuses the login, the database or a right."""


class GaveWay(NoAnswer):
    """A concurrent transaction won: nothing was changed, and a retry may succeed."""


class SqlDatabase:
    """Connections to one database; it connects at first use.

    Timeouts in seconds: `pool_timeout` for a free connection, `connect_timeout` to open one, `read_timeout` for each
    reply of the server. `writes` prepares the connections for `transact`.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 5,
        pool_timeout: float = 2.0,
        connect_timeout: float = 3.0,
        read_timeout: float = 5.0,
        writes: bool = False,
    ) -> None:
        address = _parsed(url)
        #: "sqlite" or "mysql".
        self.kind = _kind_of(address)
        self._engine = _engine(address, pool_size, pool_timeout, connect_timeout, read_timeout, writes)
        # Threads wait here, with `pool_timeout`, and never in the pool itself.
        self._slots = threading.BoundedSemaphore(pool_size)
        self._pool_timeout = pool_timeout
        self._begin = "BEGIN IMMEDIATE" if self.kind == "sqlite" else "START TRANSACTION"
        path = str(Path(address.database or "").resolve())
        self._writer = _writers.setdefault(path, threading.Lock()) if self.kind == "sqlite" else None

    @contextmanager
    def connected(self) -> Iterator[sa.Connection]:
        """Yield a connection in autocommit.

        Raises:
            NoAnswer: no connection is free, or the server is away or too slow.
            SqlFailed: a statement was rejected.
        """
        with self.slot(), _sql_errors(), self._engine.connect() as connection:
            yield connection

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Return the result of `work`, which reads in autocommit. Raises as `connected` does."""
        return _retrying(lambda: self._run(work))

    def transact(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in one transaction, commit, and return its result.

        After a deadlock or lock timeout `work` is run again from its beginning, for `RETRY_TIMEOUT` seconds; so it must
        change nothing but the database. Its exceptions roll back.

        Raises:
            NoAnswer: the database is away or the retries timed out. If COMMIT had no reply, it may have happened.
            SqlFailed: a statement was rejected; nothing was changed.
        """
        with self._write_lock():
            return _retrying(lambda: self._commit(work))

    def check(self) -> None:
        """Check that the database answers. Raises as `connected` does."""
        self.read(lambda connection: connection.scalar(sa.select(1)))

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the pool's slots."""
        if not self._slots.acquire(timeout=self._pool_timeout):
            raise NoAnswer("SQL: every connection of the pool is in use")
        try:
            yield
        finally:
            self._slots.release()

    def close(self) -> None:
        """Close the idle connections; one in use closes after its work."""
        self._engine.dispose()

    def _run(self, work: Callable[[sa.Connection], T]) -> T:
        with self.connected() as connection, _retry_if_lost():
            return work(connection)

    def _commit(self, work: Callable[[sa.Connection], T]) -> T:
        with self.connected() as connection:
            with _retry_if_lost():
                connection.exec_driver_sql(self._begin)
            try:
                done = work(connection)
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                # The pool drops a broken connection, and the server rolls back by itself.
                with suppress(SQLAlchemyError):
                    connection.exec_driver_sql("ROLLBACK")
                raise
            return done

    @contextmanager
    def _write_lock(self) -> Iterator[None]:
        if self._writer is None:
            yield
        elif not self._writer.acquire(timeout=RETRY_TIMEOUT):
            raise NoAnswer("SQL: other writers of this process hold the file")
        else:
            try:
                yield
            finally:
                self._writer.release()


def _retrying(attempt: Callable[[], T]) -> T:
    end = running_time() + RETRY_TIMEOUT
    while True:
        try:
            return attempt()
        except GaveWay:
            if running_time() > end:
                raise
        # Random, so that transactions that collided do not collide again.
        time.sleep(random.uniform(0.001, 0.015))


@contextmanager
def _retry_if_lost() -> Iterator[None]:
    """Turn a lost connection into `GaveWay`: nothing was changed yet, so a new connection can retry."""
    try:
        yield
    except DBAPIError as exc:
        if exc.connection_invalidated:
            raise GaveWay("SQL failed: the connection was lost") from exc
        raise


def _parsed(url: str) -> sa.URL:
    try:
        return sa.make_url(url)
    except SQLAlchemyError:
        # The URL contains a password: do not show it.
        raise SettingsError("the SQL database's address cannot be read") from None


def _kind_of(url: sa.URL) -> str:
    return "sqlite" if url.get_backend_name() == "sqlite" else "mysql"


def _engine(url: sa.URL, size: int, wait: float, connect: float, read: float, writes: bool) -> sa.Engine:
    if _kind_of(url) == "sqlite":
        arguments: dict[str, Any] = {"timeout": 0.0 if writes else wait, "check_same_thread": False}
    else:
        arguments = {"connect_timeout": connect, "read_timeout": read, "write_timeout": read, "charset": "utf8mb4"}
    engine = sa.create_engine(
        url,
        connect_args=arguments,
        poolclass=sa.QueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=wait,
        # `read` and `transact` detect a dead connection by their first statement, without a ping.
        pool_pre_ping=not writes,
        # Below the server's wait_timeout that `_session` sets.
        pool_recycle=int(read) if writes else RECYCLE,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        # Errors quote the statement; its values are users' texts.
        hide_parameters=True,
    )
    if writes:
        _at_connect(engine, _session(_kind_of(url), read))
    return engine


def _session(kind: str, read_timeout: float) -> tuple[str, ...]:
    """Return the statements that prepare a connection for `transact`."""
    if kind == "sqlite":
        # WAL: readers never wait for a writer. NORMAL: a power cut may lose the last commits, never the file.
        return ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL")
    return (
        # Each statement sees all commits before it, and locks rows but not the gaps between them.
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        # Values that are too long are rejected, not cut, whatever the server's default.
        "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'",
        # Lock timeout below the client's read timeout: the server's default of 50 s would outlive the connection.
        f"SET SESSION innodb_lock_wait_timeout = {max(1, int(read_timeout / 2))}",
        # The server drops the locks of a process that froze or vanished within a transaction; by default it would wait
        # for eight hours.
        f"SET SESSION wait_timeout = {max(2, int(2 * read_timeout))}",
    )


def _at_connect(engine: sa.Engine, statements: tuple[str, ...]) -> None:
    @sa.event.listens_for(engine, "connect")
    def run(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()


@contextmanager
def _sql_errors() -> Iterator[None]:
    """Turn errors of SQLAlchemy into ours, with the kind of error and the server's number but no values."""
    try:
        yield
    except SQLAlchemyError as exc:
        cause = getattr(exc, "orig", None) or exc
        number = next((arg for arg in cause.args if isinstance(arg, int)), getattr(cause, "sqlite_errorcode", 0))
        shown = f" {number}" if number else ""
        _clear_frames(exc, cause)
        raise _kind(exc, cause, number)(f"SQL failed: {type(cause).__name__}{shown}", number=number) from exc


def _clear_frames(*failed: BaseException) -> None:
    """Clear the frames of failed calls.

    The driver's exceptions refer to themselves: until the next garbage collection each failed attempt to connect would
    keep its TLS context, almost 1 MB.
    """
    for each in failed:
        traceback.clear_frames(each.__traceback__)


def _kind(exc: SQLAlchemyError, cause: BaseException, number: int) -> type[SqlFailed]:
    sqlite = hasattr(cause, "sqlite_errorcode")
    taken = number & 0xFF in SQLITE_TAKEN if sqlite else number in GAVE_WAY
    # A concurrent insert of the same key: a retry finds it.
    if taken or isinstance(exc, IntegrityError):
        return GaveWay
    if number & 0xFF in SQLITE_REFUSED if sqlite else number in REFUSED:
        return SqlRefused
    return NoAnswer if isinstance(exc, (OperationalError, InterfaceError)) else SqlFailed
