"""Creation of tables that are missing.

It checks first: MySQL rejects CREATE TABLE IF NOT EXISTS, even for an existing table, without the right to create.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from config.errors import SettingsError
from services.sql.columns import statements
from services.sql.database import SqlDatabase, SqlFailed

#: Error numbers of a missing table or column: MySQL's, those of its missing rights to look, and SQLite's only one.
MISSING = (1146, 1054, 1142, 1143, 1)


class Schema(NamedTuple):
    """The tables of one feature, and the words about them in errors."""

    tables: Sequence[sa.Table]
    indexes: Sequence[sa.Index]
    #: With its verb, for an error: "batch tables are".
    name: str
    #: Begins an error: the setting or the feature.
    subject: str
    #: What an administrator does.
    remedy: str

    def create_missing(self, database: SqlDatabase) -> None:
        """Create missing tables; safe to run again, and in many processes at once.

        Raises:
            SettingsError: tables are missing or of another version, and this SQL user cannot create or change them.
            StoreUnavailable: the database is away.
        """
        if not self.lacking(database):
            return
        self._create(database)
        if lacking := self.lacking(database):
            raise SettingsError(f"{self.subject}: the table {lacking} is not as this version needs it ({self.remedy})")

    def lacking(self, database: SqlDatabase) -> str:
        """Return the name of the first table that lacks columns or does not exist; "" if there is none."""
        for table in self.tables:
            nothing = sa.select(table).where(sa.false())
            try:
                database.read(lambda connection, nothing=nothing: connection.execute(nothing).all())  # type: ignore[misc]
            except SqlFailed as exc:
                if exc.number not in MISSING:
                    raise
                return table.name
        return ""

    def _create(self, database: SqlDatabase) -> None:
        def create(connection: sa.Connection) -> None:
            for statement in statements(database.kind, self.tables, self.indexes):
                connection.exec_driver_sql(statement)

        try:
            database.transact(create)
        except SqlFailed as exc:
            if exc.number not in MISSING:
                raise
            missing = f"the {self.name} missing and this SQL user may not create them"
            raise SettingsError(f"{self.subject}: {missing} ({self.remedy})") from exc
