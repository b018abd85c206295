"""Brings the tables to this version's at the start of a process: one process does it under a lock, the others wait.

    laibao_schema   one row: the revision of the newest migration that was completed

At the head a start costs one query, and alembic is not even imported. MySQL's lock is `GET_LOCK`, which ends with its
connection, and every statement runs on that connection: a process that lost the lock can change nothing. Galera has
such a lock on each node only; its losers fail at a step, and find it done at the next attempt. SQLite's lock is that of
the file, in one transaction for all steps. A newer database stays as it is, because tables only get more columns.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import sqlalchemy as sa

from config.errors import SettingsError
from services import metrics
from services.errors import StoreRefused, StoreUnavailable
from services.rounds import Rounds
from services.sql.database import GaveWay, NoAnswer, SqlDatabase, SqlFailed
from services.sql.schema import HEAD, VERSION_TABLE

if TYPE_CHECKING:
    from alembic.script import Script

log = logging.getLogger(__name__)

#: Seconds until the next attempt: while the database is away or another process migrates, and after a refusal.
AWAY_SECONDS, REFUSED_SECONDS = 5.0, 60.0
#: Seconds that one statement may take; an index of a large table takes minutes.
STATEMENT_SECONDS = 3600.0
#: Seconds of one attempt to get the lock.
LOCK_SECONDS = 1
STOP_SECONDS = 3.0
#: Error numbers of a missing table: MySQL's, those of its missing rights to look, and SQLite's only one.
MISSING = (1146, 1142, 1143, 1)
#: MySQL: no right to create, to change or to look at a table.
DENIED = (1142, 1143, 1044, 1227)
FOLDER = Path(__file__).with_name("migrations")

#: "head": the tables are those of this version; "newer": also those of a later one; "behind": migrations are missing.
State = Literal["head", "newer", "behind"]

LOCK = sa.text("SELECT GET_LOCK(CONCAT('laibao_schema:', SHA1(DATABASE())), :seconds)")
#: A migration that waits for a table makes everybody else wait for it: it gives up soon. A process that vanished loses
#: the lock after as many seconds as its connection may be idle.
SESSION = "SET SESSION lock_wait_timeout = 5, SESSION innodb_lock_wait_timeout = 5, SESSION wait_timeout = 30"
CREATE_VERSION_TABLE = f"CREATE TABLE IF NOT EXISTS {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"


class Migrator:
    """The migration of one database in one process."""

    def __init__(self, url: str, *, wait: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Take for how many seconds a starting process is not ready because of a migration, its own or another's."""
        self._url = url
        self._database = SqlDatabase(url, pool_size=1, writes=True)
        self._wait = wait
        self._clock = clock
        #: When this process is ready even though the migration still runs; 0 if it waits for none.
        self._until = 0.0
        self._refused = ""
        self._complaint = ""
        self._rounds = Rounds("migration", self._round, pause=AWAY_SECONDS)

    def start(self) -> None:
        """Look at the revision, and migrate in a thread if that is necessary or the database is away."""
        with suppress(StoreUnavailable):
            if self._settled():
                return
            self._until = self._clock() + self._wait
        self._rounds.start()

    def close(self) -> None:
        self._rounds.stop()
        self._rounds.join(STOP_SECONDS)
        self._database.close()

    @property
    def migrating(self) -> bool:
        """Whether the start of this process waits for the tables."""
        return self._clock() < self._until

    def check(self) -> None:
        """Raise `StoreRefused` with its remedy if this SQL user may not make the tables."""
        if self._refused:
            raise StoreRefused(self._refused)

    def revision(self) -> str:
        """Return the database's revision; "" if it has none.

        Raises:
            StoreUnavailable: the database is away.
        """
        stored = sa.text(f"SELECT version_num FROM {VERSION_TABLE}")  # nosec B608 - a constant
        try:
            return str(self._database.read(lambda connection: connection.scalar(stored)) or "")
        except SqlFailed as exc:
            if exc.number not in MISSING:
                raise
            return ""

    def run(self, timeout: float) -> list[str]:
        """Bring the database to the head, or wait until another process has; return the revisions that were made here.

        Raises:
            SettingsError: this SQL user may not make the tables, or a table of that name is another one.
            StoreUnavailable: the database is away, or another process still migrates after `timeout` seconds.
        """
        if state_of(self.revision()) != "behind":
            return []
        begun = self._clock()
        with closing(SqlDatabase(self._url, pool_size=1, read_timeout=STATEMENT_SECONDS, writes=True)) as database:
            try:
                made = self._migrate(database, begun + timeout)
            except SqlFailed as exc:
                if exc.number not in DENIED:
                    raise
                raise SettingsError(refusal(self.revision())) from exc
        if made:
            log.info("migrated", extra={"revisions": made, "seconds": round(self._clock() - begun, 3)})
        return made

    def _migrate(self, database: SqlDatabase, end: float) -> list[str]:
        # Imported before SQLite's transaction, in which no greenlet may switch.
        import alembic.migration
        import alembic.script  # noqa: F401

        if database.kind == "sqlite":
            while True:
                try:
                    return database.transact(_upgrade)
                except GaveWay:
                    if self._clock() > end:
                        raise
        with database.connected() as connection:
            connection.exec_driver_sql(SESSION)
            while connection.scalar(LOCK, {"seconds": LOCK_SECONDS}) != 1:
                if self._clock() > end:
                    raise NoAnswer("SQL: another process still migrates")
            return _upgrade(connection)

    def _round(self) -> float:
        try:
            self.run(self._wait)
            if self._settled():
                self._rounds.stop()
            return AWAY_SECONDS
        except SettingsError as exc:
            self._refused = str(exc)
            self._complain(logging.ERROR, "tables are missing", exc)
            return REFUSED_SECONDS
        except StoreUnavailable as exc:
            self._complain(logging.WARNING, "migration waits", exc)
            return AWAY_SECONDS
        finally:
            self._until = 0.0

    def _complain(self, level: int, message: str, cause: Exception) -> None:
        """Log a failure, but not each attempt that fails in the same way."""
        if message != self._complaint:
            log.log(level, message, extra={"cause": str(cause)})
        self._complaint = message

    def _settled(self) -> bool:
        """Return whether there is nothing to migrate."""
        revision = self.revision()
        state = state_of(revision)
        metrics.SCHEMA_BEHIND.set(state == "behind")
        if state == "behind":
            return False
        if state == "newer":
            log.warning("the tables are of a newer version", extra={"revision": revision, "known": HEAD})
        self._refused = ""
        self._database.close()
        return True


