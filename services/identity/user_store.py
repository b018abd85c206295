"""Reads users from the company's SQL database with the operator's own query.

The query, `AUTH_USER_QUERY`, has `:userid` (and may have `:corp`) and returns user_code, password and any of user_name,
phone, gender and department, in any case and order. Nothing is written. Each lookup is one statement in autocommit: on
SQLite a transaction could otherwise yield to another greenlet while it holds the file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import sqlalchemy as sa

from config.errors import SettingsError
from services.errors import StoreRefused, StoreUnavailable
from services.models import UserInfo
from services.sql.database import NoAnswer, SqlDatabase, SqlFailed

log = logging.getLogger(__name__)

REQUIRED = ("user_code", "password")
OPTIONAL = ("user_name", "phone", "gender", "department")
#: Seconds after a failure of the read database during which only the main database is used.
READ_PAUSE = 30.0

Rows = tuple[list[str], Sequence[Sequence[Any]]]


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A user with the password for the external auth API. The password is sent nowhere else."""

    user: UserInfo
    password: str = field(repr=False)


class SqlUserStore:
    """Find users over a bounded pool of connections to MySQL or SQLite. Connects at the first use.

    The query runs on `read_url` if given, and on `url` while that does not answer. Timeouts are in seconds:
    `pool_timeout` for a free connection, `connect_timeout` to open one, `read_timeout` for the server's reply.
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
        self._names = set(self._query.compile().params)
        if "userid" not in self._names or self._names - {"userid", "corp"}:
            raise SettingsError("AUTH_USER_QUERY must be SQL with :userid (and may have :corp), and no other :name")
        database = partial(
            SqlDatabase,
            pool_size=pool_size,
            pool_timeout=pool_timeout,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
        )
        self._main = database(url)
        self._reader = database(read_url) if read_url and read_url != url else None
        self._clock = clock
        #: When the read database last failed; None while it works.
        self._reader_failed: float | None = None

    def find(self, userid: str, corp: str = "") -> UserRecord | None:
        """Return the user; None if the query finds no row.

        Raises:
            SettingsError: the query lacks a required column.
            StoreRefused: the database refuses the login, or rejects the query.
            StoreUnavailable: the database is unreachable or too slow.
        """
        given = {"userid": userid, "corp": corp}
        try:
            columns, rows = self._run(self._query, {name: given[name] for name in self._names})
        except NoAnswer:
            raise
        except SqlFailed as exc:
            raise StoreRefused(str(exc)) from exc
        if missing := [name for name in REQUIRED if name not in columns]:
            raise SettingsError(f"AUTH_USER_QUERY does not return the column {missing[0]}")
        if len(rows) > 1:
            log.warning("AUTH_USER_QUERY returns more than one row for a user; the first counts")
        return _record(dict(zip(columns, rows[0], strict=True))) if rows else None

    def check(self) -> None:
        """Run `SELECT 1` to check that the database answers.

        Raises:
            StoreUnavailable: it does not answer.
        """
        self._run(sa.text("SELECT 1"), {})

    def close(self) -> None:
        """Close the idle connections. A connection in use closes when its lookup ends."""
        for database in filter(None, (self._main, self._reader)):
            database.close()

    def _run(self, statement: sa.TextClause, values: dict[str, str]) -> Rows:
        """Return the column names in lower case and at most two rows."""
        failed = self._reader_failed
        if self._reader is None or (failed is not None and self._clock() - failed < READ_PAUSE):
            return _fetched(self._main, statement, values)
        try:
            found = _fetched(self._reader, statement, values)
        except NoAnswer as exc:
            self._note_reader(away=exc)
            return _fetched(self._main, statement, values)
        self._note_reader(away=None)
        return found

    def _note_reader(self, away: StoreUnavailable | None) -> None:
        """Log the begin and the end of an outage, not one line per lookup."""
        failed, self._reader_failed = self._reader_failed, self._clock() if away else None
        if away and failed is None:
            log.warning("the reading database is away, the main one serves", extra={"cause": str(away)})
        elif failed is not None and not away:
            log.warning("the reading database is back")


def _fetched(database: SqlDatabase, statement: sa.TextClause, values: dict[str, str]) -> Rows:
    with database.connected() as connection:
        result = connection.execute(statement, values)
        if not result.returns_rows:
            return [], []
        return [name.lower() for name in result.keys()], result.fetchmany(2)  # noqa: SIM118 - not a dict


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
