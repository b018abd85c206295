"""Creation of the batch tables if they are missing.

It checks first: MySQL rejects CREATE TABLE IF NOT EXISTS, even for an existing table, without the right to create.
"""

from __future__ import annotations

import sqlalchemy as sa

from services.batches.sql.submission import pass_gate
from services.batches.sql.tables import GATES, ITEMS, TASKS, statements
from services.errors import SettingsError
from services.sql.database import SqlDatabase, SqlFailed

REMEDY = "docs/batches.md has the statements; BATCH_ENABLED=false does without batches"
#: Error numbers of a missing table or column: MySQL's, those of its missing rights to look, and SQLite's only one.
MISSING = (1146, 1054, 1142, 1143, 1)


def prepare(database: SqlDatabase) -> None:
    """Create missing tables; safe to run again, and in many processes at once.

    Raises:
        SettingsError: tables are missing or of another version, and this SQL user cannot create or change them.
        StoreUnavailable: the database is away.
    """
    if _lacking(database):
        _create(database)
        if lacking := _lacking(database):
            raise SettingsError(f"BATCH_ENABLED: the table {lacking} is not as this version needs it ({REMEDY})")
    database.transact(pass_gate)


def _lacking(database: SqlDatabase) -> str:
    """Return the name of the first table that lacks columns or does not exist; "" if there is none."""
    for table in (TASKS, ITEMS, GATES):
        nothing = sa.select(table).where(sa.false())
        try:
            database.read(lambda connection, nothing=nothing: connection.execute(nothing).all())  # type: ignore[misc]
        except SqlFailed as exc:
            if exc.number not in MISSING:
                raise
            return table.name
    return ""


def _create(database: SqlDatabase) -> None:
    def create(connection: sa.Connection) -> None:
        for statement in statements(database.kind):
            connection.exec_driver_sql(statement)

    try:
        database.transact(create)
    except SqlFailed as exc:
        if exc.number not in MISSING:
            raise
        message = f"BATCH_ENABLED: the batch tables are missing and this SQL user may not create them ({REMEDY})"
        raise SettingsError(message) from exc