def state_of(revision: str) -> State:
    """Return the state of a database by its revision. Revisions are ordered as texts; an unknown one is a later one."""
    if revision == HEAD:
        return "head"
    return "newer" if revision > HEAD else "behind"


def refusal(revision: str) -> str:
    """Return why a database of that revision is refused, with the remedy."""
    found = f"are of revision {revision}, this version needs {HEAD}," if revision else "are missing or not readable,"
    return f"SQL: the tables {found} and this SQL user may not make them ({remedy(revision)})"


def remedy(revision: str) -> str:
    """Return what an administrator does where this SQL user may not migrate a database of that revision."""
    return f"run what `python -m tools.migrate sql{f' --since {revision}' if revision else ''}` prints"


def scripts(since: str = "") -> list[Script]:
    """Return the migrations after a revision, the oldest first."""
    # At the head nothing of alembic is needed.
    from alembic.script import ScriptDirectory

    every = ScriptDirectory(str(FOLDER)).walk_revisions()
    return [script for script in reversed(list(every)) if script.revision > since]


def printed(kind: str, since: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield each migration after a revision, with its statements; `kind` is "mysql" or "sqlite"."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    for script in scripts(since):
        written = io.StringIO()
        options = {"as_sql": True, "output_buffer": written}
        dialect = "mysql+pymysql" if kind == "mysql" else kind
        script.module.upgrade(Operations(MigrationContext.configure(dialect_name=dialect, opts=options)))
        steps = [step for step in written.getvalue().split(";\n\n") if step]
        yield script.revision, [CREATE_VERSION_TABLE, *steps, *_completed(script.revision)]


def _upgrade(connection: sa.Connection) -> list[str]:
    """Run the missing migrations; return their revisions."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    connection.exec_driver_sql(CREATE_VERSION_TABLE)
    found = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}")  # nosec B608 - a constant
    stored = found.scalar() or ""
    made = []
    for script in scripts(stored):
        script.module.upgrade(Operations(MigrationContext.configure(connection)))
        for statement in _completed(script.revision):
            connection.exec_driver_sql(statement)
        made.append(script.revision)
    return made


def _completed(revision: str) -> tuple[str, str]:
    """Return the statements that note a completed migration. Without a row the steps are run again."""
    # Revisions are the names of files of this package.
    removed = f"DELETE FROM {VERSION_TABLE}"  # nosec B608
    return removed, f"INSERT INTO {VERSION_TABLE} (version_num) VALUES ('{revision}')"  # nosec B608
