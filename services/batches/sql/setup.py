"""Creation of the batch tables if they are missing."""

from __future__ import annotations

from services.batches.sql.submission import pass_gate
from services.batches.sql.tables import INDEXES, TABLES
from services.sql.database import SqlDatabase
from services.sql.schema import Schema

SCHEMA = Schema(
    TABLES,
    INDEXES,
    name="batch tables are",
    subject="BATCH_ENABLED",
    remedy="docs/batches.md has the statements; BATCH_ENABLED=false does without batches",
)


def prepare(database: SqlDatabase) -> None:
    """Create missing tables; safe to run again, and in many processes at once.

    Raises:
        SettingsError: tables are missing or of another version, and this SQL user cannot create or change them.
        StoreUnavailable: the database is away.
    """
    SCHEMA.create_missing(database)
    database.transact(pass_gate)
