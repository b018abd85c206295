"""The users as a company's own SQL database knows them, read by a query of the operator's.

The query, `AUTH_USER_QUERY`, has `:userid` (and may have `:corp`) and returns user_code, password and any of user_name,
phone and gender, in any case and order. Nothing is written here, and each lookup is one statement in autocommit: on
SQLite there is no transaction that could yield to another greenlet while it holds the file.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from services.errors import SettingsError, StoreUnavailable
from services.models import UserInfo

log = logging.getLogger(__name__)

REQUIRED = ("user_code", "password")
OPTIONAL = ("user_name", "phone", "gender")
#: Seconds after which a pooled connection is made anew: below the wait_timeout and idle limits that proxies cut at.
RECYCLE = 280
#: Seconds the main database serves alone after the reading one failed, before that is tried again.
READ_PAUSE = 30.0

Rows = tuple[list[str], Sequence[Sequence[Any]]]


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A user with the password the external auth API asks for; it goes there and nowhere else."""

    user: UserInfo
    password: str = field(repr=False)


class SqlUserStore:
    """Find users over a bounded pool of connections to MySQL or SQLite. Nothing connects before the first use.

    `read_url`, when given, serves the query for as long as it answers, `url` while it does not. Timeouts are seconds:
    `pool_timeout` for a free connection, `connect_timeout` to open one, `read_timeout` for the server's answer.
    """

    def __init__(
        self,
        url: str,
        query: str,
        *,
        read_url: str = "",
        pool_size: int = 5,
        pool_timeout: float = 2.0,
        connect_timeout: float = 3.0,
        read_timeout: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._query = sa.text(query)
        self._names = _checked_names(self._query)
        bounds = (pool_size, pool_timeout, connect_timeout, read_timeout)
        self._main = _Database(url, *bounds)
        self._reader = _Database(read_url, *bounds) if read_url and read_url != url else None
        self._clock = clock
        #: When the reading database failed last; None while it serves.
        self._reader_failed: float | None = None

    def find(self, userid: str, corp: str = "") -> UserRecord | None:
        """Return the user, or `None` when the query knows nobody by that id.

        Raises:
            SettingsError: the query does not return what it must.
            StoreUnavailable: the database is away, too slow, or refuses the query.
        """
        given = {"userid": userid, "corp": corp}
        columns, rows = self._run(self._query, {name: given[name] for name in self._names})
        _require_columns(columns)
        if len(rows) > 1:
            log.warning("AUTH_USER_QUERY returns more than one row for a user; the first counts")
        return _record(dict(zip(columns, rows[0], strict=True))) if rows else None

    def check(self) -> None:
        """Ask the database for nothing, to see that it answers.

        Raises:
            StoreUnavailable: it does not.
        """
        self._run(sa.text("SELECT 1"), {})

    def check_query(self) -> None:
        """Run the query for a user who cannot be, to see that it runs and returns the right columns.

        Raises:
            SettingsError, StoreUnavailable: as `find` does.
        """
        self.find("")

    def close(self) -> None:
        """Close the idle connections; one in use closes when its lookup ends."""
        for database in filter(None, (self._main, self._reader)):
            database.close()

    def _run(self, statement: sa.TextClause, values: dict[str, str]) -> Rows:
        """Return the column names in lower case and at most two rows."""
        failed = self._reader_failed
        if self._reader is None or (failed is not None and self._clock() - failed < READ_PAUSE):
            return self._main.run(statement, values)
        try:
            found = self._reader.run(statement, values)
        except _NoAnswer as exc:
            self._note_reader(away=exc)
            return self._main.run(statement, values)
        self._note_reader(away=None)
        return found

    def _note_reader(self, away: StoreUnavailable | None) -> None:
        """Log the beginning of an outage and its end, not one line per lookup."""
        failed, self._reader_failed = self._reader_failed, self._clock() if away else None
        if away and failed is None:
            log.warning("the reading database is away, the main one serves", extra={"cause": str(away)})
        elif failed is not None and not away:
            log.warning("the reading database is back")


class _NoAnswer(StoreUnavailable):
    """The server is away or too slow; one that refuses the query is neither."""


class _Database:
    """One server's pool of connections."""

    def __init__(self, url: str, pool_size: int, pool_timeout: float, connect: float, read: float) -> None:
        self._engine = _engine(url, pool_size, pool_timeout, connect, read)
        # Waiters queue here with a bound of their own, so that the pool itself is never waited for.
        self._slots = threading.BoundedSemaphore(pool_size)
        self._pool_timeout = pool_timeout

    def run(self, statement: sa.TextClause, values: dict[str, str]) -> Rows:
        with self.slot(), _sql_errors(), self._engine.connect() as connection:
            result = connection.execute(statement, values)
            if not result.returns_rows:
                return [], []
            return [name.lower() for name in result.keys()], result.fetchmany(2)  # noqa: SIM118 - not a dict

    @contextmanager
    def slot(self) -> Iterator[None]:
        if not self._slots.acquire(timeout=self._pool_timeout):
            raise _NoAnswer("SQL: every connection of the pool is in use")
        try:
            yield
        finally:
            self._slots.release()

    def close(self) -> None:
        self._engine.dispose()


def _checked_names(query: sa.TextClause) -> set[str]:
    names = set(query.compile().params)
    if "userid" not in names or names - {"userid", "corp"}:
        raise SettingsError("AUTH_USER_QUERY must be SQL with :userid (and may have :corp), and no other :name")
    return names


def _engine(url: str, size: int, wait: float, connect: float, read: float) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
    except SQLAlchemyError:
        # The address holds a password: its text goes nowhere.
        raise SettingsError("the SQL database's address cannot be read") from None
    if parsed.get_backend_name() == "sqlite":
        arguments: dict[str, Any] = {"timeout": wait, "check_same_thread": False}
    else:
        arguments = {"connect_timeout": connect, "read_timeout": read, "write_timeout": read, "charset": "utf8mb4"}
    return sa.create_engine(
        parsed,
        connect_args=arguments,
        poolclass=sa.QueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=wait,
        pool_pre_ping=True,
        pool_recycle=RECYCLE,
        isolation_level="AUTOCOMMIT",
        # Errors quote the statement; the values in it are people's.
        hide_parameters=True,
    )


def _require_columns(columns: Sequence[str]) -> None:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise SettingsError(f"AUTH_USER_QUERY does not return the column {missing[0]}")


def _record(row: dict[str, Any]) -> UserRecord | None:
    texts = {name: _text(row.get(name)) for name in (*REQUIRED, *OPTIONAL)}
    password = texts.pop("password")
    if not texts["user_code"]:
        log.warning("AUTH_USER_QUERY returns a row without a user_code; the user counts as unknown")
        return None
    return UserRecord(UserInfo(**texts), password)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


@contextmanager
def _sql_errors() -> Iterator[None]:
    """Turn what SQLAlchemy raises into `StoreUnavailable`, which names the kind of failure and the server's number."""
    try:
        yield
    except SQLAlchemyError as exc:
        cause = getattr(exc, "orig", None) or exc
        number = next((f" {arg}" for arg in cause.args if isinstance(arg, int)), "")
        kind = _NoAnswer if isinstance(exc, (OperationalError, InterfaceError)) else StoreUnavailable
        raise kind(f"SQL failed: {type(cause).__name__}{number}") from exc
