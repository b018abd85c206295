"""One SQL server, or one SQLite file, for all stores: a bounded pool, bounded waits, our errors.

Connections are in autocommit; what needs more than one statement goes through `transact`. On SQLite this process's
writers queue for a lock of ours before they begin, and nobody ever waits inside SQLite, where a wait stops every
greenlet of the process, the one that holds the file included: who finds the file taken by another process sleeps here.
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

from services.errors import SettingsError, StoreUnavailable

T = TypeVar("T")

#: Seconds after which a pooled connection is made anew: below the wait_timeout and idle limits that proxies cut at.
RECYCLE = 280
#: Seconds for which a transaction that had to give way is tried again.
PATIENCE = 10.0
#: MySQL: deadlock, lock wait timeout, and MariaDB's "record has changed since last read".
GAVE_WAY = (1213, 1205, 1020)
#: SQLite: busy and locked, whatever their extended code says besides.
SQLITE_TAKEN = (5, 6)

#: The lock that this process's writers of an SQLite file queue for, by the file's path.
_writers: dict[str, threading.Lock] = {}


class SqlFailed(StoreUnavailable):
    """The database did not do what it was asked; `number` is its own of the failure, 0 where it gave none."""

    def __init__(self, message: str = "", *, number: int = 0) -> None:
        super().__init__(message)
        self.number = number


class NoAnswer(SqlFailed):
    """The server is away or too slow; one that refuses a statement is neither."""


class GaveWay(NoAnswer):
    """Others were writing the same: nothing happened, and the same transaction may well pass now."""


class SqlDatabase:
    """Connections to one database; nothing connects before the first use.

    Timeouts are seconds: `pool_timeout` for a free connection, `connect_timeout` to open one, `read_timeout` for each
    answer of the server. `writes` prepares the connections for `transact`.
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
        #: sqlite or mysql.
        self.kind = _kind_of(address)
        self._engine = _engine(address, pool_size, pool_timeout, connect_timeout, read_timeout, writes)
        # Waiters queue here with a bound of their own, so that the pool itself is never waited for.
        self._slots = threading.BoundedSemaphore(pool_size)
        self._pool_timeout = pool_timeout
        self._begin = "BEGIN IMMEDIATE" if self.kind == "sqlite" else "START TRANSACTION"
        path = str(Path(address.database or "").resolve())
        self._writer = _writers.setdefault(path, threading.Lock()) if self.kind == "sqlite" else None

    @contextmanager
    def connected(self) -> Iterator[sa.Connection]:
        """Yield a connection in autocommit.

        Raises:
            NoAnswer: none is free, or the server is away or too slow.
            SqlFailed: a statement was refused.
        """
        with self.slot(), _sql_errors(), self._engine.connect() as connection:
            yield connection

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Return what `work` reads, each statement for itself. Raises as `connected` does."""
        return _patiently(lambda: self._run(work))

    def transact(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in one transaction, commit, and return what it returned.

        Where it has to give way to others it is run again from its beginning, for `PATIENCE` seconds: it changes
        nothing but the database. What it raises rolls back.

        Raises:
            NoAnswer: the database is away, or the patience was over. Lost while it was committed, it may have happened.
            SqlFailed: a statement was refused; nothing happened.
        """
        with self._turn():
            return _patiently(lambda: self._commit(work))

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the pool's places."""
        if not self._slots.acquire(timeout=self._pool_timeout):
            raise NoAnswer("SQL: every connection of the pool is in use")
        try:
            yield
        finally:
            self._slots.release()

    def close(self) -> None:
        """Close the idle connections; one in use closes when its work ends."""
        self._engine.dispose()

    def _run(self, work: Callable[[sa.Connection], T]) -> T:
        with self.connected() as connection, _once_more_if_lost():
            return work(connection)

    def _commit(self, work: Callable[[sa.Connection], T]) -> T:
        with self.connected() as connection:
            with _once_more_if_lost():
                connection.exec_driver_sql(self._begin)
            try:
                done = work(connection)
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                # A connection that broke is thrown away by the pool, and its server rolls back by itself.
                with suppress(SQLAlchemyError):
                    connection.exec_driver_sql("ROLLBACK")
                raise
            return done

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._writer is None:
            yield
        elif not self._writer.acquire(timeout=PATIENCE):
            raise NoAnswer("SQL: other writers of this process hold the file")
        else:
            try:
                yield
            finally:
                self._writer.release()


def _patiently(attempt: Callable[[], T]) -> T:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return attempt()
        except GaveWay:
            if time.monotonic() > end:
                raise
        # Spread, so that those who collided do not collide again.
        time.sleep(random.uniform(0.001, 0.015))


@contextmanager
def _once_more_if_lost() -> Iterator[None]:
    """Have what changed nothing yet run again on a new connection, where the pooled one turns out to be dead."""
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
        # The address holds a password: its text goes nowhere.
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
        # `read` and `transact` notice a dead connection by their first statement, and save the way.
        pool_pre_ping=not writes,
        # Before the server ends the session of who may be gone: see `_session`.
        pool_recycle=int(read) if writes else RECYCLE,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        # Errors quote the statement; the values in it are people's.
        hide_parameters=True,
    )
    if writes:
        _at_connect(engine, _session(_kind_of(url), read))
    return engine


def _session(kind: str, read_timeout: float) -> tuple[str, ...]:
    """Return what makes a connection one that `transact` is right on."""
    if kind == "sqlite":
        # WAL: readers never wait for a writer. NORMAL: a power cut may take the last commits, never the file.
        return ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL")
    return (
        # Each statement sees what is committed by then, and locks rows, not the gaps between them.
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        # Nothing is cut to fit, whatever the server's default.
        "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'",
        # The server says so before the client stops listening: its 50 s would outlive the connection.
        f"SET SESSION innodb_lock_wait_timeout = {max(1, int(read_timeout / 2))}",
        # A process that freezes or vanishes in the middle of a transaction lets go of its locks: by itself the server
        # would wait for it for eight hours.
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
    """Turn what SQLAlchemy raises into ours, which names the kind of failure and the server's number, and no value."""
    try:
        yield
    except SQLAlchemyError as exc:
        cause = getattr(exc, "orig", None) or exc
        number = next((arg for arg in cause.args if isinstance(arg, int)), getattr(cause, "sqlite_errorcode", 0))
        shown = f" {number}" if number else ""
        _let_go(exc, cause)
        raise _kind(exc, cause, number)(f"SQL failed: {type(cause).__name__}{shown}", number=number) from exc


def _let_go(*failed: BaseException) -> None:
    """Drop what the frames of failed calls hold.

    The driver's own refer to themselves: until the next collection of garbage each failed attempt to connect would keep
    its TLS context, which is most of a megabyte.
    """
    for each in failed:
        traceback.clear_frames(each.__traceback__)


def _kind(exc: SQLAlchemyError, cause: BaseException, number: int) -> type[SqlFailed]:
    taken = number & 0xFF in SQLITE_TAKEN if hasattr(cause, "sqlite_errorcode") else number in GAVE_WAY
    # A key that was not there a moment ago: whoever looks again finds it.
    if taken or isinstance(exc, IntegrityError):
        return GaveWay
    return NoAnswer if isinstance(exc, (OperationalError, InterfaceError)) else SqlFailed
